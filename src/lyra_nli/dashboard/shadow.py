"""The page of shadows: how far two versions agree on the same pairs, and where they part."""

from __future__ import annotations

import json
from typing import Any, Final

from sqlalchemy import Connection, Row, select

from lyra_nli.dashboard.queues import scored
from lyra_nli.dashboard.view import Fields, View
from lyra_nli.labels import LABELS
from lyra_nli.monitoring.shadow_report import agreement
from lyra_nli.monitoring.shares import Share
from lyra_nli.registry.trial_rows import open_trials
from lyra_nli.storage.generation import Generation
from lyra_nli.storage.tables import nli_comparisons

COMPARISONS: Final = 100


def shadow(view: View) -> Fields:
    """Open trials, comparisons summed up by pair of versions, and the edges in dispute."""
    found = comparisons(view)
    return {
        "trials": trials(view),
        "pairs": _pairs(found),
        "comparisons": found,
        "edges": [
            {key: edge[key] for key in ("edge_id", "score", "at", "premise", "hypothesis")}
            | {"answers": edge["detail"]}
            for edge in scored(view, "disagree")
        ],
    }


def trials(view: View) -> list[Fields]:
    """The versions that are tried out on live traffic now, and how far each agrees."""

    def read_open(connection: Connection, generation: Generation) -> list[Fields]:
        return [
            {
                **{key: getattr(trial, key) for key in ("kind", "version", "share", "started_at")},
                "disagreement": agreement(connection, generation, trial).disagreed.to_dict(),
            }
            for trial in open_trials(connection, base_model=view.base_model)
        ]

    return view.ask("the trials", [], read_open, needs={"nli_trials": ("ended_at",)})


def comparisons(view: View) -> list[Fields]:
    """The newest comparisons of the view's base, newest first."""

    def read_comparisons(connection: Connection, _: Generation) -> list[Fields]:
        table = nli_comparisons
        statement = select(table).where(table.c.base_model == view.base_model)
        newest = statement.order_by(table.c.at.desc(), table.c.id).limit(COMPARISONS)
        return [_facts(row) for row in connection.execute(newest)]

    needs = {"nli_comparisons": ("compared", "disagreed")}
    return view.ask("the comparisons", [], read_comparisons, needs=needs)


def _facts(row: Row[Any]) -> Fields:
    details = _details(row.details_json)
    return {
        "id": row.id,
        "at": row.at,
        "kind": row.kind,
        "one": row.one,
        "other": row.other,
        "compared": row.compared,
        "disagreed": row.disagreed,
        "disagreement": Share(row.disagreed, row.compared).to_dict(),
        "labels": details.get("labels"),
        "confidence_shift": details.get("confidence_shift"),
    }


def _pairs(found: list[Fields]) -> list[Fields]:
    """Sum up, in the order of the newest comparison of each pair."""
    together: dict[tuple[str, str, str], list[Fields]] = {}
    for each in found:
        together.setdefault((each["one"], each["other"], each["kind"]), []).append(each)
    return [
        {
            "one": one,
            "other": other,
            "kind": kind,
            "comparisons": len(some),
            "compared": sum(each["compared"] for each in some),
            "disagreement": Share(
                sum(each["disagreed"] for each in some), sum(each["compared"] for each in some)
            ).to_dict(),
            "last": some[0]["at"],
        }
        for (one, other, kind), some in together.items()
    ]


def _details(stored: str) -> dict[str, Any]:
    """Read what a comparison counted; empty when it is torn."""
    try:
        details = json.loads(stored)
        matrix = details.get("labels")
        if matrix is not None and [len(row) for row in matrix] != [len(LABELS)] * len(LABELS):
            raise ValueError("no matrix of labels")
    except (AttributeError, TypeError, ValueError):
        return {}
    return dict(details)
