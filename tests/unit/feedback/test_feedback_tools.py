"""Exports of Argilla and Label Studio, as those tools write them after people worked in them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from lyra_nli.errors import InputError
from lyra_nli.feedback.argilla import to_record
from lyra_nli.feedback.fields import ImportRow
from lyra_nli.feedback.formats import detect_format
from lyra_nli.feedback.importing import read_rows
from lyra_nli.feedback.label_studio import to_task

ANN, BEN = "0b7a3c6e-0000-4000-8000-00000000000a", "0b7a3c6e-0000-4000-8000-00000000000b"

OURS = {
    "id": "nlr_1",
    "premise": "P.",
    "hypothesis": "H.",
    "predicted_label": "neutral",
    "predicted_confidence": 0.7,
    "predicted_by": "lora-lyra-v3",
    "correct_label": "supports",
    "reviewed_at": "2026-01-31T12:00:00+00:00",
    "reviewer": "ann",
    "reason": "because",
    "sampling": "random",
    "source_url": "https://example.org",
    "edge_id": "e1",
    "anchors": ["page:p1"],
}


def rows_of(folder: Path, *elements: Any) -> tuple[list[ImportRow], list[str]]:
    file = folder / "export.json"
    file.write_text(json.dumps(elements))
    return read_rows(file)


# --- Argilla ------------------------------------------------------------------------------


def record(**changes: Any) -> dict[str, Any]:
    return {
        "id": "7",
        "fields": {"premise": "P.", "hypothesis": "H."},
        "metadata": {"group": "trial-12", "split": "train"},
        "suggestions": {"label": {"value": "neutral", "score": 0.7, "agent": "v1"}},
        "responses": {"label": [{"value": "supports", "user_id": ANN}]},
        "vectors": {},
        "status": "completed",
        "_server_id": "s-7",
        **changes,
    }


def test_a_record_with_two_people_is_two_reviews(tmp_path: Path) -> None:
    responses = {
        "label": [{"value": "supports", "user_id": ANN}, {"value": "refutes", "user_id": BEN}],
        "reason": [{"value": "it says not", "user_id": BEN}],
        "stars": [{"value": 5, "user_id": BEN}],
    }
    (first, second), problems = rows_of(tmp_path, record(responses=responses))
    assert problems == []
    assert (first.correct_label, first.reviewer, first.reason) == ("supports", ANN, "")
    assert (second.correct_label, second.reviewer, second.reason) == ("refutes", BEN, "it says not")
    assert (second.pair.premise, second.pair.hypothesis, second.group) == ("P.", "H.", "trial-12")
    assert (second.predicted_label, second.predicted_confidence) == ("neutral", 0.7)
    assert (second.predicted_by, second.id, second.reviewed_at) == ("v1", "", None)


def test_a_person_who_answers_an_exported_record_is_another_reviewer(tmp_path: Path) -> None:
    exported = to_record(OURS)
    exported["responses"]["label"].append({"value": "refutes", "user_id": BEN})
    (own, added), problems = rows_of(tmp_path, exported)
    assert problems == []
    assert (own.id, own.reviewer, own.reviewed_at) == ("nlr_1", "ann", OURS["reviewed_at"])
    assert (added.id, added.reviewer, added.reviewed_at) == ("", BEN, None)
    assert (added.sampling, added.anchors, added.edge_id) == ("random", ("page:p1",), "e1")


def test_version_1_lists_of_responses_and_suggestions(tmp_path: Path) -> None:
    def response(label: str, status: str) -> dict[str, Any]:
        values = {"label": {"value": label}, "reason": {"value": "r"}}
        return {"user_id": ANN, "status": status, "values": values}

    older = record(
        suggestions=[{"question_name": "label", "value": "neutral", "score": 0.5}],
        responses=[response("supports", "submitted"), response("refutes", "draft")],
    )
    (row,), problems = rows_of(tmp_path, older)
    assert problems == []
    assert (row.correct_label, row.reason, row.predicted_confidence) == ("supports", "r", 0.5)


def test_records_that_nobody_answered_are_no_reviews(tmp_path: Path) -> None:
    reason_only = {"reason": [{"value": "hm", "user_id": ANN}]}
    draft = {"label": [{"value": "supports", "user_id": ANN, "status": "draft"}]}
    records = [record(responses={}), record(responses=reason_only), record(responses=draft)]
    records += [record(responses={}, suggestions={}, status="pending")]
    records += [record(responses=draft, suggestions=[])]
    assert rows_of(tmp_path, *records) == ([], [])


def test_what_is_wrong_with_a_record_is_named(tmp_path: Path) -> None:
    good, problems = rows_of(
        tmp_path,
        record(),
        record(suggestions={}),
        record(fields={"text": "P."}),
        record(responses={"label": [{"value": "yes", "user_id": ANN}]}),
        "no record",
        record(fields=["P."]),
        record(responses={"label": 5}),
        record(suggestions={"label": {"value": "neutral", "score": [0.1]}}),
    )
    assert len(good) == 1
    assert problems == [
        "record 2: suggestions: there is none for the question `label`",
        "record 3: premise: is missing",
        "record 3: hypothesis: is missing",
        "record 4: correct_label: unknown label 'yes': expected one of supports, refutes, neutral",
        "record 5: is no JSON object with named fields",
        "record 6: fields: expected an object, found list",
        "record 7: responses: expected a list for the question `label`",
        "record 8: predicted_confidence: '[0.1]' is no number",
    ]


# --- Label Studio -------------------------------------------------------------------------


def choice(label: str) -> dict[str, Any]:
    value = {"choices": [label]}
    return {"from_name": "nli", "to_name": "h", "type": "choices", "id": "x1", "value": value}


def annotation(label: str, **changes: Any) -> dict[str, Any]:
    return {
        "id": 1001,
        "result": [choice(label)],
        "was_cancelled": False,
        "created_at": "2026-03-01T10:00:00.123456Z",
        "updated_at": "2026-03-02T10:00:00.123456Z",
        "completed_by": 10,
        "lead_time": 4.2,
        **changes,
    }


def task(*annotations: Any, **changes: Any) -> dict[str, Any]:
    return {
        "id": 1,
        "project": 83,
        "data": {"premise": "P.", "nli_hypothesis": "H.", "group": "g", "colour": "red"},
        "predictions": [{"model_version": "v1", "score": 0.7, "result": [choice("neutral")]}],
        "annotations": list(annotations),
        **changes,
    }


def test_a_task_with_two_people_is_two_reviews(tmp_path: Path) -> None:
    text = {"type": "textarea", "from_name": "why", "value": {"text": ["one", "two"]}}
    person = {"id": 3, "email": "ben@example.org"}
    (first, second), problems = rows_of(
        tmp_path,
        task(
            annotation("supports"),
            annotation("refutes", completed_by=person, result=[text, choice("refutes")]),
        ),
    )
    assert problems == []
    assert (first.correct_label, first.reviewer, first.reason) == ("supports", "10", "")
    assert first.reviewed_at == "2026-03-02T10:00:00.123456+00:00"
    assert (second.reviewer, second.reason) == ("ben@example.org", "one\ntwo")
    assert (second.pair.hypothesis, second.group, second.id) == ("H.", "g", "")
    assert (second.predicted_label, second.predicted_confidence) == ("neutral", 0.7)
    assert second.predicted_by == "v1"


def test_a_person_who_annotates_an_exported_task_is_another_reviewer(tmp_path: Path) -> None:
    exported = to_task(OURS)
    exported["annotations"].append(annotation("refutes"))
    (own, added), problems = rows_of(tmp_path, exported)
    assert problems == []
    assert (own.id, own.reviewer, own.reviewed_at) == ("nlr_1", "ann", OURS["reviewed_at"])
    assert (added.id, added.reviewer) == ("", "10")
    assert (added.sampling, added.anchors, added.edge_id) == ("random", ("page:p1",), "e1")


def test_skipped_and_empty_annotations_are_no_reviews(tmp_path: Path) -> None:
    skipped = annotation("supports", was_cancelled=True)
    tasks = [task(), task(skipped), task(annotation("supports", result=[]))]
    assert rows_of(tmp_path, *tasks) == ([], [])


def test_what_is_wrong_with_a_task_is_named(tmp_path: Path) -> None:
    two = choice("supports")
    two["value"]["choices"].append("refutes")
    good, problems = rows_of(
        tmp_path,
        task(annotation("supports")),
        task(annotation("supports"), predictions=[]),
        task(annotation("supports"), data={"text": "P."}),
        task(annotation("supports", result=[two])),
        {"id": 5},
        task("no annotation"),
        task(annotation("supports", result="?")),
    )
    assert len(good) == 1
    assert problems == [
        "task 2: predictions: there is none with a choice, so the model's label is unknown",
        "task 3: premise: is missing",
        "task 3: hypothesis: is missing",
        "task 4: correct_label: unknown label ['supports', 'refutes']: expected one of supports, "
        "refutes, neutral",
        "task 5: is no task: it has no `data` with named fields",
        "task 6: annotations: expected a list of objects",
        "task 7: result: expected a list of objects",
    ]


# --- which is which -----------------------------------------------------------------------


def test_the_first_element_tells_the_tool(tmp_path: Path) -> None:
    file = tmp_path / "in.json"
    for element, kind in ((record(), "argilla"), (task(), "label-studio")):
        file.write_text(json.dumps([element]))
        assert detect_format(file) == kind
    for content in ('[{"premise": "P."}]', "[5]", '[{"broken"'):
        file.write_text(content)
        with pytest.raises(InputError, match="neither an Argilla nor a Label Studio export"):
            detect_format(file)
    file.write_text('{"premise": "P."}')
    with pytest.raises(InputError, match="holds no JSON list"):
        detect_format(file)
