"""Calibration evaluations on real database files of every kind."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from alembic import command
from lyra_databases import NEWER, OLDER, SHAPES, LyraDatabase, fetch, unsafe
from sqlalchemy import Engine, insert

from lyra_nli.errors import (
    AdapterInvalidError,
    ConflictError,
    FeedbackError,
    ModelError,
    StorageError,
)
from lyra_nli.evaluation.calibrators import Calibrator
from lyra_nli.feedback.calibration import (
    current_calibrator,
    evaluate,
    get_diagram_data,
    get_evaluations,
    get_history,
    get_stats,
    rollback,
)
from lyra_nli.records import Pair
from lyra_nli.storage.engine import open_database, read
from lyra_nli.storage.generation import inspect_database
from lyra_nli.storage.tables import nli_predictions, nli_reviews, nli_versions
from lyra_nli.storage.upgrade import _config, init_database, upgrade

EARLIER = "2025-12-31T10:00:00+00:00"
WAITING = "2026-01-01T10:00:00+00:00"
LATER = "2026-01-02T10:00:00+00:00"
V1 = "lora-lyra-v1"
FAST = "fast"


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    path = tmp_path / "lyra.db"
    init_database(str(path))
    engine = unsafe(open_database(str(path)))
    yield engine
    engine.dispose()


def pair_of(prefix: str, i: int) -> Pair:
    return Pair(f"Premise {prefix}{i}.", f"Claim {prefix}{i}.")


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
    pairs = [pair_of(prefix, i) for i in range(n)]
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


def add_version(engine: Engine, name: str = V1, base_model: str = FAST) -> None:
    row = {"base_fingerprint": "f", "path": name, "digest": "d", "status": "passed"}
    row |= {"samples_used": 1, "created_at": EARLIER}
    with engine.begin() as connection:
        connection.execute(insert(nli_versions), [{"name": name, "base_model": base_model, **row}])


def add_predictions(
    engine: Engine,
    n: int,
    vector: tuple[float, float, float],
    *,
    at: str = EARLIER,
    version: str = V1,
    base_model: str = FAST,
    prefix: str = "r",
) -> None:
    row = {"at": at, "base_model": base_model, "version": version, "label": "supports"}
    row |= dict(zip(("supports", "refutes", "neutral"), vector, strict=True))
    row |= {"premise_chars": 1, "hypothesis_chars": 1, "milliseconds": 1.0}
    rows = [{**row, "pair_key": pair_of(prefix, i).key} for i in range(n)]
    with engine.begin() as connection:
        connection.execute(insert(nli_predictions), rows)


def add_out_of_fold(directory: Path, n: int, vector: tuple[float, float, float]) -> Path:
    names = ("supports", "refutes", "neutral")
    folder = directory / V1
    folder.mkdir(parents=True, exist_ok=True)
    lines = [
        {"id": f"nli_reviews:nlr_r{i}", "part": "fold", "label": "supports", "loss": 0.1}
        | {"probabilities": dict(zip(names, vector, strict=True))}
        for i in range(n)
    ]
    file = folder / "out_of_fold.jsonl"
    file.write_text("".join(json.dumps(line) + "\n" for line in lines), "utf-8")
    return file


def current(engine: Engine, source: str = V1, base_model: str = FAST) -> object:
    with read(engine) as connection:
        return current_calibrator(connection, inspect_database(engine), base_model, source)


def calibrated(engine: Engine, **more: object) -> dict[str, object]:
    """Evaluate a version on 60 random reviews of an overconfident model."""
    return evaluate(engine, source=V1, **more)  # type: ignore[arg-type]


@pytest.fixture
def reviewed(engine: Engine) -> Engine:
    add_version(engine)
    add_reviews(engine, 60, sampling="random", by=V1)
    return engine


def refused(call: object, *arguments: object, **more: object) -> FeedbackError:
    with pytest.raises(FeedbackError) as caught:
        call(*arguments, **more)  # type: ignore[operator]
    return caught.value


def path_of(engine: Engine) -> Path:
    return Path(str(engine.url.database))


# --- evaluate -----------------------------------------------------------------------------


def test_an_overconfident_version_gets_a_calibration_that_is_current(reviewed: Engine) -> None:
    answer = calibrated(reviewed, who="ann")
    assert answer["accepted"]
    assert "hint" not in str(answer["message"])
    assert (answer["samples"], answer["population"]) == (60, "random")
    assert answer["brier_score"] > 0.4 > 0.25 > answer["brier_score_calibrated"]
    assert answer["improvement_ratio"] == pytest.approx(
        1 - answer["brier_score_calibrated"] / answer["brier_score"]
    )
    assert answer["expected_calibration_error"] == pytest.approx(0.43, abs=0.001)
    assert answer["expected_calibration_error_calibrated"] < 0.2
    assert answer["calibration_version"] == 1
    assert answer["method"] in ("platt", "isotonic")
    before = answer["metrics"]["before"]["ece"]
    assert before["low"] < before["value"] < before["high"]
    path = path_of(reviewed)
    assert fetch(
        path, "SELECT source, samples_evaluated, calibration_version FROM calibration_evaluations"
    ) == [(V1, 60, "1")]
    assert fetch(
        path,
        "SELECT version, base_model, source, method, samples, is_current FROM nli_calibrations",
    ) == [(1, FAST, V1, answer["method"], 60, 1)]
    assert fetch(
        path,
        "SELECT who, action, base_model, source, from_version, to_version"
        " FROM nli_calibration_events",
    ) == [("ann", "fit", FAST, V1, None, 1)]
    number, calibrator = current(reviewed)  # type: ignore[misc]
    assert number == 1
    assert isinstance(calibrator, Calibrator)
    row = np.array([[0.93, 0.04, 0.03]])
    assert calibrator.confidence(row)[0] == pytest.approx(0.5, abs=0.25)
    assert current(reviewed, base_model="slow") is None
    assert current(reviewed, source="base") is None
    json.dumps(answer)


def test_an_honest_version_is_left_as_it_is(engine: Engine) -> None:
    add_version(engine)
    add_reviews(engine, 100, honest=True, sampling="random", by=V1)
    answer = calibrated(engine)
    assert answer["method"] == "identity"
    assert "identity wins" in str(answer["message"])
    assert answer["brier_score"] == answer["brier_score_calibrated"]
    _, calibrator = current(engine)  # type: ignore[misc]
    row = np.array([[0.6, 0.3, 0.1]])
    assert (calibrator(row) == row).all()


def test_only_random_pairs_make_a_calibration(engine: Engine) -> None:
    add_version(engine)
    add_reviews(engine, 70, prefix="q", by=V1)
    add_reviews(engine, 49, sampling="random", by=V1)
    answer = calibrated(engine)
    assert (answer["samples"], answer["population"]) == (119, "all")
    assert not answer["accepted"]
    assert "there are 49: 1 more are wanted" in str(answer["message"])
    assert "only 49 of them were drawn at random" in str(answer["message"])
    assert fetch(path_of(engine), "SELECT count(*) FROM nli_calibrations") == [(0,)]
    add_reviews(engine, 1, sampling="random", prefix="last", by=V1)
    answer = calibrated(engine)
    assert (answer["samples"], answer["population"], answer["accepted"]) == (50, "random", True)
    assert "Only the 50 reviews that were drawn at random count" in str(answer["message"])


@pytest.mark.parametrize("source", ["nli", "unknown", "gpt"])
def test_what_is_served_by_nobody_is_only_measured(engine: Engine, source: str) -> None:
    add_reviews(engine, 60, sampling="random", by=None if source == "unknown" else "gpt")
    answer = evaluate(engine, source=source)
    assert answer["brier_score"] > 0.4 > answer["brier_score_calibrated"]
    assert not answer["accepted"]
    assert answer["calibration_version"] is None
    assert "no version that is served" in str(answer["message"])
    assert fetch(path_of(engine), "SELECT source FROM calibration_evaluations") == [(source,)]


def test_the_base_has_calibrations_of_its_own(reviewed: Engine) -> None:
    add_reviews(reviewed, 55, sampling="random", by="base", prefix="b")
    assert calibrated(reviewed)["calibration_version"] == 1
    answer = evaluate(reviewed, source="base", base_model=FAST)
    assert (answer["calibration_version"], answer["samples"]) == (2, 55)
    assert fetch(
        path_of(reviewed),
        "SELECT version, source FROM nli_calibrations WHERE is_current ORDER BY 1",
    ) == [(1, V1), (2, "base")]
    assert current(reviewed, source="base")[0] == 2  # type: ignore[index]
    assert not evaluate(reviewed, source="base")["accepted"]  # of which base?


def test_too_few_reviews_say_how_many_there_are_and_how_many_are_wanted(engine: Engine) -> None:
    add_reviews(engine, 12, by=V1)
    error = refused(evaluate, engine)
    assert (error.code, error.parameter) == ("too_few_reviews", "min_samples")
    assert "12 with a known confidence so far, 50 are wanted" in error.message
    assert "lora-lyra-v1 (12)" in error.hint
    assert fetch(path_of(engine), "SELECT count(*) FROM calibration_evaluations") == [(0,)]
    answer = evaluate(engine, min_samples=10)
    assert answer["samples"] == 12
    assert answer["metrics"]["before"]["ece"]["low"] is None  # too few for an interval
    assert "12 pairs in 12 groups: the figures are no more than a hint" in str(answer["message"])


@pytest.mark.parametrize("n", [0, 1])
def test_two_reviews_are_the_least_whatever_is_asked(engine: Engine, n: int) -> None:
    if n:
        add_reviews(engine, n)
    assert "2 are wanted" in refused(evaluate, engine, min_samples=0).message


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
    assert get_history(before) == {
        "calibrations": [],
        "events": [],
        "evaluation": None,
        "bins": [],
    }
    assert current(before) is None
    before.dispose()
    engine = database.open()
    with pytest.raises(StorageError, match="lacks tables"):
        evaluate(engine, min_samples=20)
    upgrade(engine, backup=False)
    answer = evaluate(engine, min_samples=20)
    assert answer["brier_score"] > 0.3
    [facts] = get_evaluations(engine)["evaluations"]
    assert facts["calibration_version"] is None
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


def test_evaluations_at_once_get_versions_of_their_own(reviewed: Engine) -> None:
    with ThreadPoolExecutor(4) as threads:
        answers = list(threads.map(lambda _: calibrated(reviewed), range(8)))
    path = path_of(reviewed)
    assert sorted(int(str(answer["calibration_version"])) for answer in answers) == [*range(1, 9)]
    assert fetch(path, "SELECT version FROM nli_calibrations WHERE is_current") == [(8,)]
    changes = fetch(path, "SELECT from_version, to_version FROM nli_calibration_events ORDER BY id")
    assert changes == [(n or None, n + 1) for n in range(8)]


# --- what a version said ------------------------------------------------------------------


def bars_of(engine: Engine, directory: Path | None = None) -> dict[float, int]:
    """Rows by the lower bound of their bar, of a new evaluation of the version."""
    evaluate(engine, source=V1, directory=directory, min_samples=2)
    return {bar["low"]: bar["n"] for bar in get_diagram_data(engine)["bins"] if bar["n"]}


def test_the_log_is_believed_before_the_folds_and_these_before_the_review(
    reviewed: Engine, tmp_path: Path
) -> None:
    assert bars_of(reviewed, tmp_path) == {0.9: 60}
    add_out_of_fold(tmp_path, 50, (0.75, 0.15, 0.1))
    assert bars_of(reviewed, tmp_path) == {0.7: 50, 0.9: 10}
    add_predictions(reviewed, 20, (0.55, 0.25, 0.2))
    assert bars_of(reviewed, tmp_path) == {0.5: 20, 0.7: 30, 0.9: 10}


def test_an_answer_counts_only_from_before_the_review_and_the_newest_of_those(
    reviewed: Engine,
) -> None:
    add_predictions(reviewed, 30, (0.45, 0.3, 0.25), at="2025-12-30 10:00:00")
    add_predictions(reviewed, 20, (0.55, 0.25, 0.2))
    add_predictions(reviewed, 10, (0.65, 0.2, 0.15), at="2025-12-30T23:00:00+00:00")  # late entry
    add_predictions(reviewed, 60, (0.35, 0.33, 0.32), at=LATER)
    add_predictions(reviewed, 60, (0.35, 0.33, 0.32), version="lora-lyra-v2")
    add_predictions(reviewed, 60, (0.35, 0.33, 0.32), base_model="slow")
    add_predictions(reviewed, 60, (0.35, 0.33, 0.32), at="yesterday")
    assert bars_of(reviewed) == {0.4: 10, 0.5: 20, 0.9: 30}


def test_whole_probabilities_let_every_method_compete(engine: Engine, tmp_path: Path) -> None:
    add_version(engine)
    add_reviews(engine, 60, sampling="random")  # nobody kept who judged
    add_out_of_fold(tmp_path, 60, (0.9, 0.06, 0.04))
    answer = calibrated(engine, directory=tmp_path)
    assert set(answer["metrics"]["trials"]) == {
        "identity",
        "temperature",
        "platt",
        "isotonic",
        "vector",
    }
    assert answer["metrics"]["before"]["brier"]["value"] == pytest.approx(
        # half: 0.1² + 0.06² + 0.04², half: 0.9² + 0.94² + 0.04²
        (0.0152 + 1.6952) / 2
    )
    assert "classwise_ece" in answer["metrics"]["after"]


def test_a_pair_that_was_drawn_at_random_stays_so_when_it_is_reviewed_again(
    reviewed: Engine,
) -> None:
    with reviewed.begin() as connection:
        connection.exec_driver_sql(
            "INSERT INTO nli_reviews (id, pair_key, premise, hypothesis, predicted_label,"
            " predicted_confidence, correct_label, reviewed_at, sampling) SELECT id || '_2',"
            " pair_key, premise, hypothesis, predicted_label, 0.1, 'neutral',"
            " '2026-02-01T00:00:00+00:00', 'queue' FROM nli_reviews WHERE id < 'nlr_r3'"
        )
    again = fetch(path_of(reviewed), "SELECT count(*) FROM nli_reviews")[0][0] - 60  # type: ignore[operator]
    assert again > 10
    answer = calibrated(reviewed)
    assert (answer["samples"], answer["population"]) == (60, "random")
    right = answer["metrics"]["before"]["accuracy"]["value"] * 60
    assert right == pytest.approx(30 - again / 2, abs=1)  # by the newest verdict


def test_pairs_of_one_page_are_one_group(reviewed: Engine) -> None:
    assert calibrated(reviewed)["metrics"]["before"]["ece"]["groups"] == 60
    with reviewed.begin() as connection:
        connection.exec_driver_sql(
            "UPDATE nli_reviews SET anchors_json = '[\"page:' || (rowid % 12) || '\"]'"
        )
    assert calibrated(reviewed)["metrics"]["before"]["ece"]["groups"] == 12
    with reviewed.begin() as connection:
        connection.exec_driver_sql("UPDATE nli_reviews SET anchors_json = '[\"page:1\"]'")
    assert calibrated(reviewed)["metrics"]["before"]["ece"]["groups"] == 60


@pytest.mark.parametrize("line", ["{", "[]", '{"id": "x"}', '{"id": "x", "probabilities": {}}'])
def test_damaged_answers_are_named(reviewed: Engine, tmp_path: Path, line: str) -> None:
    file = add_out_of_fold(tmp_path, 3, (0.9, 0.06, 0.04))
    file.write_text(f"{file.read_text('utf-8')}{line}\n", "utf-8")
    with pytest.raises(AdapterInvalidError, match="line 4"):
        calibrated(reviewed, directory=tmp_path)


def test_a_version_without_a_folder_is_judged_by_what_is_left(
    reviewed: Engine, tmp_path: Path
) -> None:
    assert calibrated(reviewed, directory=tmp_path / "none")["accepted"]


def test_a_calibration_that_can_not_be_read_is_an_error(reviewed: Engine) -> None:
    calibrated(reviewed)
    with reviewed.begin() as connection:
        connection.exec_driver_sql(
            "UPDATE nli_calibrations SET params_json = '{}', method = 'platt'"
        )
    with pytest.raises(StorageError, match="calibration 1 can't be read"):
        current(reviewed)


# --- reading ------------------------------------------------------------------------------


def test_evaluations_are_listed_newest_first(reviewed: Engine) -> None:
    calibrated(reviewed)
    evaluate(reviewed)
    calibrated(reviewed)
    listed = get_evaluations(reviewed)["evaluations"]
    assert [facts["calibration_version"] for facts in listed] == [2, None, 1]
    assert [
        facts["source"] for facts in get_evaluations(reviewed, source="nli")["evaluations"]
    ] == ["nli"]
    assert len(get_evaluations(reviewed, limit=2)["evaluations"]) == 2
    stats = get_stats(reviewed)
    assert stats["latest_evaluation"] == listed[0]
    assert stats["sources"] == {V1: 60}
    assert (stats["current"]["version"], stats["current"]["source"]) == (2, V1)
    assert stats["calibrations"] == [stats["current"]]


def test_the_diagram_has_bars_with_intervals(engine: Engine) -> None:
    add_reviews(engine, 60)
    first = evaluate(engine)["evaluation_id"]
    evaluate(engine)
    answer = get_diagram_data(engine, evaluation_id=str(first))
    assert answer["evaluation"]["evaluation_id"] == first
    assert [bar["n"] for bar in answer["bins"]] == [0] * 9 + [60]
    last = answer["bins"][-1]
    assert last["accuracy_low"] < last["accuracy"] == 0.5 < last["accuracy_high"]
    assert sum(bar["calibrated"]["n"] for bar in answer["bins"]) == 60
    assert last["calibrated"]["n"] < 60  # its confidence came down
    of_source = get_diagram_data(engine, source="nli")
    assert of_source["evaluation"]["evaluation_id"] != first
    json.dumps(answer)


def test_an_unknown_evaluation_is_refused(engine: Engine) -> None:
    assert "no evaluation yet" in refused(get_diagram_data, engine).message
    assert "no evaluation of v9 yet" in refused(get_diagram_data, engine, source="v9").message
    error = refused(get_diagram_data, engine, evaluation_id="cev_x'; DROP TABLE edges; --")
    assert (error.code, error.parameter) == ("unknown_evaluation", "evaluation_id")


# --- rollback -----------------------------------------------------------------------------


def test_rollback_goes_back_to_what_was_current_before(reviewed: Engine) -> None:
    for _ in range(2):
        calibrated(reviewed)
    assert rollback(reviewed, reason="worse", who="ann")["to_version"] == 1
    calibrated(reviewed)  # version 3, fitted while 1 was current
    answer = rollback(reviewed, reason="worse again", who="ann")
    assert (answer["from_version"], answer["to_version"]) == (3, 1)
    assert (answer["base_model"], answer["source"]) == (FAST, V1)
    assert rollback(reviewed, reason="none at all")["to_version"] is None
    assert current(reviewed) is None
    assert rollback(reviewed, version=2, reason="that one")["to_version"] == 2
    assert rollback(reviewed, version=0, reason="and off")["to_version"] is None
    events = fetch(
        path_of(reviewed),
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
    history = get_history(reviewed, source=V1)
    assert [each["version"] for each in history["calibrations"]] == [3, 2, 1]
    assert len(history["events"]) == 8
    assert len(history["bins"]) == 10
    assert get_history(reviewed, source=V1, base_model="slow")["calibrations"] == []


def test_a_rollback_of_one_version_leaves_the_others_alone(reviewed: Engine) -> None:
    add_reviews(reviewed, 55, sampling="random", by="base", prefix="b")
    for source in (V1, "base", V1, "base"):  # calibrations 1 to 4
        evaluate(reviewed, source=source, base_model=FAST)
    answer = rollback(reviewed, reason="worse", source=V1)
    assert (answer["from_version"], answer["to_version"]) == (3, 1)
    assert current(reviewed, source="base")[0] == 4  # type: ignore[index]
    answer = rollback(reviewed, reason="that one", version=2)  # it names its own version
    assert (answer["source"], answer["from_version"], answer["to_version"]) == ("base", 4, 2)
    assert current(reviewed)[0] == 1  # type: ignore[index]
    error = refused(rollback, reviewed, reason="x", version=2, source=V1)
    assert (error.code, error.expected) == ("unknown_version", "one of 0, 1, 3 (0: no calibration)")


def test_bad_rollbacks_change_nothing(reviewed: Engine) -> None:
    with pytest.raises(ConflictError, match="none ever was"):
        rollback(reviewed, reason="x")
    assert refused(rollback, reviewed, reason="x", version=7).code == "unknown_version"
    calibrated(reviewed)
    assert refused(rollback, reviewed, reason=" ").code == "missing"
    error = refused(rollback, reviewed, reason="x", version=7)
    assert (error.code, error.expected) == ("unknown_version", "one of 0, 1 (0: no calibration)")
    assert refused(rollback, reviewed, reason="x", version=-1).code == "unknown_version"
    with pytest.raises(ConflictError, match="calibration 1 is current already"):
        rollback(reviewed, reason="x", version=1)
    rollback(reviewed, reason="off")
    with pytest.raises(ConflictError, match="no calibration is in use"):
        rollback(reviewed, reason="twice")
    assert fetch(path_of(reviewed), "SELECT count(*) FROM nli_calibration_events") == [(2,)]


def test_a_calibration_of_the_older_schema_is_listed_and_can_be_rolled_back(
    reviewed: Engine,
) -> None:
    with reviewed.begin() as connection:
        connection.exec_driver_sql(
            "INSERT INTO nli_calibrations (id, version, method, params_json, samples, created_at,"
            " is_current) VALUES ('c', 1, 'platt', "
            '\'{"slope": 0.5, "intercept": 0.0, "source": "nli"}\', 60, ?, 1)',
            (EARLIER,),
        )
        connection.exec_driver_sql(
            "INSERT INTO nli_calibration_events (at, who, action, to_version)"
            " VALUES (?, 'ann', 'fit', 1)",
            (EARLIER,),
        )
    assert current(reviewed) is None  # it is of no version that is served
    [facts] = get_stats(reviewed)["calibrations"]
    assert (facts["source"], facts["base_model"], facts["slope"]) == ("nli", "", 0.5)
    answer = rollback(reviewed, reason="mixed versions")
    assert (answer["from_version"], answer["to_version"]) == (1, None)


def test_a_database_of_the_older_schema_is_read_as_it_is(reviewed: Engine) -> None:
    with reviewed.begin() as connection:
        for sql in (
            "ALTER TABLE nli_calibrations DROP COLUMN base_model",
            "ALTER TABLE nli_calibrations DROP COLUMN source",
            "ALTER TABLE nli_calibrations DROP COLUMN metrics_json",
            "ALTER TABLE nli_calibration_events DROP COLUMN base_model",
            "ALTER TABLE nli_calibration_events DROP COLUMN source",
            "DROP TABLE nli_predictions",
            "INSERT INTO nli_calibrations (id, version, method, params_json, samples, created_at,"
            " is_current) VALUES ('c', 1, 'platt',"
            ' \'{"slope": 0.5, "intercept": 0.0, "source": "v1"}\', 60, \'2026\', 1)',
        ):
            connection.exec_driver_sql(sql)
    assert current(reviewed) is None
    stats = get_stats(reviewed)
    assert (stats["samples"], stats["current"]["source"]) == (60, "v1")
    history = get_history(reviewed, source="v1")
    assert ([each["version"] for each in history["calibrations"]], history["events"]) == ([1], [])
    with pytest.raises(StorageError, match="lacks tables"):
        calibrated(reviewed)


def test_without_scikit_learn_the_error_says_what_to_install(
    reviewed: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "sklearn.linear_model", None)
    with pytest.raises(ModelError, match="scikit-learn") as caught:
        calibrated(reviewed)
    assert "pip install" in caught.value.hint


@pytest.mark.parametrize("shape", [OLDER, NEWER])
def test_rollback_needs_our_tables(tmp_path: Path, shape: object) -> None:
    database = LyraDatabase(tmp_path / "lyra.db", shape)  # type: ignore[arg-type]
    engine = database.open()
    with pytest.raises(StorageError, match="lacks tables"):
        rollback(engine, reason="x")
    engine.dispose()


# --- two bases, damaged rows --------------------------------------------------------------


@pytest.fixture
def two_bases(engine: Engine) -> Engine:
    """Both have a source `base`; what changed last is the slow one's."""
    add_reviews(engine, 60, sampling="random", by="base")
    for base in (FAST, "slow"):
        assert evaluate(engine, source="base", base_model=base)["accepted"]
    return engine


def test_a_rollback_of_a_base_is_of_that_one_whichever_changed_last(two_bases: Engine) -> None:
    answer = rollback(two_bases, reason="x", source="base", base_model=FAST)
    assert (answer["base_model"], answer["from_version"]) == (FAST, 1)
    assert current(two_bases, "base") is None
    assert current(two_bases, "base", "slow")[0] == 2  # type: ignore[index]
    error = refused(rollback, two_bases, reason="x", version=2, base_model=FAST)
    assert error.expected == "one of 0, 1 (0: no calibration)"
    assert rollback(two_bases, reason="x", base_model="slow", version=0)["from_version"] == 2
    assert rollback(two_bases, reason="x", source="base", version=2)["base_model"] == "slow"


def test_the_history_of_a_base_has_no_events_or_bars_of_another(two_bases: Engine) -> None:
    rollback(two_bases, reason="x", source="base", base_model="slow")
    history = get_history(two_bases, source="base", base_model=FAST)
    assert [event["base_model"] for event in history["events"]] == [FAST]
    assert history["evaluation"]["calibration_version"] == 1
    assert len(history["bins"]) == 10
    assert get_history(two_bases, source="base", base_model="third")["bins"] == []
    assert get_history(two_bases, source="base")["evaluation"]["calibration_version"] == 2


def test_of_two_current_calibrations_the_newest_counts(reviewed: Engine) -> None:
    calibrated(reviewed), calibrated(reviewed)
    with reviewed.begin() as connection:
        connection.exec_driver_sql("UPDATE nli_calibrations SET is_current = 1")
    assert current(reviewed)[0] == 2  # type: ignore[index]
    assert rollback(reviewed, reason="x")["from_version"] == 2


def test_only_the_first_review_of_a_pair_tells_what_a_version_said(engine: Engine) -> None:
    """The second version may have learned what people said of the first one's judgement."""
    add_version(engine, "lora-lyra-v2")
    add_reviews(engine, 5, by=V1)
    with engine.begin() as connection:
        connection.exec_driver_sql(
            "INSERT INTO nli_reviews (id, pair_key, premise, hypothesis, predicted_label,"
            " predicted_confidence, predicted_by, correct_label, reviewed_at) SELECT id || '_2',"
            " pair_key, premise, hypothesis, predicted_label, 0.7, 'lora-lyra-v2', correct_label,"
            " '2026-02-01T00:00:00+00:00' FROM nli_reviews"
        )
    add_reviews(engine, 3, by="lora-lyra-v2", prefix="new")
    assert evaluate(engine, source="lora-lyra-v2", min_samples=2)["samples"] == 3


def test_pairs_that_are_all_tied_come_with_a_caution(reviewed: Engine) -> None:
    assert "tie" not in str(calibrated(reviewed)["message"])
    with reviewed.begin() as connection:
        connection.exec_driver_sql(
            "UPDATE nli_reviews SET anchors_json = '[\"page:' || (rowid % 9) || '\"]'"
        )
    words = str(calibrated(reviewed)["message"])
    assert "tie these 60 pairs into 9 groups only" in words
    assert "too narrow" in words


@pytest.mark.parametrize("column", ["params_json", "metrics_json"])
@pytest.mark.parametrize("torn", ['{"slope": 0.', "[]"])
def test_a_torn_row_is_named(reviewed: Engine, column: str, torn: str) -> None:
    calibrated(reviewed)
    with reviewed.begin() as connection:
        connection.exec_driver_sql(f"UPDATE nli_calibrations SET {column} = ?", (torn,))
    for read_them in (get_history, get_stats):
        with pytest.raises(StorageError, match=f"calibration 1 can't be read: {column}"):
            read_them(reviewed)
    if column == "params_json":
        with pytest.raises(StorageError, match="calibration 1 can't be read"):
            current(reviewed)


def test_older_calibrations_get_the_source_that_their_parameters_name(tmp_path: Path) -> None:
    engine = unsafe(open_database(str(tmp_path / "lyra.db"), create=True))
    kept = ['{"slope": 0.5, "source": "v1"}', '{"slope": 0.5}', "[]", "{"]
    with engine.begin() as connection:
        config = _config()
        config.attributes["connection"] = connection
        command.upgrade(config, "0002")
        for number, params in enumerate(kept, 1):
            connection.exec_driver_sql(
                "INSERT INTO nli_calibrations (id, version, method, params_json, samples,"
                " created_at, is_current) VALUES (?, ?, 'platt', ?, 60, '2026', 0)",
                (f"c{number}", number, params),
            )
            connection.exec_driver_sql(
                "INSERT INTO nli_calibration_events (at, who, action, to_version)"
                " VALUES ('2026', 'ann', 'fit', ?)",
                (number,),
            )
        command.upgrade(config, "0003")
    path = tmp_path / "lyra.db"
    sources = [("v1",), ("nli",), ("nli",), ("nli",)]
    assert fetch(path, "SELECT source FROM nli_calibrations ORDER BY version") == sources
    assert fetch(path, "SELECT source FROM nli_calibration_events ORDER BY id") == sources
    engine.dispose()
