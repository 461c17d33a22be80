"""Populations: named sets of the judged rows, each with every model's figures."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from lyra_nli.dataset.domains import domains_of
from lyra_nli.evaluation.arrays import Hits
from lyra_nli.evaluation.changes import Change, Paired, change
from lyra_nli.evaluation.clusters import Clusters, flip_test
from lyra_nli.evaluation.evidence import Evidence
from lyra_nli.evaluation.metrics import Scores, mcnemar, score_groups
from lyra_nli.labels import LABELS
from lyra_nli.records import Example

FEWEST = 10
"""Rows that a page, a site, a topic or a claim must have to be shown by itself."""

SHOWN = 20
"""Pages, sites, topics and claims that are shown."""

GROUPS = 20
"""Groups that a part must have for chance to swap them: with few, no p could be small."""

_PAGE = "page:"

_LABEL = "label "

_FINEST, _LEAST = 0.01, 1e-4
"""The level to which a part's p is known after Holm's correction, and the finest before it: with
more than a hundred parts it would take minutes."""

_LONGEST = 80
"""Characters of a claim that name it."""


@dataclass(frozen=True)
class Population:
    """One named set of rows: scores by model (``base``, ``active``, ``candidate``).

    Attributes:
        change: candidate against the base, on the rows that both may be asked about.
    """

    name: str
    scores: dict[str, Scores]
    change: Change | None = None


@dataclass(frozen=True)
class Part:
    """A label, page, site, topic or claim, and what changed there.

    Attributes:
        harm: p that so much more is broken than fixed by chance, Holm's correction for the number
            of parts applied.
        help: the reverse.
    """

    name: str
    rows: Hits
    fixed: int
    broken: int
    harm: float = 1.0
    help: float = 1.0

    @property
    def of_label(self) -> bool:
        """Whether it is all rows of a label: these are shown however few they are."""
        return self.name.startswith(_LABEL)


def whole(reviewed: Evidence) -> dict[str, Hits]:
    """The reviewed rows in all, by what people said and by why they were shown them."""
    rows = reviewed.examples
    found = {
        "reviewed": np.ones(len(rows), dtype=bool),
        "corrections": np.array([row.source == "correction" for row in rows]),
        "agreed": np.array([row.source == "agreed" for row in rows]),
        "random share": at_random(reviewed),
    }
    return {name: mask for name, mask in found.items() if mask.any()}


def at_random(reviewed: Evidence) -> Hits:
    """The rows that nobody chose: only they are a sample of what the model is asked, [n]."""
    drawn = [
        row.review is not None and row.review.sampling == "random" for row in reviewed.examples
    ]
    return np.array(drawn, dtype=bool)


def parts_of(reviewed: Evidence) -> list[Part]:
    """Labels, then pages, sites, topics and claims of `FEWEST` rows or more, the most harmed first.

    Where a part has `GROUPS` groups or more, chance swaps whole groups; a page is one group, and
    there each row counts for itself.

    Holm (1979), A simple sequentially rejective multiple test procedure.
    """
    asked = reviewed.asked("base", "candidate")
    right = {
        m: reviewed.answers[m].argmax(axis=1) == reviewed.labels for m in ("base", "candidate")
    }
    fixed, broken = (right["candidate"] > right["base"]), (right["candidate"] < right["base"])
    found = [
        Part(name, mask, int(fixed[mask].sum()), int(broken[mask].sum()))
        for name, mask in ((n, m & asked) for n, m in _facets(reviewed).items())
        if mask.sum() >= FEWEST or (name.startswith(_LABEL) and mask.any())
    ]
    steps = right["candidate"].astype(np.float64) - right["base"]
    harm, help_ = (
        _holm(
            [
                _chance(reviewed.groups[part.rows], sign * steps[part.rows], len(found))
                for part in found
            ]
        )
        for sign in (-1, 1)
    )
    tested = [
        Part(part.name, part.rows, part.fixed, part.broken, *both)
        for part, both in zip(found, zip(harm, help_, strict=True), strict=True)
    ]
    labels = [part for part in tested if part.of_label]
    others = [part for part in tested if not part.of_label]
    return labels + sorted(others, key=lambda p: (p.fixed - p.broken) / p.rows.sum())


def populate(evidence: Evidence, masks: Mapping[str, Hits], level: float) -> Iterator[Population]:
    """Every figure of the named rows; a model has none where it may not be asked."""
    for name, mask in masks.items():
        scores = {}
        for model, said in evidence.answers.items():
            rows = mask & evidence.asked(model)
            if rows.any():
                groups = evidence.groups[rows].tolist()
                scores[model] = score_groups(said[rows], evidence.labels[rows], groups)
        both = paired(evidence, "base", mask)
        yield Population(name, scores, change(both, level) if both else None)


def row_by_row(evidence: Evidence, mask: Hits) -> Evidence:
    """The same evidence; where some rows are all of one group, as a page's are, each is its own."""
    if len(set(evidence.groups[mask])) > 1:
        return evidence
    return replace(evidence, examples=tuple(replace(e, group=e.id) for e in evidence.examples))


def paired(evidence: Evidence, other: str, mask: Hits | None = None) -> Paired | None:
    """Candidate and another model on the rows that both may be asked about; None without any."""
    rows = evidence.asked(other, "candidate")
    rows = rows if mask is None else rows & mask
    if not rows.any():
        return None
    before, after = (evidence.answers[model][rows] for model in (other, "candidate"))
    return Paired(before, after, evidence.labels[rows], Clusters.of(evidence.groups[rows]))


def _facets(reviewed: Evidence) -> dict[str, Hits]:
    found = {f"{_LABEL}{name}": reviewed.labels == k for k, name in enumerate(LABELS)}
    places: dict[str, list[int]] = defaultdict(list)
    for row, example in enumerate(reviewed.examples):
        for name in _places(example):
            places[name].append(row)
    for name, rows in sorted(places.items()):
        if len(rows) >= FEWEST:
            found[name] = np.isin(np.arange(len(reviewed.examples)), rows)
    return found


def _places(example: Example) -> Iterator[str]:
    review = example.review
    if review is None:
        return
    yield from (f"page {a.removeprefix(_PAGE)}" for a in review.anchors if a.startswith(_PAGE))
    yield from (f"domain {name}" for name in domains_of(review))
    yield _claim(example.pair.hypothesis)


def _claim(text: str) -> str:
    """Name a claim by its words; long ones that begin alike stay apart."""
    line = " ".join(text.split())
    if len(line) > _LONGEST:
        line = f"{line[:_LONGEST].rstrip()}… ({hashlib.sha256(line.encode()).hexdigest()[:6]})"
    return f'claim "{line}"'


def _chance(groups: NDArray[np.str_], steps: NDArray[np.float64], parts: int) -> float:
    """One-sided p that the steps, 1, 0 or -1 a row, add up to so much by chance.

    Args:
        parts: how many p-values Holm's correction will multiply it by, so that it must be known
            as finely.
    """
    clusters = Clusters.of(groups)
    if clusters.count < GROUPS:
        return mcnemar(int((steps > 0).sum()), int((steps < 0).sum()))
    return flip_test(clusters.sums(steps[:, None]), level=max(_FINEST / parts, _LEAST))


def _holm(ps: list[float]) -> list[float]:
    order = sorted(range(len(ps)), key=ps.__getitem__)
    adjusted, largest = [1.0] * len(ps), 0.0
    for rank, place in enumerate(order):
        largest = max(largest, min(1.0, (len(ps) - rank) * ps[place]))
        adjusted[place] = largest
    return adjusted
