"""The watch against known truths: it finds a worse version, and leaves an equal one alone.

    python benchmarks/monitoring.py [--runs 500] [--days 90]

A version has served for as many days as it will be watched; then another one takes over, and each
day so many of its judgements are reviewed at random (Poisson), of which so many are corrected
(binomial). Every day all reviews so far are weighed, by the very code of the watch
(`lyra_nli.monitoring.sequential`). Counted is the share of runs in which the evidence ever reached
20 to 1: of a version that errs in 3 points more (power), in 8 points more, and in no more (false
alarms). Beside it, what other tests do in the same runs: Fisher's exact test anew every day, a
z-test once on the last day (the most that any test of that level can hope for), and universal
inference (Wasserman, Ramdas & Balakrishnan, 2020), the other e-process for two shares.
"""

from __future__ import annotations

import argparse
import platform
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import special, stats

from lyra_nli.evaluation.intervals import Interval, wilson
from lyra_nli.monitoring.sequential import PLAN_DAYS, WORSE, Counts, deal, log_evidence

ALPHA = 0.05
WORSE_BY = 0.03
RATES = (0.05, 0.10, 0.20)
TRAFFIC = (5, 10, 20, 30, 40, 50, 60, 80, 100, 150)

Days = NDArray[np.bool_]


@dataclass(frozen=True)
class Runs:
    """Simulated reviews: of the old version, and of the new one by day; int [runs, days].

    Attributes:
        dealt, dealt_k: the old version's, as the watch deals them out.
        new, new_k: reviewed and corrected.
        old, old_k: all of the old version's, [runs].
    """

    old: Counts
    old_k: Counts
    dealt: Counts
    dealt_k: Counts
    new: Counts
    new_k: Counts


def simulate(
    rng: np.random.Generator, runs: int, days: int, traffic: float, rate: float, worse: float
) -> Runs:
    """Two versions of known correction rates, `rate` and `rate + worse`."""
    old = rng.poisson(traffic * days, runs)
    new = rng.poisson(traffic, (runs, days))
    dealt = deal(old, new)
    dealt_k = rng.binomial(dealt, rate)
    rest = rng.binomial(old - dealt.sum(axis=1), rate)
    return Runs(
        old, dealt_k.sum(axis=1) + rest, dealt, dealt_k, new, rng.binomial(new, rate + worse)
    )


def watch(runs: Runs) -> Days:
    """On which days the watch would have raised its alert."""
    path = log_evidence(runs.dealt, runs.dealt_k, runs.new, runs.new_k)
    return np.asarray(path >= np.log(1 / ALPHA))


def fisher_daily(runs: Runs) -> Days:
    """Fisher's exact test, one-sided, as if each day were the only one."""
    n, k = runs.new.cumsum(axis=1), runs.new_k.cumsum(axis=1)
    old, old_k = runs.old[:, None], runs.old_k[:, None]
    p = stats.hypergeom.sf(k - 1, n + old, k + old_k, n)
    return np.asarray(p <= ALPHA)


def once(runs: Runs) -> Days:
    """A one-sided z-test on the last day only."""
    n, k = runs.new.sum(axis=1), runs.new_k.sum(axis=1)
    pooled = (k + runs.old_k) / (n + runs.old)
    error = np.sqrt(pooled * (1 - pooled) * (1 / n + 1 / runs.old))
    alert = np.zeros(runs.new.shape, dtype=bool)
    alert[:, -1] = (k / n - runs.old_k / runs.old) / error >= stats.norm.ppf(1 - ALPHA)
    return alert


def universal(runs: Runs) -> Days:
    """Universal inference: a mixture over both shares, against the best with new <= old."""
    n, k = runs.new.cumsum(axis=1), runs.new_k.cumsum(axis=1)
    old, old_k = runs.old[:, None], runs.old_k[:, None]
    mixture = _log_mixture(k, n) + _log_mixture(old_k, old)
    apart = _log_likelihood(k, n) + _log_likelihood(old_k, old)
    together = _log_likelihood(k + old_k, n + old)
    worse = k * old > old_k * n
    return np.asarray(mixture - np.where(worse, together, apart) >= np.log(1 / ALPHA))


def _log_mixture(k: Counts, n: Counts) -> NDArray[np.float64]:
    return np.asarray(special.betaln(k + 0.5, n - k + 0.5) - special.betaln(0.5, 0.5))


def _log_likelihood(k: Counts, n: Counts) -> NDArray[np.float64]:
    share = k / np.maximum(n, 1)
    return np.asarray(special.xlogy(k, share) + special.xlog1py(n - k, -share))


TESTS: dict[str, Callable[[Runs], Days]] = {
    "the watch": watch,
    "universal inference": universal,
    "z-test, once": once,
    "Fisher, every day": fisher_daily,
}


def raised(days: Days) -> Interval:
    """In how many runs there was an alert, with a 95% interval."""
    return wilson(int(days.any(axis=1).sum()), len(days))


def share(days: Days) -> str:
    """The same for people."""
    found = raised(days)
    return f"{found.value:6.1%} ({found.low:.1%}-{found.high:.1%})"


def delay(days: Days) -> str:
    """Days to the alert, in the runs that had one: median and 90th percentile."""
    first = days[days.any(axis=1)].argmax(axis=1) + 1
    if not len(first):
        return "      -"
    return f"{np.median(first):3.0f} / {np.quantile(first, 0.9):3.0f}"


def table(runs: int, days: int, seed: int) -> dict[float, int | None]:
    """Print power, false alarms and delay by traffic; the traffic from which the goal is met."""
    enough: dict[float, int | None] = {}
    print(f"\n{'errs':>5} {'reviews':>8}  {'power, 3 points worse':24}{'days to alert':>14}")
    print(f"{'in':>5} {'a day':>8}  {'':24}{'median/90%':>14}  8 points worse   no worse")
    for rate in RATES:
        enough[rate] = None
        for traffic in TRAFFIC:
            rng = np.random.default_rng([seed, round(rate * 100), traffic])
            worse, much, equal = (
                watch(simulate(rng, runs, days, traffic, rate, by)) for by in (WORSE_BY, 0.08, 0.0)
            )
            power, alarms = raised(worse), raised(equal)
            if enough[rate] is None and power.low >= 0.9 and alarms.value <= ALPHA:
                enough[rate] = traffic
            print(
                f"{rate:5.0%} {traffic:8}  {share(worse):24}{delay(worse):>14}  "
                f"{much.any(axis=1).mean():5.1%} {delay(much)}  {share(equal)}"
            )
    return enough


def others(runs: int, days: int, seed: int, rate: float, traffic: int) -> None:
    """Print what other tests do at one traffic."""
    rng = np.random.default_rng([seed, 7])
    worse = simulate(rng, runs, days, traffic, rate, WORSE_BY)
    equal = simulate(rng, runs, days, traffic, rate, 0.0)
    print(f"\nat {traffic} reviews a day, of which {rate:.0%} are corrected")
    print(f"{'':22}{'power, 3 points worse':24}{'median/90%':>11}  no worse")
    for name, test in TESTS.items():
        found = test(worse)
        print(f"{name:22}{share(found):24}{delay(found):>11}  {share(test(equal))}")


def main() -> None:
    """Run all of it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=500)
    parser.add_argument("--days", type=int, default=PLAN_DAYS, choices=range(1, PLAN_DAYS + 1))
    parser.add_argument("--seed", type=int, default=13)
    args = parser.parse_args()
    started = time.monotonic()
    print(
        f"{args.runs} runs of {args.days} days, alert at {1 / ALPHA:.0f} to 1, bets on "
        f"{', '.join(f'{100 * d:g}' for d in WORSE)} points ({platform.processor() or 'CPU'})"
    )
    enough = table(args.runs, args.days, args.seed)
    for rate, traffic in enough.items():
        met = f"from {traffic} random reviews a day on" if traffic else "at no traffic of the table"
        print(f"{rate:4.0%} errors: power surely >= 90% and false alarms <= 5% {met}")
    others(args.runs, args.days, args.seed, 0.10, 50)
    print(f"\n{time.monotonic() - started:.0f} s")


if __name__ == "__main__":
    main()
