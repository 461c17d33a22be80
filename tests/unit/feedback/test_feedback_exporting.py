"""What goes out comes back in: every format, every field, every kind of database."""

from __future__ import annotations

import csv
import json
import sqlite3
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from lyra_databases import SHAPES, LyraDatabase, populate, unsafe
from sqlalchemy import Engine, insert, text

from lyra_nli.errors import InputError
from lyra_nli.feedback.exporting import export_file
from lyra_nli.feedback.fields import EXPORTED
from lyra_nli.feedback.formats import FORMATS, Format
from lyra_nli.feedback.importing import ImportResult, import_file
from lyra_nli.records import Pair, Sampling
from lyra_nli.storage.engine import open_database, write
from lyra_nli.storage.tables import nli_reviews, nli_second_reviews
from lyra_nli.storage.upgrade import init_database, upgrade

NAMES: dict[Format, str] = {
    "jsonl": "out.jsonl",
    "csv": "out.csv",
    "parquet": "out.parquet",
    "datasets": "out",
    "argilla": "argilla.json",
    "label-studio": "tasks.json",
}

NASTY = '=1+1, "two"\r\n\tthree\rfour\n\u2028\x85 <script>🙂🏽 ‮مرحبا e\u0301 [SEP] \\n {"a": 1}'
"""What breaks a reader of CSV, of lines, of JSON, or a spreadsheet."""


def fresh(folder: Path) -> Engine:
    folder.mkdir(exist_ok=True)
    init_database(str(folder / "lyra.db"))
    return unsafe(open_database(str(folder / "lyra.db")))


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    engine = fresh(tmp_path / "first")
    yield engine
    engine.dispose()


@pytest.fixture
def other(tmp_path: Path) -> Iterator[Engine]:
    engine = fresh(tmp_path / "second")
    yield engine
    engine.dispose()


def review(key: str, **changes: object) -> dict[str, Any]:
    row = {
        "id": key,
        "edge_id": f"edge-{key}",
        "premise": f"Premise of {key}.",
        "hypothesis": "Claim.",
        "predicted_label": "neutral",
        "predicted_confidence": 0.1 + 0.2,
        "predicted_by": "lora-lyra-v3",
        "correct_label": "supports",
        "anchors_json": json.dumps(["page:p1", "group:g", "claim:c1"]),
        "reviewer": "ann",
        "reason": "because",
        "sampling": "random",
        "source_url": "https://example.org/1",
        "reviewed_at": "2026-01-31T12:00:00.123456+00:00",
        **changes,
    }
    return {**row, "pair_key": Pair(row["premise"], row["hypothesis"]).key}  # type: ignore[arg-type]


REVIEWS = [
    review("full"),
    review("same-text", premise="Premise of full."),
    review("nasty", premise=NASTY, hypothesis=f" {NASTY} ", reason=NASTY, reviewer=NASTY),
    review("nothing-known", edge_id=None, predicted_confidence=None, predicted_by=None),
    review("bare", anchors_json="[]", reviewer="", reason="", sampling="unknown", source_url=""),
    review("no-time", reviewed_at=""),
    review("no-time-either", reviewed_at="", premise="Premise of no-time."),
    review("agreed", correct_label="neutral", sampling="queue", anchors_json='["group:x,\\"y"]'),
    review("sure", predicted_confidence=1.0, premise="x" * 200_000),
    review("tiny", predicted_confidence=5e-324),
    review("zero", predicted_confidence=0.0),
]


def add(engine: Engine, *rows: dict[str, Any]) -> None:
    with write(engine) as connection:
        connection.execute(insert(nli_reviews), list(rows))


def exported(engine: Engine, folder: Path, **options: Any) -> list[dict[str, Any]]:
    """What an export to JSON lines says, with its order."""
    file = folder / "check.jsonl"
    export_file(engine, file, overwrite=True, **options)
    return [json.loads(line) for line in file.read_bytes().splitlines()]


@pytest.mark.parametrize("kind", FORMATS)
def test_every_format_comes_back_exactly(
    kind: Format, engine: Engine, other: Engine, tmp_path: Path
) -> None:
    add(engine, *REVIEWS)
    before = exported(engine, tmp_path)
    assert [row["id"] for row in before[:2]] == ["no-time", "no-time-either"]
    assert set(before[0]) == set(EXPORTED)
    file = tmp_path / NAMES[kind]
    result = export_file(engine, file, kind=kind)
    assert (result.exported, result.left_out) == (len(REVIEWS), ())
    assert import_file(other, file) == ImportResult(len(REVIEWS), 0, 0, ())
    assert exported(other, tmp_path) == before
    assert import_file(other, file) == ImportResult(0, 0, len(REVIEWS), ())
    assert import_file(engine, file) == ImportResult(0, 0, len(REVIEWS), ())
    again = tmp_path / f"again-{file.name}"
    export_file(other, again, kind=kind)
    if file.is_file() and kind != "parquet":
        assert again.read_bytes() == file.read_bytes()


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
@pytest.mark.parametrize("kind", ["jsonl", "csv"])
def test_lyras_own_verdicts_come_back_in_a_fresh_database_and_are_known_in_their_own(
    kind: Format, shape: Any, other: Engine, tmp_path: Path
) -> None:
    lyra = LyraDatabase(tmp_path / "lyra.db", shape)
    populate(lyra)
    engine = lyra.open()
    file = tmp_path / NAMES[kind]
    rows = exported(engine, tmp_path)  # before any upgrade
    assert {row["edge_id"] for row in rows} == {"e1", "e2", "e3"}
    assert rows[0]["anchors"] == ["claim:c-e1", "fragment:f-e1", "page:p1"]
    upgrade(engine, backup=False)
    assert export_file(engine, file, kind=kind).exported == len(rows) == 4
    import_file(other, file)
    assert sorted(exported(other, tmp_path), key=str) == sorted(rows, key=str)
    dump = lyra.dump()
    assert import_file(engine, file) == ImportResult(0, 0, 4, ())
    assert lyra.dump() == dump
    engine.dispose()


def test_an_edge_that_changed_since_the_export_is_another_verdict(tmp_path: Path) -> None:
    lyra = LyraDatabase(tmp_path / "lyra.db")
    lyra.add_edge("e1", "supports")
    lyra.agree("e1", "2026-01-01T10:00:00+00:00")
    engine = lyra.open()
    upgrade(engine, backup=False)
    file = tmp_path / "out.jsonl"
    export_file(engine, file)
    with lyra.connect() as connection:
        connection.execute("UPDATE edges SET nli_label = 'refutes', relation = 'refutes'")
    assert import_file(engine, file) == ImportResult(1, 0, 0, ())
    engine.dispose()


def test_what_an_import_would_refuse_is_named_and_left_out(tmp_path: Path) -> None:
    lyra = LyraDatabase(tmp_path / "lyra.db")
    populate(lyra)
    with lyra.connect() as connection:
        connection.execute("UPDATE nli_corrections SET predicted_label = '-' WHERE id = 'nlc_a'")
        connection.execute("UPDATE nli_corrections SET premise = ' ' WHERE id = 'nlc_e1'")
        connection.execute("UPDATE nli_corrections SET correct_label = '?' WHERE id = 'nlc_b'")
    engine = lyra.open(read_only=True)
    result = export_file(engine, tmp_path / "out.jsonl")
    assert result.exported == 1
    assert [line.split(": ")[:2] for line in result.left_out] == [
        ["nli_corrections:nlc_e1", "premise"],
        ["nli_corrections:nlc_a", "predicted_label"],
        ["nli_corrections:nlc_b", "correct_label '?' is none of supports, refutes, neutral"],
    ]
    engine.dispose()


def test_only_and_since(engine: Engine, tmp_path: Path) -> None:
    add(
        engine,
        review("a", reviewed_at="2026-01-01T00:00:00+00:00"),
        review("b", correct_label="neutral", reviewed_at="2026-02-01T00:00:00+00:00"),
        review("c", reviewed_at="2026-03-01T09:00:00+09:00"),
    )

    def ids(**options: Any) -> list[str]:
        return [row["id"] for row in exported(engine, tmp_path, **options)]

    assert ids() == ["a", "b", "c"]
    assert ids(only="corrected") == ["a", "c"]
    assert ids(only="agreed") == ["b"]
    assert ids(since="2026-02-01") == ["b", "c"]
    assert ids(since="2026-03-01") == ["c"]
    assert ids(since="2026-03-01T00:00:01Z") == []
    with pytest.raises(InputError, match="since: 'yesterday' is no ISO-8601 time"):
        ids(since="yesterday")


def test_long_texts_make_small_row_groups(
    engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lyra_nli.feedback.columns.GROUP_CHARS", 5_000)
    add(engine, *(review(f"r{number:02}", premise="x" * 2_000) for number in range(10)))
    export_file(engine, tmp_path / "out.parquet")
    groups = pq.ParquetFile(tmp_path / "out.parquet").metadata
    assert [groups.row_group(n).num_rows for n in range(groups.num_row_groups)] == [3, 3, 3, 1]


def test_reviews_that_were_taken_back_stay_here(engine: Engine, tmp_path: Path) -> None:
    add(engine, review("stands"), review("undone"))
    with write(engine) as connection:
        connection.execute(text("UPDATE nli_reviews SET undone_at = 'x' WHERE id = 'undone'"))
    assert [row["id"] for row in exported(engine, tmp_path)] == ["stands"]


@pytest.mark.parametrize("kind", FORMATS)
def test_an_empty_database_is_an_empty_file(kind: Format, engine: Engine, tmp_path: Path) -> None:
    file = tmp_path / NAMES[kind]
    assert export_file(engine, file, kind=kind).exported == 0
    assert import_file(engine, file, kind=kind) == ImportResult(0, 0, 0, ())


@pytest.mark.parametrize("kind", FORMATS)
def test_nothing_is_overwritten_unless_asked(kind: Format, engine: Engine, tmp_path: Path) -> None:
    add(engine, review("a"))
    file = tmp_path / NAMES[kind]
    export_file(engine, file, kind=kind)
    with pytest.raises(InputError, match=r"exists\n.*--force"):
        export_file(engine, file, kind=kind)
    add(engine, review("b"))
    assert export_file(engine, file, kind=kind, overwrite=True).exported == 2
    assert import_file(engine, file).duplicates == 2
    assert sorted(tmp_path.iterdir()) == sorted([file, tmp_path / "first"])


def test_a_folder_of_someone_elses_is_never_replaced(engine: Engine, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").touch()
    with pytest.raises(InputError, match="mine is a folder: name a new file"):
        export_file(engine, tmp_path / "mine", kind="datasets", overwrite=True)
    assert (tmp_path / "mine" / "thesis.txt").exists()


@pytest.mark.parametrize("kind", FORMATS)
def test_an_interrupted_export_leaves_nothing(kind: Format, engine: Engine, tmp_path: Path) -> None:
    add(engine, *(review(f"r{number}") for number in range(450)))

    def interrupt(_: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        export_file(engine, tmp_path / NAMES[kind], kind=kind, progress=interrupt)
    assert [path.name for path in tmp_path.iterdir()] == ["first"]


def test_progress_ends_with_the_number_of_rows(engine: Engine, tmp_path: Path) -> None:
    add(engine, *(review(f"r{number}") for number in range(450)))
    seen: list[int] = []
    export_file(engine, tmp_path / "out.csv", progress=seen.append)
    assert seen == [200, 400, 450]


def test_names_that_tell_no_format_and_places_that_cant_be_written(
    engine: Engine, tmp_path: Path
) -> None:
    for name in ("out", "out.json", "out.txt"):
        with pytest.raises(InputError, match="does not tell the format"):
            export_file(engine, tmp_path / name)
    with pytest.raises(InputError, match="can't be written: No such file"):
        export_file(engine, tmp_path / "nowhere" / "out.csv")


def test_without_the_libraries_it_says_what_to_install(
    engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    for kind in ("parquet", "datasets"):
        with pytest.raises(InputError, match=r"need pyarrow.*\n.*lyra-nli\[formats\]"):
            export_file(engine, tmp_path / "out", kind=kind)  # type: ignore[arg-type]
    (tmp_path / "in.parquet").write_bytes(b"PAR1")
    with pytest.raises(InputError, match="need pyarrow"):
        import_file(engine, tmp_path / "in.parquet")
    monkeypatch.undo()
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(InputError, match="need datasets"):
        export_file(engine, tmp_path / "out", kind="datasets")


def test_a_spreadsheet_reads_the_csv(engine: Engine, tmp_path: Path) -> None:
    add(engine, *REVIEWS)
    export_file(engine, tmp_path / "out.csv")
    before = csv.field_size_limit(300_000)
    with (tmp_path / "out.csv").open(encoding="utf-8", newline="") as file:
        rows = {row["id"]: row for row in csv.DictReader(file, strict=True)}
    csv.field_size_limit(before)
    assert rows["nasty"]["premise"] == NASTY
    assert rows["full"]["predicted_confidence"] == "0.30000000000000004"


# --- any reviews at all ---------------------------------------------------------------------

ANY = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00"), max_size=20)
FULL = ANY.filter(lambda value: bool(value.strip()))
LABEL = st.sampled_from(["supports", "refutes", "neutral"])
REVIEW = st.builds(
    review,
    st.uuids().map(str),
    edge_id=st.none() | FULL,
    premise=FULL,
    hypothesis=FULL,
    predicted_label=LABEL,
    predicted_confidence=st.none() | st.floats(0, 1),
    predicted_by=st.none() | FULL,
    correct_label=LABEL,
    anchors_json=st.lists(ANY, max_size=3).map(json.dumps),
    reviewer=ANY,
    reason=ANY,
    sampling=st.sampled_from(get_args(Sampling)),
    source_url=ANY,
    reviewed_at=st.sampled_from(["", "2026-01-31T12:00:00+00:00", "2026-01-31", "long ago"]),
)


@pytest.mark.parametrize("kind", FORMATS)
@settings(
    max_examples=10,
    deadline=None,
    phases=[Phase.generate],
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(rows=st.lists(REVIEW, max_size=4, unique_by=lambda row: row["id"]))
def test_any_reviews_come_back_exactly(
    kind: Format, engine: Engine, other: Engine, tmp_path: Path, rows: list[dict[str, Any]]
) -> None:
    for each in (engine, other):
        with write(each) as connection:
            connection.execute(text("DELETE FROM nli_reviews"))
    if rows:
        add(engine, *rows)
    file = tmp_path / NAMES[kind]
    result = export_file(engine, file, kind=kind, overwrite=True)
    assert (result.exported, result.left_out) == (len(rows), ())
    assert import_file(other, file, kind=kind).imported == len(rows)
    # Times that were kept in another form sort elsewhere once they are ISO-8601.
    after, before = (sorted(exported(each, tmp_path), key=str) for each in (other, engine))
    assert after == before


def test_the_database_is_only_read(engine: Engine, tmp_path: Path) -> None:
    add(engine, *REVIEWS)
    engine.dispose()
    path = tmp_path / "first" / "lyra.db"
    sqlite3.connect(path).execute("PRAGMA wal_checkpoint(TRUNCATE)").connection.close()
    before = path.read_bytes()
    readonly = open_database(str(path), read_only=True)
    export_file(readonly, tmp_path / "out.jsonl")
    readonly.dispose()
    assert path.read_bytes() == before


def test_second_verdicts_that_stay_behind_are_counted(engine: Engine, tmp_path: Path) -> None:
    add(engine, review("one"), review("two", correct_label="neutral"))
    with write(engine) as connection:
        for number in range(3):
            connection.execute(insert(nli_second_reviews).values(
                id=f"s{number}", review_id="one", edge_id="edge-one", label="supports",
                reviewer=f"r{number}", reviewed_at="2026-01-02",
            ))  # fmt: skip
    with write(engine) as connection:  # one that an import would refuse stays behind itself
        connection.execute(text("UPDATE nli_reviews SET premise = '' WHERE id = 'two'"))
        connection.execute(insert(nli_second_reviews).values(
            id="s9", review_id="two", edge_id="edge-two", label="supports", reviewer="r",
            reviewed_at="2026-01-02",
        ))  # fmt: skip
    assert export_file(engine, tmp_path / "all.jsonl").second == 3
    assert export_file(engine, tmp_path / "agreed.jsonl", only="agreed").second == 0
