"""Trials on a real PostgreSQL server, where two servers write what their shadows say."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from secrets import token_hex

import pytest
from postgres_server import postgres_url
from sqlalchemy import create_engine, insert, select, text
from sqlalchemy.engine import Engine, make_url

from lyra_nli.errors import AdapterError
from lyra_nli.monitoring.shadow_edges import edges_of
from lyra_nli.monitoring.shadow_log import ShadowLog
from lyra_nli.monitoring.shadow_report import agreement, disagreements
from lyra_nli.monitoring.shadow_rows import JudgedTwice
from lyra_nli.records import Judgement, Pair
from lyra_nli.registry import trials as module
from lyra_nli.registry.trials import Trial, Trials
from lyra_nli.registry.versions import Registry
from lyra_nli.settings import MonitoringSettings, StorageSettings
from lyra_nli.storage import tables
from lyra_nli.storage.engine import now, open_database, read, write
from lyra_nli.storage.generation import inspect_database
from lyra_nli.storage.upgrade import init_database

pytestmark = pytest.mark.integration

V2 = "lora-lyra-v2"


@pytest.fixture
def location() -> Iterator[str]:
    with postgres_url() as server:
        name = f"test_{token_hex(6)}"
        admin = create_engine(server, isolation_level="AUTOCOMMIT")
        with admin.connect() as connection:
            connection.execute(text(f"CREATE DATABASE {name}"))
        location = make_url(server).set(database=name).render_as_string(hide_password=False)
        try:
            init_database(location)
            yield location
        finally:
            with admin.connect() as connection:
                connection.execute(text(f"DROP DATABASE {name} WITH (FORCE)"))
            admin.dispose()


def fill(engine: Engine) -> None:
    """A version, and an unreviewed edge."""
    with write(engine) as connection:
        connection.execute(
            insert(tables.nli_versions).values(
                name=V2, base_model="b", base_fingerprint="f", path=V2, digest="d",
                status="passed", samples_used=1, created_at=now(),
            )
        )  # fmt: skip
        connection.execute(insert(tables.pages).values(id="p", url="u", domain="d"))
        connection.execute(
            insert(tables.fragments).values(id="f", page_id="p", text_content="Premise 1.")
        )
        connection.execute(insert(tables.claims).values(id="c", claim_text="Claim."))
        connection.execute(
            insert(tables.edges).values(
                id="e", source_type="fragment", source_id="f", target_type="claim",
                target_id="c", relation="supports",
            )
        )  # fmt: skip


def said(adapter: str, label: str) -> Judgement:
    chances = {"supports": 0.1, "refutes": 0.1, "neutral": 0.1, label: 0.8}
    return Judgement(label, 0.8, chances, label, False, adapter)  # type: ignore[arg-type]


def test_one_trial_starts_and_two_servers_write_what_it_says(
    location: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = open_database(location)
    fill(engine)
    monkeypatch.setattr(module, "verified", lambda version: version)
    trials = Trials(Registry(engine, Path("adapters")))

    def start(_: int) -> Trial | None:
        try:
            return trials.start("shadow", V2, share=0.5, who="ada")
        except AdapterError:
            return None

    with ThreadPoolExecutor(4) as pool:
        [trial] = filter(None, pool.map(start, range(8)))
    assert trials.open("b") == [trial]

    settings = StorageSettings(database_path=location)
    logs = [ShadowLog(settings, MonitoringSettings(keep_disagreements=30)) for _ in range(2)]
    for log in logs:
        for n in range(50):
            pair = Pair(f"Premise {n}.", "Claim.")
            one, other = said("base", "supports"), said(V2, "refutes" if n < 40 else "supports")
            name = "e" if n == 1 else ""
            log.put(JudgedTwice(now(), trial, pair, one, other, name, ""))
    for log in logs:
        log.close()
        assert log.problem == ""

    generation = inspect_database(engine)
    with read(engine) as connection:
        found = agreement(connection, generation, trial)
        kept = list(disagreements(connection, generation, trial))
        queue = connection.execute(select(tables.nli_queue_scores)).all()
        edges = edges_of(connection, [Pair("Premise 1.", "Claim.")])
    assert (found.disagreed.k, found.disagreed.n, found.ones) == (80, 100, ["base"])
    assert 0 < len(kept) <= 30
    assert [(row.kind, row.edge_id, row.source) for row in queue] == [("disagree", "e", "shadow")]
    assert edges == {Pair("Premise 1.", "Claim."): "e"}

    ended = trials.end("shadow", "b", who="ada", reason="enough")
    assert trials.last("shadow", "b") == ended
    assert [e.action for e in trials.registry.events("b")] == ["shadow_start", "shadow_end"]
    engine.dispose()
