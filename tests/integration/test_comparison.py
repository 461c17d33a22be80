"""Where two versions disagree, the queue asks a person."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest
from click.testing import CliRunner
from serving_world import make_world
from sqlalchemy import insert, select

from lyra_nli.cli.main import cli
from lyra_nli.comparison import compare
from lyra_nli.errors import AdapterNotFoundError, ModelError
from lyra_nli.feedback.queue import next_items
from lyra_nli.labels import LABELS
from lyra_nli.models.judge import Judge
from lyra_nli.records import Pair
from lyra_nli.storage import tables
from lyra_nli.storage.engine import read, write
from lyra_nli.workspace import Workspace

pytestmark = pytest.mark.integration

EDGES = 40
WORDS = ("drug", "lowers", "risk", "stroke", "man", "dog", "trial", "mortality", "nausea", "eating")


@pytest.fixture
def world(tmp_path: Path):
    world = make_world(tmp_path)
    rows = {tables.fragments: [], tables.claims: [], tables.edges: []}
    for n in range(EDGES):
        text = " ".join(random.Random(n).sample(WORDS, 6))
        rows[tables.fragments].append({"id": f"f{n}", "page_id": "p", "text_content": text})
        rows[tables.claims].append({"id": f"c{n}", "claim_text": f"{text.split()[-1]} is it"})
        rows[tables.edges].append(
            {
                "id": f"e{n}", "source_type": "fragment", "source_id": f"f{n}",
                "target_type": "claim", "target_id": f"c{n}", "relation": "neutral",
                "nli_label": "neutral", "nli_confidence": 0.9,
            }
        )  # fmt: skip
    workspace = Workspace.open(world.settings)
    with write(workspace.engine) as connection:
        page = {"id": "p", "url": "https://example.org", "domain": "example.org"}
        connection.execute(insert(tables.pages).values(page))
        for table, values in rows.items():
            connection.execute(insert(table), values)
    yield world, workspace, world.publish(alpha=2000.0).name
    workspace.engine.dispose()


def test_disagreements_come_first_in_their_order(world) -> None:
    world, workspace, name = world
    found = compare(workspace, name, "base", EDGES)
    assert (found.one, found.other, found.compared) == (name, "base", EDGES)
    assert 0 < found.disagreed <= EDGES

    def queued():
        return next_items(
            workspace.engine, order="disagree", limit=EDGES, random_share=0, second_share=0,
            lease=False,
        )  # fmt: skip

    first = [item for item in queued() if item.reason_for == "disagree"]
    assert len(first) == found.disagreed
    scores = [item.score for item in first]
    assert scores == sorted(scores, reverse=True)
    assert 0 < scores[-1] <= scores[0] <= 1
    judge = Judge(world.fast)
    for item in first:
        labels = {by: max(told, key=told.get) for by, told in item.detail.items()}
        assert labels[name] != labels["base"]
        [answer] = judge.judge([Pair(item.premise, item.hypothesis)])
        assert labels["base"] == answer.label
    with read(workspace.engine) as connection:
        [kept] = connection.execute(select(tables.nli_comparisons)).all()
    assert (kept.kind, kept.one, kept.other) == ("compare", name, "base")
    assert (kept.compared, kept.disagreed) == (EDGES, found.disagreed)
    assert kept.base_model == world.settings.nli.fast_model
    details = json.loads(kept.details_json)
    labels = details["labels"]
    assert sum(map(sum, labels)) == EDGES
    assert EDGES - sum(labels[index][index] for index in range(3)) == found.disagreed
    assert details["confidence_shift"] != 0
    assert found.labels == labels
    [before, after] = found.confidence
    assert details["confidence_shift"] == pytest.approx(after - before)
    assert found.surer + found.less_sure <= EDGES
    assert [dispute.edge_id for dispute in found.disputes] == [item.edge_id for item in first]
    assert found.disputes[0].answers == first[0].detail
    again = compare(workspace, "base", "base", EDGES)
    assert again.disagreed == 0
    assert all(item.reason_for != "disagree" for item in queued())


def test_what_can_not_be_compared(world) -> None:
    _, workspace, _ = world
    with pytest.raises(AdapterNotFoundError):
        compare(workspace, "v99", "base", 5)
    with pytest.raises(ModelError, match="is active"):
        compare(workspace, "active", "base", 5)


def test_the_command(world, monkeypatch) -> None:
    world, _, name = world
    monkeypatch.setenv("LYRA_NLI__FAST_MODEL", world.settings.nli.fast_model)
    monkeypatch.setenv("LYRA_NLI__ADAPTERS_DIR", world.settings.nli.adapters_dir)
    words = ["adapters", "compare", name, "--with", "base", "--limit", "7", "--json"]
    result = CliRunner().invoke(cli, [*words, "--db", world.database], catch_exceptions=False)
    assert json.loads(result.stdout)["compared"] == 7
    words = ["shadow-eval", name, "--with", "base", "--limit", "30", "--db", world.database]
    result = CliRunner().invoke(cli, words, catch_exceptions=False)
    found = compare(Workspace.open(world.settings), name, "base", EDGES)
    assert f"{name} and base disagree on" in result.stdout
    assert "base says" in result.stdout
    table = [line.split() for line in result.stdout.splitlines() if line.startswith(" " * 16)]
    assert table[0] == list(LABELS)
    assert sum(int(count) for row in table[1:] for count in row[1:]) == 30
    assert any(dispute.hypothesis in result.stdout for dispute in found.disputes)


def test_it_says_which_version_is_the_surer_one(world, monkeypatch) -> None:
    world, _, name = world
    monkeypatch.setenv("LYRA_NLI__FAST_MODEL", world.settings.nli.fast_model)
    monkeypatch.setenv("LYRA_NLI__ADAPTERS_DIR", world.settings.nli.adapters_dir)
    found = compare(Workspace.open(world.settings), name, "base", EDGES)
    assert (found.surer, found.less_sure) != (0, 0)
    words = ["shadow-eval", name, "--with", "base", "--limit", str(EDGES), "--db", world.database]
    result = CliRunner().invoke(cli, words, catch_exceptions=False)
    mean = found.confidence
    assert (
        f"confidence: {name} {mean[0]:.3f}, clearly surer on {found.less_sure} edges; "
        f"base {mean[1]:.3f}, clearly surer on {found.surer}"
    ) in result.stdout
