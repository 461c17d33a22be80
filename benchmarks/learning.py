"""What the learning recipe is worth: against plain LoRA, few reviews, wrong labels, and its parts.

    make bench-learn                                          # the demo's project
    python benchmarks/learning.py --data FILE --group topic   # your own pairs
    python benchmarks/learning.py --only compare curve        # parts of it

A domain is split by its groups into halves, differently for each seed: reviews are drawn from one
half, every figure is of the other. FILE is JSONL with ``premise``, ``hypothesis``, ``label`` and a
column to group by; ``--general`` is general NLI in the same form, to see what is forgotten (without
it: rows of the shipped replay set that nobody learns from).

- ``compare``: ours against the proposal's recipe on corrections alone and full fine-tuning of the
  base, both by transformers' Trainer, and plain LoRA on corrections and agreed rows.
- ``curve``: ours, plain LoRA, and ours at twice the learning rate, with 100 to 800 reviews.
- ``noise``: ours with a share of the corrections turned into another wrong label; and, at 20%, with
  every reviewed row weighed by how likely its label is right, with the mean of three fits, and with
  twice the smoothing or the learning rate.
- ``suspects``: how many of those, at 20%, stand in the upper quarter of the list of suspects.
- ``ablation``: ours with one ingredient left out, or one that was tried added.
- ``replay``: ours with 800 reviews and more or fewer replayed pairs.

Every figure is the mean over the seeds. Beside a p-value stand the pairs that ours alone has right
and those that it alone has wrong; it is of a sign-flip test in which chance swaps the two in whole
groups, over all splits at once: pairs of a group err together, and some are in several splits'
hold-outs. ``--record FILE`` keeps what was measured and does not
measure it again. Jobs run side by side, one thread each.
"""

from __future__ import annotations

import argparse
import copy
import random
import statistics
import tempfile
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import peers
import torch
from cleanlab.rank import get_label_quality_scores
from domains import read_domain
from numpy.typing import NDArray
from recording import add_options, run_jobs
from torch import nn

from lyra_nli.dataset.replay import load_replay
from lyra_nli.evaluation.clusters import Clusters, flip_test
from lyra_nli.evaluation.metrics import brier, ece
from lyra_nli.labels import INDEX, LABELS, Label
from lyra_nli.models.base import Base, load_base
from lyra_nli.models.judge import Judge, softmax
from lyra_nli.records import Example, Review, Source
from lyra_nli.settings import DatasetSettings, TrainingSettings
from lyra_nli.trainers import trainer_of
from lyra_nli.training.folds import cut
from lyra_nli.training.foreign import foreign_pairs
from lyra_nli.training.lessons import Lessons
from lyra_nli.training.log import TrainingLog
from lyra_nli.training.machine import compute_dtype
from lyra_nli.training.opinions import read_opinions
from lyra_nli.training.student import Student
from lyra_nli.training.trainer import Trainer as LoraTrainer

PARTS = ("compare", "curve", "noise", "suspects", "ablation", "replay")
REVIEWS, MANY = 400, 800
HOLDOUT = 1000
LAST_COLUMN = {
    "compare": "ours alone right : ours alone wrong, p; broken at equal fixed",
    "noise": "of its own gain on right labels",
    "ablation": "ours alone right : ours alone wrong, p",
    "replay": "ours alone right : ours alone wrong, p",
}
LISTS = ("all", "slips")
"""Turned rows among all reviewed ones; those of them that are corrections, among those."""

SUSPECTED = 0.2
"""Share of the corrections that are turned, to look for suspects."""
GENERAL = 400
PLAIN: dict[str, Any] = {
    "layers": "all",
    "target_modules": ["query", "value"],
    "learning_rate": 5e-4,
    "kl_weight": 0.0,
    "label_smoothing": 0.0,
    "foreign_share": 0.0,
}
"""LoRA as most people would set it up: no replay, no pull, no smoothing, the last weights."""

DOUBTED = "suspects weigh less"
THREE, SMOOTHER = "three fits averaged", "twice the smoothing"
FASTER = "twice the learning rate"
SCALED = "ours at other strengths"
STRENGTHS = (0.5, 0.7, 0.85, 1.0, 1.25, 1.5, 2.0)

WAYS: dict[str, dict[str, Any]] = {
    "ours": {},
    SCALED: {"strengths": STRENGTHS},
    "proposal": {"trainer": peers.PROPOSAL, "only": "correction", "replay": 0},
    "plain LoRA": {"recipe": PLAIN, "replay": 0, "last": True},
    "full fine-tuning": {"trainer": peers.FULL, "replay": 0},
    "without agreed rows": {"only": "correction"},
    "without replay": {"replay": 0},
    "250 replayed": {"replay": 250},
    "1,000 replayed": {"replay": 1000},
    "twice the replay": {"replay": 500},
    "without foreign pairs": {"recipe": {"foreign_share": 0.0}},
    "without the pull (KL)": {"recipe": {"kl_weight": 0.0}},
    "without smoothing": {"recipe": {"label_smoothing": 0.0}},
    "without averaging": {"last": True},
    "4 layers": {"recipe": {"layers": 4}},
    "all layers": {"recipe": {"layers": "all"}},
    "balanced labels": {"recipe": {"sampling": "balanced"}},
    "corrections twice": {"weight": 2.0},
    "rank 16": {"recipe": {"rank": 16}},
    "unreviewed rows": {"unreviewed": 400},
    "collateral damage twice": {"damage": True},
    "the head learns, too": {"head": True},
    THREE: {"fits": 3},
    SMOOTHER: {"recipe": {"label_smoothing": 0.2}},
    FASTER: {"recipe": {"learning_rate": 2e-3}},
    DOUBTED: {"doubted": True},
}
"""What differs from the default recipe; see `Job` and `taught_rows`."""

PEERS = ("proposal", "plain LoRA", "full fine-tuning")
AMOUNTS = ("250 replayed", "1,000 replayed")
ABLATION = tuple(way for way in WAYS if way not in (SCALED, *PEERS, *AMOUNTS))


@dataclass(frozen=True)
class Job:
    """One training and what came of it is asked for."""

    way: str
    seed: int
    reviews: int = REVIEWS
    turned: float = 0.0


@dataclass(frozen=True)
class Ground:
    """What all jobs share; `said` and `general_said` are the base's probabilities [n, 3]."""

    base: Base
    examples: list[Example]
    said: NDArray[np.float64]
    general: list[Example]
    general_said: NDArray[np.float64]


@dataclass(frozen=True)
class Task:
    """What a job learns from, and the rows of the ground that judge it.

    Attributes:
        unreviewed: rows of the groups that were reviewed, with the base's own answers.
        turned: ids of rows whose label was made wrong.
    """

    reviewed: list[Example]
    unreviewed: list[Example]
    holdout: list[int]
    turned: frozenset[str]

    @property
    def slips(self) -> frozenset[str]:
        """The turned rows that are corrections still; the others agree with the base's error."""
        return self.turned & {e.id for e in self.reviewed if e.source == "correction"}


def main() -> None:
    """Run the parts and print their tables."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--data", type=Path, help="JSONL instead of the demo's project")
    parser.add_argument("--group", default="topic", help="the column to group by")
    parser.add_argument("--general", type=Path, help="JSONL of general NLI")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--seeds", type=int, default=3)
    add_options(parser)
    options = parser.parse_args()
    wanted = [job for part in options.only for job in jobs_of(part, options.seeds)]
    found = run_jobs(wanted, partial(measure, options=options), options, Job)
    for part in options.only:
        made = (
            suspects_table(options.seeds, found)
            if part == "suspects"
            else table(part, options, found)
        )
        print(f"\n## {part}\n\n{made}", flush=True)


def jobs_of(part: str, seeds: int) -> Iterator[Job]:
    """The jobs of a part, row by row."""
    for seed in range(seeds):
        if part == "compare":
            yield from (Job(way, seed) for way in ("ours", SCALED, *PEERS))
        elif part == "curve":
            sizes = (100, 200, REVIEWS, MANY)
            yield from (Job(way, seed, n) for way in ("ours", "plain LoRA", FASTER) for n in sizes)
        elif part == "noise":
            shares = (0.0, 0.1, SUSPECTED, 0.4)
            yield from (Job("ours", seed, turned=t) for t in shares)
            tried = (DOUBTED, THREE, SMOOTHER, FASTER)
            yield from (Job(way, seed, turned=t) for way in tried for t in (0.0, SUSPECTED))
        elif part == "suspects":
            yield from (Job("suspects", seed, n, SUSPECTED) for n in (100, REVIEWS))
        elif part == "replay":
            yield from (Job(way, seed, MANY) for way in ("ours", *AMOUNTS))
        else:
            yield from (Job(way, seed) for way in ABLATION)


def table(part: str, options: argparse.Namespace, found: dict[Job, dict[str, Any]]) -> str:
    """Means over the seeds, and their spread for the accuracy."""
    rows: dict[tuple[Any, ...], list[dict[str, Any]]] = defaultdict(list)
    for job in jobs_of(part, options.seeds):
        rows[job.way, job.reviews, job.turned].append(found[job])
    scaled = rows.pop((SCALED, REVIEWS, 0.0), [])
    examples = read_domain(options.data, options.group)
    judges = [examples[row].group for s in range(options.seeds) for row in halves(examples, s)[2]]
    lines = [
        "| | reviews | turned | accuracy (spread) | base | fixed | broken | Brier | base | ECE "
        f"| base | general | base | {LAST_COLUMN.get(part, '')} |",
        "|---" * 14 + "|",
    ]
    ours = rows["ours", MANY if part == "replay" else REVIEWS, 0.0]
    for (way, reviews, turned), each in rows.items():

        def mean(name: str, each: list[dict[str, Any]] = each) -> str:
            return f"{statistics.mean(one[name] for one in each):.3f}"

        accuracies = [one["accuracy"] for one in each]
        spread = f"{min(accuracies):.3f} to {max(accuracies):.3f}"
        names = ("base_accuracy", "fixed", "broken", "brier", "base_brier", "ece", "base_ece")
        cells = [mean(name) for name in (*names, "general", "base_general")]
        last = ""
        if part in ("compare", "ablation", "replay") and way != "ours":
            last = exchanged(ours, each, judges)
        if part == "compare" and way != "ours":
            last += f"; {at_equal_fixed(scaled, each)}"
        elif part == "noise":
            last = f"{gain(each) / gain(rows[way, reviews, 0.0]):.0%}"
        lines.append(
            f"| {way} | {reviews} | {turned:.0%} | {mean('accuracy')} ({spread}) | "
            f"{' | '.join(cells)} | {last} |"
        )
    return "\n".join(lines)


def gain(each: Sequence[dict[str, Any]]) -> float:
    """Mean accuracy over the base's."""
    return statistics.mean(float(one["accuracy"] - one["base_accuracy"]) for one in each)


def suspects_table(seeds: int, found: dict[Job, dict[str, Any]]) -> str:
    """What each score puts into the upper quarter, means over the seeds."""
    rows: dict[int, list[dict[str, float]]] = defaultdict(list)
    for job in jobs_of("suspects", seeds):
        rows[job.reviews].append(found[job])
    lines = [
        "| reviews | score | turned, of all reviewed | slips, of corrections |",
        "|---" * 4 + "|",
    ]
    for reviews, each in rows.items():
        for score in dict.fromkeys(name.rpartition(": ")[0] for name in each[0]):
            shares = (statistics.mean(one[f"{score}: {name}"] for one in each) for name in LISTS)
            lines.append(f"| {reviews} | {score} | {' | '.join(f'{x:.0%}' for x in shares)} |")
    return "\n".join(lines)


def at_equal_fixed(scaled: Sequence[dict[str, Any]], peer: Sequence[dict[str, Any]]) -> str:
    """What ours breaks at the strength at which it fixes as much, against what the peer breaks."""
    equal = [broken_at(y["fixed"], x["strengths"]) for x, y in zip(scaled, peer, strict=True)]
    reached = [(one, y["broken"]) for one, y in zip(equal, peer, strict=True) if one is not None]
    if not reached:
        return "it never fixes as much"
    ours, theirs = (statistics.mean(each) for each in zip(*reached, strict=True))
    some = "" if len(reached) == len(equal) else f" (in {len(reached)} of {len(equal)} splits)"
    return f"{ours:.3f} against {theirs:.3f}{some}"


def exchanged(
    ours: Sequence[dict[str, Any]], other: Sequence[dict[str, Any]], groups: Sequence[str]
) -> str:
    """Pairs that ours alone has right, those that it alone has wrong, and p, see the top.

    Args:
        groups: of the pairs of all splits, one after the other.
    """
    hits = [
        np.array(list("".join(one["hits"] for one in each)), dtype=int) for each in (ours, other)
    ]
    steps = (hits[0] - hits[1]).astype(float)
    sums = Clusters.of(groups).sums(steps[:, None])
    chance = min(1.0, 2 * min(flip_test(sums), flip_test(-sums)))
    return f"{(steps > 0).sum()} : {(steps < 0).sum()}, {chance:.2g}"


def broken_at(fixed: float, strengths: Sequence[tuple[float, float]]) -> float | None:
    """What an adapter breaks at the strength at which it fixes so much, between those tried.

    None where it never fixes so much.
    """
    points = np.array(sorted([(0.0, 0.0), *map(tuple, strengths)]))
    return float(np.interp(fixed, points[:, 0], points[:, 1])) if fixed <= points[-1, 0] else None


def measure(job: Job, options: argparse.Namespace) -> dict[str, Any]:
    """Train once and judge the hold-out."""
    ground = prepare(options.data, options.group, options.general)
    task = make_task(ground, job)
    if job.way == "suspects":
        return suspects_found(ground.base, task)
    held = [ground.examples[row] for row in task.holdout]
    way = WAYS[job.way]
    if "trainer" in way:
        judge = by_trainer(ground.base, job, task)
        answers = [softmax(judge.logits([e.pair for e in rows])) for rows in (held, ground.general)]
        return figures(ground, task, answers[0], answers[1])
    seeds = [job.seed + 1000 * number for number in range(way.get("fits", 1))]
    fits = [adapted(ground, job, task, held, seed) for seed in seeds]
    said = {strength: np.mean([fit[strength] for fit in fits], axis=0) for strength in fits[0]}
    found = figures(ground, task, *np.split(said[1.0], [len(held)]))
    if len(said) > 1:
        each = [figures(ground, task, answers[: len(held)]) for answers in said.values()]
        found["strengths"] = [(one["fixed"], one["broken"]) for one in each]
    return found


def by_trainer(base: Base, job: Job, task: Task) -> Judge:
    """A judge that transformers' Trainer made: the proposal's adapter, or every weight learns."""
    recipe, own = WAYS[job.way]["trainer"], replace(base, model=copy.deepcopy(base.model))
    torch.manual_seed(job.seed)
    lora = recipe is peers.PROPOSAL
    model: Any = peers.with_lora(own) if lora else own.model.requires_grad_(True)
    peers.fit(own, model, taught_rows(base, job, task), recipe, seed=job.seed)
    return Judge(base, (model.merge_and_unload() if lora else model).eval())


def adapted(
    ground: Ground, job: Job, task: Task, held: Sequence[Example], seed: int
) -> dict[float, NDArray[np.float64]]:
    """One adapter's probabilities of the held rows and, after them, of general NLI.

    By strength: the full one, unless the way asks for others.
    """
    way = WAYS[job.way]
    changes = {"seed": seed, "threads": 1, "folds": 0, **way.get("recipe", {})}
    recipe = TrainingSettings.model_validate({**TrainingSettings().model_dump(), **changes})
    taught = taught_rows(ground.base, job, task)
    taught += foreign_pairs(taught, recipe.foreign_share, recipe.seed)
    with tempfile.TemporaryDirectory() as folder, TrainingLog(Path(folder)) as log:
        trainer = trainer_of(ground.base, recipe, log)
        if way.get("head"):
            free_head(trainer.student)
        lessons = trainer.lessons(taught)
        if way.get("damage"):
            broken = collateral_damage(trainer, lessons)
            rows = [replace(e, weight=2.0) if e.id in broken else e for e in taught]
            lessons = trainer.lessons(rows)
        fitted = trainer.fit(lessons, range(len(taught)))
        if way.get("last"):
            trainer.student.take(fitted.weights)
        found = {}
        for strength in way.get("strengths", (1.0,)):
            trainer.student.strength = strength
            found[strength] = say(trainer, [*held, *ground.general])
    return found


def free_head(student: Student) -> None:
    """Let pooler and classifier learn beside the adapters, as PEFT has it for classifiers."""
    model: Any = student.model
    for module in (*model.pooler.modules(), *model.classifier.modules()):
        for name, parameter in list(module.named_parameters(recurse=False)):
            # A copy: the base has the other one.
            setattr(module, name, nn.Parameter(parameter.detach().clone()))
    student.parameters = [p for p in model.parameters() if p.requires_grad]
    student.start = student.fresh = student.weights()


def collateral_damage(trainer: LoraTrainer, lessons: Lessons) -> set[str]:
    """Agreed rows that a student broke which had learned from the other half of the groups."""
    parts = cut(lessons, lessons.reviewed, folds=2, seed=trainer.recipe.seed)
    answers = [trainer.answer_part(lessons, parts, number) for number in range(len(parts))]
    return {
        example.id
        for part in answers
        for example, logits in zip(part.examples, part.logits[1.0], strict=True)
        if example.source == "agreed" and LABELS[int(logits.argmax())] != example.label
    }


def say(trainer: LoraTrainer, examples: Sequence[Example]) -> NDArray[np.float64]:
    """The student's probabilities [n, 3], columns in the order of ``LABELS``."""
    rows = trainer.lessons(examples)
    logits = trainer.student.logits(rows, range(len(rows)))
    return softmax(logits.numpy()[:, list(trainer.base.labels.order)])


def figures(
    ground: Ground,
    task: Task,
    held: NDArray[np.float64],
    general: NDArray[np.float64] | None = None,
) -> dict[str, Any]:
    """What the hold-out and general NLI say of these answers, and of the base's."""
    labels = labels_of([ground.examples[row] for row in task.holdout])
    before = ground.said[task.holdout]
    was, right = before.argmax(axis=1) == labels, held.argmax(axis=1) == labels
    found = {
        "accuracy": float(right.mean()),
        "base_accuracy": float(was.mean()),
        "fixed": float(right[~was].mean()),
        "broken": float((~right[was]).mean()),
        "brier": brier(held, labels),
        "base_brier": brier(before, labels),
        "ece": ece(held, labels),
        "base_ece": ece(before, labels),
        "hits": "".join(map(str, right.astype(int))),
    }
    if general is not None:
        truth = labels_of(ground.general)
        found["general"] = float((general.argmax(axis=1) == truth).mean())
        found["base_general"] = float((ground.general_said.argmax(axis=1) == truth).mean())
    return found


def suspects_found(base: Base, task: Task) -> dict[str, float]:
    """Share of the turned rows in the upper quarter of a list, by score and list.

    All turned rows are looked for among all reviewed ones, slips among the corrections. Beside
    ours, with the same expectations: those of the label alone, and cleanlab's scores, adjusted for
    how sure each class is expected (Northcutt et al. 2021, Confident learning).
    """
    opinions = read_opinions(base, task.reviewed, compute_dtype("auto"))
    likely, labels = opinions.expected(), opinions.labels
    scores = {
        "ours": opinions.suspicion(),
        "label alone": 1 - likely[np.arange(len(labels)), labels],
    }
    for method in ("self_confidence", "normalized_margin"):
        quality = get_label_quality_scores(labels, likely, method=method, adjust_pred_probs=True)
        scores[f"cleanlab, {method}"] = 1 - quality
    corrections = np.array([e.source == "correction" for e in task.reviewed])
    every = np.ones(len(labels), dtype=bool)
    turned, slips = (
        np.array([e.id in ids for e in task.reviewed]) for ids in (task.turned, task.slips)
    )
    return {
        f"{score}: {name}": upper_quarter(values[rows], wrong[rows])
        for score, values in scores.items()
        for name, rows, wrong in (("all", every, turned), ("slips", corrections, slips))
    }


def upper_quarter(scores: NDArray[np.float64], wrong: NDArray[np.bool_]) -> float:
    """Share of the wrong rows that stand in the quarter with the highest scores."""
    upper = np.argsort(-scores, kind="stable")[: len(scores) // 4]
    return float(wrong[upper].sum() / max(1, wrong.sum()))


def labels_of(examples: Sequence[Example]) -> NDArray[np.int64]:
    """Class indices [n]."""
    return np.array([INDEX[example.label] for example in examples], dtype=np.int64)


@cache
def prepare(data: Path | None, group: str, general: Path | None) -> Ground:
    """Read the domain and ask the base, once a process."""
    return ask_base(read_domain(data, group), general)


def ask_base(examples: list[Example], general: Path | None) -> Ground:
    """Ask the base about a domain and about general NLI."""
    base = load_base("starter")
    rows = read_domain(general)[-GENERAL:] if general else replay_rows()[1]
    said, general_said = (
        softmax(Judge(base).logits([example.pair for example in each])) for each in (examples, rows)
    )
    return Ground(base, examples, said, rows, general_said)


def replay_rows() -> tuple[list[Example], list[Example]]:
    """(to learn from, to judge by) of different groups of the shipped set."""
    replay = load_replay()
    groups = sorted({example.group for example in replay})
    random.Random(0).shuffle(groups)
    held = set(groups[: len(groups) // 5])
    learned = [example for example in replay if example.group not in held]
    random.Random(0).shuffle(learned)
    return learned, [example for example in replay if example.group in held][:GENERAL]


def make_task(ground: Ground, job: Job) -> Task:
    """Reviews of one half of the groups, a hold-out of the other."""
    rng, pool, holdout = halves(ground.examples, job.seed)
    reviewed = [reviewed_row(ground, row) for row in pool[: job.reviews]]
    corrections = [example for example in reviewed if example.source == "correction"]
    wrong = rng.sample(corrections, int(job.turned * len(corrections)))
    labels = {e.id: rng.choice([label for label in LABELS if label != e.label]) for e in wrong}
    by_id = {f"row:{row}": row for row in pool}
    reviewed = [
        reviewed_row(ground, by_id[e.id], labels[e.id]) if e.id in labels else e for e in reviewed
    ]
    unreviewed = [unreviewed_row(ground, row) for row in pool[job.reviews :]]
    return Task(reviewed, unreviewed, holdout, frozenset(labels))


def halves(examples: Sequence[Example], seed: int) -> tuple[random.Random, list[int], list[int]]:
    """Positions to draw reviews from and, of other groups, those that judge; and what drew them."""
    rng = random.Random(seed)
    names = sorted({example.group for example in examples})
    rng.shuffle(names)
    place = {name: index for index, name in enumerate(names)}
    order = sorted(range(len(examples)), key=lambda row: place[examples[row].group])
    last = place[examples[order[len(order) // 2]].group]
    pool = [row for row in order if place[examples[row].group] <= last]
    held = [row for row in order if place[examples[row].group] > last]
    rng.shuffle(pool)
    return rng, pool, sorted(rng.sample(held, min(HOLDOUT, len(held))))


def reviewed_row(ground: Ground, row: int, label: Label | None = None) -> Example:
    """A row as people review it: the base's answer tells whether they correct it."""
    example, name = ground.examples[row], f"row:{row}"
    label = label or example.label
    said = LABELS[ground.said[row].argmax()]
    review = Review(name, example.pair, label, said, None, "")
    source: Source = "correction" if review.corrected else "agreed"
    return replace(example, id=name, label=label, source=source, review=review)


def unreviewed_row(ground: Ground, row: int) -> Example:
    """A row of which only the base's answer is known: it pulls there, and teaches nothing."""
    said = LABELS[ground.said[row].argmax()]
    return replace(
        ground.examples[row], id=f"row:{row}", label=said, source="replay", weight=0.0, review=None
    )


def taught_rows(base: Base, job: Job, task: Task) -> list[Example]:
    """The reviewed rows and the replayed ones, as the way has them."""
    way = WAYS[job.way]
    rows = [e for e in task.reviewed if way.get("only", e.source) == e.source]
    if way.get("doubted"):
        doubts = read_opinions(base, rows, compute_dtype("auto")).suspicion()
        rows = [replace(e, weight=1 - doubt) for e, doubt in zip(rows, doubts, strict=True)]
    if "weight" in way:
        rows = [replace(e, weight=way["weight"]) if e.source == "correction" else e for e in rows]
    rows += task.unreviewed[: way.get("unreviewed", 0)]
    usual = DatasetSettings().replayed(len(task.reviewed))
    return [*rows, *replay_rows()[0][: way.get("replay", usual)]]


if __name__ == "__main__":
    main()
