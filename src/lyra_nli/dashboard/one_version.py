"""One version: its gate, its report, its files, and when it served."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import Connection, select

from lyra_nli.dashboard.gates import gate
from lyra_nli.dashboard.versions import facts_of, find, folder_of, list_events, list_runs
from lyra_nli.dashboard.view import Fields, View, reason
from lyra_nli.errors import AdapterError, AdapterNotFoundError
from lyra_nli.registry.manifest import Manifest
from lyra_nli.registry.rows import SERVING
from lyra_nli.registry.versions import Version
from lyra_nli.storage.generation import Generation
from lyra_nli.storage.tables import nli_calibrations

REPORT_PAGE = "report.html"


def version(view: View, name: str) -> Fields:
    """One version with its gate, its report and what it was made from.

    Raises:
        AdapterNotFoundError: there is no such version.
    """
    found = find(view, name)
    folder, manifest = _verified(view, found)
    events = list_events(view)
    return {
        "version": facts_of(view, found) | folder,
        "digest": found.digest,
        "base_fingerprint": found.base_fingerprint,
        "served": served(events, found.name),
        "gate": gate(view, found),
        "report": _report(view, found, found.report_path or "report.md"),
        "report_page": (found.path / REPORT_PAGE).is_file(),
        "run": next(iter(list_runs(view, 1, found.run_id)), None) if found.run_id else None,
        "manifest": manifest and _manifest_facts(manifest),
        "events": [
            event for event in events if found.name in (event["from_version"], event["to_version"])
        ],
        "calibrations": _calibrations(view, found.name),
    }


def served(events: Sequence[Fields], name: str) -> list[Fields]:
    """When a version served: from each event that led to it to the next that changed what serves.

    Args:
        events: newest first.
    """
    spans: list[Fields] = []
    until = None
    for event in events:
        if event["action"] in SERVING:
            if event["to_version"] == name:
                spans.append({"from": event["at"], "to": until})
            until = event["at"]
    return spans[::-1]


def _verified(view: View, found: Version) -> tuple[Fields, Manifest | None]:
    """Look at every file: what is wrong with the folder, and what the version was made from."""
    folder, problem = folder_of(found)
    manifest = None
    if folder == "ok" and view.workspace is not None:
        try:
            manifest = view.workspace.registry.verify(found.name)
        except (AdapterError, OSError) as error:
            folder, problem = "damaged", reason(error)
    if problem:
        view.missing.append(problem)
    return {"folder": folder, "problem": problem}, manifest


def _manifest_facts(manifest: Manifest) -> Fields:
    return {
        "dataset_hash": manifest.dataset_hash,
        "split_hash": manifest.split_hash,
        "rows": {side: len(ids) for side, ids in manifest.row_ids.items()},
        "seed": manifest.seed,
        "git_commit": manifest.git_commit,
        "created_at": manifest.created_at,
        "recipe": manifest.recipe,
        "library_versions": manifest.library_versions,
    }


def report_page(view: View, name: str) -> str:
    """The gate's report on one version as a page of its own.

    Raises:
        AdapterNotFoundError: there is no such version, or it has no such page.
    """
    found = find(view, name)
    page = _report(view, found, REPORT_PAGE)
    if page is None:
        why = " ".join(view.missing)
        raise AdapterNotFoundError(f"{found.name} has no report to show", hint=why)
    return page


def _report(view: View, found: Version, name: str) -> str | None:
    file = found.path / name
    if not file.is_file():
        return None
    return view.attempt(f"the report of {found.name}", None, lambda _: file.read_text("utf-8"))


def _calibrations(view: View, name: str) -> list[Fields]:
    table = nli_calibrations.c
    statement = (
        select(table.version, table.method, table.samples, table.created_at, table.is_current)
        .where(table.base_model == view.base_model, table.source == name)
        .order_by(table.version.desc())
    )

    def read_rows(connection: Connection, _: Generation) -> list[Fields]:
        return [
            {
                "number": row.version,
                "method": row.method,
                "samples": row.samples,
                "created_at": row.created_at,
                "current": bool(row.is_current),
            }
            for row in connection.execute(statement)
        ]

    needs = {"nli_calibrations": ("base_model", "source")}
    return view.ask("the calibrations", [], read_rows, needs=needs)
