"""Witnesses: who may be asked about which row, and what they say.

A held-out row is answered by the models themselves. Where there is no hold-out, a row is answered
by the student that learned from the other folds. A version that learned from it, or from a row of
the same page, claim or text, says of it only what its own folds' students said then.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from lyra_nli.dataset.build import Dataset
from lyra_nli.errors import DatasetError
from lyra_nli.evaluation.arrays import Probabilities
from lyra_nli.evaluation.evidence import Evidence
from lyra_nli.evaluation.gate import Kind, Verdict, judge_candidate
from lyra_nli.labels import LABELS
from lyra_nli.models.adapter import read_adapter
from lyra_nli.models.judge import Judge, softmax
from lyra_nli.records import Example
from lyra_nli.registry.answers import read_answers
from lyra_nli.registry.looks import Rows, count_looks
from lyra_nli.registry.manifest import check_base
from lyra_nli.registry.rows import Version
from lyra_nli.settings import GateSettings
from lyra_nli.storage.engine import read
from lyra_nli.workspace import Workspace


@dataclass(frozen=True)
class Witness:
    """One of the models that are held against each other.

    Attributes:
        learned: ids of rows about which its own answers prove nothing.
        unseen: row id -> probabilities in the order of ``LABELS``: what it said already, or a
            student of its training that had not learned from the row.
    """

    judge: Judge
    learned: frozenset[str] = frozenset()
    unseen: Mapping[str, Sequence[float]] = field(default_factory=dict)

    def answers(self, examples: Sequence[Example]) -> Probabilities:
        """Answer what may be asked: float64 [n, 3], NaN in the other rows."""
        said = np.full((len(examples), len(LABELS)), np.nan)
        own = []
        for row, example in enumerate(examples):
            if example.id in self.unseen:
                said[row] = self.unseen[example.id]
            elif example.id not in self.learned:
                own.append(row)
        if own:
            said[own] = softmax(self.judge.logits([examples[row].pair for row in own]))
        return said


@dataclass(frozen=True)
class Proof:
    """Everything that a verdict rests on, see `judge_candidate`."""

    kind: Kind
    reviewed: Evidence
    general: Evidence
    refit: Evidence | None

    @property
    def rows(self) -> Rows:
        """Which rows were judged, in the form that the registry keeps."""
        return Rows.of(example.pair for example in self.reviewed.examples)

    def verdict(
        self, settings: GateSettings, *, active: str | None, looks: int, start: str = ""
    ) -> Verdict:
        """Ask the gate."""
        return judge_candidate(
            self.reviewed,
            self.general,
            settings,
            kind=self.kind,
            active=active,
            looks=looks,
            refit=self.refit,
            start=start,
        )


def evaluate(
    workspace: Workspace,
    base: Witness,
    adapter_dir: Path,
    dataset: Dataset,
    unseen: Sequence[Mapping[str, Any]],
    active: Version | None,
    start: str = "",
) -> tuple[Verdict, Proof]:
    """Judge the saved candidate beside the base and the active version, on the same rows.

    Args:
        base: with what it said already, so that it is not asked twice.
        unseen: what the folds' students said of the rows that they had not learned from.
        active: the version that served when the training began: the dataset knows what that had
            learned from.
        start: the version that the training started from.

    Returns:
        The verdict, and what it rests on.
    """
    plain = base.judge
    adapted = plain.adapted(read_adapter(plain.base, adapter_dir), "candidate")
    answered = unseen_by(unseen)
    witnesses = {
        "base": base,
        # What its start had learned from, general NLI too, it can't be asked either.
        "candidate": Witness(adapted, dataset.learned if start else frozenset(), answered),
    }
    if active:
        witnesses["active"] = witness_of(workspace, plain, active, dataset.learned)
    folded = [example for example in dataset.train if example.id in answered]
    proof = gather(witnesses, dataset.holdout, folded, dataset.general)
    with read(workspace.engine) as connection:
        looks = count_looks(connection, plain.base.name, proof.rows)
    name = active.name if active else None
    verdict = proof.verdict(workspace.settings.gate, active=name, looks=looks, start=start)
    return verdict, proof


def gather(
    witnesses: Mapping[str, Witness],
    holdout: Sequence[Example],
    folded: Sequence[Example],
    general: Sequence[Example],
) -> Proof:
    """Ask every witness about the hold-out or, without one, about the rows of the folds.

    Args:
        witnesses: ``base``, ``candidate``, and ``active`` where there is one to hold it against.
        folded: rows that the candidate learned from, each answered by a student that had not.

    Raises:
        DatasetError: there are no rows of either kind.
    """
    rows = tuple(holdout or folded)
    if not rows:
        raise DatasetError(
            "there are no rows to judge the candidate on: no hold-out, and no folds",
            hint="Review edges of more pages and claims.",
        )
    reviewed, others = (
        Evidence(tuple(some), {name: each.answers(some) for name, each in witnesses.items()})
        for some in (rows, general)
    )
    if holdout:
        return Proof("holdout", reviewed, others, None)
    saved = Witness(witnesses["candidate"].judge).answers(rows)
    return Proof("out of fold", reviewed, others, Evidence(rows, {"candidate": saved}))


def judge_of(workspace: Workspace, plain: Judge, version: Version) -> Judge:
    """A registered version of a base that judges already, ready to judge beside it.

    Raises:
        AdapterInvalidError: its files do not verify, or were made for other weights.
    """
    base = plain.base
    check_base(workspace.registry.verify(version.name), base.name, base.fingerprint)
    return plain.adapted(read_adapter(base, version.path), version.name)


def witness_of(
    workspace: Workspace, plain: Judge, version: Version, learned: frozenset[str]
) -> Witness:
    """A registered version, with what its training kept of the rows that it learned from.

    Raises:
        AdapterInvalidError: as `judge_of`.
    """
    judge = judge_of(workspace, plain, version)
    return Witness(judge, learned, unseen_by(read_answers(version.path)))


def unseen_by(rows: Sequence[Mapping[str, Any]]) -> dict[str, list[float]]:
    """Row id -> probabilities in the order of ``LABELS``, of the rows that a fold answered."""
    return {
        row["id"]: [row["probabilities"][label] for label in LABELS]
        for row in rows
        if row["part"] == "fold"
    }


def with_groups(
    rows: Sequence[dict[str, Any]], examples: Sequence[Example]
) -> Iterator[dict[str, Any]]:
    """Add to each row the group that its example stands in: groups are no more once rows change."""
    groups = {example.id: example.group for example in examples}
    return ({**row, "group": groups[row["id"]]} for row in rows)
