"""What the gate says after few reviews, and what is true: the whole loop, through the command.

    make bench-learn                                              # the demo's project
    python benchmarks/verdicts.py --data FILE --group topic       # your own pairs
    python benchmarks/verdicts.py --reviews 100 --record FILE     # keeps what was measured

Reviews are drawn from one half of a domain's groups, as `benchmarks/learning.py` draws them, and
imported into a database of their own. `lyra-nli train` learns from them and judges by them alone;
the truth is the accuracy on the other half, which it never sees. ``dataset.min_samples``, below
which training refuses, is set to 1: the question is what would come of it. Jobs run side by side,
one thread each.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from learning_ground import figures, make_task, prepare
from projects import Project
from recording import add_options, run_jobs

from lyra_nli.models.adapter import read_adapter
from lyra_nli.models.judge import Judge, softmax

FEW = {"LYRA_DATASET__MIN_SAMPLES": "1", "LYRA_TRAINING__THREADS": "1", "OMP_NUM_THREADS": "1"}


@dataclass(frozen=True)
class Job:
    """One turn of the loop."""

    reviews: int
    seed: int


def main() -> None:
    """Measure what is missing, and print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--data", type=Path, help="JSONL instead of the demo's project")
    parser.add_argument("--group", default="topic", help="the column to group by")
    parser.add_argument("--reviews", type=int, nargs="+", default=[100, 200, 400])
    parser.add_argument("--seeds", type=int, default=3)
    add_options(parser)
    options = parser.parse_args()
    jobs = [Job(reviews, seed) for reviews in options.reviews for seed in range(options.seeds)]
    found = run_jobs(jobs, partial(measure, options=options), options, Job)
    for row in table({job: found[job] for job in jobs}):
        print(row)


def measure(job: Job, options: argparse.Namespace) -> dict[str, Any]:
    """Train through the command, and judge the version by the other half of the domain."""
    ground = prepare(options.data, options.group, None)
    task = make_task(ground, job.seed, job.reviews)
    with tempfile.TemporaryDirectory() as folder:
        project = Project(Path(folder), FEW)
        project.review(ground.base, task.reviewed)
        outcome = project.train()
        adapter = read_adapter(ground.base, Path(outcome["path"]))
    judge = Judge(ground.base).adapted(adapter, "candidate")
    held = [ground.examples[row].pair for row in task.holdout]
    truth = figures(ground, task, softmax(judge.logits(held)))
    verdict, change = outcome["verdict"], outcome["verdict"]["against_base"]
    return {
        "corrections": sum(example.source == "correction" for example in task.reviewed),
        "verdict": verdict["outcome"],
        "gain": [change["gain"][name] for name in ("value", "low", "high")],
        "more": (verdict["more"] or {}).get("count"),
        "served": outcome["activated"],
        "strength": outcome["training"]["strength"],
        **{name: truth[name] for name in ("accuracy", "base_accuracy", "fixed", "broken")},
    }


def table(found: dict[Job, dict[str, Any]]) -> Iterator[str]:
    """Every turn, and how many served that should not have."""
    yield (
        "| reviews | corrections | verdict | gain by the gate (95%) | true gain | fixed | broken "
        "| strength | asks for about | served |"
    )
    yield "|---" * 10 + "|"
    for job, one in found.items():
        value, low, high = one["gain"]
        yield (
            f"| {job.reviews} | {one['corrections']} | {one['verdict']} "
            f"| {value:+.3f} ({low:+.3f} to {high:+.3f}) | {gain(one):+.3f} | {one['fixed']:.3f} "
            f"| {one['broken']:.3f} | {one['strength']:g} | {one['more'] or ''} "
            f"| {'yes' if one['served'] else 'no'} |"
        )
    served = [one for one in found.values() if one["served"]]
    worse = sum(gain(one) < 0 for one in served)
    yield f"\n{len(served)} of {len(found)} served, {worse} of them worse than the base."


def gain(one: dict[str, Any]) -> float:
    """Of accuracy, on the half that nobody reviewed."""
    return float(one["accuracy"] - one["base_accuracy"])


if __name__ == "__main__":
    main()
