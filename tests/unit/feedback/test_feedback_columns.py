"""Parquet files and `datasets` folders as other programs write them."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lyra_nli.errors import InputError
from lyra_nli.feedback.files import count_rows, read_file
from lyra_nli.feedback.formats import detect_format
from lyra_nli.feedback.importing import read_rows

datasets.disable_progress_bars()

LABELS = ["neutral", "refutes", "supports"]
COLUMNS: dict[str, Any] = {
    "premise": ["P0.", "P1.", "P2."],
    "hypothesis": ["H.", "H.", "H."],
    "predicted_label": ["neutral", "neutral", "neutral"],
    "predicted_confidence": [0.5, None, 1.0],
    "correct_label": ["supports", "refutes", "neutral"],
}


def parquet(folder: Path, table: pa.Table, **options: Any) -> Path:
    file = folder / "in.parquet"
    pq.write_table(table, file, **options)
    return file


def saved(folder: Path, data: datasets.Dataset | datasets.DatasetDict) -> Path:
    data.save_to_disk(folder / "in")
    return folder / "in"


def test_the_types_that_other_programs_choose(tmp_path: Path) -> None:
    moment = datetime(2026, 1, 31, 12, tzinfo=UTC)
    table = pa.table(
        {
            **COLUMNS,
            "predicted_confidence": pa.array([0.5, None, 1.0], pa.float32()),
            "correct_label": pa.array(COLUMNS["correct_label"]).dictionary_encode(),
            "premise": pa.array(COLUMNS["premise"], pa.large_string()),
            "reviewed_at": pa.array([moment, None, moment], pa.timestamp("us", "UTC")),
            "anchors": [["page:1"], None, []],
        }
    )
    rows, problems = read_rows(parquet(tmp_path, table))
    assert problems == []
    assert [row.line for row in rows] == [1, 2, 3]
    assert [row.correct_label for row in rows] == COLUMNS["correct_label"]
    assert [row.reviewed_at for row in rows] == [moment.isoformat(), None, moment.isoformat()]
    assert [row.anchors for row in rows] == [("page:1",), (), ()]
    assert [row.predicted_confidence for row in rows] == [0.5, None, 1.0]


def test_faults_name_the_row_and_all_are_found(tmp_path: Path) -> None:
    table = pa.table(
        {**COLUMNS, "premise": ["P.", " ", None], "correct_label": ["?", "refutes", "x"]}
    )
    rows, problems = read_rows(parquet(tmp_path, table))
    assert rows == []
    assert [problem.split(": unknown")[0] for problem in problems] == [
        "row 1: correct_label",
        "row 2: premise: is empty",
        "row 3: premise: expected text, found NoneType",
        "row 3: correct_label",
    ]


def test_bytes_that_are_no_utf8_cost_their_own_row_only(tmp_path: Path) -> None:
    broken = pa.array([b"P0.", b"\xff\xfe", b"P2."], pa.binary()).view(pa.string())
    rows, problems = read_rows(parquet(tmp_path, pa.table({**COLUMNS, "premise": broken})))
    assert [row.line for row in rows] == [1, 3]
    assert problems[0].startswith("row 2: can't be read: 'utf-8' codec")


def test_columns_that_do_not_fit_are_one_fault(tmp_path: Path) -> None:
    table = pa.table({"premise": ["P."], "label": [1]})
    for path in (parquet(tmp_path, table), saved(tmp_path, datasets.Dataset(table))):
        with pytest.raises(InputError, match=r"the header of .* does not fit") as caught:
            read_rows(path)
        assert "'label': unknown field; did you mean correct_label?" in caught.value.problems
        assert "'hypothesis': no such column" in caught.value.problems


@pytest.mark.parametrize("cut", [4, 200, -1])
def test_a_damaged_file_is_said_to_be_one(tmp_path: Path, cut: int) -> None:
    file = parquet(tmp_path, pa.table(COLUMNS))
    file.write_bytes(file.read_bytes()[:cut])
    with pytest.raises(InputError, match=r"in\.parquet can't be read"):
        read_rows(file)


def test_parquet_is_known_without_its_name(tmp_path: Path) -> None:
    file = parquet(tmp_path, pa.table(COLUMNS)).rename(tmp_path / "reviews")
    assert detect_format(file) == "parquet"
    assert len(read_rows(file)[0]) == count_rows(file, "parquet") == 3


def test_class_labels_are_read_by_name(tmp_path: Path) -> None:
    numbers = [LABELS.index(label) for label in COLUMNS["correct_label"]]
    data = datasets.Dataset.from_dict({**COLUMNS, "correct_label": numbers})
    data = data.cast_column("correct_label", datasets.ClassLabel(names=LABELS))
    rows, problems = read_rows(saved(tmp_path, data))
    assert problems == []
    assert [row.correct_label for row in rows] == COLUMNS["correct_label"]


def test_all_splits_are_read_and_so_is_what_was_shuffled(tmp_path: Path) -> None:
    data = datasets.Dataset.from_dict(COLUMNS)
    splits = datasets.DatasetDict({"train": data.select([2, 0]), "test": data.select([1])})
    path = saved(tmp_path, splits)
    rows, problems = read_rows(path)
    assert problems == []
    assert [(row.line, row.pair.premise) for row in rows] == [(1, "P2."), (2, "P0."), (3, "P1.")]
    assert count_rows(path, "datasets") == 3


def test_splits_with_different_columns_are_refused(tmp_path: Path) -> None:
    data = datasets.Dataset.from_dict(COLUMNS)
    splits = datasets.DatasetDict({"train": data, "test": data.remove_columns("premise")})
    with pytest.raises(InputError, match="different columns"):
        read_rows(saved(tmp_path, splits))


def test_folders_that_hold_no_dataset(tmp_path: Path) -> None:
    (tmp_path / "plain").mkdir()
    with pytest.raises(InputError, match="none that Hugging Face's save_to_disk wrote"):
        read_rows(tmp_path / "plain")
    with pytest.raises(InputError, match="holds no rows"):
        read_rows(saved(tmp_path, datasets.Dataset.from_dict({name: [] for name in COLUMNS})))
    (tmp_path / "in" / "state.json").write_text("{")
    with pytest.raises(InputError, match="can't be read"):
        read_rows(tmp_path / "in")


def test_one_row_group_is_read_in_pieces(tmp_path: Path) -> None:
    count = 40_000
    table = pa.table({name: values[:1] * count for name, values in COLUMNS.items()})
    table = table.set_column(0, "premise", [[f"{n} " + "x" * 500 for n in range(count)]])
    file = parquet(tmp_path, table, row_group_size=count, compression="none", use_dictionary=False)
    size = file.stat().st_size
    del table
    before = pa.total_allocated_bytes()
    peak = 0
    for _ in read_file(file):
        peak = max(peak, pa.total_allocated_bytes() - before)
    assert peak < size / 3
