"""Calibration evaluations on real database files of every kind."""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from lyra_databases import NEWER, OLDER, SHAPES, LyraDatabase, fetch, unsafe
from sqlalchemy import Engine, insert

from lyra_nli.errors import ConflictError, FeedbackError, StorageError
from lyra_nli.feedback.calibration import (
    current_curve,
    evaluate,
    get_diagram_data,
    get_evaluations,
    get_stats,
    rollback,
)
from lyra_nli.records import Pair
from lyra_nli.storage.engine import open_database, read
from lyra_nli.storage.generation import inspect_database
from lyra_nli.storage.tables import nli_reviews
from lyra_nli.storage.upgrade import init_database, upgrade

WAITING = "2026-01-01T10:00:00+00:00"


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    path = tmp_path / "lyra.db"
    init_database(str(path))
    engine = unsafe(open_database(str(path)))
    yield engine
    engine.dispose()


def add_reviews(
    engine: Engine,
    n: int,
    *,
    honest: bool = False,
    sampling: str = "queue",
    by: str | None = None,
    prefix: str = "r",
    undone_at: str | None = None,
) -> None:
    """Reviews of a model that says 0.93 and is right half of the time, or says what is true."""
    pairs = [Pair(f"Premise {prefix}{i}.", f"Claim {prefix}{i}.") for i in range(n)]
    rows = [
        {
            "id": f"nlr_{prefix}{i}",
            "pair_key": pair.key,
            "premise": pair.premise,
            "hypothesis": pair.hypothesis,
            "predicted_label": "supports",
            "predicted_confidence": _confidence(i, honest),
            "predicted_by": by,
            "correct_label": "refutes" if _is_wrong(i, honest) else "supports",
            "sampling": sampling,
            "reviewed_at": WAITING,
            "undone_at": undone_at,
        }
        for i, pair in enumerate(pairs)
    ]
    with engine.begin() as connection:
        connection.execute(insert(nli_reviews), rows)


def _confidence(i: int, honest: bool) -> float:
    if honest:
        return 0.6 if i % 2 else 0.8
    return 0.92 - i % 2 * 0.02 + i // 2 % 5 / 100  # a little higher where it is right


def _is_wrong(i: int, honest: bool) -> bool:
    if not honest:
        return i % 2 == 1
    return i % 10 in (1, 3) if i % 2 else i % 20 in (0, 10)  # right: 60%, 80%


def refused(call: object, *arguments: object, **more: object) -> FeedbackError:
    with pytest.raises(FeedbackError) as caught:
        call(*arguments, **more)  # type: ignore[operator]
    return caught.value


def path_of(engine: Engine) -> Path:
    return Path(str(engine.url.database))


# --- evaluate -----------------------------------------------------------------------------


def test_an_overconfident_model_gets_a_curve_that_is_current(engine: Engine) -> None:
    add_reviews(engine, 80)
    answer = evaluate(engine, who="ann")
    assert answer["accepted"]
    assert answer["samples"] == 80
    assert answer["brier_score"] > 0.4 > 0.25 > answer["brier_score_calibrated"]
    assert answer["improvement_ratio"] == pytest.approx(
        1 - answer["brier_score_calibrated"] / answer["brier_score"]
    )
    assert answer["expected_calibration_error"] == pytest.approx(0.43, abs=0.001)
    assert answer["calibration_version"] == 1
    assert fetch(
        path_of(engine),
        "SELECT source, samples_evaluated, calibration_version FROM calibration_evaluations",
    ) == [("nli", 80, "1")]
    [(version, method, samples, current)] = fetch(
        path_of(engine), "SELECT version, method, samples, is_current FROM nli_calibrations"
    )
    assert (version, method, samples, current) == (1, "platt", 80, 1)
    assert fetch(
        path_of(engine), "SELECT who, action, from_version, to_version FROM nli_calibration_events"
    ) == [("ann", "fit", None, 1)]
    with read(engine) as connection:
        curve = current_curve(connection, inspect_database(engine))
    assert curve is not None
    assert curve(np.array([0.93]))[0] == pytest.approx(0.5, abs=0.1)


def test_an_honest_model_is_left_as_it_is(engine: Engine) -> None:
    add_reviews(engine, 100, honest=True)
    answer = evaluate(engine)
    assert not answer["accepted"]
    assert answer["calibration_version"] is None
    assert "is refused" in str(answer["message"])
    assert "none is in use" in str(answer["message"])
    assert fetch(path_of(engine), "SELECT count(*) FROM nli_calibrations") == [(0,)]
    assert fetch(path_of(engine), "SELECT calibration_version FROM calibration_evaluations") == [
        (None,)
    ]


def test_a_curve_that_turns_the_order_round_is_refused(engine: Engine) -> None:
    add_reviews(engine, 60)
    with engine.begin() as connection:
        connection.exec_driver_sql(
            "UPDATE nli_reviews SET predicted_confidence ="
            " CASE correct_label WHEN 'supports' THEN 0.91 ELSE 0.99 END"
        )
    answer = evaluate(engine)
    assert answer["slope"] < 0
    assert not answer["accepted"]
    assert "higher confidence" in str(answer["message"])


def test_too_few_reviews_say_how_many_there_are_and_how_many_are_wanted(engine: Engine) -> None:
    add_reviews(engine, 12, by="lora-lyra-v1")
    error = refused(evaluate, engine)
    assert (error.code, error.parameter) == ("too_few_reviews", "min_samples")
    assert "12 with a known confidence so far, 50 are wanted" in error.message
    assert "lora-lyra-v1 (12)" in error.hint
    assert fetch(path_of(engine), "SELECT count(*) FROM calibration_evaluations") == [(0,)]
    assert evaluate(engine, min_samples=10)["samples"] == 12


@pytest.mark.parametrize("n", [0, 1])
def test_two_reviews_are_the_least_whatever_is_asked(engine: Engine, n: int) -> None:
    if n:
        add_reviews(engine, n)
    assert "2 are wanted" in refused(evaluate, engine, min_samples=0).message


def test_only_the_random_share_counts_when_it_is_large_enough(engine: Engine) -> None:
    add_reviews(engine, 70, prefix="q")
    add_reviews(engine, 49, sampling="random", honest=True)
    answer = evaluate(engine)
    assert (answer["samples"], answer["population"]) == (119, "all")
    assert "only 49 of them were drawn at random" in str(answer["message"])
    add_reviews(engine, 1, sampling="random", prefix="last")
    answer = evaluate(engine)
    assert (answer["samples"], answer["population"]) == (50, "random")
    assert "Only the 50 reviews that were drawn at random count" in str(answer["message"])


def test_a_source_is_the_version_that_judged(engine: Engine) -> None:
    add_reviews(engine, 60, by="lora-lyra-v1", prefix="a")
    add_reviews(engine, 20, prefix="b")
    assert get_stats(engine)["sources"] == {"lora-lyra-v1": 60, "unknown": 20}
    assert evaluate(engine, source="lora-lyra-v1")["samples"] == 60
    assert evaluate(engine, source="unknown", min_samples=20)["samples"] == 20
    error = refused(evaluate, engine, source="lora-lyra-v2")
    assert "of lora-lyra-v2" in error.message
    assert "lora-lyra-v1 (60), unknown (20)" in error.hint
    assert get_stats(engine)["current"]["source"] == "unknown"


def test_undone_reviews_and_lost_confidences_do_not_count(engine: Engine) -> None:
    add_reviews(engine, 5, prefix="kept")
    add_reviews(engine, 7, prefix="undone", undone_at=WAITING)
    add_reviews(engine, 3, prefix="lost")
    with engine.begin() as connection:
        connection.exec_driver_sql(
            "UPDATE nli_reviews SET predicted_confidence = NULL WHERE id LIKE 'nlr_lost%'"
        )
    stats = get_stats(engine)
    assert (stats["samples"], stats["without_confidence"]) == (5, 3)


def test_a_pair_counts_once_by_its_newest_verdict(engine: Engine) -> None:
    add_reviews(engine, 4)
    with engine.begin() as connection:
        connection.exec_driver_sql(
            "INSERT INTO nli_reviews (id, pair_key, premise, hypothesis, predicted_label,"
            " predicted_confidence, correct_label, reviewed_at) SELECT 'again', pair_key, premise,"
            " hypothesis, predicted_label, 0.7, 'supports', '2026-02-01T00:00:00+00:00'"
            " FROM nli_reviews WHERE id = 'nlr_r0'"
        )
    assert evaluate(engine, min_samples=4)["samples"] == 4
    seventy = [bar for bar in get_diagram_data(engine)["bins"] if bar["low"] == 0.7]
    assert [(bar["n"], bar["accuracy"]) for bar in seventy] == [(1, 1.0)]


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_every_kind_of_database_can_be_evaluated(tmp_path: Path, shape: object) -> None:
    database = LyraDatabase(tmp_path / "lyra.db", shape)  # type: ignore[arg-type]
    for i in range(20):
        edge = database.add_edge(f"e{i}", "supports", 0.8 + i / 200)
        at = f"2026-01-01T10:{i:02}:00+00:00"
        database.agree(edge, at) if i % 2 else database.correct(edge, "refutes", at)
    before = database.open(read_only=True)
    assert get_stats(before)["samples"] == 20
    assert get_evaluations(before)["evaluations"] == []
    before.dispose()
    engine = database.open()
    with pytest.raises(StorageError, match="lacks tables"):
        evaluate(engine, min_samples=20)
    upgrade(engine, backup=False)
    answer = evaluate(engine, min_samples=20)
    assert answer["accepted"]
    assert answer["brier_score"] > 0.3
    [facts] = get_evaluations(engine)["evaluations"]
    assert facts["calibration_version"] == 1
    assert facts == {name: answer[name] for name in facts}
    engine.dispose()


def test_a_read_only_database_says_so(tmp_path: Path) -> None:
    path = tmp_path / "lyra.db"
    init_database(str(path))
    engine = open_database(str(path))
    add_reviews(engine, 60)
    engine.dispose()
    engine = open_database(str(path), read_only=True)
    with pytest.raises(StorageError, match=r"readonly|read-only"):
        evaluate(engine)
    engine.dispose()


def test_evaluations_at_once_get_versions_of_their_own(engine: Engine) -> None:
    add_reviews(engine, 60)
    with ThreadPoolExecutor(4) as threads:
        answers = list(threads.map(lambda _: evaluate(engine), range(8)))
    assert sorted(int(answer["calibration_version"]) for answer in answers) == list(range(1, 9))
    assert fetch(path_of(engine), "SELECT version FROM nli_calibrations WHERE is_current") == [(8,)]
    changes = fetch(
        path_of(engine), "SELECT from_version, to_version FROM nli_calibration_events ORDER BY id"
    )
    assert changes == [(n or None, n + 1) for n in range(8)]


# --- reading ------------------------------------------------------------------------------


def test_evaluations_are_listed_newest_first(engine: Engine) -> None:
    add_reviews(engine, 60, by="v1")
    evaluate(engine)
    evaluate(engine, source="v1")
    evaluate(engine)
    listed = get_evaluations(engine)["evaluations"]
    assert [facts["calibration_version"] for facts in listed] == [3, 2, 1]
    assert [facts["source"] for facts in get_evaluations(engine, source="v1")["evaluations"]] == [
        "v1"
    ]
    assert len(get_evaluations(engine, limit=2)["evaluations"]) == 2
    assert get_stats(engine)["latest_evaluation"] == listed[0]


def test_the_diagram_has_bars_with_intervals(engine: Engine) -> None:
    add_reviews(engine, 60)
    first = evaluate(engine)["evaluation_id"]
    evaluate(engine)
    answer = get_diagram_data(engine, evaluation_id=str(first))
    assert answer["evaluation"]["evaluation_id"] == first
    assert [bar["n"] for bar in answer["bins"]] == [0] * 9 + [60]
    last = answer["bins"][-1]
    assert last["accuracy_low"] < last["accuracy"] == 0.5 < last["accuracy_high"]
    json.dumps(answer)


def test_an_unknown_evaluation_is_refused(engine: Engine) -> None:
    assert "no evaluation yet" in refused(get_diagram_data, engine).message
    error = refused(get_diagram_data, engine, evaluation_id="cev_x'; DROP TABLE edges; --")
    assert (error.code, error.parameter) == ("unknown_evaluation", "evaluation_id")


# --- rollback -----------------------------------------------------------------------------


def test_rollback_goes_back_to_what_was_current_before(engine: Engine) -> None:
    add_reviews(engine, 60)
    for _ in range(2):
        evaluate(engine)
    assert rollback(engine, reason="worse", who="ann")["to_version"] == 1
    evaluate(engine)  # version 3, fitted while 1 was current
    answer = rollback(engine, reason="worse again", who="ann")
    assert (answer["from_version"], answer["to_version"]) == (3, 1)
    assert rollback(engine, reason="none at all")["to_version"] is None
    with read(engine) as connection:
        assert current_curve(connection, inspect_database(engine)) is None
    assert rollback(engine, version=2, reason="that one")["to_version"] == 2
    assert rollback(engine, version=0, reason="and off")["to_version"] is None
    events = fetch(
        path_of(engine),
        "SELECT action, from_version, to_version, who, reason FROM nli_calibration_events"
        " ORDER BY id",
    )
    assert [event[:3] for event in events] == [
        ("fit", None, 1),
        ("fit", 1, 2),
        ("rollback", 2, 1),
        ("fit", 1, 3),
        ("rollback", 3, 1),
        ("rollback", 1, None),
        ("rollback", None, 2),
        ("rollback", 2, None),
    ]
    assert events[2][3:] == ("ann", "worse")


def test_bad_rollbacks_change_nothing(engine: Engine) -> None:
    add_reviews(engine, 60)
    evaluate(engine)
    assert refused(rollback, engine, reason=" ").code == "missing"
    error = refused(rollback, engine, reason="x", version=7)
    assert (error.code, error.expected) == ("unknown_version", "one of 0, 1 (0: no calibration)")
    assert refused(rollback, engine, reason="x", version=-1).code == "unknown_version"
    with pytest.raises(ConflictError, match="calibration 1 is current already"):
        rollback(engine, reason="x", version=1)
    rollback(engine, reason="off")
    with pytest.raises(ConflictError, match="no calibration is in use"):
        rollback(engine, reason="twice")
    assert fetch(path_of(engine), "SELECT count(*) FROM nli_calibration_events") == [(2,)]


@pytest.mark.parametrize("shape", [OLDER, NEWER])
def test_rollback_needs_our_tables(tmp_path: Path, shape: object) -> None:
    database = LyraDatabase(tmp_path / "lyra.db", shape)  # type: ignore[arg-type]
    engine = database.open()
    with pytest.raises(StorageError, match="lacks tables"):
        rollback(engine, reason="x")
    engine.dispose()
