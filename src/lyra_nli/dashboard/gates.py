"""What the gate said of a version, with every figure that it rests on."""

from __future__ import annotations

from typing import Any

from lyra_nli.dashboard.view import Fields, View
from lyra_nli.monitoring.shares import Share
from lyra_nli.registry.versions import Version


def gate(view: View, found: Version) -> Fields | None:
    """What the gate measured, with every model's figures on every population."""
    verdict = metrics_of(found).get("verdict")
    if verdict is None:
        view.missing.append(f"The evaluation of {found.name} holds no verdict of the gate.")
        return None

    def arrange(_: object) -> Fields:
        names = {"base": "base", "active": verdict["active"], "candidate": found.name}
        return {
            **{key: verdict[key] for key in ("outcome", "sentence", "active", "checks")},
            "populations": [
                {
                    "name": population["name"],
                    "models": [
                        {"model": model, "version": names[model], **_scores(scores)}
                        for model, scores in population["scores"].items()
                    ],
                }
                for population in verdict["populations"]
            ],
            **{key: _change(verdict[key]) for key in ("against_base", "against_active")},
        }

    return view.attempt(f"the gate's verdict on {found.name}", None, arrange)


def metrics_of(found: Version) -> dict[str, Any]:
    """What its evaluation measured; nothing where something else lies there."""
    return found.metrics if isinstance(found.metrics, dict) else {}


def _scores(scores: dict[str, Any]) -> Fields:
    return {
        "n": scores["n"],
        "accuracy": _share(scores["accuracy"]),
        **{key: scores[key] for key in ("brier", "nll", "ece", "recall", "precision")},
    }


def _change(change: dict[str, Any] | None) -> Fields | None:
    if change is None:
        return None
    return {**change, "efr": _share(change["efr"]), "nfr": _share(change["nfr"])}


def _share(interval: dict[str, Any]) -> Fields:
    """A share that was stored with its interval, in the shape of all shares."""
    return Share(round(interval["value"] * interval["n"]), interval["n"]).to_dict()
