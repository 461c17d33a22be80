"""The dashboard's pages on a real PostgreSQL server, empty and with a few rows."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from secrets import token_hex

import pytest
from postgres_server import postgres_url
from sqlalchemy import create_engine, insert, text
from sqlalchemy.engine import make_url

from lyra_nli.dashboard import calibration, comparing, data, overview, quality, shadow, versions
from lyra_nli.dashboard.memory import Memory
from lyra_nli.dashboard.view import open_view
from lyra_nli.settings import Settings
from lyra_nli.storage.engine import now, open_database
from lyra_nli.storage.tables import edges, fragments, nli_reviews, pages
from lyra_nli.storage.upgrade import init_database

pytestmark = pytest.mark.integration

PAGES = (
    overview.overview,
    versions.versions,
    quality.quality,
    partial(calibration.calibration, version="active"),
    data.data,
    shadow.shadow,
    partial(comparing.compare, one="base", other="base"),
)


def test_every_page_answers(tmp_path: Path) -> None:
    with postgres_url() as server:
        name = f"test_{token_hex(6)}"
        admin = create_engine(server, isolation_level="AUTOCOMMIT")
        with admin.connect() as connection:
            connection.execute(text(f"CREATE DATABASE {name}"))
        location = make_url(server).set(database=name).render_as_string(hide_password=False)
        try:
            init_database(location)
            look(location, tmp_path, reviews=0)
            engine = open_database(location)
            with engine.begin() as connection:
                page = {"id": "p1", "url": "https://www.who.int/x", "domain": "who.int"}
                connection.execute(insert(pages), [page])
                connection.execute(
                    insert(fragments), [{"id": "f1", "page_id": "p1", "text_content": "p"}]
                )
                connection.execute(insert(edges), [edge(n) for n in range(3)])
                connection.execute(insert(nli_reviews), [review(n) for n in range(3)])
            engine.dispose()
            look(location, tmp_path, reviews=3)
        finally:
            with admin.connect() as connection:
                connection.execute(text(f"DROP DATABASE {name} WITH (FORCE)"))
            admin.dispose()


def look(location: str, folder: Path, reviews: int) -> None:
    settings = Settings.model_validate(
        {
            "storage": {"database_path": location},
            "nli": {"fast_model": "starter", "adapters_dir": str(folder)},
        }
    )
    engine, memory = open_database(location, read_only=True), Memory()
    for page in PAGES:
        view = open_view(settings, "starter", lambda: engine, memory, patience=60)
        answer = view.answer(page(view))
        assert not any("can't be shown" in sentence for sentence in answer["missing"]), answer
        if page is quality.quality:
            assert answer["confusion"][0]["n"] == reviews
            shares = {each["domain"]: each["correction_rate"] for each in answer["domains"]}
            assert not reviews or (shares["who.int"]["k"], shares["who.int"]["n"]) == (1, 3)
        if page is data.data:
            assert answer["totals"]["reviewed"] == reviews
    memory.close()
    engine.dispose()


def edge(number: int) -> dict[str, object]:
    return {
        "id": f"e{number}",
        "source_type": "fragment",
        "source_id": "f1",
        "target_type": "claim",
        "target_id": "c1",
        "relation": "supports",
        "edge_human_corrected": 1,
    }


def review(number: int) -> dict[str, object]:
    return {
        "id": f"nlr_{number}",
        "edge_id": f"e{number}",
        "pair_key": str(number),
        "premise": "p",
        "hypothesis": "h",
        "predicted_label": "supports",
        "correct_label": "neutral" if number == 0 else "supports",
        "sampling": "random",
        "reviewed_at": now(),
    }
