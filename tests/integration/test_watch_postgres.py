"""The watch on a real PostgreSQL server, where two of them really write at once."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import date
from pathlib import Path
from secrets import token_hex

import pytest
from postgres_server import postgres_url
from sqlalchemy import create_engine, text
from sqlalchemy.engine import make_url
from watched_world import WatchedWorld, day

from lyra_nli.monitoring.overview import overview
from lyra_nli.monitoring.rates import read_random_reviews
from lyra_nli.monitoring.report import read_report
from lyra_nli.monitoring.watch import check

pytestmark = pytest.mark.integration

TODAY = date.fromisoformat(day(40))


@pytest.fixture
def world(tmp_path: Path) -> Iterator[WatchedWorld]:
    with postgres_url() as server:
        name = f"test_{token_hex(6)}"
        admin = create_engine(server, isolation_level="AUTOCOMMIT")
        with admin.connect() as connection:
            connection.execute(text(f"CREATE DATABASE {name}"))
        location = make_url(server).set(database=name).render_as_string(hide_password=False)
        world = WatchedWorld(tmp_path, location)
        yield world
        world.workspace.engine.dispose()
        with admin.connect() as connection:
            connection.execute(text(f"DROP DATABASE {name} WITH (FORCE)"))
        admin.dispose()


def test_the_watch(world: WatchedWorld) -> None:
    world.answer(1, "lora-lyra-v1", 0.7, 0.2, 0.1, pair="p")
    world.review(2, None, pair_key="p", correct="refutes")
    [review] = world.ask(read_random_reviews, TODAY)
    assert review.version == "lora-lyra-v1"
    assert review.brier == pytest.approx(1.14)
    assert review.confidence == 0.7

    world.reviews(10, "lora-lyra-v1", 100, 5)
    world.event(20, "lora-lyra-v1", None, action="deactivate")
    world.reviews(25, "base", 100, 30)
    world.count(38, "base", "label", supports=100, refutes=100)
    world.count(20, "base", "label", supports=400)
    with ThreadPoolExecutor(4) as threads:
        checks = list(threads.map(lambda _: check(world.workspace, TODAY), range(4)))
    raised = [alert.rule for checked in checks for alert in checked.raised]
    assert sorted(raised) == ["correction_rate", "drift_label"]
    found = overview(world.workspace, today=TODAY)
    assert {alert.rule for alert in found.alerts} == set(raised)
    assert found.serving.version == "base"
    assert found.queue is not None
    assert found.missing == []
    assert len(read_report(world.workspace, today=TODAY).weeks) == 3
