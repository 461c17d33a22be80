"""The fields of a reviewed pair in a file, and what each may hold (docs/data.md)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches

from lyra_nli.labels import Label
from lyra_nli.records import Pair, Sampling

REQUIRED = ("premise", "hypothesis", "predicted_label", "predicted_confidence", "correct_label")
OPTIONAL = (
    "id",
    "edge_id",
    "predicted_by",
    "anchors",
    "group",
    "reviewed_at",
    "reviewer",
    "reason",
    "source_url",
    "sampling",
)
FIELDS = (*REQUIRED, *OPTIONAL)
EXPORTED = (
    "id",
    "premise",
    "hypothesis",
    "predicted_label",
    "predicted_confidence",
    "predicted_by",
    "correct_label",
    "reviewed_at",
    "reviewer",
    "reason",
    "sampling",
    "source_url",
    "edge_id",
    "anchors",
)
"""What an export writes of each row; the group is one of the anchors."""

MAX_NOTE_CHARS: Mapping[str, int] = {
    "id": 64,
    "edge_id": 64,
    "predicted_by": 500,
    "group": 500,
    "reviewer": 200,
    "reason": 10_000,
    "source_url": 4_000,
}
MAX_ANCHORS = 1_000
MAX_ANCHOR_CHARS = 1_000

GROUP = "group:"
"""How the anchor that stands for a row's ``group`` begins."""

UNKNOWN = "unknown"
"""What a file says of a time that nobody kept; an absent time is that of the import."""


@dataclass(frozen=True, slots=True)
class ImportRow:
    """One valid row of a file.

    Attributes:
        line: where it begins, counted from 1.
        predicted_confidence: None when the file says that nobody kept it.
        edge_id: the edge that was judged; empty when there was none.
        predicted_by: the model version that judged; empty when unknown.
        anchors: what the pair stands on, its group among them; sorted.
        reviewed_at: ISO-8601 in UTC; empty when nobody kept it, None when the file does not
            say, which means now.
    """

    line: int
    pair: Pair
    predicted_label: Label
    predicted_confidence: float | None
    correct_label: Label
    id: str = ""
    edge_id: str = ""
    predicted_by: str = ""
    anchors: tuple[str, ...] = ()
    reviewed_at: str | None = None
    reviewer: str = ""
    reason: str = ""
    source_url: str = ""
    sampling: Sampling = "unknown"

    @property
    def group(self) -> str:
        """The group that the file named, the first of several; empty without one."""
        groups = (anchor for anchor in self.anchors if anchor.startswith(GROUP))
        return next(groups, "").removeprefix(GROUP)


class BadRowError(ValueError):
    """A row can't be read; `problems` has one line for each fault."""

    def __init__(self, *problems: str) -> None:
        super().__init__("; ".join(problems))
        self.problems = problems


def unknown_field(name: str) -> str:
    """Say that a field is unknown, and which one may be meant."""
    meant = get_close_matches(name, FIELDS, n=1, cutoff=0.5)
    return f"{name[:80]!r}: unknown field" + (f"; did you mean {meant[0]}?" if meant else "")


def fault(text: str, limit: int) -> str:
    """Tell why a text can't be stored; empty when it can."""
    if len(text) > limit:
        return f"has {len(text):,} characters; at most {limit:,} are allowed"
    if "\x00" in text:
        return f"holds a NUL character (at {text.index(chr(0))})"
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        return f"is not valid Unicode (at character {error.start})"
    return ""
