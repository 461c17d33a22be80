from __future__ import annotations

import csv
import json
import math
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from lyra_databases import NEWER, LyraDatabase, fetch, unsafe
from sqlalchemy import Engine, text

from lyra_nli.errors import InputError, StorageError
from lyra_nli.feedback.edges import edge_correct
from lyra_nli.feedback.importing import ImportResult, import_file
from lyra_nli.records import Review
from lyra_nli.storage.engine import open_database, read, utc, write
from lyra_nli.storage.generation import inspect_database
from lyra_nli.storage.reviews import read_reviews
from lyra_nli.storage.upgrade import init_database, upgrade

Row = dict[str, Any]


def good(number: int = 0, **changes: object) -> Row:
    return {
        "premise": f"Premise {number}.",
        "hypothesis": f"Hypothesis {number}.",
        "predicted_label": "neutral",
        "predicted_confidence": 0.7,
        "correct_label": "supports",
        **changes,
    }


def jsonl(folder: Path, *rows: Row) -> Path:
    file = folder / "in.jsonl"
    file.write_text("".join(f"{json.dumps(row)}\n" for row in rows), "utf-8")
    return file


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    init_database(str(tmp_path / "lyra.db"))
    engine = unsafe(open_database(str(tmp_path / "lyra.db")))
    yield engine
    engine.dispose()


def stored(engine: Engine) -> list[Review]:
    with read(engine) as connection:
        return read_reviews(connection, inspect_database(engine)).reviews


def test_rows_arrive_as_reviews(engine: Engine, tmp_path: Path) -> None:
    row = good(
        group="aspirin",
        reviewed_at="2026-01-31T12:00:00Z",
        reviewer="ann",
        reason="because",
        source_url="https://example.org",
        sampling="queue",
    )
    assert import_file(engine, jsonl(tmp_path, row)) == ImportResult(1, 0, 0, ())
    (review,) = stored(engine)
    assert review.id.startswith("nli_reviews:nlr_")
    assert (review.pair.premise, review.pair.hypothesis) == ("Premise 0.", "Hypothesis 0.")
    assert (review.label, review.predicted_label, review.predicted_confidence) == (
        "supports",
        "neutral",
        0.7,
    )
    assert review.corrected
    assert review.anchors == {"group:aspirin"}
    assert review.reviewed_at == "2026-01-31T12:00:00+00:00"
    assert (review.reviewer, review.reason, review.source_url, review.sampling) == (
        "ann",
        "because",
        "https://example.org",
        "queue",
    )


def test_bad_rows_stop_everything_and_are_all_named(engine: Engine, tmp_path: Path) -> None:
    file = jsonl(
        tmp_path, *map(good, range(300)), good(300, correct_label="x"), good(301, premise="")
    )
    with pytest.raises(InputError, match=r"2 bad row\(s\).*nothing was imported") as caught:
        import_file(engine, file)
    assert [problem.split(":")[0] for problem in caught.value.problems] == ["line 301", "line 302"]
    assert "--skip-bad" in caught.value.hint
    assert stored(engine) == []


def test_the_good_rows_alone_when_asked(engine: Engine, tmp_path: Path) -> None:
    file = jsonl(tmp_path, good(0), good(1, correct_label="x"), good(2))
    result = import_file(engine, file, skip_bad=True)
    assert (result.imported, result.skipped, result.duplicates) == (2, 1, 0)
    assert result.problems[0].startswith("line 2: correct_label")
    assert len(stored(engine)) == 2


def test_importing_again_changes_nothing(engine: Engine, tmp_path: Path) -> None:
    rows = [good(0), good(1, reviewed_at="2026-01-31"), good(2, reviewer="ann")]
    file = jsonl(tmp_path, *rows)
    assert import_file(engine, file).imported == 3
    before = stored(engine)
    assert import_file(engine, file) == ImportResult(0, 0, 3, ())
    assert stored(engine) == before
    more = jsonl(tmp_path, *rows, good(3))
    assert import_file(engine, more) == ImportResult(1, 0, 3, ())


def test_doubles_in_one_file_count_once(engine: Engine, tmp_path: Path) -> None:
    at = "2026-01-31T12:00:00"
    file = jsonl(
        tmp_path,
        good(0, reviewed_at=f"{at}Z"),
        good(0, reviewed_at=f"{at}+00:00", reason="the same moment, written otherwise"),
        good(0, reviewed_at="2026-02-01"),
        good(0, reviewed_at=f"{at}Z", reviewer="ben"),
        good(0, reviewed_at=f"{at}Z", correct_label="refutes"),
        good(0, reviewed_at=f"{at}Z", premise="premise 0."),
        *[good(number) for number in range(1, 250)],
        good(1),
    )
    assert import_file(engine, file) == ImportResult(5 + 249, 0, 2, ())


def test_a_review_made_here_is_known_when_it_comes_back(tmp_path: Path) -> None:
    database = LyraDatabase(tmp_path / "lyra.db", NEWER)
    database.add_edge("e1")
    engine = database.open()
    upgrade(engine, backup=False)
    edge_correct(engine, "e1", "refutes", reviewer="ann")
    (review,) = stored(engine)
    row = good(
        premise=review.pair.premise,
        hypothesis=review.pair.hypothesis,
        correct_label=review.label,
        reviewer=review.reviewer,
        reviewed_at=review.reviewed_at,
    )
    assert import_file(engine, jsonl(tmp_path, row)) == ImportResult(0, 0, 1, ())
    engine.dispose()


def test_ids_of_the_file_are_kept_and_mean_one_review(engine: Engine, tmp_path: Path) -> None:
    file = jsonl(tmp_path, good(0, id="a"), good(0, id="a"), good(0, id="b", reviewer="ben"))
    assert import_file(engine, file) == ImportResult(2, 0, 1, ())
    assert {review.id for review in stored(engine)} == {"nli_reviews:a", "nli_reviews:b"}


def test_the_same_words_about_two_edges_are_two_reviews(engine: Engine, tmp_path: Path) -> None:
    at = "2026-01-31T12:00:00Z"
    one, two = good(0, reviewed_at=at, edge_id="e1"), good(0, reviewed_at=at, edge_id="e2")
    assert import_file(engine, jsonl(tmp_path, one, two, one)) == ImportResult(2, 0, 1, ())
    assert {review.edge_id for review in stored(engine)} == {"e1", "e2"}
    without = good(0, reviewed_at=at)
    assert import_file(engine, jsonl(tmp_path, without)) == ImportResult(0, 0, 1, ())


def test_an_unknown_time_stays_unknown(engine: Engine, tmp_path: Path) -> None:
    file = jsonl(tmp_path, good(0, reviewed_at="unknown"), good(1))
    import_file(engine, file)
    times = {review.pair.premise: review.reviewed_at for review in stored(engine)}
    assert times["Premise 0."] == ""
    assert times["Premise 1."].startswith("20")
    assert import_file(engine, file) == ImportResult(0, 0, 2, ())


@pytest.mark.parametrize(
    "other",
    [
        {"correct_label": "refutes"},
        {"edge_id": "e9"},
        {"reviewer": "ben"},
        {"premise": "Other."},
        {"reviewed_at": "2027-01-01"},
    ],
)
def test_one_id_for_two_reviews_is_a_fault(engine: Engine, tmp_path: Path, other: Row) -> None:
    first = good(0, id="a", reviewed_at="2026-01-01")
    file = jsonl(tmp_path, first, {**first, **other}, good(1))
    with pytest.raises(InputError) as caught:
        import_file(engine, file)
    assert caught.value.problems == ("line 2: id: 'a' belongs to another review already",)
    result = import_file(engine, file, skip_bad=True)
    assert (result.imported, result.skipped, result.duplicates) == (2, 1, 0)
    with pytest.raises(InputError, match="belongs to another"):
        import_file(engine, jsonl(tmp_path, {**first, **other}))


def test_progress_ends_with_the_number_of_rows(engine: Engine, tmp_path: Path) -> None:
    seen: list[int] = []
    rows = [good(number) for number in range(450)]
    import_file(engine, jsonl(tmp_path, *rows, good(0)), progress=seen.append)
    assert seen == sorted(seen)
    assert seen[-1] == 451


def test_a_database_without_our_tables_is_sent_to_the_upgrade(tmp_path: Path) -> None:
    engine = LyraDatabase(tmp_path / "lyra.db").open()
    with pytest.raises(StorageError, match="db upgrade"):
        import_file(engine, jsonl(tmp_path, good()))
    engine.dispose()


def test_a_full_disk_imports_nothing(engine: Engine, tmp_path: Path) -> None:
    rows = [good(number, premise="x" * 20_000 + str(number)) for number in range(300)]
    with read(engine) as connection:
        pages = connection.execute(text("PRAGMA page_count")).scalar_one()
        connection.execute(text(f"PRAGMA max_page_count = {pages + 100}"))
    with pytest.raises(StorageError, match="full"):
        import_file(engine, jsonl(tmp_path, *rows))
    assert stored(engine) == []


def test_a_reader_that_stops_in_the_middle_leaves_nothing(engine: Engine, tmp_path: Path) -> None:
    def interrupt(_: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        import_file(engine, jsonl(tmp_path, *map(good, range(500))), progress=interrupt)
    assert stored(engine) == []
    with write(engine):
        pass  # the lock is free again


# --- any rows at all ----------------------------------------------------------------------

ANY_TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00"), max_size=40)
FULL_TEXT = ANY_TEXT.filter(lambda value: bool(value.strip()))
LABEL = st.sampled_from(["supports", "refutes", "neutral"])
MOMENT = st.datetimes(
    min_value=datetime(1900, 1, 1),
    max_value=datetime(2900, 1, 1),
    timezones=st.just(None) | st.timezones(),
).map(lambda moment: moment.replace(fold=0).isoformat())
VALID = st.fixed_dictionaries(
    {
        "premise": FULL_TEXT,
        "hypothesis": FULL_TEXT,
        "predicted_label": LABEL,
        "predicted_confidence": st.floats(0, 1) | st.sampled_from([0, 1, None]),
        "correct_label": LABEL,
    },
    optional={
        "group": ANY_TEXT,
        "reviewed_at": MOMENT,
        "reviewer": ANY_TEXT,
        "reason": ANY_TEXT,
        "source_url": ANY_TEXT,
        "sampling": st.sampled_from(["random", "queue", "unknown"]),
    },
)
JSON_VALUE = st.none() | st.booleans() | st.integers() | st.lists(st.integers(), max_size=2)
SPOIL = st.one_of(
    st.tuples(st.sampled_from(["premise", "hypothesis"]), JSON_VALUE | st.sampled_from(["", "\n"])),
    st.tuples(st.sampled_from(["predicted_label", "correct_label"]), JSON_VALUE | ANY_TEXT),
    st.tuples(
        st.just("predicted_confidence"),
        st.floats(max_value=-1e-9)
        | st.floats(min_value=1.0000001)
        | st.just(math.nan)
        | st.sampled_from(["x", [], {}, True]),
    ),
    st.tuples(st.just("reviewed_at"), st.sampled_from(["now", 5, "2026-13-01", []])),
    st.tuples(st.just("sampling"), ANY_TEXT.filter(bool)),
    st.tuples(st.sampled_from(["surprise", "labels", ""]), JSON_VALUE),
    st.tuples(
        st.sampled_from(["premise", "reason", "group"]), st.sampled_from(["a\x00", "\udfff"])
    ),
).filter(
    lambda spoil: spoil[1] not in ("supports", "refutes", "neutral", "random", "queue", "unknown")
)

PROPERTY = settings(
    max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def emptied(engine: Engine) -> Engine:
    with write(engine) as connection:
        connection.execute(text("DELETE FROM nli_reviews"))
    return engine


def identity(row: Row) -> tuple[object, ...]:
    return (
        row["premise"],
        row["hypothesis"],
        row["correct_label"],
        row.get("reviewer") or "",
        utc(row["reviewed_at"]) if row.get("reviewed_at") else "",
    )


def expected(row: Row) -> tuple[object, ...]:
    confidence = row["predicted_confidence"]
    return (
        *identity(row)[:4],
        row["predicted_label"],
        None if confidence is None else float(confidence),
        {f"group:{row['group']}"} if row.get("group") else set(),
        row.get("reason") or "",
        row.get("source_url") or "",
        row.get("sampling") or "unknown",
    )


def found(review: Review) -> tuple[object, ...]:
    return (
        review.pair.premise,
        review.pair.hypothesis,
        review.label,
        review.reviewer,
        review.predicted_label,
        review.predicted_confidence,
        set(review.anchors),
        review.reason,
        review.source_url,
        review.sampling,
    )


@PROPERTY
@given(rows=st.lists(VALID, max_size=6), twice=st.booleans())
def test_any_valid_rows_come_back_exactly(
    engine: Engine, tmp_path: Path, rows: list[Row], twice: bool
) -> None:
    emptied(engine)
    file = jsonl(tmp_path, *rows, *(rows if twice else []))
    first = {identity(row): row for row in reversed(rows)}
    result = import_file(engine, file)
    total = len(rows) * (2 if twice else 1)
    assert result == ImportResult(len(first), 0, total - len(first), ())
    reviews = stored(engine)
    assert sorted(map(repr, map(found, reviews))) == sorted(
        map(repr, map(expected, first.values()))
    )
    times = {review.reviewed_at for review in reviews}
    assert {key[4] for key in first if key[4]} <= times
    assert import_file(engine, file).imported == 0


@PROPERTY
@given(rows=st.lists(VALID, min_size=1, max_size=4, unique_by=identity))
def test_csv_says_the_same_as_json_lines(engine: Engine, tmp_path: Path, rows: list[Row]) -> None:
    names = sorted({name for row in rows for name in row})
    with (tmp_path / "in.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, names)
        writer.writeheader()
        writer.writerows(rows)
    import_file(emptied(engine), jsonl(tmp_path, *rows))
    from_json = sorted(repr(found(review)) for review in stored(engine))
    import_file(emptied(engine), tmp_path / "in.csv")
    assert sorted(repr(found(review)) for review in stored(engine)) == from_json


@PROPERTY
@given(
    rows=st.lists(st.tuples(VALID, st.none() | SPOIL), min_size=1, max_size=6).filter(
        lambda rows: any(spoil for _, spoil in rows)
    )
)
def test_any_spoilt_row_is_named_and_nothing_is_imported(
    engine: Engine, tmp_path: Path, rows: list[tuple[Row, tuple[str, object] | None]]
) -> None:
    emptied(engine)
    spoilt = [{**row, spoil[0]: spoil[1]} if spoil else row for row, spoil in rows]
    bad_lines = {number for number, (_, spoil) in enumerate(rows, 1) if spoil}
    file = jsonl(tmp_path, *spoilt)
    with pytest.raises(InputError) as caught:
        import_file(engine, file)
    named = {int(problem.split(":")[0].removeprefix("line ")) for problem in caught.value.problems}
    assert named == bad_lines
    for number, (_, spoil) in enumerate(rows, 1):
        if spoil:
            of_row = [line for line in caught.value.problems if line.startswith(f"line {number}:")]
            assert any(spoil[0] in line for line in of_row)
    assert stored(engine) == []
    result = import_file(engine, file, skip_bad=True)
    assert result.skipped == len(bad_lines)
    assert result.imported + result.duplicates == len(rows) - len(bad_lines)


def test_foreign_rows_in_the_table_do_not_disturb(engine: Engine, tmp_path: Path) -> None:
    import_file(engine, jsonl(tmp_path, good(0)))
    with write(engine) as connection:
        connection.execute(text("UPDATE nli_reviews SET reviewed_at = 'long ago'"))
    assert fetch(tmp_path / "lyra.db", "SELECT reviewed_at FROM nli_reviews") == [("long ago",)]
    assert stored(engine)[0].reviewed_at == ""
    assert import_file(engine, jsonl(tmp_path, good(0))) == ImportResult(0, 0, 1, ())
