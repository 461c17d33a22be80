"""Looks: who was judged on mostly the same rows, also those that were removed since."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import pytest
from tiny_versions import BASE, OUTCOME, new_manifest, write_adapter

from lyra_nli.records import Pair
from lyra_nli.registry.artifact import staged
from lyra_nli.registry.looks import Rows, count_looks
from lyra_nli.registry.versions import Registry
from lyra_nli.storage.engine import open_database, read
from lyra_nli.storage.upgrade import init_database


def rows(*span: int) -> Rows:
    return Rows.of(Pair(f"premise {n}", "claim") for n in range(*span))


@pytest.fixture
def registry(tmp_path: Path):
    init_database(str(tmp_path / "lyra.db"))
    engine = open_database(str(tmp_path / "lyra.db"))
    yield Registry(engine, tmp_path / "adapters")
    engine.dispose()


def publish(registry: Registry, judged_on: Rows | None, **changes: object) -> str:
    """A version that was judged on these rows; None: by a release that did not say."""
    metrics = {"evidence": {"kind": "holdout", **asdict(judged_on)}} if judged_on else {}
    with staged(registry.directory) as staging:
        write_adapter(staging)
        manifest = new_manifest(metrics=metrics, **changes)
        return registry.publish(manifest, staging, **(OUTCOME | {"metrics": metrics})).name


def looks(registry: Registry, at: Rows, before: str | None = None) -> int:
    with read(registry.engine) as connection:
        return count_looks(connection, BASE, at, before)


def test_small_samples_are_compared_exactly() -> None:
    assert rows(100).shared_with(rows(100)) == 1
    assert rows(100).shared_with(rows(25, 225)) == 0.75
    assert rows(100).shared_with(rows(100, 200)) == 0
    assert rows(50).shared_with(rows(200)) == 1
    assert rows(200).shared_with(rows(50)) == 0.25


@pytest.mark.parametrize(
    ("other", "share"), [((8000,), 1), ((2000, 6000), 0.5), ((100, 7000), 0.975)]
)
def test_large_ones_by_their_sketches(other: tuple[int, ...], share: float) -> None:
    mine = rows(4000)
    assert (mine.count, len(mine.least)) == (4000, 256)
    assert mine.shared_with(rows(*other)) == pytest.approx(share, abs=0.1)


def test_the_same_pair_reviewed_anew_is_the_same_row() -> None:
    assert Rows.of([Pair("A  b", "C")]) == Rows.of([Pair("a b", "c"), Pair("a B", "c")])


def test_every_earlier_look_counts_also_of_removed_versions(registry: Registry) -> None:
    assert looks(registry, rows(100)) == 1
    name = publish(registry, rows(100))
    assert looks(registry, rows(100)) == 2
    publish(registry, rows(60))
    publish(registry, rows(70, 170))
    publish(registry, None)
    assert looks(registry, rows(100)) == 3  # of 70 to 170 it shares 30
    registry.remove(name, who="ann")
    assert looks(registry, rows(100)) == 3


def test_another_base_and_later_candidates_do_not_count(registry: Registry) -> None:
    publish(registry, rows(100), base_model="another")
    publish(registry, rows(100), created_at="2026-03-01T00:00:00+00:00")
    assert looks(registry, rows(100)) == 2
    assert looks(registry, rows(100), before="2026-02-01T00:00:00+00:00") == 1


def test_half_is_not_mostly(registry: Registry) -> None:
    publish(registry, rows(100))
    assert looks(registry, rows(200)) == 1
    assert looks(registry, rows(199)) == 2
