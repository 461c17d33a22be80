"""What is learned from and how, in every row of the learning benchmark's tables."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import peers

PARTS = ("compare", "curve", "noise", "suspects", "ablation", "replay")
REVIEWS, MANY = 400, 800
"""Of which a row learns; and where it learns of many."""

SUSPECTED = 0.2
"""Share of the corrections that are turned, to look for suspects."""

PLAIN: dict[str, Any] = {
    "layers": "all",
    "target_modules": ["query", "value"],
    "learning_rate": 5e-4,
    "kl_weight": 0.0,
    "replay_kl_weight": 0.0,
    "label_smoothing": 0.0,
    "foreign_share": 0.0,
}
"""LoRA as most people would set it up: no replay, no pull, no smoothing, the last weights."""

DOUBTED = "suspects weigh less"
THREE, SMOOTHER = "three fits averaged", "twice the smoothing"
FASTER = "twice the learning rate"
SCALED = "ours at other strengths"
STRENGTHS = (0.5, 0.7, 0.85, 1.0, 1.25, 1.5, 2.0)

OURS_BUT_PLAIN = {**PLAIN, "layers": "third", "target_modules": ["all"], "learning_rate": 2e-3}
LONG = 6
"""Epochs in which reviews alone take as many steps as ours takes in three, with replay and foreign
pairs: about 150 where it learns of 400."""
PLAIN_LONG, PLAIN_OURS = "plain LoRA, twice the epochs", "plain LoRA in our matrices, likewise"
FULL_LONG, FULL_REPLAY = "full fine-tuning, twice the epochs", "full fine-tuning with replay"

WAYS: dict[str, dict[str, Any]] = {
    "ours": {},
    SCALED: {"strengths": STRENGTHS},
    "proposal": {"trainer": peers.PROPOSAL, "only": "correction", "replay": 0},
    "plain LoRA": {"recipe": PLAIN, "replay": 0, "last": True},
    PLAIN_LONG: {"recipe": {**PLAIN, "epochs": LONG}, "replay": 0, "last": True},
    PLAIN_OURS: {"recipe": {**OURS_BUT_PLAIN, "epochs": LONG}, "replay": 0, "last": True},
    "full fine-tuning": {"trainer": peers.FULL, "replay": 0},
    FULL_LONG: {"trainer": peers.FULL, "replay": 0, "epochs": LONG},
    FULL_REPLAY: {"trainer": peers.FULL},
    "without agreed rows": {"only": "correction"},
    "without replay": {"replay": 0},
    "250 replayed": {"replay": 250},
    "1,000 replayed": {"replay": 1000},
    "twice the replay": {"replay": 500},
    "without foreign pairs": {"recipe": {"foreign_share": 0.0}},
    "without the pull (KL)": {"recipe": {"kl_weight": 0.0, "replay_kl_weight": 0.0}},
    "without smoothing": {"recipe": {"label_smoothing": 0.0}},
    "without averaging": {"last": True},
    "all rows pulled alike": {"recipe": {"replay_kl_weight": 1.0}},
    "reviewed rows hardly pulled": {"recipe": {"kl_weight": 0.1}},
    "6 layers": {"recipe": {"layers": "half"}},
    "all layers": {"recipe": {"layers": "all"}},
    "balanced labels": {"recipe": {"sampling": "balanced"}},
    "corrections twice": {"weight": 2.0},
    "rank 16": {"recipe": {"rank": 16}},
    "unreviewed rows": {"unreviewed": 400},
    "collateral damage twice": {"damage": True},
    "the head learns, too": {"head": True},
    THREE: {"fits": 3},
    SMOOTHER: {"recipe": {"label_smoothing": 0.2}},
    FASTER: {"recipe": {"learning_rate": 4e-3}},
    DOUBTED: {"doubted": True},
}
"""What differs from the default recipe; see `Job` and `taught_rows`."""

PEERS = (
    "proposal",
    "plain LoRA",
    PLAIN_LONG,
    PLAIN_OURS,
    "full fine-tuning",
    FULL_LONG,
    FULL_REPLAY,
)
AMOUNTS = ("250 replayed", "1,000 replayed")
ABLATION = tuple(way for way in WAYS if way not in (SCALED, *PEERS, *AMOUNTS))


@dataclass(frozen=True)
class Job:
    """One training and what came of it is asked for."""

    way: str
    seed: int
    reviews: int = REVIEWS
    turned: float = 0.0


def jobs_of(part: str, seeds: Iterable[int], ways: Collection[str] | None = None) -> Iterator[Job]:
    """The jobs of a part, row by row; with `ways`, of these rows and ours alone."""
    for job in _jobs_of(part, seeds):
        if ways is None or job.way in (*ways, "ours"):
            yield job


def _jobs_of(part: str, seeds: Iterable[int]) -> Iterator[Job]:
    for seed in seeds:
        if part == "compare":
            yield from (Job(way, seed) for way in ("ours", SCALED, *PEERS))
        elif part == "curve":
            sizes = (100, 200, REVIEWS, MANY)
            yield from (Job(way, seed, n) for way in ("ours", "plain LoRA", FASTER) for n in sizes)
        elif part == "noise":
            shares = (0.0, 0.1, SUSPECTED, 0.4)
            yield from (Job("ours", seed, turned=t) for t in shares)
            yield from (Job(DOUBTED, seed, turned=t) for t in shares)
            tried = (THREE, SMOOTHER, FASTER)
            yield from (Job(way, seed, turned=t) for way in tried for t in (0.0, SUSPECTED))
        elif part == "suspects":
            yield from (Job("suspects", seed, n, SUSPECTED) for n in (100, REVIEWS))
        elif part == "replay":
            yield from (Job(way, seed, MANY) for way in ("ours", *AMOUNTS))
        else:
            yield from (Job(way, seed) for way in ABLATION)
