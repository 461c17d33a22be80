"""The log of predictions on a real PostgreSQL server, where two servers write at once."""

from __future__ import annotations

from secrets import token_hex

import pytest
from postgres_server import postgres_url
from sqlalchemy import create_engine, text
from sqlalchemy.engine import make_url

from lyra_nli.monitoring.counts import count_table
from lyra_nli.monitoring.prediction_rows import Judged, recent
from lyra_nli.monitoring.predictions import PredictionLog
from lyra_nli.records import Judgement, Pair
from lyra_nli.settings import MonitoringSettings, StorageSettings
from lyra_nli.storage.engine import open_database, read
from lyra_nli.storage.generation import inspect_database
from lyra_nli.storage.upgrade import init_database

pytestmark = pytest.mark.integration

DAY = "2026-03-01"
LIKELY = Judgement(
    "supports", 0.9, {"supports": 0.9, "refutes": 0.05, "neutral": 0.05}, "e", False, "base"
)


def test_two_servers_log_to_one_database_and_lose_nothing() -> None:
    with postgres_url() as server:
        name = f"test_{token_hex(6)}"
        admin = create_engine(server, isolation_level="AUTOCOMMIT")
        with admin.connect() as connection:
            connection.execute(text(f"CREATE DATABASE {name}"))
        location = make_url(server).set(database=name).render_as_string(hide_password=False)
        try:
            init_database(location)
            settings = MonitoringSettings(keep_predictions=500, log_texts=True)
            logs = [
                PredictionLog(StorageSettings(database_path=location), settings) for _ in range(2)
            ]
            pairs = [Pair(f"Premise\0 {i}.", "Claim.") for i in range(100)]
            for log in logs:
                for _ in range(20):
                    log.put(Judged(f"{DAY}T10:00:00", "b", pairs, [LIKELY] * 100, 3.0, ()))
                log.start()
            for log in logs:
                log.close()
            assert [(log.status().written, log.status().dropped) for log in logs] == [(2000, 0)] * 2
            engine = open_database(location)
            generation = inspect_database(engine)
            with read(engine) as connection:
                counts = count_table(connection, generation, DAY, DAY, "b", "label")
                newest = recent(connection, generation, limit=1000)
            assert [(count.bucket, count.n) for count in counts] == [("supports", 4000)]
            assert 400 <= len(newest) <= 500  # numbers that a lost race skipped are no rows
            assert newest[0]["premise"].startswith("Premise? ")
            engine.dispose()
        finally:
            with admin.connect() as connection:
                connection.execute(text(f"DROP DATABASE {name} WITH (FORCE)"))
            admin.dispose()
