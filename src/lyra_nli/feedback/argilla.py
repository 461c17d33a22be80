"""Argilla's records, as ``dataset.records.to_json`` writes them, and our rows.

==================================  =======================================
fields                              premise, hypothesis
suggestions.label                   value, score, agent: the model's label, confidence, version
responses.label, responses.reason   one value a person: the verdict, and why
metadata                            source_url, sampling, edge_id, anchors, group; and of the
                                    exported response: review_id, reviewer, reviewed_at
==================================  =======================================

Argilla knows people by UUIDs. An exported response has one made of the reviewer's name, by which
it is told from those that were added in Argilla.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any
from uuid import NAMESPACE_DNS, uuid5

from lyra_nli.feedback.fields import BadRowError

_PEOPLE = uuid5(NAMESPACE_DNS, "reviewers.lyra-nli")
_OF_THE_PAIR = ("source_url", "sampling", "edge_id", "anchors", "group")


def to_record(row: Mapping[str, Any]) -> dict[str, Any]:
    """Write one of our rows as a record with one response."""
    user = _user_id(row["reviewer"])
    notes = {
        name: row[name] for name in (*_OF_THE_PAIR, "reviewer", "reviewed_at") if row.get(name)
    }
    reason = [{"value": row["reason"], "user_id": user}] if row["reason"] else []
    return {
        "id": row["id"],
        "fields": {"premise": row["premise"], "hypothesis": row["hypothesis"]},
        "metadata": {**notes, "review_id": row["id"]},
        "suggestions": {
            "label": {
                "value": row["predicted_label"],
                "score": row["predicted_confidence"],
                "agent": row["predicted_by"] or None,
            }
        },
        "responses": {
            "label": [{"value": row["correct_label"], "user_id": user}],
            **({"reason": reason} if reason else {}),
        },
        "vectors": {},
        "status": "completed",
    }


def from_record(record: object) -> Iterator[dict[str, Any]]:
    """Read a record's submitted responses, one row a person; none when there is no answer.

    Raises:
        BadRowError: when it has not the shape of a record.
    """
    fields, metadata = _part(record, "fields"), _part(record, "metadata")
    names = ("premise", "hypothesis", "nli_hypothesis")
    pair = {name: fields[name] for name in names if name in fields}
    pair |= {name: metadata[name] for name in _OF_THE_PAIR if name in metadata}
    ours = _user_id(metadata.get("reviewer", ""))
    for user, answers in _answers(record).items():
        if "label" not in answers:
            continue
        pair |= _suggestion(record)  # a record that waits for its answers may have none
        row = {**pair, "correct_label": answers["label"], "reason": answers.get("reason")}
        if user == ours and "review_id" in metadata:
            row |= {name: metadata.get(name) for name in ("reviewer", "reviewed_at")}
            yield {**row, "id": metadata["review_id"]}
        else:
            yield {**row, "reviewer": user}


def _user_id(reviewer: object) -> str:
    return str(uuid5(_PEOPLE, ascii(reviewer)))


def _part(record: object, name: str) -> dict[str, Any]:
    if not isinstance(record, dict):
        raise BadRowError("is no JSON object with named fields")
    part = record.get(name) or {}
    if not isinstance(part, dict):
        raise BadRowError(f"{name}: expected an object, found {type(part).__name__}")
    return part


def _suggestion(record: Any) -> dict[str, Any]:
    """Find the model's answer to the question ``label``; version 1 has a list of them."""
    found = record.get("suggestions") or {}
    if isinstance(found, list):
        found = {str(_get(each, "question_name")): each for each in found}
    label = found.get("label") if isinstance(found, dict) else None
    if not isinstance(label, dict) or "value" not in label:
        raise BadRowError("suggestions: there is none for the question `label`")
    return {
        "predicted_label": label["value"],
        "predicted_confidence": label.get("score"),
        "predicted_by": label.get("agent"),
    }


def _answers(record: Any) -> dict[str, dict[str, Any]]:
    """Group the submitted answers by person: user -> question -> value."""
    found = record.get("responses") or {}
    people: dict[str, dict[str, Any]] = {}
    if isinstance(found, list):  # version 1: a response holds a person's answers to all questions
        found = {
            question: [
                {**each, "value": _get(_get(_get(each, "values"), question), "value")}
                for each in found
                if _get(_get(each, "values"), question) is not None
            ]
            for question in ("label", "reason")
        }
    if not isinstance(found, dict):
        raise BadRowError(f"responses: expected an object, found {type(found).__name__}")
    for question in ("label", "reason"):
        answers = found.get(question) or []
        if not isinstance(answers, list):
            raise BadRowError(f"responses: expected a list for the question `{question}`")
        for each in answers:
            if _get(each, "status") in (None, "submitted"):
                user = str(_get(each, "user_id") or "")
                people.setdefault(user, {})[question] = _get(each, "value")
    return people


def _get(value: object, name: str) -> Any:
    return value.get(name) if isinstance(value, dict) else None
