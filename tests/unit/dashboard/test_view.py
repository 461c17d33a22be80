"""Whatever the database is, every page answers, and says what is not there."""

from __future__ import annotations

import json
import sqlite3
import threading
from collections.abc import Callable
from contextlib import closing
from functools import partial
from pathlib import Path

import pytest
from dashboard_world import History, ago
from lyra_databases import NEWER, OLDER, PROPOSAL, LyraDatabase

from lyra_nli.dashboard import calibration, comparing, data, overview, quality, shadow, versions
from lyra_nli.dashboard.memory import WORKERS
from lyra_nli.dashboard.view import Fields, View

PAGES: dict[str, Callable[[View], Fields]] = {
    "overview": overview.overview,
    "versions": versions.versions,
    "quality": quality.quality,
    "calibration": partial(calibration.calibration, version="active"),
    "data": data.data,
    "shadow": shadow.shadow,
    "compare": partial(comparing.compare, one="base", other="base"),
}


@pytest.fixture(params=list(PAGES.values()), ids=list(PAGES))
def page(request: pytest.FixtureRequest) -> Callable[[View], Fields]:
    chosen: Callable[[View], Fields] = request.param
    return chosen


@pytest.fixture
def history(tmp_path: Path) -> History:
    return History(tmp_path)


def whole(answer: Fields) -> Fields:
    """The envelope is there, and all of it is JSON that a browser can read."""
    assert answer["ok"] is True
    assert answer["base_model"] == "starter"
    said: Fields = json.loads(json.dumps(answer, allow_nan=False))
    return said


def test_there_is_no_database(history: History, page: Callable[[View], Fields]) -> None:
    missing = " ".join(whole(history.show(page))["missing"])
    assert "There is no database" in missing
    assert "lyra-nli db init" in missing


def test_the_database_is_empty(history: History, page: Callable[[View], Fields]) -> None:
    history.init()
    answer = whole(history.show(page))
    assert all("lyra-nli calibrate" in each or "No review" in each for each in answer["missing"])


def test_it_is_no_database(history: History, page: Callable[[View], Fields]) -> None:
    history.database.write_text("these are not the rows you are looking for")
    assert "is not a SQLite database" in whole(history.show(page))["missing"][0]


def test_it_is_somebody_elses(history: History, page: Callable[[View], Fields]) -> None:
    history.run("CREATE TABLE birds (name TEXT)")
    assert "no Lyra database" in whole(history.show(page))["missing"][0]


@pytest.mark.parametrize("shape", [OLDER, NEWER, PROPOSAL], ids=["older", "newer", "proposal"])
def test_lyras_own_was_never_upgraded(
    history: History, page: Callable[[View], Fields], shape: object
) -> None:
    database = LyraDatabase(history.database, shape)  # type: ignore[arg-type]
    database.add_edge("e0", "supports", 0.5)
    answer = whole(history.show(page))
    assert "lyra-nli db upgrade" in answer["missing"][0]


def test_it_stopped_at_the_version_before(history: History, page: Callable[[View], Fields]) -> None:
    history.init()
    history.review("a", "supports", "neutral", version="base")
    for table in ("nli_predictions", "nli_prediction_counts", "nli_comparisons", "nli_alerts"):
        history.run(f"DROP TABLE {table}")
    for table in ("nli_calibrations", "nli_calibration_events"):
        history.run(f"ALTER TABLE {table} DROP COLUMN base_model")
        history.run(f"ALTER TABLE {table} DROP COLUMN source")
    answer = whole(history.show(page))
    assert "lyra-nli db upgrade" in answer["missing"][0]
    assert not any("can't be shown" in sentence for sentence in answer["missing"])


def test_its_pages_are_damaged(history: History, page: Callable[[View], Fields]) -> None:
    history.init()
    history.run(
        """INSERT INTO nli_reviews (id, pair_key, premise, hypothesis, predicted_label,
        correct_label, sampling, reviewed_at) WITH RECURSIVE num (n) AS (VALUES (1) UNION ALL
        SELECT n + 1 FROM num WHERE n < 400) SELECT n, n, hex(zeroblob(500)), 'h', 'supports',
        'neutral', 'random', '2026-01-01T00:00:00+00:00' FROM num"""
    )
    with closing(sqlite3.connect(history.database)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    content = bytearray(history.database.read_bytes())
    size = int.from_bytes(content[16:18], "big")
    for start in range(40 * size, len(content), size):
        content[start : start + size] = b"\xff" * size
    history.database.write_bytes(content)
    missing = whole(history.show(page))["missing"]
    assert any("go back to a backup" in sentence for sentence in missing), missing


def test_rows_hold_what_no_one_would_write(
    history: History, page: Callable[[View], Fields]
) -> None:
    history.init()
    version = history.publish()
    history.activate(version.name, days=3)
    history.review("a", "supports", "neutral", version=version.name)
    history.review("b", "supports", "neutral", version=version.name, reviewed_at="yesterday")
    history.review("c", "supports", "neutral", reviewed_at=ago(-400))
    history.review("d", "supports", "neutral", reviewed_at="2026-02-30T10:00:00")
    history.answers(10, version=version.name, days=-40)
    history.add(
        "nli_prediction_counts",
        day="someday",
        base_model="starter",
        version="base",
        kind="label",
        bucket="supports",
        n="many",
    )
    history.run("UPDATE nli_evaluations SET metrics_json = '{\"verdict\": 3}'")
    history.run("UPDATE nli_version_events SET at = 'once'")
    history.add("nli_queue_scores", kind="suspect", edge_id="gone", score=1, detail_json="{", at="")
    history.add(
        "nli_comparisons",
        id="c",
        at="",
        kind="compare",
        base_model="starter",
        one="a",
        other="b",
        compared=10,
        disagreed=3,
        details_json="[1",
    )
    whole(history.show(page))


def test_only_the_broken_part_is_missing(history: History) -> None:
    history.init()
    history.publish()
    history.review("a", "supports", "neutral", version="lora-lyra-v1")
    history.run("UPDATE nli_evaluations SET metrics_json = '{'")
    answer = history.show(quality.quality)
    assert answer["confusion"][0]["n"] == 1
    answer = history.show(versions.versions)
    assert answer["versions"] == []
    assert "The list of versions can't be shown" in answer["missing"][0]


def test_a_new_review_is_seen_and_so_is_one_taken_back(history: History) -> None:
    history.init()
    history.review("a", "supports", "neutral", version="base")
    assert history.show(quality.quality)["confusion"][0]["n"] == 1
    history.review("b", "supports", "supports", version="base")
    assert history.show(quality.quality)["confusion"][0]["n"] == 2
    history.run("UPDATE nli_reviews SET undone_at = ? WHERE id = 'nlr_a'", ago(0))
    assert history.show(quality.quality)["confusion"][0]["n"] == 1


def test_who_does_not_wait_is_told_that_figures_are_old(history: History) -> None:
    history.init()
    history.log("pair_a", version="base")
    history.log("pair_b", version="base")
    history.review("a", "supports", "neutral", version="base")
    fresh = history.show(quality.quality)
    assert (fresh["stale"], fresh["confusion"][0]["n"]) == (False, 1)
    assert fresh["versions"][0]["brier"]["n"] == 1
    history.review("b", "supports", "supports", version="base")
    go = threading.Event()
    for name in range(WORKERS):  # others keep all threads busy, for as long as they like
        history.memory.recall(name, 1, lambda: None, 60)
        history.memory.recall(name, 2, go.wait, 0)
    before = history.show(quality.quality, patience=0)
    assert (before["stale"], before["confusion"][0]["n"]) == (True, 1)
    assert "look again in a moment" in before["notes"][-1]
    go.set()
    after = history.show(quality.quality)
    assert (after["stale"], after["confusion"][0]["n"]) == (False, 2)
    assert after["versions"][0]["brier"]["n"] == 2
