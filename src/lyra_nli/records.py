"""The frozen values that pass from one stage of the loop to the next."""

from __future__ import annotations

import hashlib
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, Literal

from lyra_nli.labels import Label

Source = Literal["correction", "agreed", "replay", "foreign"]
"""Where a training example comes from: a human changed the label, confirmed it, it is general NLI
that keeps the model from forgetting, or two texts that have nothing to do with each other."""

Sampling = Literal["random", "queue", "unknown"]
"""Why a person came to review a pair. Only ``random`` reviews are a sample of the traffic."""

BASE: Final = "base"
"""Where versions are named, the base model without an adapter."""

MAX_TEXT_CHARS = 1_000_000
"""Longer texts are refused at every door: no fragment or claim is a megabyte."""


def normalise(text: str) -> str:
    """Fold what does not change a text's meaning: Unicode form, case and white space."""
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())


@dataclass(frozen=True, slots=True)
class Pair:
    """What an NLI model judges: whether the premise supports the hypothesis."""

    premise: str
    hypothesis: str

    @property
    def key(self) -> str:
        """A hash of the normalised texts: the identity of a pair across databases."""
        joined = f"{normalise(self.premise)}\x1f{normalise(self.hypothesis)}"
        return hashlib.sha256(joined.encode("utf-8", "surrogatepass")).hexdigest()[:32]


@dataclass(frozen=True, slots=True)
class Judgement:
    """A model's answer for one pair.

    Attributes:
        probabilities: softmax over the three labels, by label.
        confidence: the probability of ``label``.
        raw_label: the model's own name for the class.
        truncated: the premise was cut to fit the model's window; the hypothesis never is.
        adapter: the version that judged, or ``base``.
        calibrated_confidence: how likely ``label`` is to be right, by what people said of that
            version's answers; None where that is not known.
        calibration: the number of the calibration that says so.
        windows: how many pieces of a long premise were judged; 1: it was read as one.
        evidence: the characters of the premise, [start, end), in the window that decided; None
            where it was read as one.
    """

    label: Label
    confidence: float
    probabilities: Mapping[Label, float]
    raw_label: str
    truncated: bool
    adapter: str
    calibrated_confidence: float | None = None
    calibration: int | None = None
    windows: int = 1
    evidence: tuple[int, int] | None = None


@dataclass(frozen=True, slots=True)
class Review:
    """One human verdict on one of the model's judgements.

    Attributes:
        id: stable identity of the row, ``table:primary key``.
        anchors: what the pair stands on (``page:…``, ``fragment:…``, ``claim:…``,
            ``group:…``). Pairs that share an anchor never stand on both sides of a split.
        reviewed_at: ISO-8601; empty when unknown.
        predicted_confidence: None when nobody kept it.
        edge_id: the edge that was judged; empty when there was none.
        predicted_by: the model version that judged; empty when unknown.
        people: how many gave this label: the reviewer, and whoever agreed without seeing it.
    """

    id: str
    pair: Pair
    label: Label
    predicted_label: Label | None
    predicted_confidence: float | None
    reviewed_at: str
    anchors: frozenset[str] = frozenset()
    reviewer: str = ""
    reason: str = ""
    sampling: Sampling = "unknown"
    source_url: str = ""
    edge_id: str = ""
    predicted_by: str = ""
    people: int = 1

    @property
    def corrected(self) -> bool:
        """The human changed the model's label."""
        return self.predicted_label is not None and self.predicted_label != self.label


@dataclass(frozen=True, slots=True)
class Example:
    """One row that a model learns from or is judged on.

    Attributes:
        id: the review's id, or ``replay:…``.
        group: rows of one group stand on one side of every split.
        weight: factor on this row's loss.
        review: what a person said of the pair; None for replay. No part of what is learned.
        people: how many gave this label; what several said of their own accord is surer.
    """

    id: str
    pair: Pair
    label: Label
    source: Source
    group: str
    weight: float = 1.0
    review: Review | None = field(default=None, repr=False, compare=False)
    people: int = 1
