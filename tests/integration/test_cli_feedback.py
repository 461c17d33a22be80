"""``lyra-nli domains`` and ``reviews``, as a user types them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from lyra_databases import NEWER, OLDER, LyraDatabase
from sqlalchemy import Engine

from lyra_nli.cli.main import cli
from lyra_nli.errors import AdapterNotFoundError, FeedbackError
from lyra_nli.feedback.actions import perform
from lyra_nli.feedback.seconds import second_review
from lyra_nli.storage.upgrade import upgrade

pytestmark = pytest.mark.integration


class World:
    def __init__(self, database: LyraDatabase) -> None:
        self.database = database
        database.add_edge("e1", "supports", 0.9)
        self.engine: Engine = database.open()
        upgrade(self.engine, backup=False)

    def run(self, *arguments: str) -> Result:
        return CliRunner().invoke(cli, [*arguments, "--db", str(self.database.path)])

    def do(self, action: str, **args: str) -> dict[str, object]:
        return perform(self.engine, action, args, who="ann")


@pytest.fixture(params=[OLDER, NEWER], ids=["older", "newer"])
def world(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[World]:
    world = World(LyraDatabase(tmp_path / "lyra.db", request.param))
    yield world
    world.engine.dispose()


def test_a_label_is_doubted_by_a_training_alone(world: World) -> None:
    assert isinstance(world.run("reviews", "suspects").exception, AdapterNotFoundError)


def test_domain_rules_are_listed_and_explained(world: World) -> None:
    assert world.run("domains", "list").output == "no rules\n"
    world.do("domain_block", domain_pattern="*.example.com", reason="made up")
    world.do("domain_unblock", domain_pattern="good.example.com", reason="not this one")
    world.do("domain_block", domain_pattern="gone.example.org", reason="old")
    world.do("domain_clear_override", domain_pattern="gone.example.org", reason="over")
    lines = world.run("domains", "list").output.splitlines()
    assert [line.split()[1:3] for line in lines] == [
        ["unblock", "good.example.com"],
        ["block", "*.example.com"],
    ]
    assert "cleared  gone.example.org" in world.run("domains", "list", "--all").output
    assert len(json.loads(world.run("domains", "list", "--all", "--json").output)) == 3
    explained = world.run("domains", "explain", "https://good.example.com/x").output
    assert explained.startswith("good.example.com: unblock.")
    assert "  block    *.example.com" in explained
    answer = json.loads(world.run("domains", "explain", "a.example.com", "--json").output)
    assert answer["decision"] == "block"
    assert "no active rule" in world.run("domains", "explain", "other.org").output


def test_reviews_are_listed_and_undone(world: World) -> None:
    assert world.run("reviews", "list").output == "no reviews\n"
    review = str(world.do("edge_correct", edge_id="e1", correct_relation="refutes")["review_id"])
    [line] = world.run("reviews", "list").output.splitlines()
    assert review in line
    assert "supports -> refutes" in line
    assert world.run("reviews", "undo", review).exit_code != 0  # a reason is asked for
    undone = world.run("reviews", "undo", review, "--reason", "slip")
    assert undone.output == "Review undone: the edge is supports again.\n"
    assert "(undone)" in world.run("reviews", "list").output
    [row] = json.loads(world.run("reviews", "list", "--json").output)
    assert (row["id"], row["corrected"]) == (review, True)
    again = world.run("reviews", "undo", review, "--reason", "slip")
    assert isinstance(again.exception, FeedbackError)
    assert "it was undone on" in str(again.exception)


def test_status_tells_how_far_reviewers_agree(world: World) -> None:
    assert "agreement   no second reviews yet" in world.run("status").output
    world.do("edge_correct", edge_id="e1", correct_relation="refutes")
    second_review(world.engine, "e1", "refutes", reviewer="bob")
    assert "agreement   100% of 1 second reviews agree" in world.run("status").output
    agreement = json.loads(world.run("status", "--json").output)["agreement"]
    assert (agreement["n"], agreement["observed"], agreement["kappa"]) == (1, 1.0, None)


def test_reading_commands_work_on_a_database_as_lyra_left_it(tmp_path: Path) -> None:
    database = LyraDatabase(tmp_path / "lyra.db", OLDER)
    before = database.path.read_bytes()
    for arguments in (["domains", "list"], ["reviews", "list"], ["status"]):
        result = CliRunner().invoke(cli, [*arguments, "--db", str(database.path)])
        assert result.exit_code == 0, result.output
    assert database.path.read_bytes() == before
