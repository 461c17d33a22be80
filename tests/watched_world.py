"""A database of a project that is watched: reviews, logged answers, decisions, by the day."""

from __future__ import annotations

from datetime import date, timedelta
from pathlib import Path
from typing import Any

from sqlalchemy import insert

from lyra_nli.labels import LABELS
from lyra_nli.settings import Settings, load_settings
from lyra_nli.storage import tables
from lyra_nli.storage.engine import read, write
from lyra_nli.storage.upgrade import init_database
from lyra_nli.workspace import Workspace

BASE = "starter"
START = date(2026, 3, 2)
"""A Monday."""


def day(offset: int) -> str:
    """So many days after `START`."""
    return (START + timedelta(days=offset)).isoformat()


class WatchedWorld:
    """An upgraded database and its workspace; rows are added by hand."""

    def __init__(self, folder: Path, database: str = "", **monitoring: Any) -> None:
        self.settings: Settings = load_settings(
            None,
            {
                "storage": {"database_path": database or str(folder / "lyra.db")},
                "nli": {"fast_model": BASE, "adapters_dir": str(folder / "adapters")},
                "monitoring": monitoring,
            },
        )
        init_database(self.settings.storage.database_path)
        self.workspace = Workspace.open(self.settings)
        self._rows = 0

    def add(self, table: str, *rows: dict[str, Any]) -> None:
        with write(self.workspace.engine) as connection:
            connection.execute(insert(tables.metadata.tables[table]), list(rows))

    def review(
        self, offset: int, version: str | None = "base", *, correct: str = "supports", **more: Any
    ) -> str:
        """Somebody reviews a judgement `supports`, at noon; agreed unless `correct` differs."""
        self._rows += 1
        row = {
            "id": f"nlr_{self._rows:06}",
            "edge_id": f"e{self._rows}",
            "pair_key": f"pair{self._rows}",
            "premise": "a",
            "hypothesis": "b",
            "predicted_label": "supports",
            "correct_label": correct,
            "predicted_by": version,
            "sampling": "random",
            "reviewed_at": f"{day(offset)}T12:00:00+00:00",
            **more,
        }
        self.add("nli_reviews", row)
        return str(row["id"])

    def reviews(self, offset: int, version: str, n: int, corrected: int, **more: Any) -> None:
        """So many random reviews in one day, of which the first ones change the label."""
        for number in range(n):
            correct = "refutes" if number < corrected else "supports"
            self.review(offset, version, correct=correct, **more)

    def answer(self, offset: int, version: str, *chances: float, pair: str, **more: Any) -> None:
        """The server judged a pair in the morning; `chances` in the order of the labels."""
        label = LABELS[max(range(3), key=lambda index: chances[index])]
        row = {
            "at": f"{day(offset)}T08:00:00+00:00",
            "pair_key": pair,
            "base_model": BASE,
            "version": version,
            "label": label,
            **{str(name): chance for name, chance in zip(LABELS, chances, strict=True)},
            "premise_chars": 100,
            "hypothesis_chars": 40,
            "milliseconds": 3.0,
            **more,
        }
        self.add("nli_predictions", row)

    def count(self, offset: int, version: str, kind: str, **buckets: int) -> None:
        """So many logged answers of a day fell into these buckets."""
        rows = [
            {
                "day": day(offset),
                "base_model": BASE,
                "version": version,
                "kind": kind,
                "bucket": bucket,
                "n": n,
            }
            for bucket, n in buckets.items()
        ]
        self.add("nli_prediction_counts", *rows)

    def event(self, offset: int, before: str | None, after: str | None, **more: Any) -> None:
        """Somebody changed what serves, in the morning."""
        row = {
            "at": f"{day(offset)}T09:00:00+00:00",
            "who": "ada",
            "action": "activate",
            "base_model": BASE,
            "from_version": before,
            "to_version": after,
            **more,
        }
        self.add("nli_version_events", row)

    def ask(self, function: Any, *args: Any, **kwargs: Any) -> Any:
        """Call what reads from a connection."""
        with read(self.workspace.engine) as connection:
            return function(connection, self.workspace.generation, *args, **kwargs)
