"""Label Studio's tasks, as its JSON export has them, and our rows.

==================================  =======================================
data                                premise, hypothesis, source_url, sampling, edge_id, anchors,
                                    group
predictions[0]                      result, score, model_version: the model's label, confidence,
                                    version
annotations[]                       one a person: the choice is the verdict, the text area the
                                    reason, completed_by the reviewer, updated_at the time
annotations[].result[].meta         of an exported annotation: id, reviewer, reviewed_at
==================================  =======================================
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from lyra_nli.feedback.fields import BadRowError

_OF_THE_PAIR = ("premise", "hypothesis", "source_url", "sampling", "edge_id", "anchors", "group")
_MARK = "lyra_nli"


def to_task(row: Mapping[str, Any]) -> dict[str, Any]:
    """Write one of our rows as a task with one prediction and one annotation."""
    mark = {name: row[name] for name in ("id", "reviewer", "reviewed_at")}
    result = [{**_choice(row["correct_label"]), "meta": {_MARK: mark}}]
    if row["reason"]:
        result.append(_text_area(row["reason"]))
    prediction = {"score": row["predicted_confidence"], "result": [_choice(row["predicted_label"])]}
    if row["predicted_by"]:
        prediction["model_version"] = row["predicted_by"]
    return {
        "data": {name: row[name] for name in _OF_THE_PAIR if row.get(name)},
        "predictions": [prediction],
        "annotations": [{"result": result, "was_cancelled": False, "ground_truth": False}],
    }


def from_task(task: object) -> Iterator[dict[str, Any]]:
    """Read a task's annotations, one row each; skipped ones and empty ones are none.

    Raises:
        BadRowError: when it has not the shape of a task.
    """
    if not isinstance(task, dict) or not isinstance(task.get("data"), dict):
        raise BadRowError("is no task: it has no `data` with named fields")
    data = task["data"]
    names = (*_OF_THE_PAIR, "nli_hypothesis")
    pair = {name: data[name] for name in names if name in data}
    annotations = [each for each in _list(task, "annotations") if not each.get("was_cancelled")]
    for annotation in annotations:
        choice = _first(annotation, "choices")
        if choice is not None:
            reason = (_first(annotation, "textarea") or {}).get("value", {}).get("text", [])
            yield {
                **pair,
                **_prediction(task),
                **_who_and_when(annotation, choice),
                "correct_label": _label(choice),
                "reason": "\n".join(map(str, reason)) if isinstance(reason, list) else reason,
            }


def _choice(label: str) -> dict[str, Any]:
    return {
        "id": "label",
        "from_name": "label",
        "to_name": "hypothesis",
        "type": "choices",
        "value": {"choices": [label]},
    }


def _text_area(text: str) -> dict[str, Any]:
    return {
        "id": "reason",
        "from_name": "reason",
        "to_name": "hypothesis",
        "type": "textarea",
        "value": {"text": [text]},
    }


def _who_and_when(annotation: dict[str, Any], choice: dict[str, Any]) -> dict[str, Any]:
    meta = choice.get("meta")
    mark = meta.get(_MARK) if isinstance(meta, dict) else None
    if isinstance(mark, dict):
        return {name: mark.get(name) for name in ("id", "reviewer", "reviewed_at")}
    who = annotation.get("completed_by")
    if isinstance(who, dict):
        who = who.get("email") or who.get("id")
    at = annotation.get("updated_at") or annotation.get("created_at")
    return {"reviewer": "" if who is None else str(who), "reviewed_at": at}


def _prediction(task: dict[str, Any]) -> dict[str, Any]:
    for prediction in _list(task, "predictions"):
        choice = _first(prediction, "choices")
        if choice is not None:
            return {
                "predicted_label": _label(choice),
                "predicted_confidence": prediction.get("score"),
                "predicted_by": prediction.get("model_version"),
            }
    raise BadRowError("predictions: there is none with a choice, so the model's label is unknown")


def _label(choice: dict[str, Any]) -> object:
    choices = choice["value"].get("choices")
    return choices[0] if isinstance(choices, list) and len(choices) == 1 else choices


def _first(holder: dict[str, Any], kind: str) -> dict[str, Any] | None:
    """Find the first result of a kind: ``choices`` or ``textarea``."""
    results = (each for each in _list(holder, "result") if each.get("type") == kind)
    return next((each for each in results if isinstance(each.get("value"), dict)), None)


def _list(holder: dict[str, Any], name: str) -> list[dict[str, Any]]:
    found = holder.get(name) or []
    if not isinstance(found, list) or not all(isinstance(each, dict) for each in found):
        raise BadRowError(f"{name}: expected a list of objects")
    return found
