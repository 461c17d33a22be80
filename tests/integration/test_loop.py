"""Reviews in a database -> adapter -> registry -> server over real HTTP -> rollback."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from sqlalchemy import select
from tiny_domain import add_reviews, reviewed_pairs, tiny_settings

from lyra_nli import loop
from lyra_nli.cli.main import cli
from lyra_nli.demo.server import running_server, wait_for_version
from lyra_nli.errors import AdapterError, DatasetError, StorageError
from lyra_nli.feedback.importing import import_file
from lyra_nli.labels import LABELS
from lyra_nli.models.judge import Judge, softmax
from lyra_nli.registry.answers import read_answers
from lyra_nli.registry.versions import Registry
from lyra_nli.reproduction import reproduce
from lyra_nli.second_look import doubts
from lyra_nli.storage.engine import open_database, read
from lyra_nli.storage.reviews import count_reviews
from lyra_nli.storage.tables import adapters, nli_training_runs
from lyra_nli.storage.upgrade import init_database
from lyra_nli.training.log import TrainingLog
from lyra_nli.witnesses import witness_of
from lyra_nli.workspace import Workspace

pytestmark = pytest.mark.integration


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Hidden states of tiny models are of no use to the next run."""
    monkeypatch.setenv("LYRA_NLI_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    """A database with 240 reviews of what a tiny random base really said."""
    settings = tiny_settings(tmp_path)
    init_database(settings.storage.database_path)
    workspace = with_recipe(Workspace.open(settings), folds=2)
    add_reviews(workspace, tmp_path, reviewed_pairs(240))
    return workspace


def base_name(workspace: Workspace) -> str:
    return workspace.settings.nli.fast_model


def with_recipe(workspace: Workspace, **changes: object) -> Workspace:
    """The same place, with another recipe."""
    recipe = workspace.settings.training.model_copy(update=changes)
    return Workspace.open(workspace.settings.model_copy(update={"training": recipe}))


def with_dataset(workspace: Workspace, **changes: object) -> Workspace:
    """The same place, with other rules for its dataset."""
    rules = workspace.settings.dataset.model_copy(update=changes)
    return Workspace.open(workspace.settings.model_copy(update={"dataset": rules}))


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
    assert reproduce(workspace, outcome.version.name).name == outcome.version.name

    other = Workspace.open(
        workspace.settings.model_copy(
            update={"dataset": workspace.settings.dataset.model_copy(update={"replay_rows": 39})}
        )
    )
    # The manifest decides, not today's settings.
    assert reproduce(other, outcome.version.name).name == outcome.version.name


def test_rows_that_share_groups_give_the_same_bytes(tmp_path: Path) -> None:
    """Foreign pairs are made across groups: the manifest must know which those were."""
    settings = tiny_settings(tmp_path)
    init_database(settings.storage.database_path)
    workspace = Workspace.open(settings)
    add_reviews(workspace, tmp_path, reviewed_pairs(150), groups=6)
    outcome = loop.train(workspace, base_name(workspace), who="t", forced_reason="r")
    manifest = workspace.registry.manifest_of(outcome.version)
    assert len(set(manifest.groups.values())) < 6
    assert manifest.groups.keys() < {*manifest.row_ids["train"], *manifest.row_ids["dev"]}
    assert reproduce(workspace, outcome.version.name).name == outcome.version.name


def test_a_version_from_cached_states_is_made_again_without_the_cache(
    workspace: Workspace, tmp_path: Path
) -> None:
    changes = {"layers": 1, "precision": "bf16", "kl_weight": 0.3, "strengths": (0.5,)}
    upper = with_recipe(workspace, **changes)
    outcome = loop.train(upper, base_name(workspace), who="t", forced_reason="r")
    assert list((tmp_path / "cache" / "hidden").glob("*/*.bin"))
    shutil.rmtree(tmp_path / "cache")
    config = json.loads((outcome.version.path / "adapter_config.json").read_text())
    assert config["lora_alpha"] == upper.settings.training.alpha / 2
    assert reproduce(upper, outcome.version.name).name == outcome.version.name


def told_of(outcome: loop.Outcome) -> list[dict]:
    """What the version keeps of the rows that it was judged on."""
    return read_answers(outcome.version.path)


def share_right(rows: list[dict]) -> float:
    hits = [max(r["probabilities"], key=r["probabilities"].get) == r["label"] for r in rows]
    return sum(hits) / len(hits)


def test_few_reviews_are_judged_out_of_fold_and_all_learned_from(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    workspace = with_recipe(workspace, folds=3)
    outcome = loop.train(workspace, base_name(workspace), who="t", forced_reason="r")
    manifest = workspace.registry.manifest_of(outcome.version)
    evidence, rows = manifest.metrics["evidence"], told_of(outcome)
    assert (evidence["kind"], evidence["count"]) == ("out of fold", 240)
    assert (manifest.row_ids["dev"], manifest.row_ids["holdout"]) == ([], [])
    assert manifest.metrics["learned_from"]["replay"] == 40
    assert sum(manifest.metrics["learned_from"].values()) == 280
    assert {row["part"] for row in rows} == {"fold"}
    assert [row["id"] for row in rows] == [
        example.id for example in outcome.dataset.train if example.source != "replay"
    ]
    assert {row["id"]: row["group"] for row in rows} == {
        e.id: e.group for e in outcome.dataset.train if e.source != "replay"
    }
    assert share_right(rows) == pytest.approx(outcome.version.metrics["accuracy_after"])
    suspicion = {row["id"]: row["suspicion"] for row in rows}
    assert all(0 <= value <= 1 for value in suspicion.values())
    assert len(set(suspicion.values())) > 200
    half = sorted(suspicion.values())[120]  # this base's labels are none of them above 0.5
    monkeypatch.setattr("lyra_nli.training.suspicion.SUSPECT", half)
    named, found = doubts(workspace, base_name(workspace))
    assert named == outcome.version.name
    doubted = {doubt.review.id: doubt.suspicion for doubt in found}
    assert doubted == {name: value for name, value in suspicion.items() if value > half}
    assert len(doubted) > 100
    assert list(doubted.values()) == sorted(doubted.values(), reverse=True)
    report = (outcome.version.path / "report.md").read_text()
    assert "chosen by 3 folds" in report
    assert report.startswith(f"# Gate report: candidate of {outcome.version.run_id}\n")
    assert (outcome.version.path / "report.html").read_text().startswith("<!doctype html>")


@pytest.mark.parametrize("error", [StorageError("the disk is full"), KeyboardInterrupt()])
def test_a_version_and_its_record_stand_or_fall_together(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    finish = loop.finish_run

    def failing(*where: Any, status: str, **rest: Any) -> None:
        if status == "done":
            raise error
        finish(*where, status=status, **rest)

    monkeypatch.setattr(loop, "finish_run", failing)
    with pytest.raises(type(error)):
        loop.train(workspace, base_name(workspace), who="t", forced_reason="r")
    assert workspace.registry.list() == []
    assert not list(workspace.registry.directory.glob("lora-lyra-*"))
    with read(workspace.engine) as connection:
        marked = connection.exec_driver_sql(
            "SELECT count(*) FROM nli_reviews WHERE trained_version IS NOT NULL"
        ).scalar()
    assert marked == 0
    monkeypatch.undo()
    outcome = loop.train(workspace, base_name(workspace), who="t", forced_reason="r")
    assert outcome.version.name == "lora-lyra-v1"


def test_what_changed_meanwhile_is_not_activated_over(
    workspace: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = loop.train(workspace, base_name(workspace), who="t", forced_reason="r")
    assert first.activated
    add_reviews(workspace, tmp_path, reviewed_pairs(480)[240:])
    judge = loop.evaluate

    def judged_while_somebody_goes_back(*arguments: Any) -> Any:
        found = judge(*arguments)
        workspace.registry.deactivate(base_name(workspace), who="bob")
        return found

    monkeypatch.setattr(loop, "evaluate", judged_while_somebody_goes_back)
    second = loop.train(workspace, base_name(workspace), who="t", forced_reason="r")
    assert second.verdict.outcome == "pass", second.verdict.sentence
    assert not second.activated
    assert "lora-lyra-v2 was judged beside lora-lyra-v1, and meanwhile the base" in second.kept_back
    assert workspace.registry.active(base_name(workspace)) is None
    assert [version.name for version in workspace.registry.list()][-1] == "lora-lyra-v2"


def test_an_interrupt_after_all_was_written_takes_nothing_back(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    register = Registry.register

    def late(*arguments: Any, **outcome: Any) -> None:
        register(*arguments, **outcome)
        raise KeyboardInterrupt

    monkeypatch.setattr(Registry, "register", late)
    with pytest.raises(KeyboardInterrupt):
        loop.train(workspace, base_name(workspace), who="t", forced_reason="r")
    [version] = workspace.registry.list()
    workspace.registry.verify(version.name)
    with read(workspace.engine) as connection:
        [run] = connection.execute(select(nli_training_runs)).all()
    assert (run.status, run.samples) == ("done", len(workspace.reviews().reviews))


def test_a_label_that_people_dispute_is_listed_until_it_is_settled(
    workspace: Workspace, tmp_path: Path
) -> None:
    loop.train(workspace, base_name(workspace), who="t", forced_reason="r")
    config = tmp_path / "settings.yaml"
    config.write_text(workspace.settings.model_dump_json(exclude_unset=True))
    words = ["reviews", "suspects", "--config", str(config)]
    review = workspace.reviews().reviews[0]
    row = {
        "premise": review.pair.premise,
        "hypothesis": review.pair.hypothesis,
        "predicted_label": review.predicted_label,
        "predicted_confidence": review.predicted_confidence,
        "correct_label": next(label for label in LABELS if label != review.label),
    }
    told = []
    for day, reviewer in enumerate(("ann", "bob"), start=1):
        again = {"reviewer": reviewer, "reviewed_at": f"2036-01-0{day}T00:00:00+00:00"}
        (tmp_path / "again.jsonl").write_text(json.dumps(row | again) + "\n")
        import_file(workspace.engine, tmp_path / "again.jsonl")
        told.append(CliRunner().invoke(cli, words).output)
    disputed = f"{row['correct_label']} by ann: disputed\n  {review.pair.hypothesis}"
    assert disputed in told[0]
    assert review.pair.hypothesis not in told[1]


@pytest.mark.parametrize("seed", [1, 2])
def test_a_hundred_reviews_that_teach_nothing_give_no_version_that_serves(
    tmp_path: Path, seed: int
) -> None:
    """The base errs by lot, in two rows of five: nobody can be better, whoever tries is worse."""
    settings = tiny_settings(tmp_path)
    init_database(settings.storage.database_path)
    workspace = with_recipe(Workspace.open(settings), folds=3, seed=seed)
    base, rng = loop.load_base_for(settings, base_name(workspace)), random.Random(seed)
    pairs = [pair for pair, _ in reviewed_pairs(100, seed)]
    said = [answer.label for answer in Judge(base).judge(pairs)]
    labels = [
        label if rng.random() < 0.6 else rng.choice([other for other in LABELS if other != label])
        for label in said
    ]
    add_reviews(workspace, tmp_path, list(zip(pairs, labels, strict=True)))
    workspace = with_dataset(workspace, min_samples=20)
    outcome = loop.train(workspace, base_name(workspace), who="t", forced_reason="r")
    assert outcome.verdict.outcome != "pass"
    assert workspace.registry.active(base_name(workspace)) is None


def test_a_version_of_capped_rows_that_two_people_agree_on_is_made_again(
    workspace: Workspace,
) -> None:
    workspace = with_dataset(with_recipe(workspace, folds=2, epochs=1), reviewer_rows=3)
    several = {review.pair.key for review in workspace.reviews().reviews[:9]}
    file = workspace.registry.directory.parent / "again.jsonl"
    said = [r for r in workspace.reviews().reviews if r.pair.key in several]
    rows = [
        {
            "premise": review.pair.premise,
            "hypothesis": review.pair.hypothesis,
            "predicted_label": review.predicted_label,
            "predicted_confidence": review.predicted_confidence,
            "correct_label": review.label,
            "reviewer": "eve",
            "reviewed_at": "2036-01-01T00:00:00+00:00",
            "group": review.pair.premise.split()[2],
        }
        for review in said
    ]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    import_file(workspace.engine, file)
    outcome = loop.train(workspace, base_name(workspace), who="t", forced_reason="r")
    assert outcome.dataset.capped == ((("reviewer", "eve"), 9),)
    people = workspace.registry.manifest_of(outcome.version).metrics["people"]
    assert set(people.values()) == {2}
    assert len(people) == 9
    assert reproduce(workspace, outcome.version.name).name == outcome.version.name


@pytest.mark.parametrize("folds", [3, 0])
def test_a_holdout_judges_where_it_is_large_enough_or_there_are_no_folds(
    workspace: Workspace, folds: int
) -> None:
    workspace = with_recipe(workspace, folds=folds)
    workspace = with_dataset(workspace, min_holdout=40 if folds else 300)
    outcome = loop.train(workspace, base_name(workspace), who="t", forced_reason="r")
    rows = told_of(outcome)
    held = [row for row in rows if row["part"] == "holdout"]
    assert outcome.version.metrics["evidence"]["kind"] == "holdout"
    assert [row["id"] for row in held] == [example.id for example in outcome.dataset.holdout]
    assert len(held) >= 40
    assert share_right(held) == pytest.approx(outcome.version.metrics["accuracy_after"])
    others = {row["id"] for row in rows if row["part"] == "fold"}
    learned = {e.id for e in (*outcome.dataset.train, *outcome.dataset.dev)}
    assert others == ({row for row in learned if "replay" not in row} if folds else set())


def test_the_active_version_answers_for_what_it_had_not_seen(
    workspace: Workspace, tmp_path: Path
) -> None:
    first = loop.train(workspace, base_name(workspace), who="t", forced_reason="r")
    stored = {row["id"]: list(row["probabilities"].values()) for row in told_of(first)}
    assert first.activated
    fresh_topics, known_topics = reviewed_pairs(270)[240:], reviewed_pairs(40, seed=5)
    add_reviews(workspace, tmp_path, [*fresh_topics, *known_topics])
    dataset = workspace.dataset(workspace.enough_reviews(), first.version)
    base = loop.load_base_for(workspace.settings, base_name(workspace))
    witness = witness_of(workspace, Judge(base), first.version, dataset.learned)

    rows = [example for example in dataset.train if example.source != "replay"]
    said = witness.answers(rows)

    fresh_pairs = {pair for pair, _ in fresh_topics}
    answers = softmax(witness.judge.logits([example.pair for example in rows]))
    own = dict(zip([e.id for e in rows], answers, strict=True))
    for example, answer in zip(rows, said, strict=True):
        if example.id in stored:  # as its folds' students answered
            assert answer.tolist() == stored[example.id]
        elif example.pair in fresh_pairs:
            np.testing.assert_allclose(answer, own[example.id], atol=1e-6)
        else:  # it learned from another row of the same group
            assert np.isnan(answer).all()
    assert len(stored) < len(rows) - len(fresh_topics)


def test_a_training_that_was_interrupted_goes_on_where_it_left_off(
    workspace: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Interrupted(TrainingLog):
        def step(self, step: int, values: Mapping[str, float]) -> None:
            super().step(step, values)
            if self._phase == "fold 2 of 2":
                raise KeyboardInterrupt

    def train() -> loop.Outcome:
        return loop.train(workspace, base_name(workspace), who="t", forced_reason="r")

    runs = tmp_path / "adapters" / "runs"
    with monkeypatch.context() as patch:
        patch.setattr(loop, "TrainingLog", Interrupted)
        with pytest.raises(KeyboardInterrupt):
            train()
    assert [file.stem for file in (runs / "unfinished").glob("*/*.pt")] == ["fold 1 of 2"]
    (first,) = runs.glob("*/metrics.jsonl")

    outcome = train()
    (second,) = set(runs.glob("*/metrics.jsonl")) - {first}
    rows = [json.loads(line) for line in second.read_text().splitlines()]
    stepped = {row["phase"] for row in rows if row["kind"] == "step"}
    assert stepped == {"fold 2 of 2", "final"}
    assert not list((runs / "unfinished").iterdir())
    # From its beginning, without what the interrupted run left.
    assert reproduce(workspace, outcome.version.name).name == outcome.version.name


def test_a_candidate_that_fails_is_kept_but_never_active(
    workspace: Workspace, tmp_path: Path
) -> None:
    lazy = with_recipe(workspace, learning_rate=1e-9)

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
    workspace = with_dataset(workspace, min_holdout=20)
    first = loop.train(workspace, base_name(workspace), who="t", forced_reason="r")
    learned = set(workspace.registry.manifest_of(first.version).row_ids["train"])
    add_reviews(workspace, tmp_path, reviewed_pairs(80, seed=5))

    second = loop.train(workspace, base_name(workspace), who="t", forced_reason="r")

    assert first.activated
    assert second.verdict.active == first.version.name
    assert second.version.parent == first.version.name
    assert second.dataset.holdout
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
