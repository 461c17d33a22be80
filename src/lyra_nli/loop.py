"""The whole loop: reviews -> dataset -> training -> evaluation -> registry -> active version.

`train` reads as that sentence; every other function here is one of its words.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import Any, Literal

import torch
from rich.console import Console
from sqlalchemy import Connection

from lyra_nli import provenance
from lyra_nli.clock import Clock
from lyra_nli.dataset.build import Dataset
from lyra_nli.errors import LyraNliError, SupersededError
from lyra_nli.evaluation.gate import Verdict
from lyra_nli.evaluation.report import Report
from lyra_nli.models.adapter import save_adapter
from lyra_nli.models.base import Base, load_base
from lyra_nli.models.encoding import misfits
from lyra_nli.models.judge import Judge
from lyra_nli.models.machine import compute_dtype
from lyra_nli.records import Review
from lyra_nli.registry.answers import write_answers
from lyra_nli.registry.artifact import staged
from lyra_nli.registry.lineage import lineage
from lyra_nli.registry.manifest import Manifest
from lyra_nli.registry.rows import Version
from lyra_nli.settings import Settings
from lyra_nli.storage.engine import now, write
from lyra_nli.storage.reviews import mark_trained
from lyra_nli.storage.runs import finish_run, start_run
from lyra_nli.storage.suspects import note_suspects
from lyra_nli.trainers import Trainers, told
from lyra_nli.training.folds import AnswerRow, answer_rows
from lyra_nli.training.log import TrainingLog
from lyra_nli.training.opinions import read_opinions
from lyra_nli.training.suspicion import suspects, suspicions
from lyra_nli.training.trainer import Trained
from lyra_nli.witnesses import Proof, Witness, evaluate, with_groups
from lyra_nli.workspace import Workspace

_STATUS: Mapping[str, Literal["passed", "rejected", "unproven"]] = {
    "pass": "passed",
    "fail": "rejected",
    "insufficient": "unproven",
}


@dataclass
class Outcome:
    """What one turn of the loop gave.

    Attributes:
        origin: a search or a warm start, in words.
        kept_back: why a version that passed was not activated after all; mostly empty.
        seconds: by step.
    """

    version: Version
    verdict: Verdict
    trained: Trained
    dataset: Dataset
    origin: Mapping[str, str]
    activated: bool = False
    kept_back: str = ""
    seconds: dict[str, float] = field(default_factory=dict)


def train(
    workspace: Workspace,
    base_name: str,
    *,
    who: str,
    forced_reason: str = "",
    promote_reason: str = "",
    activate: bool = True,
    domain: str = "",
    search_minutes: float = 0.0,
    console: Console | None = None,
) -> Outcome:
    """Learn from everything people said, and prove it.

    Args:
        base_name: the base model to train for.
        forced_reason: why training runs although it is not due; recorded.
        promote_reason: activate the candidate even if the gate does not pass it; recorded.
        activate: let a version that passes the gate serve at once.
        domain: learn from the reviews of this site or group alone. Such a version does not serve
            by itself, and its reviews count as not trained on: the next one learns from them too.
        search_minutes: look so long for a better recipe first; 0: the one of the settings.

    Raises:
        DatasetError: too few corrections, or no honest split.
        ModelError: the base can't be loaded.
        TrainingError: the run could not finish.
        StorageError: the database was not upgraded, or can't be written.

    Whatever ends it, an interrupt included, no half version is left behind.
    """
    workspace.generation.require_upgraded()
    clock, registry = Clock(), workspace.registry
    with _run(workspace, base_name, forced_reason, domain) as run_id, told():
        with clock.step("dataset"):
            reviews = workspace.enough_reviews(domain)
            active = registry.active(base_name)
            dataset = workspace.dataset(reviews, active, domain)
        with clock.step("base model"):
            base = load_base_for(workspace.settings, base_name)
            dataset = dataset.without(misfits(base, dataset.examples()))
            dataset = dataset.weighed(workspace.settings.dataset)
        with (
            staged(registry.directory) as staging,
            TrainingLog(registry.directory / "runs" / run_id, console) as log,
        ):
            trainers = Trainers(workspace, base, dataset, active, log)
            if search_minutes:
                with clock.step("search"):
                    workspace = workspace.with_recipe(trainers.search(search_minutes))
            with clock.step("training"):
                recipe = workspace.settings.training
                trainer = trainers(recipe)
                trained = trainer.train(dataset.train, dataset.dev, trainers.unseen)
                save_adapter(base, trainer.student.model, recipe, staging, trained.strength)
            with clock.step("suspects"):
                judge = Judge(base, batch_size=workspace.settings.nli.batch_size)
                opinions = read_opinions(judge, dataset.examples())
                suspicion = suspicions(opinions)
            with clock.step("gate"):
                unseen = trained.unseen_rows()
                asked = Witness(judge, unseen=opinions.answers())
                verdict, proof = evaluate(
                    workspace, asked, staging, dataset, unseen, active, trainers.started_from
                )
            write_answers(staging, _told(dataset, unseen, proof, suspicion))
            origin = trainers.origin()
            manifest = describe(workspace, base, dataset, trained, verdict, proof, origin)
            ancestry = lineage(manifest)
            report = Report(f"candidate of {run_id}", verdict, proof.reviewed, ancestry)
            (staging / "report.md").write_text(report.markdown(), "utf-8")
            (staging / "report.html").write_text(report.html(), "utf-8")
            version = registry.publish(
                manifest,
                staging,
                also=partial(_record, workspace, dataset, reviews, suspicion, verdict, run_id),
                status=_STATUS[verdict.outcome],
                run_id=run_id,
                parent=verdict.active,
                samples_used=sum(e.source != "replay" for e in (*dataset.train, *dataset.dev)),
                metrics=manifest.metrics,
                verdict=verdict.outcome,
                report_path="report.md",
            )
    trainers.clear()
    outcome = Outcome(version, verdict, trained, dataset, ancestry, seconds=clock.seconds)
    activate = activate and workspace.settings.gate.auto_activate and not domain
    promoted = verdict.outcome == "pass" and activate
    if promoted or promote_reason:
        with clock.step("activation"):
            reason = promote_reason or f"gate: {verdict.sentence}"
            over = () if promote_reason else (verdict.active,)
            try:
                registry.activate(version.name, who=who, reason=reason, only_over=over)
            except SupersededError as error:  # the training is none the worse for it
                outcome.kept_back = str(error)
        outcome.activated = not outcome.kept_back
    return outcome


def _told(
    dataset: Dataset,
    unseen: Sequence[AnswerRow],
    proof: Proof,
    suspicion: Mapping[str, float],
) -> Iterator[AnswerRow]:
    """What was said of every row that judged the candidate, and how far its label is doubted.

    Args:
        unseen: what the folds' students said.
    """
    rows = list(unseen)
    if dataset.holdout:
        rows += answer_rows("holdout", dataset.holdout, proof.reviewed.answers["candidate"])
    doubted = [row | {"suspicion": suspicion.get(row["id"])} for row in rows]
    return with_groups(doubted, dataset.examples())


def _record(
    workspace: Workspace,
    dataset: Dataset,
    reviews: Sequence[Review],
    suspicion: Mapping[str, float],
    verdict: Verdict,
    run_id: str,
    connection: Connection,
    version: Version,
) -> None:
    """Write down, with the version, what it learned from and which labels are doubted since."""
    generation, ids = workspace.generation, [review.id for review in reviews]
    if not dataset.domain:
        # Also those that judged it: the same reviews would only give the same version.
        mark_trained(connection, generation, ids, version.name, version.lyra_adapter_id)
        queued = suspects(suspicion, dataset.cleaned)
        note_suspects(connection, generation, queued, version.name)
    finish_run(
        connection,
        run_id,
        status="done",
        message=verdict.sentence,
        dataset_hash=dataset.content_hash,
        samples=len(dataset.cleaned.reviews) if dataset.domain else len(ids),
    )


def load_base_for(settings: Settings, name: str) -> Base:
    """A base model at the revision that the settings pin for it."""
    return load_base(
        name, revision=settings.nli.revision_of(name), max_length=settings.nli.max_length
    )


def describe(
    workspace: Workspace,
    base: Base,
    dataset: Dataset,
    trained: Trained,
    verdict: Verdict,
    proof: Proof,
    origin: Mapping[str, Any],
) -> Manifest:
    """Everything needed to make the version again.

    Args:
        origin: what is to be known of a search, or of a warm start.
    """
    recipe = workspace.settings.training
    precision = "bf16" if compute_dtype(recipe.precision) == torch.bfloat16 else "fp32"
    as_run = recipe.model_copy(update={"threads": trained.fitted.threads, "precision": precision})
    reviewed = verdict.populations[0].scores
    learned = dataset.count("train", "source")
    learned += dataset.count("dev", "source") if trained.dev_learned else Counter()
    return Manifest(
        base_model=base.name,
        base_revision=base.revision,
        base_fingerprint=base.fingerprint,
        dataset_hash=dataset.content_hash,
        split_hash=dataset.split_hash,
        row_ids=dataset.row_ids(),
        groups=dataset.groups(),
        recipe=as_run.model_dump(mode="json"),
        dataset_settings=workspace.settings.dataset.model_dump(mode="json"),
        library_versions=provenance.library_versions(),
        git_commit=provenance.git_commit(),
        seed=recipe.seed,
        max_length=base.max_length,
        threads=trained.fitted.threads,
        created_at=now(),
        metrics={
            "verdict": verdict.to_dict(),
            "evidence": {"kind": proof.kind, **asdict(proof.rows)},
            "accuracy_before": reviewed["base"].accuracy.value,
            "accuracy_after": reviewed["candidate"].accuracy.value,
            "brier_before": reviewed["base"].brier,
            "brier_after": reviewed["candidate"].brier,
            "learned_from": dict(learned),
            "people": dataset.people(),
            "aside": len(dataset.aside),
            "domain": dataset.domain,
            "training": trained.figures(),
            **origin,
        },
    )


@contextmanager
def _run(
    workspace: Workspace, base_name: str, forced_reason: str, domain: str = ""
) -> Iterator[str]:
    """A row in the history of runs, which says how the run ended, whatever ended it."""
    recipe = json.loads(workspace.settings.training.model_dump_json())
    with write(workspace.engine) as connection:
        run_id = start_run(connection, base_name, forced_reason, recipe, domain)
    try:
        yield run_id
    except BaseException as error:  # an interrupt too must not leave a run that never ends
        with write(workspace.engine) as connection:
            message = str(error) if isinstance(error, LyraNliError) else type(error).__name__
            finish_run(connection, run_id, status="failed", message=message)
        raise
