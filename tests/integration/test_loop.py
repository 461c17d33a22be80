"""Reviews in a database -> adapter -> registry -> server over real HTTP -> rollback."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest
from sqlalchemy import select
from tiny_domain import add_reviews, reviewed_pairs, tiny_settings

from lyra_nli import loop
from lyra_nli.demo.server import running_server, wait_for_version
from lyra_nli.errors import AdapterError, DatasetError
from lyra_nli.storage.engine import open_database, read
from lyra_nli.storage.reviews import count_reviews
from lyra_nli.storage.tables import adapters, nli_training_runs
from lyra_nli.storage.upgrade import init_database
from lyra_nli.workspace import Workspace

pytestmark = pytest.mark.integration


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    """A database with 240 reviews of what a tiny random base really said."""
    settings = tiny_settings(tmp_path)
    init_database(settings.storage.database_path)
    workspace = Workspace.open(settings)
    add_reviews(workspace, tmp_path, reviewed_pairs(240))
    return workspace


def base_name(workspace: Workspace) -> str:
    return workspace.settings.nli.fast_model


def test_a_version_learns_passes_serves_and_rolls_back(
    workspace: Workspace, tmp_path: Path
) -> None:
    outcome = loop.train(workspace, base_name(workspace), who="tester", forced_reason="first")

    assert outcome.verdict.outcome == "pass"
    assert outcome.activated
    assert outcome.version.status == "passed"
    holdout = outcome.verdict.populations[0].scores
    assert holdout["candidate"].accuracy.value > holdout["base"].accuracy.value + 0.2
    assert (outcome.version.path / "report.md").read_text().startswith("# Gate report")

    config = tmp_path / "config"
    config.mkdir()
    (config / "settings.yaml").write_text(f"nli:\n  fast_model: {base_name(workspace)}\n")
    pairs = [pair for pair, _ in reviewed_pairs(30, seed=9)]
    with running_server(tmp_path) as client:
        wait_for_version(client, outcome.version.name)
        adapted = client.judge(pairs)
        assert {answer.adapter for answer in adapted} == {outcome.version.name}
        workspace.registry.rollback(base_name(workspace), who="tester", reason="try")
        assert wait_for_version(client, None) < 2.0
        assert {answer.adapter for answer in client.judge(pairs)} == {"base"}
        assert [a.label for a in client.judge(pairs)] != [a.label for a in adapted]


def test_samples_are_marked_and_the_run_is_recorded(workspace: Workspace) -> None:
    outcome = loop.train(
        workspace, base_name(workspace), who="tester", forced_reason="because", activate=False
    )

    with read(workspace.engine) as connection:
        assert count_reviews(connection, workspace.generation).corrected_unused == 0
        run = connection.execute(select(nli_training_runs)).one()
        row = connection.execute(select(adapters)).one()
    assert (run.status, run.forced_reason, run.samples) == ("done", "because", 240)
    assert (row.version_name, row.is_active) == (outcome.version.name, 0)
    assert row.brier_after < row.brier_before
    assert workspace.registry.active(base_name(workspace)) is None


def test_the_same_manifest_gives_the_same_bytes(workspace: Workspace) -> None:
    outcome = loop.train(workspace, base_name(workspace), who="t", forced_reason="r")
    assert loop.reproduce(workspace, outcome.version.name).name == outcome.version.name

    other = Workspace.open(
        workspace.settings.model_copy(
            update={"dataset": workspace.settings.dataset.model_copy(update={"replay_rows": 39})}
        )
    )
    # The manifest decides, not today's settings.
    assert loop.reproduce(other, outcome.version.name).name == outcome.version.name


def test_a_candidate_that_fails_is_kept_but_never_active(
    workspace: Workspace, tmp_path: Path
) -> None:
    useless = workspace.settings.training.model_copy(update={"learning_rate": 1e-9})
    lazy = Workspace.open(workspace.settings.model_copy(update={"training": useless}))

    outcome = loop.train(lazy, base_name(workspace), who="t", forced_reason="r")

    assert outcome.verdict.outcome == "insufficient"
    assert outcome.version.status == "unproven"
    assert not outcome.activated
    with pytest.raises(AdapterError, match="reason"):
        lazy.registry.activate(outcome.version.name, who="t")
    lazy.registry.activate(outcome.version.name, who="t", reason="I know better")
    assert lazy.registry.events()[-1].reason == "I know better"


def test_the_active_versions_training_rows_never_judge_the_next_one(
    workspace: Workspace, tmp_path: Path
) -> None:
    first = loop.train(workspace, base_name(workspace), who="t", forced_reason="r")
    learned = set(workspace.registry.manifest_of(first.version).row_ids["train"])
    add_reviews(workspace, tmp_path, reviewed_pairs(80, seed=5))

    second = loop.train(workspace, base_name(workspace), who="t", forced_reason="r")

    assert first.activated
    assert second.verdict.active == first.version.name
    assert second.version.parent == first.version.name
    assert not learned & {example.id for example in second.dataset.holdout}
    assert "active" in second.verdict.populations[0].scores


def test_too_few_corrections_say_how_many_there_are(tmp_path: Path) -> None:
    settings = tiny_settings(tmp_path)
    init_database(settings.storage.database_path)
    workspace = Workspace.open(settings)
    add_reviews(workspace, tmp_path, reviewed_pairs(20))

    with pytest.raises(DatasetError, match=r"\d+ so far, at least 100 are needed"):
        loop.train(workspace, base_name(workspace), who="t", forced_reason="r")
    with read(workspace.engine) as connection:
        assert connection.execute(select(nli_training_runs.c.status)).scalar_one() == "failed"


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_leaves_no_half_version(
    workspace: Workspace, tmp_path: Path, how: signal.Signals
) -> None:
    environment = {
        **os.environ,
        "LYRA_TRAINING__EPOCHS": "100",
        "LYRA_TRAINING__PATIENCE": "100",
        "LYRA_TRAINING__LEARNING_RATE": "0.0001",
        "LYRA_NLI__FAST_MODEL": base_name(workspace),
    }
    command = [sys.executable, "-m", "lyra_nli.cli.main", "train", "--force", "--reason", "try"]
    process = subprocess.Popen(
        command,
        cwd=tmp_path,
        env=environment,
        stderr=subprocess.PIPE,
        text=True,
        # A test run in the background of a script ignores SIGINT, and children inherit that.
        preexec_fn=partial(signal.signal, signal.SIGINT, signal.SIG_DFL),
    )
    log = tmp_path / "adapters" / "runs"
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and not any(
        file.stat().st_size for file in log.glob("*/metrics.jsonl")
    ):
        time.sleep(0.05)
    process.send_signal(how)
    _, errors = process.communicate(timeout=30)

    assert process.returncode == 130, errors
    assert "Traceback" not in errors
    assert not list((tmp_path / "adapters").glob("lora-*"))
    assert not list((tmp_path / "adapters").glob(".staging-*"))
    with read(open_database(workspace.settings.storage.database_path)) as connection:
        run = connection.execute(select(nli_training_runs)).one()
    assert (run.status, run.message) == ("failed", "KeyboardInterrupt")
