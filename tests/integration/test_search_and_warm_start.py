"""A recipe that was searched for, and a training that goes on from the active version."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from tiny_domain import add_reviews, reviewed_pairs, tiny_settings

from lyra_nli import loop
from lyra_nli.appeal import appeal
from lyra_nli.cli.main import cli
from lyra_nli.errors import AdapterError, DatasetError, InputError, LyraNliError
from lyra_nli.models.base import load_base
from lyra_nli.models.judge import Judge
from lyra_nli.registry.answers import read_answers
from lyra_nli.registry.rows import Version
from lyra_nli.reproduction import reproduce
from lyra_nli.settings import load_settings
from lyra_nli.storage.upgrade import init_database
from lyra_nli.trainers import trainer_of
from lyra_nli.training.log import TrainingLog
from lyra_nli.warm_start import read_start, start_again
from lyra_nli.workspace import Workspace

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with 150 reviews and one version, active."""
    folder = tmp_path_factory.mktemp("made")
    settings = tiny_settings(folder)
    recipe = settings.training.model_copy(update={"folds": 2, "cache_mb": 0, "rank": 4})
    settings = settings.model_copy(
        update={
            "training": recipe,
            "dataset": settings.dataset.model_copy(update={"min_samples": 50}),
        }
    )
    init_database(settings.storage.database_path)
    workspace = Workspace.open(settings)
    add_reviews(workspace, folder, reviewed_pairs(150))
    loop.train(
        workspace, settings.nli.fast_model, who="t", forced_reason="r", promote_reason="first"
    )
    sections = ("nli", "storage", "training", "gate", "dataset")
    values = {section: getattr(settings, section).model_dump(mode="json") for section in sections}
    (folder / "config").mkdir()
    (folder / "config" / "settings.yaml").write_text(json.dumps(values))
    return folder


@pytest.fixture
def workspace(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Workspace:
    """A copy of it, as the working directory."""
    folder = tmp_path / "project"
    shutil.copytree(made, folder)
    monkeypatch.chdir(folder)
    monkeypatch.setenv("LYRA_NLI__ADAPTERS_DIR", str(folder / "adapters"))
    monkeypatch.setenv("LYRA_STORAGE__DATABASE_PATH", str(folder / "data" / "lyra.db"))
    return Workspace.open(load_settings(folder / "config" / "settings.yaml"))


def call(command: str) -> Result:
    """Run a command; an expected error is raised, a bug fails the test."""
    result = CliRunner().invoke(cli, command.split())
    if isinstance(result.exception, LyraNliError):
        raise result.exception
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exc_info
    return result


def warm(workspace: Workspace, **changes: object) -> Workspace:
    recipe = workspace.settings.training.model_copy(update={"warm_start": True, **changes})
    return workspace.with_recipe(recipe)


def train(workspace: Workspace) -> loop.Outcome:
    return loop.train(workspace, workspace.settings.nli.fast_model, who="t", forced_reason="r")


def test_a_search_is_made_told_and_not_needed_to_make_the_version_again(
    workspace: Workspace,
) -> None:
    trained = call("train --force --reason try --no-activate --search 0.1")
    assert "search: " in trained.output
    assert "of 0.1 minutes" in trained.output
    version = workspace.registry.get("v2")
    manifest = workspace.registry.manifest_of(version)
    found = manifest.metrics["search"]
    assert found["minutes"] == 0.1
    assert found["seconds"] <= 6.0
    assert found["brier"] <= found["brier_of_settings"]
    assert len(found["trials"]) == found["tried"] + 1
    own = workspace.settings.training.model_dump(mode="json")
    assert {n: v for n, v in manifest.recipe.items() if v != own[n]} == found["changes"]
    rows = read_answers(version.path)
    assert {row["part"] for row in rows} == {"fold"}
    assert len(rows) == 150
    log = workspace.registry.directory / "runs" / version.run_id / "metrics.jsonl"
    logged = [json.loads(line) for line in log.read_text().splitlines()]
    told = [row for row in logged if row["kind"] == "trial"]
    # A winner answers the other half after its line was written.
    for row, each in zip(told, found["trials"], strict=True):
        assert {name: row[name] for name in ("number", "half", "state", "changes")} == {
            name: each[name] for name in ("number", "half", "state", "changes")
        }
        assert row["parts"].items() <= each["parts"].items()
    assert "other recipes in" in (version.path / "report.html").read_text()
    assert "no say in the choice" in call("adapters show v2").output
    assert not list((workspace.registry.directory / "runs" / "unfinished").glob("*"))
    assert reproduce(workspace, "v2").name == "lora-lyra-v2"


def test_a_search_and_a_warm_start_are_refused_together(workspace: Workspace) -> None:
    with pytest.raises(InputError, match="do not go together"):
        call("train --force --reason try --warm-start --search 1")


def fresh_reviews(workspace: Workspace, folder: Path, count: int) -> None:
    """Reviews about topics that nobody reviewed before."""
    add_reviews(workspace, folder, reviewed_pairs(150 + count)[150:])


def test_a_start_answers_as_the_version_whatever_alpha(
    workspace: Workspace, tmp_path: Path
) -> None:
    base = load_base(workspace.settings.nli.fast_model)
    start = read_start(workspace, base, "lora-lyra-v1")
    recipe = workspace.settings.training.model_copy(update={"alpha": 3.0})
    with TrainingLog(tmp_path / "log") as log:
        student = trainer_of(base, recipe, log).student
    student.take(start.weights(student))
    pairs = [pair for pair, _ in reviewed_pairs(20, seed=4)]
    saved = Judge(base, _adapted(base, workspace.registry.get("v1"))).logits(pairs)
    assert Judge(base, student.model).logits(pairs) == pytest.approx(saved, abs=1e-4)
    assert Judge(base).logits(pairs) != pytest.approx(saved, abs=1e-2)


def _adapted(base, version: Version):
    from lyra_nli.models.adapter import merged_model, read_adapter

    return merged_model(base, read_adapter(base, version.path))


def test_a_warm_start_is_judged_by_what_the_start_had_not_seen(
    workspace: Workspace, tmp_path: Path
) -> None:
    first = workspace.registry.get("v1")
    seen = set(workspace.registry.manifest_of(first).learned)
    fresh_reviews(workspace, tmp_path, 60)
    outcome = train(warm(workspace))

    rows = read_answers(outcome.version.path)
    assert len(rows) == 60
    assert not {row["id"] for row in rows} & seen
    [check] = [c for c in outcome.verdict.checks if c.name.startswith("no worse than its start")]
    assert "it started from lora-lyra-v1: on 60 rows" in check.text
    assert check.enforced
    manifest = workspace.registry.manifest_of(outcome.version)
    digest = workspace.registry.manifest_of(first).digest
    assert manifest.metrics["warm_start"] == {
        "version": "lora-lyra-v1",
        "digest": digest,
        "inherited": [],
    }
    assert "lora-lyra-v1" in outcome.origin["started from"]
    again = appeal(workspace, outcome.version.name).verdict
    assert {c.name: c.value for c in again.checks}[check.name] == pytest.approx(check.value)

    # Made again from the start, whatever serves now; and not without it.
    assert reproduce(workspace, outcome.version.name).name == outcome.version.name
    other = replace(
        manifest, metrics={**manifest.metrics, "warm_start": {"version": "v1", "digest": "x"}}
    )
    with pytest.raises(AdapterError, match="started from v1, which is not there any more"):
        start_again(workspace, load_base(manifest.base_model), other)
    shutil.rmtree(first.path)
    with pytest.raises(AdapterError, match="there is no version folder"):
        reproduce(workspace, outcome.version.name)


def test_without_new_reviews_a_warm_start_can_not_be_proven(workspace: Workspace) -> None:
    with pytest.raises(DatasetError, match=r"0 new reviews, in 0 group\(s\)") as caught:
        train(warm(workspace))
    assert "other pages and claims" in caught.value.hint


def test_another_shape_is_refused_with_every_difference(
    workspace: Workspace, tmp_path: Path
) -> None:
    fresh_reviews(workspace, tmp_path, 10)
    with pytest.raises(AdapterError, match="another shape") as caught:
        train(warm(workspace, rank=2, layers=1))
    problems = " ".join(caught.value.problems)
    assert "its rank is 4, the recipe's 2" in problems
    assert "it adapts, and the recipe does not" in problems
    assert "and 2 more" in problems


def test_without_an_active_version_there_is_nothing_to_start_from(workspace: Workspace) -> None:
    workspace.registry.rollback(workspace.settings.nli.fast_model, who="t", reason="r")
    outcome = train(warm(workspace))
    assert "warm_start" not in workspace.registry.manifest_of(outcome.version).metrics
    assert len(read_answers(outcome.version.path)) == 150
    assert reproduce(workspace, outcome.version.name).name == outcome.version.name
