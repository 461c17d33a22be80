"""Appeal: a version judged again, by today's rule, on the rows that it was judged on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lyra_nli.dataset.build import example_of, known
from lyra_nli.dataset.domains import untied
from lyra_nli.errors import AdapterError, InputError
from lyra_nli.evaluation.gate import Verdict
from lyra_nli.evaluation.report import Report
from lyra_nli.models.base import Base, load_base
from lyra_nli.models.judge import Judge
from lyra_nli.records import Example, Review
from lyra_nli.registry.answers import read_answers
from lyra_nli.registry.lineage import lineage
from lyra_nli.registry.looks import count_looks
from lyra_nli.registry.manifest import Manifest
from lyra_nli.registry.rows import Version
from lyra_nli.storage.engine import now, read
from lyra_nli.witnesses import Proof, Witness, gather, witness_of
from lyra_nli.workspace import Workspace


@dataclass(frozen=True)
class Appeal:
    """What the gate says of a version today; the registry keeps what it said then."""

    version: Version
    verdict: Verdict
    report: Report


def appeal(workspace: Workspace, name: str, against: str = "") -> Appeal:
    """Judge a version again. Changes nothing.

    Held-out rows are answered anew by the models; what the students of its folds said of rows that
    they had not learned from is read from its files.

    Args:
        against: a version, ``active`` or ``base``; empty: the version that served when it was made,
            where that still exists.

    Raises:
        AdapterNotFoundError: there is no such version.
        AdapterError: its files do not verify, or do not hold what it was judged on.
        ModelError: the base can't be loaded.
    """
    version = workspace.registry.get(name)
    manifest = workspace.registry.verify(version.name)
    base = load_base(
        manifest.base_model, revision=manifest.base_revision, max_length=manifest.max_length
    )
    opponent = _opponent(workspace, version, against)
    reviews = workspace.reviews().reviews
    proof, gone = _prove(workspace, base, version, manifest, opponent, reviews)
    with read(workspace.engine) as connection:
        looks = count_looks(connection, version.base_model, proof.rows, version.created_at)
    active = opponent.name if opponent else None
    verdict = proof.verdict(
        workspace.settings.gate, active=active, looks=looks, start=manifest.started_from
    )
    notes = [f"Judged again at {now()[:16]}, by the rule and the thresholds of that day."]
    if gone:
        notes.append(f"{gone} of the rows that it was judged on then are no longer there.")
    report = Report(version.name, verdict, proof.reviewed, lineage(manifest), notes)
    return Appeal(version, verdict, report)


def _opponent(workspace: Workspace, version: Version, against: str) -> Version | None:
    registry = workspace.registry
    if not against:
        parent = registry.get(version.parent) if version.parent else None
        return parent if parent and parent.status != "removed" else None
    opponent = registry.resolve(against, version.base_model)
    if opponent and opponent.name == version.name:
        raise InputError(f"{version.name} can't be held against itself")
    return opponent


def _prove(
    workspace: Workspace,
    base: Base,
    version: Version,
    manifest: Manifest,
    opponent: Version | None,
    reviews: Sequence[Review],
) -> tuple[Proof, int]:
    """What all say of the rows; and how many of those are gone."""
    stored = read_answers(version.path)
    held = [row for row in stored if row["part"] == "holdout"]
    rows = _examples(held or stored, reviews)
    if not rows:
        raise AdapterError(
            f"{version.name} can't be judged again: the rows that it was judged on are gone",
            hint="They are the reviews that its out_of_fold.jsonl names.",
        )
    plain = Judge(base, batch_size=workspace.settings.nli.batch_size)
    witnesses = {
        "base": Witness(plain),
        "candidate": witness_of(workspace, plain, version, frozenset()),
    }
    if opponent:
        ids = set(workspace.registry.manifest_of(opponent).learned)
        ids |= {now for now, then in workspace.earlier_ids(reviews) if then in ids}
        learned = known(untied(reviews, version.domain) if version.domain else reviews, ids)
        witnesses["active"] = witness_of(workspace, plain, opponent, learned)
    replayed = {example.id: example for example in workspace.replay()}
    general = [replayed[row] for row in manifest.row_ids["general"] if row in replayed]
    proof = gather(witnesses, rows if held else (), () if held else rows, general)
    return proof, len(held or stored) - len(rows)


def _examples(rows: Sequence[Mapping[str, Any]], reviews: Sequence[Review]) -> list[Example]:
    """The rows whose reviews are still there, in the groups that they stood in."""
    found = {review.id: review for review in reviews}
    return [
        example_of(found[row["id"]], row.get("group") or row["id"])
        for row in rows
        if row["id"] in found
    ]
