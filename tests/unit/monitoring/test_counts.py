from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest
from lyra_databases import LyraDatabase, unsafe
from sqlalchemy import Engine

from lyra_nli.monitoring import counts
from lyra_nli.monitoring.counts import (
    Count,
    Key,
    add_counts,
    confidence_bucket,
    count_rows,
    count_table,
    log2_bucket,
)
from lyra_nli.storage.engine import open_database, read, write
from lyra_nli.storage.generation import inspect_database
from lyra_nli.storage.upgrade import init_database


@pytest.fixture
def engine(tmp_path: Path) -> Engine:
    init_database(str(tmp_path / "lyra.db"))
    return unsafe(open_database(str(tmp_path / "lyra.db")))


def row(**changes: Any) -> dict[str, Any]:
    return {
        "at": "2026-03-01T23:59:59.9+00:00",
        "base_model": "b",
        "version": "base",
        "label": "refutes",
        "supports": 0.2,
        "refutes": 0.7,
        "neutral": 0.1,
        "calibrated": None,
        "premise_chars": 90,
        "hypothesis_chars": 38,
        "milliseconds": 0.4,
        "domain": None,
        **changes,
    }


def key(kind: counts.Kind, bucket: str, day: str = "2026-03-01", version: str = "base") -> Key:
    return Key(day, "b", version, kind, bucket)


def table(engine: Engine, since: str = "0", until: str = "9", **chosen: Any) -> list[Count]:
    generation = inspect_database(engine)
    with read(engine) as connection:
        return count_table(connection, generation, since, until, **chosen)


@pytest.mark.parametrize(
    ("confidence", "bucket"),
    [
        (0.0, "0.00"),
        (0.0499, "0.00"),
        (0.7, "0.70"),
        (0.9499, "0.90"),
        (0.95, "0.95"),
        (1.0, "0.95"),
        (1.0000001, "0.95"),
    ],
)
def test_a_confidence_falls_into_one_of_twenty_bins(confidence: float, bucket: str) -> None:
    assert confidence_bucket(confidence) == bucket


def test_every_lower_edge_falls_into_its_own_bin() -> None:
    edges = [f"{i / 20:.2f}" for i in range(20)]
    assert [confidence_bucket(float(edge)) for edge in edges] == edges


@pytest.mark.parametrize(
    ("value", "bucket"),
    [
        (0, "0"),
        (0.99, "0"),
        (1, "1"),
        (1.99, "1"),
        (3, "2"),
        (4, "4"),
        (127, "64"),
        (128, "128"),
        (2_000_000, "1048576"),
    ],
)
def test_lengths_and_latencies_fall_down_to_powers_of_two(value: float, bucket: str) -> None:
    assert log2_bucket(value) == bucket


def test_an_answer_is_counted_once_of_each_kind() -> None:
    assert count_rows([row()]) == {
        key("label", "refutes"): 1,
        key("confidence", "0.70"): 1,
        key("length", "128"): 1,
        key("latency", "0"): 1,
    }
    more = row(calibrated=0.55, domain="example.org", milliseconds=17.0)
    found = count_rows([row(), more])
    assert found[key("label", "refutes")] == 2
    assert found[key("calibrated", "0.55")] == 1
    assert found[key("domain", "example.org")] == 1
    assert found[key("latency", "16")] == 1


def test_days_and_versions_are_counted_apart() -> None:
    rows = [row(), row(at="2026-03-02T00:00:00+00:00"), row(version="lora-lyra-v1")]
    labels = {name: n for name, n in count_rows(rows).items() if name.kind == "label"}
    assert labels == {
        key("label", "refutes"): 1,
        key("label", "refutes", day="2026-03-02"): 1,
        key("label", "refutes", version="lora-lyra-v1"): 1,
    }


def test_counts_add_up(engine: Engine) -> None:
    for n in (1, 4):
        with write(engine) as connection:
            add_counts(connection, {key("label", "refutes"): n, key("length", "64"): 1})
    with write(engine) as connection:
        add_counts(connection, {})

    assert table(engine) == [
        Count("2026-03-01", "b", "base", "label", "refutes", 5),
        Count("2026-03-01", "b", "base", "length", "64", 2),
    ]


def test_reading_chooses_days_base_and_kind(engine: Engine) -> None:
    with write(engine) as connection:
        for day in ("2026-03-03", "2026-03-01", "2026-03-02"):
            add_counts(connection, {key("label", "refutes", day=day): 1})
            add_counts(connection, {key("length", "64", day=day): 1})
        add_counts(connection, {Key("2026-03-02", "other", "base", "label", "refutes"): 7})

    days = [each.day for each in table(engine, "2026-03-01", "2026-03-02", kind="length")]
    assert days == ["2026-03-01", "2026-03-02"]
    assert [each.n for each in table(engine, base_model="other")] == [7]
    assert len(table(engine)) == 7
    assert table(engine, "2026-04-01", "2026-04-30") == []


def test_only_so_many_domains_are_counted_by_name(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(counts, "MAX_DOMAINS", 2)
    for sites in (["a.org", "b.org", "c.org"], ["d.org", "a.org"]):
        with write(engine) as connection:
            add_counts(connection, {key("domain", site): 1 for site in sites})
    with write(engine) as connection:  # every day begins anew
        add_counts(connection, {key("domain", "d.org", day="2026-03-02"): 1})

    assert {(each.day, each.bucket): each.n for each in table(engine)} == {
        ("2026-03-01", "a.org"): 2,
        ("2026-03-01", "b.org"): 1,
        ("2026-03-01", "(other)"): 2,
        ("2026-03-02", "d.org"): 1,
    }


def test_writers_at_once_lose_no_count(engine: Engine) -> None:
    def add() -> None:
        for _ in range(20):
            with write(engine) as connection:
                add_counts(connection, {key("label", "refutes"): 1, key("length", "1"): 1})

    threads = [threading.Thread(target=add) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {each.n for each in table(engine)} == {80}


def test_a_database_that_was_never_upgraded_has_no_counts(tmp_path: Path) -> None:
    assert table(LyraDatabase(tmp_path / "old.db").open()) == []
