"""Calibration on a real PostgreSQL server, where two writers really run at once."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from secrets import token_hex

import pytest
from postgres_server import postgres_url
from sqlalchemy import create_engine, insert, text
from sqlalchemy.engine import make_url

from lyra_nli.feedback.calibration import evaluate, get_diagram_data, get_stats, rollback
from lyra_nli.records import Pair
from lyra_nli.storage.engine import open_database, read
from lyra_nli.storage.tables import nli_calibrations, nli_reviews, nli_versions
from lyra_nli.storage.upgrade import init_database

V1 = "lora-lyra-v1"
VERSION = {
    "name": V1,
    "base_model": "fast",
    "base_fingerprint": "f",
    "path": V1,
    "digest": "d",
    "status": "passed",
    "samples_used": 1,
    "created_at": "2026-01-01T09:00:00+00:00",
}

pytestmark = pytest.mark.integration


def test_evaluations_at_once_get_versions_of_their_own() -> None:
    with postgres_url() as server:
        name = f"test_{token_hex(6)}"
        admin = create_engine(server, isolation_level="AUTOCOMMIT")
        with admin.connect() as connection:
            connection.execute(text(f"CREATE DATABASE {name}"))
        location = make_url(server).set(database=name).render_as_string(hide_password=False)
        try:
            init_database(location)
            engine = open_database(location)
            with engine.begin() as connection:
                connection.execute(insert(nli_reviews), [_review(i) for i in range(60)])
                connection.execute(insert(nli_versions), [VERSION])
            with ThreadPoolExecutor(4) as threads:
                answers = list(
                    threads.map(lambda _: evaluate(engine, source=V1, who="ann"), range(8))
                )
            versions = sorted(int(str(answer["calibration_version"])) for answer in answers)
            assert versions == list(range(1, 9))
            assert sum(bar["n"] for bar in get_diagram_data(engine)["bins"]) == 60
            assert rollback(engine, reason="worse")["to_version"] == 7
            assert get_stats(engine)["current"]["version"] == 7
            with read(engine) as connection:
                table = nli_calibrations
                current = connection.execute(table.select().where(table.c.is_current == 1)).all()
            assert [row.version for row in current] == [7]
            engine.dispose()
        finally:
            with admin.connect() as connection:
                connection.execute(text(f"DROP DATABASE {name} WITH (FORCE)"))
            admin.dispose()


def _review(i: int) -> dict[str, object]:
    """A model that says 0.9 and is right half of the time."""
    pair = Pair(f"Premise {i}.", f"Claim {i}.")
    return {
        "id": f"nlr_{i}",
        "pair_key": pair.key,
        "premise": pair.premise,
        "hypothesis": pair.hypothesis,
        "predicted_label": "supports",
        "predicted_confidence": 0.92 - i % 2 * 0.02,
        "predicted_by": V1,
        "sampling": "random",
        "correct_label": "refutes" if i % 2 else "supports",
        "reviewed_at": "2026-01-01T10:00:00+00:00",
    }
