"""Which recipe is the default, and why: one knob at a time, on several domains.

    make bench-recipes                                         # invented domains: hours
    python benchmarks/recipes.py --data FILE --general FILE    # your own pairs beside them
    python benchmarks/recipes.py --record FILE --jobs 1        # goes on where it was stopped
    python benchmarks/recipes.py --record FILE --only-table    # what FILE holds so far

Domains: the demo's project, one of trials alone and one of laws and programmes alone (other names,
figures and wordings), and the pairs of ``--data``. Each is split by its groups into halves,
differently for each seed, as `benchmarks/learning.py` does: reviews are drawn from one half, every
figure is of the other. Adapters count in full: no folds choose their strength.

A recipe is compared with the default on the same rows (domain, seed). The rank is by Brier score
among the recipes that were measured on all the rows that any was. ``--record FILE`` keeps what was
measured and does not measure it again. Jobs run side by side, one thread each.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

from domains import invent_domain, read_domain
from learning_ground import Ground, ask_base, figures, make_task, replay_rows, say
from learning_ways import REVIEWS
from recording import add_options, run_jobs

from lyra_nli.settings import DatasetSettings, TrainingSettings
from lyra_nli.trainers import trainer_of
from lyra_nli.training.log import TrainingLog

GRID: Mapping[str, dict[str, Any]] = {
    "default": {},
    "learning rate 0.001": {"learning_rate": 1e-3},
    "learning rate 0.004": {"learning_rate": 4e-3},
    "2 layers": {"layers": 2},
    "6 layers": {"layers": 6},
    "rank 4": {"rank": 4, "alpha": 16.0},
    "rank 16": {"rank": 16, "alpha": 64.0},
    "rank 32": {"rank": 32, "alpha": 128.0},
    "alpha 16": {"alpha": 16.0},
    "alpha 64": {"alpha": 64.0},
    "2 epochs": {"epochs": 2},
    "5 epochs": {"epochs": 5},
    "KL 0.1": {"kl_weight": 0.1},
    "KL 0.3": {"kl_weight": 0.3},
    "KL 2": {"kl_weight": 2.0},
    "no smoothing": {"label_smoothing": 0.0},
    "smoothing 0.2": {"label_smoothing": 0.2},
    "no foreign pairs": {"foreign_share": 0.0},
    "foreign pairs 1.0": {"foreign_share": 1.0},
    "replay 500": {"replay_rows": 500},
    "query and value": {"target_modules": ["query", "value"]},
    "attention alone": {"target_modules": ["query", "key", "value", "attention_output"]},
    "no warm-up": {"warmup_fraction": 0.0},
    "warm-up 0.3": {"warmup_fraction": 0.3},
    "dropout 0.1": {"dropout": 0.1},
    "replay KL 1": {"replay_kl_weight": 1.0},
    "replay KL 30": {"replay_kl_weight": 30.0},
}
"""The default's neighbours, one knob each; with ``rank`` goes what keeps alpha / rank. Any other
recipe is spelled out: ``layers=4 learning_rate=0.002``."""

INVENTED = {"demo": (7, 0.5), "trials": (21, 1.0), "programmes": (22, 0.0)}
"""Seed and share of trials; the demo's own share is in its text."""

FIGURES = ("accuracy", "brier", "fixed", "broken", "ece", "general")


@dataclass(frozen=True)
class Job:
    """One training by one recipe."""

    domain: str
    recipe: str
    seed: int
    reviews: int


Found = dict[Job, dict[str, Any]]


def main() -> None:
    """Measure what is missing, and print the tables."""
    options = read_options()
    jobs = () if options.only_table else jobs_of(options)
    found = run_jobs(jobs, partial(measure, options=options), options, Job)
    for row in tables(found):
        print(row)


def read_options() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--data", type=Path, help="JSONL: one more domain")
    parser.add_argument("--group", default="topic", help="its column to group by")
    parser.add_argument("--general", type=Path, help="JSONL of general NLI")
    parser.add_argument("--domains", nargs="+", help="some of them")
    parser.add_argument("--recipes", nargs="+", type=named, default=list(GRID))
    parser.add_argument("--reviews", type=int, default=REVIEWS)
    parser.add_argument("--seeds", type=int, default=3)
    add_options(parser)
    parser.add_argument("--only-table", action="store_true", help="measure nothing")
    options = parser.parse_args()
    if options.only_table and not options.record:
        parser.error("--only-table needs --record FILE")
    known = [*INVENTED, *([options.data.stem] if options.data else [])]
    options.domains = options.domains or known
    if unknown := set(options.domains) - set(known):
        parser.error(f"no such domain: {', '.join(sorted(unknown))}; there are {', '.join(known)}")
    return options


def named(text: str) -> str:
    """A name of `GRID`, or settings that exist, as `changes_of` reads them."""
    try:
        unknown = set(changes_of(text)) - {*TrainingSettings.model_fields, "replay_rows"}
    except ValueError:
        unknown = {text}
    if unknown:
        raise argparse.ArgumentTypeError(
            f"{', '.join(sorted(unknown))}: say setting=value, several with blanks between; or one "
            f"of {', '.join(GRID)}"
        )
    return text


def changes_of(text: str) -> dict[str, Any]:
    """What a recipe has otherwise than the default."""
    if text in GRID:
        return dict(GRID[text])
    return {name: json.loads(value) for name, value in (each.split("=") for each in text.split())}


def jobs_of(options: argparse.Namespace) -> Iterator[Job]:
    """All jobs, so that what is done first can be compared first."""
    for seed in range(options.seeds):
        for domain in options.domains:
            yield from (Job(domain, recipe, seed, options.reviews) for recipe in options.recipes)


def measure(job: Job, options: argparse.Namespace) -> dict[str, Any]:
    """Train once and judge the other half of the domain."""
    ground = prepare(job.domain, options.data, options.group, options.general)
    task = make_task(ground, job.seed, job.reviews)
    changes = changes_of(job.recipe)
    usual = DatasetSettings().replayed(len(task.reviewed))
    replay = replay_rows(job.seed)[0][: changes.pop("replay_rows", usual)]
    changes |= {"seed": job.seed, "threads": 1}
    recipe = TrainingSettings.model_validate({**TrainingSettings().model_dump(), **changes})
    held = [ground.examples[row] for row in task.holdout]
    with tempfile.TemporaryDirectory() as folder, TrainingLog(Path(folder)) as log:
        trainer = trainer_of(ground.base, recipe, log)
        lessons = trainer.mixed([*task.reviewed, *replay], [])
        fitted = trainer.fit(lessons, range(len(lessons)))
        said = (say(trainer, rows) for rows in (held, ground.general))
        found = figures(ground, task, *said)
    del found["hits"]
    return {**found, "seconds": fitted.seconds}


@cache
def prepare(domain: str, data: Path | None, group: str, general: Path | None) -> Ground:
    """Read or invent a domain and ask the base, once a process."""
    if domain == "demo":
        return ask_base(read_domain(None), general)
    if domain in INVENTED:
        return ask_base(invent_domain(*INVENTED[domain]), general)
    return ask_base(read_domain(data, group), general)


def tables(found: Found) -> Iterator[str]:
    """All domains together, and each."""
    cells: dict[tuple[Any, ...], dict[str, dict[str, Any]]] = defaultdict(dict)
    for job, measured in found.items():
        cells[job.domain, job.seed, job.reviews][job.recipe] = measured
    compared = {key: cell for key, cell in cells.items() if "default" in cell}
    for domain in ("all domains", *dict.fromkeys(key[0] for key in compared)):
        chosen = [c for key, c in compared.items() if domain in ("all domains", key[0])]
        yield f"\n## {domain}\n"
        yield from table(chosen)


def table(cells: Sequence[dict[str, dict[str, Any]]]) -> Iterator[str]:
    """Accuracy and Brier score of each recipe; all figures against the default on the same rows."""
    ranks = mean_ranks(cells)
    yield (
        "| recipe | splits | rank | accuracy (lowest and highest) | against the default | Brier "
        "| against the default | fixed | broken | ECE | general | seconds |"
    )
    yield "|---" * 12 + "|"
    for recipe in known_recipes(cells):
        mine = [cell for cell in cells if recipe in cell]
        if not mine:
            continue
        own = {name: [cell[recipe][name] for cell in mine] for name in (*FIGURES, "seconds")}
        mean = {name: statistics.mean(values) for name, values in own.items()}
        spread = f"{min(own['accuracy']):.3f} to {max(own['accuracy']):.3f}"
        cost = [difference(mine, recipe, name) for name in ("accuracy", "brier")]
        rank = f"{ranks[recipe]:.1f}" if recipe in ranks else ""
        rest = " | ".join(
            difference(mine, recipe, name) or f"{mean[name]:.3f}" for name in FIGURES[2:]
        )
        yield (
            f"| {recipe} | {len(mine)} | {rank} | {mean['accuracy']:.3f} ({spread}) | {cost[0]} "
            f"| {mean['brier']:.3f} | {cost[1]} | {rest} | {mean['seconds']:.0f} |"
        )


def known_recipes(cells: Sequence[Mapping[str, Any]]) -> list[str]:
    """Those that were measured, the neighbours first."""
    return list(dict.fromkeys([*GRID, *(name for cell in cells for name in cell)]))


def difference(cells: Sequence[dict[str, dict[str, Any]]], recipe: str, name: str) -> str:
    """Mean difference to the default on the same rows, and its standard error."""
    if recipe == "default":
        return ""
    found = [cell[recipe][name] - cell["default"][name] for cell in cells]
    error = f" ± {statistics.stdev(found) / len(found) ** 0.5:.3f}" if len(found) > 1 else ""
    return f"{statistics.mean(found):+.3f}{error}"


def mean_ranks(cells: Sequence[dict[str, dict[str, Any]]]) -> dict[str, float]:
    """Mean rank by Brier score, 1 is best, of the recipes that every cell has."""
    shared = [name for name in known_recipes(cells) if all(name in cell for cell in cells)]
    places: dict[str, list[int]] = defaultdict(list)
    for cell in cells:
        for place, recipe in enumerate(sorted(shared, key=lambda name: cell[name]["brier"]), 1):
            places[recipe].append(place)
    return {recipe: statistics.mean(each) for recipe, each in places.items()}


if __name__ == "__main__":
    main()
