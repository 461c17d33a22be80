"""What `read_rows` makes of files: good rows, and every fault with its line."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest

from lyra_nli.errors import InputError
from lyra_nli.feedback.importing import read_rows
from lyra_nli.records import MAX_TEXT_CHARS

GOOD = {
    "premise": "Aspirin lowered the risk (HR 0.81).",
    "hypothesis": "Aspirin helps.",
    "predicted_label": "neutral",
    "predicted_confidence": 0.7,
    "correct_label": "supports",
}


def jsonl(tmp_path: Path, *rows: object, name: str = "in.jsonl") -> Path:
    file = tmp_path / name
    lines = [row if isinstance(row, str) else json.dumps(row) for row in rows]
    file.write_bytes("".join(f"{line}\n" for line in lines).encode("utf-8", "surrogatepass"))
    return file


def problems_of(tmp_path: Path, **changes: object) -> list[str]:
    rows, problems = read_rows(jsonl(tmp_path, {**GOOD, **changes}))
    assert rows == [] if problems else len(rows) == 1
    return problems


def test_a_full_row(tmp_path: Path) -> None:
    full = {
        **GOOD,
        "id": "r-1",
        "group": "aspirin",
        "reviewed_at": "2026-01-31T12:00:00+02:00",
        "reviewer": "ann",
        "reason": "the interval is below 1",
        "source_url": "https://example.org/1",
        "sampling": "random",
    }
    (row,), problems = read_rows(jsonl(tmp_path, full))
    assert problems == []
    assert (row.line, row.id, row.group, row.reviewer, row.sampling) == (
        1,
        "r-1",
        "aspirin",
        "ann",
        "random",
    )
    assert row.reviewed_at == "2026-01-31T10:00:00+00:00"
    assert (row.pair.premise, row.pair.hypothesis) == (GOOD["premise"], GOOD["hypothesis"])
    assert (row.predicted_label, row.predicted_confidence, row.correct_label) == (
        "neutral",
        0.7,
        "supports",
    )
    assert (row.reason, row.source_url) == (full["reason"], full["source_url"])


def test_all_faults_of_all_rows_are_reported_at_once(tmp_path: Path) -> None:
    file = jsonl(
        tmp_path,
        GOOD,
        {**GOOD, "correct_label": "entailment", "predicted_confidence": 1.5, "premise": " \t"},
        "",
        "{not json",
        {"premise": "P"},
        GOOD,
    )
    rows, problems = read_rows(file)
    assert [row.line for row in rows] == [1, 6]
    assert problems == [
        "line 2: premise: is empty",
        "line 2: predicted_confidence: 1.5 is not between 0 and 1",
        "line 2: correct_label: unknown label 'entailment': expected one of supports, refutes, "
        "neutral",
        "line 4: is no JSON: Expecting property name enclosed in double quotes (at character 1)",
        "line 5: hypothesis: is missing",
        "line 5: predicted_label: is missing",
        "line 5: predicted_confidence: is missing",
        "line 5: correct_label: is missing",
    ]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"premise": ""}, "premise: is empty"),
        ({"hypothesis": "\u3000\n"}, "hypothesis: is empty"),
        ({"premise": None}, "premise: expected text, found NoneType"),
        ({"premise": ["a"]}, "premise: expected text, found list"),
        ({"premise": "a\x00b"}, "premise: holds a NUL character (at 1)"),
        ({"hypothesis": "ab\ud800"}, "hypothesis: is not valid Unicode (at character 2)"),
        ({"premise": "x" * (MAX_TEXT_CHARS + 1)}, "premise: has 1,000,001 characters"),
        ({"predicted_label": "Supports"}, "predicted_label: unknown label 'Supports'"),
        ({"correct_label": 1}, "correct_label: unknown label 1"),
        ({"correct_label": None}, "correct_label: unknown label None"),
        ({"predicted_confidence": -0.01}, "predicted_confidence: -0.01 is not between"),
        ({"predicted_confidence": float("nan")}, "predicted_confidence: nan is not between"),
        ({"predicted_confidence": float("inf")}, "predicted_confidence: inf is not between"),
        ({"predicted_confidence": 10**300}, "predicted_confidence: 1000"),
        ({"predicted_confidence": True}, "predicted_confidence: 'True' is no number"),
        ({"predicted_confidence": "high"}, "predicted_confidence: 'high' is no number"),
        ({"predicted_confidence": "nan"}, "predicted_confidence: 'nan' is no number"),
        ({"predicted_confidence": "0_0.5"}, "predicted_confidence: '0_0.5' is no number"),
        ({"reviewed_at": "31.1.2026"}, "reviewed_at: '31.1.2026' is no ISO-8601 time"),
        ({"reviewed_at": 1769860800}, "reviewed_at: expected text, found int"),
        ({"reviewed_at": "0001-01-01T00:00:00+14:00"}, "reviewed_at:"),
        ({"sampling": "best"}, "sampling: 'best': expected one of random, queue, unknown"),
        ({"reason": "x" * 10_001}, "reason: has 10,001 characters"),
        ({"group": 5}, "group: expected text, found int"),
        ({"id": "x" * 65}, "id: has 65 characters"),
        ({"edge_id": "x" * 65}, "edge_id: has 65 characters"),
        ({"predicted_by": 3}, "predicted_by: expected text, found int"),
        ({"anchors": "page:7"}, "anchors: expected a list of texts, such as"),
        ({"anchors": ["page:7", 7]}, "anchors: expected a list of texts"),
        ({"anchors": {"page": "7"}}, "anchors: expected a list of texts"),
        ({"anchors": "[" * 100_000}, "anchors: expected a list of texts"),
        ({"anchors": ["a\x00", "b\x00"]}, "anchors: one holds a NUL character (at 1)"),
        ({"anchors": ["x" * 1_001]}, "anchors: one has 1,001 characters"),
        ({"anchors": ["x"] * 1_001}, "anchors: has 1,001 of them; at most 1,000"),
        ({"label": "supports"}, "'label': unknown field; did you mean correct_label?"),
        ({"reviwer": "ann"}, "'reviwer': unknown field; did you mean reviewer?"),
        ({"zzz": 1}, "'zzz': unknown field"),
        ({"nli_hypothesis": "H"}, "'nli_hypothesis': unknown field; did you mean hypothesis?"),
    ],
)
def test_each_fault_is_named_with_line_and_field(
    tmp_path: Path, changes: dict[str, object], words: str
) -> None:
    (problem,) = problems_of(tmp_path, **changes)
    assert problem.startswith(f"line 1: {words}")
    assert len(problem) < 300


@pytest.mark.parametrize(
    "changes",
    [
        {"predicted_confidence": None},
        {"predicted_confidence": "0.25"},
        {"predicted_confidence": 1},
        {"predicted_confidence": 0},
        {"reviewed_at": "2026-01-31"},
        {"reviewed_at": "unknown"},
        {"anchors": None, "edge_id": None, "predicted_by": None},
        {"anchors": '["page:1"]'},
        {"anchors": []},
        {"reviewed_at": None, "reviewer": None, "sampling": None, "group": "", "id": ""},
        {"premise": "x" * 100_000},
        {"premise": "[SEP] [CLS] ‮مرحبا 🙂🏽 e\u0301 \u2028 \x85 \r\n"},
    ],
)
def test_what_is_unusual_but_right(tmp_path: Path, changes: dict[str, object]) -> None:
    assert problems_of(tmp_path, **changes) == []


def test_a_group_is_one_of_the_anchors(tmp_path: Path) -> None:
    file = jsonl(
        tmp_path,
        {**GOOD, "group": "g", "anchors": ["page:2", "page:1", "page:2"]},
        {**GOOD, "anchors": ["group:h", "page:1"]},
        {**GOOD, "anchors": '["page:1"]'},
    )
    rows, problems = read_rows(file)
    assert problems == []
    assert [(row.group, row.anchors) for row in rows] == [
        ("g", ("group:g", "page:1", "page:2")),
        ("h", ("group:h", "page:1")),
        ("", ("page:1",)),
    ]


def test_a_time_that_is_unknown_and_one_that_is_not_said(tmp_path: Path) -> None:
    rows, _ = read_rows(jsonl(tmp_path, {**GOOD, "reviewed_at": "unknown"}, GOOD))
    assert [row.reviewed_at for row in rows] == ["", None]


def test_the_newer_name_of_the_hypothesis_is_understood(tmp_path: Path) -> None:
    row = {**GOOD, "nli_hypothesis": "H."}
    del row["hypothesis"]
    (read,), problems = read_rows(jsonl(tmp_path, row))
    assert (read.pair.hypothesis, problems) == ("H.", [])


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (b'{"premise": "\xff"}', "is not UTF-8 (at byte 13)"),
        (b"[1, 2]", "is no JSON object"),
        (b"null", "is no JSON object"),
        (b"[" * 100_000, "is nested too deeply"),
        (b'{"premise": ' + b"9" * 5000 + b"}", "is no JSON that can be read"),
        (b'{"premise": "a", "premise": "b"}', "'premise': stands here twice"),
    ],
)
def test_lines_that_are_no_rows(tmp_path: Path, line: bytes, words: str) -> None:
    file = tmp_path / "in.jsonl"
    good = json.dumps(GOOD).encode()
    file.write_bytes(b"\n".join([good, line, good]))
    rows, problems = read_rows(file)
    assert [row.line for row in rows] == [1, 3]
    assert problems[0].startswith(f"line 2: {words}")


def test_a_line_without_end_does_not_fill_the_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lyra_nli.feedback.files.MAX_LINE_BYTES", 1000)
    rows, problems = read_rows(jsonl(tmp_path, GOOD, {**GOOD, "premise": "x" * 5000}, GOOD))
    assert [row.line for row in rows] == [1, 3]
    assert problems == ["line 2: is longer than 1,000 bytes"]


def test_byte_order_mark_windows_line_ends_and_no_last_line_end(tmp_path: Path) -> None:
    file = tmp_path / "in.JSONL"
    line = json.dumps(GOOD).encode()
    file.write_bytes(b"\xef\xbb\xbf" + line + b"\r\n\r\n" + line)
    rows, problems = read_rows(file)
    assert ([row.line for row in rows], problems) == ([1, 3], [])


# --- CSV ----------------------------------------------------------------------------------


def write_csv(file: Path, rows: list[dict[str, object]], **options: object) -> Path:
    with file.open("w", newline="", encoding="utf-8") as text:
        writer = csv.DictWriter(text, list(rows[0]), **options)  # type: ignore[arg-type]
        writer.writeheader()
        writer.writerows(rows)
    return file


def test_csv_cells_may_hold_anything(tmp_path: Path) -> None:
    premise = 'one,\r\n"two"\n\nthree;\t🙂 ' + "x" * 200_000
    rows: list[dict[str, object]] = [
        {**GOOD, "premise": premise, "reason": ""},
        {**GOOD, "reason": "r"},
    ]
    limit = csv.field_size_limit()
    (first, second), problems = read_rows(write_csv(tmp_path / "in.csv", rows))
    assert problems == []
    assert first.pair.premise == premise
    assert (first.line, second.line) == (2, 6)
    assert (first.predicted_confidence, second.reason) == (0.7, "r")
    assert csv.field_size_limit() == limit


def test_csv_faults_name_the_line_where_the_row_begins(tmp_path: Path) -> None:
    rows: list[dict[str, object]] = [
        {**GOOD, "premise": "a\nb\nc"},
        {**GOOD, "correct_label": "x"},
        {**GOOD, "predicted_confidence": "much"},
        {**GOOD, "predicted_confidence": ""},
    ]
    file = write_csv(tmp_path / "in.csv", rows)
    with file.open("a") as text:
        text.write("only,three,cells\n")
    good, problems = read_rows(file)
    assert [row.line for row in good] == [2, 7]
    assert [problem.split(": ", 1)[0] for problem in problems] == ["line 5", "line 6", "line 8"]
    assert problems[-1] == "line 8: has 3 cells, the header has 5"


def test_csv_bytes_that_are_no_utf8_are_found(tmp_path: Path) -> None:
    file = write_csv(tmp_path / "in.csv", [dict(GOOD), dict(GOOD)])
    file.write_bytes(file.read_bytes().replace(b"helps", b"h\xe9lps", 1))
    good, problems = read_rows(file)
    assert [row.line for row in good] == [3]
    assert problems == ["line 2: hypothesis: is not valid Unicode (at character 9)"]


def test_a_broken_csv_says_where_reading_stopped(tmp_path: Path) -> None:
    file = write_csv(tmp_path / "in.csv", [dict(GOOD)])
    with file.open("a") as text:
        text.write('"never closed,a,b,c,d\n')
    good, problems = read_rows(file)
    assert len(good) == 1
    assert problems[0].startswith("line 3: the CSV is broken here")


def test_csv_with_a_byte_order_mark(tmp_path: Path) -> None:
    file = write_csv(tmp_path / "in.csv", [dict(GOOD)])
    file.write_bytes(b"\xef\xbb\xbf" + file.read_bytes())
    assert len(read_rows(file)[0]) == 1


def test_a_header_that_does_not_fit_is_one_fault_not_thousands(tmp_path: Path) -> None:
    file = tmp_path / "in.csv"
    file.write_text("premise,hypothesis,label,predicted_label,premise\na,b,c,d,e\n")
    with pytest.raises(InputError) as caught:
        read_rows(file)
    assert caught.value.problems == (
        "'label': unknown field; did you mean correct_label?",
        "'predicted_confidence': no such column",
        "'correct_label': no such column",
        "'premise': two columns",
    )


# --- whole files --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        (
            "in.xlsx",
            b"",
            "of no known kind: .jsonl, .ndjson, .csv, .parquet, .json can be imported",
        ),
        ("in", b"", "of no known kind"),
        ("in.csv", "premise,hypothesis\n".encode("utf-16"), "UTF-16"),
        ("in.jsonl", "{}".encode("utf-16"), "UTF-16"),
    ],
)
def test_files_that_cant_be_read_as_a_whole(
    tmp_path: Path, name: str, content: bytes, words: str
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=words):
        read_rows(tmp_path / name)


def test_missing_files_and_folders(tmp_path: Path) -> None:
    (tmp_path / "folder.csv").mkdir()
    for name in ("nowhere.jsonl", "folder.csv"):
        with pytest.raises(InputError, match=f"{name} can't be read"):
            read_rows(tmp_path / name)


@pytest.mark.parametrize("name", ["in.jsonl", "in.csv"])
def test_an_empty_file_has_no_rows(tmp_path: Path, name: str) -> None:
    (tmp_path / name).touch()
    assert read_rows(tmp_path / name) == ([], [])
