"""``lyra-nli calibrate`` and ``calibration``, as a user types them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from sqlalchemy import Engine, insert

from lyra_nli.cli.main import cli
from lyra_nli.errors import AdapterNotFoundError, ConflictError, FeedbackError
from lyra_nli.records import Pair
from lyra_nli.storage.engine import open_database
from lyra_nli.storage.tables import nli_aliases, nli_reviews, nli_versions
from lyra_nli.storage.upgrade import init_database

pytestmark = pytest.mark.integration

V1, FAST = "lora-lyra-v1", "fast"
AT = "2026-01-01T10:00:00+00:00"


class World:
    """A base model with an active version whose folder is gone, and reviews of both."""

    def __init__(self, path: Path) -> None:
        self.path = path / "lyra.db"
        init_database(str(self.path))
        self.engine: Engine = open_database(str(self.path))
        version = {"base_fingerprint": "f", "path": V1, "digest": "d", "status": "passed"}
        version |= {"name": V1, "base_model": FAST, "samples_used": 1, "created_at": AT}
        alias = {"base_model": FAST, "alias": "active", "version": V1}
        with self.engine.begin() as connection:
            connection.execute(insert(nli_versions), [version])
            connection.execute(insert(nli_aliases), [alias])

    def run(self, *arguments: str) -> Result:
        return CliRunner().invoke(cli, [*arguments, "--db", str(self.path)])

    def review(self, n: int, by: str, sampling: str = "random") -> None:
        """The model says 0.9, and is right half of the time."""
        pairs = [Pair(f"Premise {by} {i}.", f"Claim {by} {i}.") for i in range(n)]
        rows = [
            {
                "id": f"nlr_{by}{i}",
                "pair_key": pair.key,
                "premise": pair.premise,
                "hypothesis": pair.hypothesis,
                "predicted_label": "supports",
                "predicted_confidence": 0.92 - i % 2 * 0.02,
                "predicted_by": by,
                "correct_label": "refutes" if i % 2 else "supports",
                "sampling": sampling,
                "reviewed_at": AT,
            }
            for i, pair in enumerate(pairs)
        ]
        with self.engine.begin() as connection:
            connection.execute(insert(nli_reviews), rows)


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    monkeypatch.setenv("LYRA_NLI__FAST_MODEL", FAST)
    monkeypatch.setenv("LYRA_NLI__ADAPTERS_DIR", str(tmp_path / "adapters"))
    world = World(tmp_path)
    yield world
    world.engine.dispose()


def test_the_active_version_is_calibrated_shown_and_rolled_back(world: World) -> None:
    assert world.run("calibration", "show").output.startswith("no calibration")
    world.review(60, V1)
    done = world.run("calibrate")
    assert done.exit_code == 0
    assert f"{V1}: 60 pairs" in done.output
    assert "ece               0.410 [" in done.output
    assert "is current now" in done.output
    assert json.loads(world.run("calibrate", "--json").output)["calibration_version"] == 2
    shown = world.run("calibration", "show", "v1").output
    assert [line.split()[0] for line in shown.splitlines()[:2]] == ["*", "1"]
    assert shown.startswith(f"*    2  {V1} ")
    assert (
        "0.9-1.0     60 rows, right in  50% [ 38%,  62%]    calibrated:    30 rows, right" in shown
    )
    assert "0.0-0.1  no rows" in shown  # but those whose confidence came down
    assert "0.5-0.6" not in shown
    back = world.run("calibration", "rollback", "v1", "--reason", "worse")
    assert back.output == f"Now current for {V1}: calibration 1.\n"
    facts = json.loads(world.run("calibration", "show", "--json").output)
    assert [each["is_current"] for each in facts["calibrations"]] == [False, True]
    assert [each["action"] for each in facts["events"]] == ["rollback", "fit", "fit"]
    off = world.run("calibration", "rollback", "--to", "0", "--reason", "off", "--json")
    assert json.loads(off.output)["to_version"] is None


def test_a_calibration_of_the_base_is_its_own(world: World) -> None:
    world.review(60, "base")
    assert world.run("calibrate", "base").exit_code == 0
    assert "base" in world.run("calibration", "show", "base").output
    assert world.run("calibration", "show", "v1").output.startswith("no calibration")


def test_what_was_not_drawn_at_random_is_measured_only(world: World) -> None:
    world.review(60, V1, sampling="queue")
    done = world.run("calibrate", "v1")
    assert done.exit_code == 1
    assert "No calibration was kept" in done.output
    assert "there are 0: 50 more are wanted" in done.output


def test_what_can_not_be_done_is_an_error(world: World) -> None:
    world.review(3, V1)
    assert isinstance(world.run("calibrate").exception, FeedbackError)
    assert isinstance(world.run("calibrate", "v7").exception, AdapterNotFoundError)
    nothing = world.run("calibration", "rollback", "--reason", "x").exception
    assert isinstance(nothing, ConflictError)


def test_a_rollback_is_of_the_base_that_is_named(world: World) -> None:
    world.review(60, "base")
    for base in ("slow", FAST):
        assert world.run("calibrate", "base", "--base", base).exit_code == 0
    for version in ("base",), ():
        back = world.run(
            "calibration",
            "rollback",
            *version,
            "--to",
            "0" if version else "1",
            "--reason",
            "x",
            "--base",
            "slow",
            "--json",
        )
        assert json.loads(back.output)["base_model"] == "slow"
    facts = json.loads(world.run("calibration", "show", "base", "--base", FAST, "--json").output)
    assert [event["base_model"] for event in facts["events"]] == [FAST]
    assert [each["is_current"] for each in facts["calibrations"]] == [True]
