"""The gate's report, as Markdown and as one HTML file, for people who are no statisticians."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Final

from jinja2 import Environment, FileSystemLoader, StrictUndefined, select_autoescape

from lyra_nli.evaluation import tables
from lyra_nli.evaluation.cases import SHOWN, cases
from lyra_nli.evaluation.evidence import Evidence
from lyra_nli.evaluation.gate import Verdict
from lyra_nli.evaluation.reliability import Bin, diagram

HEADLINES: Final = {
    "pass": "PASS: it may serve",
    "fail": "FAIL: it is kept, but should not serve",
    "insufficient": "INSUFFICIENT EVIDENCE: not shown to be better yet",
}

GUIDE: Final = (
    "Every row was reviewed by a person, and no model learned from the rows that it is judged on.",
    "Square brackets hold the range in which the true figure lies, 19 times out of 20. Rows of one "
    "page or claim err together: a group of them counts as little more than one.",
    "Errors fixed: the base was wrong there and the candidate is right. Right answers broken: the "
    "reverse. A candidate must fix clearly more than it breaks.",
    "p: how often a candidate that is no better would look this good by chance. Small is good. In "
    "the tables it takes each row for itself; the checks count groups.",
    "Brier score: 0 is certain and right, 2 is certain and wrong; less is better, as it is of the "
    "negative log-likelihood. Calibration error: how far what it says (80% sure) is from how "
    "often it is right.",
    "General NLI is everyday text that has nothing to do with your reviews: it shows what was "
    "forgotten.",
    "Corrections are rows that were wrong when people saw them, agreed are rows that were right: "
    "by themselves neither says how good a model is.",
)

_LONGEST = 400
"""Characters of a text that a case quotes."""

_MARKDOWN = re.compile(r"([\\`*<>&|~]|\b_|_\b|(?<=\])\()")
"""What may be markup in the middle of a line; a link needs its `](`."""


@dataclass(frozen=True)
class Report:
    """What the gate found, with the rows that show it.

    Attributes:
        name: of the version, or of what was judged before it had one.
        reviewed: the rows that were judged, and what was said of them.
        lineage: what it was made from, one line each.
        notes: what else a reader must know.
    """

    name: str
    verdict: Verdict
    reviewed: Evidence
    lineage: Mapping[str, str]
    notes: Sequence[str] = ()

    def markdown(self) -> str:
        """The report as Markdown; the texts that it quotes are escaped."""
        return _render("report.md.j2", self._values())

    def html(self) -> str:
        """The report as one HTML file: no script, nothing from elsewhere, texts escaped."""
        return _render("report.html.j2", self._values())

    def _values(self) -> dict[str, Any]:
        verdict = self.verdict
        diagrams = {model: _diagram(self.reviewed, model) for model in ("base", "candidate")}
        return {
            "name": self.name,
            "verdict": verdict,
            "headline": HEADLINES[verdict.outcome],
            "notes": [*self.notes, *verdict.warnings],
            "facts": list(tables.facts(verdict)),
            "checks": tables.checks(verdict),
            "changes": tables.changes(verdict),
            "scores": tables.scores(verdict),
            "diagrams": diagrams,
            "bars": [tables.bars(model, bins) for model, bins in diagrams.items()],
            "cases": cases(self.reviewed),
            "shown": SHOWN,
            "guide": GUIDE,
            "lineage": {**self.lineage, **dict(_reviewed_between(self.reviewed))},
        }


def _diagram(reviewed: Evidence, model: str) -> list[Bin]:
    """How often a model was right where it was so sure; bars without rows are left out."""
    asked = reviewed.asked(model)
    said = reviewed.answers[model][asked]
    hits = said.argmax(axis=1) == reviewed.labels[asked]
    return [each for each in diagram(said.max(axis=1), hits) if each.n]


def _reviewed_between(reviewed: Evidence) -> Iterator[tuple[str, str]]:
    """When people reviewed the rows that were judged."""
    times = sorted(e.review.reviewed_at[:10] for e in reviewed.examples if e.review)
    if times and times[0]:
        yield "judged on reviews", f"from {times[0]} to {times[-1]}"


def _escaped(text: object) -> str:
    """Text inside Markdown: one line, nothing of it markup."""
    return _MARKDOWN.sub(r"\\\1", " ".join(str(text).split()))


def _quoted(text: str) -> str:
    """One line of a text, cut where it is long."""
    line = " ".join(text.split())
    return line if len(line) <= _LONGEST else f"{line[:_LONGEST].rstrip()} …"


def _render(template: str, values: Mapping[str, Any]) -> str:
    return _templates().get_template(template).render(values)


@cache
def _templates() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=select_autoescape(["html.j2"], default=False),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {"escaped": _escaped, "quoted": _quoted}
    return environment
