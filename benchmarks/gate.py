"""How often the gate is wrong, where the truth is known.

    python benchmarks/gate.py              # everything, a few minutes
    python benchmarks/gate.py --trials 40  # to see that it runs

Simulated reviews hang together in groups (1 to about 20 rows of a page or claim) that share part of
the models' errors, and base and candidate share most of theirs: how much decides on how many
rows they differ (the discordance). Each trial draws new groups. Only numpy, no models.
"""

from __future__ import annotations

import argparse
import math
import platform
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cache

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from lyra_nli.evaluation.arrays import Labels, Probabilities
from lyra_nli.evaluation.changes import Paired, change
from lyra_nli.evaluation.checks import checks_of, level_of
from lyra_nli.evaluation.clusters import Clusters
from lyra_nli.evaluation.estimates import mean
from lyra_nli.evaluation.evidence import Evidence
from lyra_nli.evaluation.gate import decide
from lyra_nli.evaluation.intervals import Interval
from lyra_nli.evaluation.metrics import ece, mcnemar, score_groups
from lyra_nli.evaluation.scoring import brier_losses, nll_losses
from lyra_nli.evaluation.traffic import traffic
from lyra_nli.labels import LABELS
from lyra_nli.records import Example, Pair, Review
from lyra_nli.settings import GateSettings

TRIALS = 1000
CALIBRATIONS = 300
"""Trials of the bootstrap, which takes longer."""

PAIR = Pair("premise", "claim")
SCALE = 3.0
"""Makes the models as sure of themselves as cross-encoders are, and too sure."""


@dataclass(frozen=True)
class World:
    """What base and candidate are like.

    Attributes:
        signal: of the truth in the base's logits, in units of its noise.
        gain: how much more of it the candidate has.
        shared: correlation of the two models' noise.
        size: rows of a group, on average.
        alike: share of the noise that all rows of a group have in common.
        uneven: standard deviation of the gain over groups.
        sharper: factor on the candidate's logits.
        knowing: how much surer the candidate is of its right answers than of its wrong ones;
            changes no answer.
    """

    signal: float = 1.0
    gain: float = 0.0
    shared: float = 0.9
    size: float = 3.0
    alike: float = 0.3
    uneven: float = 0.0
    sharper: float = 1.0
    knowing: float = 0.0


@dataclass(frozen=True)
class Draw:
    """Reviewed rows, and what the models said."""

    base: Probabilities
    candidate: Probabilities
    labels: Labels
    groups: NDArray[np.int64]

    def paired(self) -> Paired:
        """As the gate compares them."""
        return Paired(self.base, self.candidate, self.labels, Clusters.of(self.groups))

    def evidence(self) -> Evidence:
        """As the gate is given them; every other review was drawn at random."""
        rows = tuple(
            Example(
                str(n), PAIR, LABELS[label], "agreed", str(group), review=REVIEWS[n % len(REVIEWS)]
            )
            for n, (label, group) in enumerate(zip(self.labels, self.groups, strict=True))
        )
        return Evidence(rows, {"base": self.base, "candidate": self.candidate})


REVIEWS = tuple(
    Review(sampling, PAIR, "supports", "supports", None, "", sampling=sampling)
    for sampling in ("random", "queue")
)


def main() -> None:
    """Print every table as Markdown."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--trials", type=int, default=TRIALS)
    options = parser.parse_args()
    started = time.monotonic()
    print(f"{platform.machine()}, numpy {np.__version__}, {options.trials} trials each")
    for title, table in (
        ("Null or harmful candidates that pass", nulls),
        ("Candidates that only know better when they are right", knowing),
        ("A gain of 3 points at 300 reviews", power),
        ("Ten candidates that are no better, on the same rows", looks),
        ("How often 95% intervals hold the truth", coverage),
    ):
        print(f"\n## {title}\n")
        for line in table(options.trials):
            print(line, flush=True)
    print(f"\nIn {time.monotonic() - started:.0f} s.")


def nulls(trials: int) -> Iterator[str]:
    """Candidates that must not pass."""
    yield "| candidate | rows | accuracy | gain | rows that differ | passed | failed |"
    yield "|---|---|---|---|---|---|---|"
    harm = {signal: gain_of(-0.03, World(signal=signal)) for signal in (0.4, 1.0)}
    worlds = {
        "no better": (World(), 300),
        "no better, few rows": (World(), 100),
        "no better, rows on their own": (World(size=1.0), 300),
        "no better, large groups": (World(size=12.0, alike=0.6), 600),
        "no better, a base that errs often": (World(signal=0.4), 300),
        "no better, a base that seldom errs": (World(signal=2.2), 300),
        "no better, another model altogether": (World(shared=0.3), 300),
        "no better, surer of everything": (World(sharper=3.0), 300),
        "better in some groups, worse in others": (World(size=6.0, uneven=0.5), 600),
        "3 points worse": (World(gain=harm[1.0]), 300),
        "3 points worse, a base that errs often": (World(signal=0.4, gain=harm[0.4]), 300),
    }
    for name, (world, n) in worlds.items():
        found = [judge(draw(world, n, seed)) for seed in range(trials)]
        truth = truths(world)
        differ = discordance(world)
        yield (
            f"| {name} | {n} | {truth['accuracy']:.2f} | {truth['gain']:+.3f} "
            f"| {differ:.2f} | {share(found, 'pass')} | {share(found, 'fail')} |"
        )


def knowing(trials: int) -> Iterator[str]:
    """Better probabilities, and as many or fewer right answers, by how many rows judge."""
    sizes = (100, 300, 1000)
    yield "| gain | rows that differ | " + " | ".join(f"passed, {n} rows" for n in sizes) + " |"
    yield "|---" * (2 + len(sizes)) + "|"
    for points in (0.0, -0.01, -0.02, -0.03):
        world = World(knowing=0.5)
        world = replace(world, gain=gain_of(points, world) if points else 0.0)
        passed = (
            share([judge(draw(world, n, seed)) for seed in range(trials)], "pass") for n in sizes
        )
        yield f"| {points:+.2f} | {discordance(world):.2f} | {' | '.join(passed)} |"


def power(trials: int) -> Iterator[str]:
    """Candidates that should pass, by how many answers they change."""
    yield "| accuracy | rows that differ | rows a group | exact McNemar at 5% | gate, first look |"
    yield "|---|---|---|---|---|"
    for signal, shared, size in (
        (2.2, 0.995, 1.0),
        (1.0, 0.995, 1.0),
        (1.0, 0.98, 1.0),
        (1.0, 0.95, 1.0),
        (1.0, 0.95, 3.0),
        (1.0, 0.9, 1.0),
        (1.0, 0.9, 3.0),
        (0.4, 0.9, 3.0),
        (1.0, 0.7, 3.0),
    ):
        world = World(signal=signal, shared=shared, size=size)
        world = replace(world, gain=gain_of(0.03, world))
        drawn = [draw(world, 300, seed) for seed in range(trials)]
        accuracy = truths(world)["accuracy"]
        exact = np.mean([exact_p(each) <= 0.05 for each in drawn])
        yield (
            f"| {accuracy:.2f} | {discordance(world):.3f} | {size:.0f} | {exact:.0%} "
            f"| {share([judge(each) for each in drawn], 'pass')} |"
        )
    limit, level = connor(0.05), connor(level_of(1, 0.05))
    yield ""
    yield (
        "Connor (1987): counting right and wrong answers, 300 independent rows show 3 points in "
        f"80% of cases only where at most {limit:.1%} of the rows differ, {level:.1%} at the first "
        "look's level."
    )


def looks(trials: int) -> Iterator[str]:
    """Ten in a row; the rows stay, and candidates are like each other."""
    passed = []
    for seed in range(trials):
        drawn = (draw(World(), 300, seed, look) for look in range(1, 11))
        passed.append(any(judge(each, look) == "pass" for look, each in enumerate(drawn, 1)))
    yield f"At least one of ten passed in {np.mean(passed):.1%} of {len(passed)} series."


def coverage(trials: int) -> Iterator[str]:
    """Intervals, by figure."""
    cases = {
        "100 rows": (World(gain=0.2), 100),
        "300 rows": (World(gain=0.2), 300),
        "1,000 rows": (World(gain=0.2), 1000),
        "300, on their own": (World(gain=0.2, size=1.0), 300),
        "600, large groups": (World(gain=0.2, size=12.0, alike=0.6), 600),
        "300, few errors": (World(gain=0.2, signal=2.2), 300),
    }
    columns = {name: held(world, n, trials) for name, (world, n) in cases.items()}
    yield "| figure | " + " | ".join(columns) + " |"
    yield "|---|" + "---|" * len(columns)
    for figure in next(iter(columns.values())):
        yield f"| {figure} | " + " | ".join(columns[name][figure] for name in columns) + " |"


def held(world: World, n: int, trials: int) -> dict[str, str]:
    """How often the interval of each figure holds what is true of a very large draw."""
    truth = truths(world)
    hits: dict[str, list[bool]] = {name: [] for name in truth}
    for seed in range(trials):
        drawn = draw(world, n, seed)
        found = figures(drawn) | (calibration(drawn) if seed < CALIBRATIONS else {})
        for name, interval in found.items():
            hits[name].append(interval.low <= truth[name] <= interval.high)
    return {name: f"{np.mean(each):.1%}" if each else "" for name, each in hits.items()}


@cache
def truths(world: World) -> dict[str, float]:
    """Every figure of a very large draw."""
    drawn = population(world)
    values = {name: interval.value for name, interval in figures(drawn).items()}
    return values | {"ECE": ece(drawn.candidate, drawn.labels)}


def figures(drawn: Draw) -> dict[str, Interval]:
    """The intervals that a verdict shows, but that of the calibration error."""
    paired = drawn.paired()
    found, clusters = change(paired, 0.05), paired.clusters
    at_random = np.arange(len(drawn.labels)) % 2 == 0
    said = drawn.candidate, drawn.labels
    return {
        "accuracy": clusters.share(paired.now),
        "EFR": found.efr,
        "NFR": found.nfr,
        "gain": found.gain,
        "net gain": traffic(paired, at_random).net,
        "Brier": clusters.figure(mean(brier_losses(*said))),
        "NLL": clusters.figure(mean(nll_losses(*said))),
        "change of Brier": found.brier,
        "change of NLL": found.nll,
    }


def calibration(drawn: Draw) -> dict[str, Interval]:
    """The interval of the calibration error, by a bootstrap; none with few groups."""
    scores = score_groups(drawn.candidate, drawn.labels, drawn.groups.astype(str).tolist())
    return {"ECE": scores.intervals["ece"]} if "ece" in scores.intervals else {}


def judge(drawn: Draw, look: int = 1) -> str:
    """The gate's outcome; its tables for people are left out."""
    rows, settings = drawn.evidence(), GateSettings()
    return decide(tuple(checks_of(rows, None, None, [], settings, active=None, looks=look)))


def draw(world: World, n: int, seed: int, candidate: int = 0) -> Draw:
    """`n` rows; the same seed gives the same rows and base, whatever the candidate."""
    random = np.random.default_rng(seed)
    sizes = random.geometric(1 / world.size, n)
    groups = np.repeat(np.arange(n), sizes)[:n]
    labels = random.integers(0, 3, n)
    truth = np.eye(3)[labels]
    common = noise(random, world, groups)
    theirs = np.random.default_rng((seed, candidate))
    own = noise(theirs, world, groups)
    uneven = world.uneven * theirs.normal(size=n)[groups]
    mixed = world.shared * common + math.sqrt(1 - world.shared**2) * own
    more = (world.signal + world.gain + uneven)[:, None]
    logits = more * truth + mixed
    sure = np.exp(world.knowing * (logits.argmax(axis=1) == labels))[:, None]
    return Draw(
        softmax(SCALE * (world.signal * truth + common)),
        softmax(SCALE * world.sharper * sure * logits),
        labels,
        groups,
    )


def noise(
    random: np.random.Generator, world: World, groups: NDArray[np.int64]
) -> NDArray[np.float64]:
    """Of variance 1, [n, 3]; rows of a group have a share of it in common."""
    n = len(groups)
    group, row = random.normal(size=(n, 3))[groups], random.normal(size=(n, 3))
    return np.asarray(math.sqrt(world.alike) * group + math.sqrt(1 - world.alike) * row)


def softmax(logits: NDArray[np.float64]) -> Probabilities:
    """Of each row."""
    raised = np.exp(logits - logits.max(axis=1, keepdims=True))
    return np.asarray(raised / raised.sum(axis=1, keepdims=True))


def exact_p(drawn: Draw) -> float:
    """Of McNemar's test."""
    steps = drawn.paired().steps
    return mcnemar(int((steps > 0).sum()), int((steps < 0).sum()))


@cache
def population(world: World) -> Draw:
    """So many rows that chance is out of the way."""
    return draw(world, 300_000, 987_654)


def discordance(world: World) -> float:
    """Share of rows that one of the two has right and the other wrong."""
    return float(np.abs(population(world).paired().steps).mean())


@cache
def gain_of(points: float, world: World) -> float:
    """The gain of signal that is worth so much accuracy."""
    low, high = -1.5, 1.5
    for _ in range(14):
        middle = (low + high) / 2
        steps = draw(replace(world, gain=middle), 100_000, 123_456).paired().steps
        low, high = (middle, high) if steps.mean() < points else (low, middle)
    return low


def connor(level: float, gain: float = 0.03, n: int = 300) -> float:
    """The largest discordance at which a one-sided McNemar test shows the gain in 80% of cases."""
    needed, low, high = math.sqrt(n) * gain, gain, 1.0
    z, power_z = stats.norm.ppf(1 - level), stats.norm.ppf(0.8)
    for _ in range(40):
        middle = (low + high) / 2
        enough = z * math.sqrt(middle) + power_z * math.sqrt(middle - gain**2) <= needed
        low, high = (middle, high) if enough else (low, middle)
    return low


def share(found: list[str], outcome: str) -> str:
    """How often, in percent."""
    return f"{np.mean([each == outcome for each in found]):.1%}"


if __name__ == "__main__":
    main()
