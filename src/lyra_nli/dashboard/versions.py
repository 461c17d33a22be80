"""The page of versions: which there are, where they come from, and what they were proven by."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict

from sqlalchemy import Connection, func, select

from lyra_nli.dashboard.drawn import by_version
from lyra_nli.dashboard.gates import metrics_of
from lyra_nli.dashboard.view import Fields, View
from lyra_nli.errors import AdapterNotFoundError
from lyra_nli.monitoring.shares import Share
from lyra_nli.registry.manifest import MANIFEST, Manifest
from lyra_nli.registry.versions import Event, Version
from lyra_nli.storage.generation import Generation
from lyra_nli.storage.tables import nli_prediction_counts, nli_training_runs

EVENTS, RUNS = 100, 20


def versions(view: View) -> Fields:
    """All versions of a base, its history and its trainings."""
    listed = list_versions(view)
    return {
        "active": _aliased(listed, "active"),
        "previous": _aliased(listed, "previous"),
        "versions": list(_facts(view, listed)),
        "events": list_events(view)[:EVENTS],
        "runs": list_runs(view, RUNS),
    }


def list_versions(view: View) -> list[Version]:
    """Read the versions of the view's base, removed ones too, oldest first."""
    return view.attempt(
        "the list of versions",
        [],
        lambda workspace: workspace.registry.list(view.base_model, include_removed=True),
    )


def find(view: View, name: str) -> Version:
    """Find a version of the view's base: ``active``, ``previous``, ``v3`` or the whole name.

    Raises:
        AdapterNotFoundError: there is none.
    """
    full = f"lora-lyra-{name}" if name.startswith("v") else name
    known = list_versions(view)
    for each in known:
        if full == each.name or name in each.aliases:
            return each
    names = ", ".join(each.name for each in known) or "none"
    raise AdapterNotFoundError(
        f"there is no version {name!r} of {view.base_model}", hint=f"There are: {names}."
    )


def list_events(view: View) -> list[Fields]:
    """Read the history of what served the view's base, newest first."""
    events: list[Event] = view.attempt(
        "the history of versions",
        [],
        lambda workspace: workspace.registry.events(view.base_model),
    )
    return [asdict(event) for event in reversed(events)]


def list_runs(view: View, limit: int, run_id: str | None = None) -> list[Fields]:
    """Read the newest trainings of the view's base, or one of them."""
    table = nli_training_runs.c
    statement = select(
        table.id,
        table.started_at,
        table.finished_at,
        table.status,
        table.forced_reason,
        table.samples,
        table.message,
    ).where(table.base_model == view.base_model)
    if run_id is not None:
        statement = statement.where(table.id == run_id)
    statement = statement.order_by(table.started_at.desc()).limit(limit)

    def read_runs(connection: Connection, _: Generation) -> list[Fields]:
        return [dict(row) for row in connection.execute(statement).mappings()]

    return view.ask("the trainings", [], read_runs, needs={"nli_training_runs": ("message",)})


def facts_of(view: View, found: Version) -> Fields:
    """What the list says of a version."""
    [facts] = _facts(view, [found])
    return facts


def _facts(view: View, listed: Sequence[Version]) -> Iterator[Fields]:
    answers: dict[tuple[str, str], int] = view.ask(
        "the number of answers", {}, _count_answers, needs={"nli_prediction_counts": ("kind",)}
    )
    rates = by_version(view)
    for each in listed:
        metrics = metrics_of(each)
        folder, problem = folder_of(each)
        yield {
            "name": each.name,
            "status": each.status,
            "verdict": each.verdict,
            "aliases": list(each.aliases),
            "parent": each.parent,
            "samples_used": each.samples_used,
            "created_at": each.created_at,
            "run_id": each.run_id,
            **{
                f"{metric}_{when}": metrics.get(f"{metric}_{when}")
                for metric in ("accuracy", "brier")
                for when in ("before", "after")
            },
            "folder": folder,
            "problem": problem,
            "answers": answers.get((view.base_model, each.name), 0),
            "correction_rate": rates.get(each.name, Share(0, 0)).to_dict(),
        }


def _count_answers(connection: Connection, _: Generation) -> dict[tuple[str, str], int]:
    table = nli_prediction_counts.c
    statement = (
        select(table.base_model, table.version, func.sum(table.n))
        .where(table.kind == "label")
        .group_by(table.base_model, table.version)
    )
    return {(base, name): int(n) for base, name, n in connection.execute(statement)}


def folder_of(found: Version) -> tuple[str, str | None]:
    """A quick look; whether the files are the right ones, `one_version` tells."""
    if found.status == "removed":
        return "missing", None
    if not found.path.is_dir():
        return "missing", f"There is no folder {found.path}: restore it from an export."
    if not (found.path / MANIFEST).is_file():
        return "damaged", f"{found.path} has no {MANIFEST}: restore it from an export."
    return "ok", None


def manifest_of(view: View, found: Version) -> Manifest | None:
    """Read what a version was made from; None when its folder does not tell."""
    if folder_of(found)[0] != "ok":
        return None
    return view.attempt(
        f"the manifest of {found.name}",
        None,
        lambda workspace: workspace.registry.manifest_of(found),
    )


def _aliased(listed: Sequence[Version], alias: str) -> str:
    return next((each.name for each in listed if alias in each.aliases), "base")
