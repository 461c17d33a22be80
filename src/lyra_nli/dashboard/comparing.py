"""Two versions side by side: on the gate's rows, in what they were made from, and live."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from lyra_nli.dashboard.drawn import by_version
from lyra_nli.dashboard.facts import difference_facts
from lyra_nli.dashboard.gates import gate
from lyra_nli.dashboard.shadow import comparisons
from lyra_nli.dashboard.versions import facts_of, find, manifest_of
from lyra_nli.dashboard.view import Fields, View
from lyra_nli.monitoring.shares import Share, difference
from lyra_nli.records import BASE
from lyra_nli.registry.manifest import Manifest
from lyra_nli.registry.versions import Version

_FIGURES: Final = ("n", "accuracy", "brier", "nll", "ece")


def compare(view: View, one: str, other: str) -> Fields:
    """Compare two versions, or one with the base.

    Raises:
        AdapterNotFoundError: there is no such version.
    """
    sides = [None if name == BASE else find(view, name) for name in (one, other)]
    names = [side.name if side else BASE for side in sides]
    manifests = [manifest_of(view, side) if side else None for side in sides]
    rates = by_version(view)
    live = [rates.get(name, Share(0, 0)) for name in names]
    same_rows = None in sides or _same_rows(*manifests)
    if not same_rows:
        view.notes.append("The two were judged on different rows: small differences mean nothing.")
    return {
        "one": _facts(view, sides[0]),
        "other": _facts(view, sides[1]),
        "same_rows": same_rows,
        "populations": list(_populations(view, *sides)),
        "settings": list(_settings(*manifests)),
        "rows": _rows(*manifests),
        "live": {
            "one": live[0].to_dict(),
            "other": live[1].to_dict(),
            "difference": difference_facts(difference(*live)),
        },
        "comparisons": [
            each for each in comparisons(view) if {each["one"], each["other"]} == set(names)
        ],
    }


def _facts(view: View, side: Version | None) -> Fields:
    if side is not None:
        return facts_of(view, side)
    return {
        "name": BASE,
        "status": None,
        "verdict": None,
        "aliases": [],
        "parent": None,
        "samples_used": None,
        "created_at": None,
        "run_id": None,
        "accuracy_before": None,
        "accuracy_after": None,
        "brier_before": None,
        "brier_after": None,
        "folder": None,
        "problem": None,
        "answers": None,
        "correction_rate": by_version(view).get(BASE, Share(0, 0)).to_dict(),
    }


def _populations(view: View, one: Version | None, other: Version | None) -> Iterator[Fields]:
    """The candidate's figures of each side's gate; the base's are in the other side's gate."""
    figures = [_figures(view, one, other), _figures(view, other, one)]
    for name in dict.fromkeys([*figures[0], *figures[1]]):
        yield {"name": name, "one": figures[0].get(name), "other": figures[1].get(name)}


def _figures(view: View, side: Version | None, opposite: Version | None) -> dict[str, Fields]:
    whose = side or opposite
    verdict = gate(view, whose) if whose else None
    model = "candidate" if side else "base"
    return {
        population["name"]: {key: each[key] for key in _FIGURES}
        for population in (verdict or {"populations": []})["populations"]
        for each in population["models"]
        if each["model"] == model
    }


def _settings(one: Manifest | None, other: Manifest | None) -> Iterator[Fields]:
    """The settings in which two versions differ."""
    if one is None or other is None:
        return
    both = [dict(_flat(manifest)) for manifest in (one, other)]
    for key in sorted({*both[0], *both[1]}):
        if both[0].get(key) != both[1].get(key):
            yield {"key": key, "one": both[0].get(key), "other": both[1].get(key)}


def _flat(manifest: Manifest) -> Iterator[tuple[str, Any]]:
    parts: dict[str, Mapping[str, Any]] = {
        "recipe": manifest.recipe,
        "dataset": manifest.dataset_settings,
        "libraries": manifest.library_versions,
    }
    for part, values in parts.items():
        yield from ((f"{part}.{key}", value) for key, value in values.items())
    for key in ("base_revision", "base_fingerprint", "git_commit", "seed", "threads", "max_length"):
        yield key, getattr(manifest, key)


def _rows(one: Manifest | None, other: Manifest | None) -> Fields | None:
    """How many reviews both learned from or were judged on."""
    if one is None or other is None:
        return None
    first, second = (
        {row for rows in each.row_ids.values() for row in rows} for each in (one, other)
    )
    return {
        "both": len(first & second),
        "only_one": len(first - second),
        "only_other": len(second - first),
    }


def _same_rows(one: Manifest | None, other: Manifest | None) -> bool:
    if one is None or other is None:
        return False
    first, second = (set(each.row_ids["holdout"] or each.row_ids["train"]) for each in (one, other))
    return first == second
