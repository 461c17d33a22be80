"""A version judged again: today's rule, the rows of then, and nothing changed."""

from __future__ import annotations

import json
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from tiny_domain import add_reviews, reviewed_pairs, tiny_settings

from lyra_nli import loop
from lyra_nli.appeal import appeal
from lyra_nli.cli.main import cli
from lyra_nli.errors import AdapterNotFoundError, InputError
from lyra_nli.storage.upgrade import init_database
from lyra_nli.workspace import Workspace

pytestmark = pytest.mark.integration

FIRST, SECOND = "lora-lyra-v1", "lora-lyra-v2"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two versions, judged out of fold; the second has 60 reviews more and was held against v1."""
    folder = tmp_path_factory.mktemp("appeal")
    workspace = opened(folder, folds=2)
    for rows in (reviewed_pairs(240), reviewed_pairs(300)[240:]):
        add_reviews(workspace, folder, rows)
        loop.train(workspace, workspace.settings.nli.fast_model, who="t", forced_reason="r")
    workspace.engine.dispose()
    return folder


def opened(folder: Path, **recipe: object) -> Workspace:
    settings = tiny_settings(folder)
    if not Path(settings.storage.database_path).exists():
        init_database(settings.storage.database_path)
    training = settings.training.model_copy(update=recipe)
    return Workspace.open(settings.model_copy(update={"training": training}))


@pytest.fixture
def workspace(made: Path, tmp_path: Path):
    """A copy of it that a test may change."""
    for part in ("base", "data", "adapters"):
        shutil.copytree(made / part, tmp_path / part)
    settings = tiny_settings(tmp_path)
    nli = settings.nli.model_copy(update={"fast_model": str(made / "base")})
    found = Workspace.open(settings.model_copy(update={"nli": nli}))
    yield found
    found.engine.dispose()


@pytest.mark.parametrize("name", [FIRST, SECOND])
def test_the_same_rule_on_the_same_rows_says_the_same(workspace: Workspace, name: str) -> None:
    before = workspace.registry.list(include_removed=True), workspace.registry.events()
    heard = appeal(workspace, name)
    told = heard.version.metrics["verdict"]
    assert heard.verdict.outcome == told["outcome"]
    assert heard.verdict.sentence == told["sentence"]
    assert heard.verdict.active == told["active"]
    figures = [(check.name, pytest.approx(check.value)) for check in heard.verdict.checks]
    assert [(check["name"], check["value"]) for check in told["checks"]] == figures
    assert heard.report.name == name
    assert (workspace.registry.list(include_removed=True), workspace.registry.events()) == before


def test_it_may_be_held_against_another(workspace: Workspace) -> None:
    heard = appeal(workspace, "v2", "base")
    assert heard.verdict.against_active is None
    # What v1 had not seen is judged by itself, the rest by its own folds' students.
    older = appeal(workspace, "v1", "v2")
    assert older.verdict.active == SECOND
    assert not np.isnan(older.report.reviewed.answers["active"]).any()
    assert older.verdict.against_active is not None
    with pytest.raises(InputError, match="against itself"):
        appeal(workspace, "v2", "v2")
    with pytest.raises(AdapterNotFoundError):
        appeal(workspace, "v7")
    with pytest.raises(AdapterNotFoundError):
        appeal(workspace, "v2", "v7")


def test_rows_that_are_gone_are_counted(workspace: Workspace) -> None:
    with closing(sqlite3.connect(workspace.settings.storage.database_path)) as connection:
        connection.execute(
            "DELETE FROM nli_reviews WHERE id IN (SELECT id FROM nli_reviews LIMIT 7)"
        )
        connection.commit()
    heard = appeal(workspace, "v2")
    assert len(heard.report.reviewed.examples) == 300 - 7
    assert "7 of the rows" in heard.report.markdown()


def test_the_command(workspace: Workspace, tmp_path: Path, monkeypatch) -> None:
    values = {"LYRA_NLI__ADAPTERS_DIR": workspace.settings.nli.adapters_dir,
              "LYRA_GATE__MAX_GENERAL_DROP": "1"}  # fmt: skip
    for key, value in values.items():
        monkeypatch.setenv(key, value)
    database = ["--db", workspace.settings.storage.database_path]
    page = tmp_path / "report.html"

    def call(*words: str) -> tuple[int, str]:
        done = CliRunner().invoke(cli, ["gate", *words, *database])
        return done.exit_code, done.stdout

    code, printed = call("v1", "--html", str(page))
    assert (code, printed.split(": ")[1][:4]) == (0, "pass")
    assert page.read_text().startswith("<!doctype html>")
    assert "Gate report: lora-lyra-v1" in page.read_text()
    code, printed = call("v1", "--json", "--html", str(tmp_path / "report.md"))
    assert json.loads(printed)["verdict"]["outcome"] == "pass"
    assert (tmp_path / "report.md").read_text().startswith("# Gate report: lora-lyra-v1")
    monkeypatch.setenv("LYRA_GATE__ENFORCE_MIN_ACCURACY", "true")
    monkeypatch.setenv("LYRA_GATE__MIN_ACCURACY", "1")
    assert call("v1")[0] == 9
