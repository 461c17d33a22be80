"""How far the confidence of an adapter can be believed, as it is and calibrated.

    python benchmarks/calibration.py                              # the demo's project
    python benchmarks/calibration.py --data FILE --group topic    # your own pairs
    python benchmarks/calibration.py --rows 60                    # a sample, to see that it runs

Every pair is judged by a student that learned from the pairs of other groups, and calibrated by
a calibrator that was fitted on other groups again. Intervals are 95%, by a bootstrap over groups.
FILE is JSONL with ``premise``, ``hypothesis``, ``label`` and a column to group by.
"""

from __future__ import annotations

import argparse
import platform
import random
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from domains import read_domain

from lyra_nli.dataset.replay import load_replay
from lyra_nli.evaluation.arrays import Probabilities
from lyra_nli.evaluation.choosing import choose
from lyra_nli.evaluation.estimates import Estimate, estimate, ratio
from lyra_nli.evaluation.judged import Judged, measures
from lyra_nli.labels import INDEX
from lyra_nli.models.base import Base, load_base
from lyra_nli.models.judge import Judge, softmax
from lyra_nli.records import Example
from lyra_nli.settings import DatasetSettings, TrainingSettings
from lyra_nli.trainers import trainer_of
from lyra_nli.training.log import TrainingLog

SHOWN = ("accuracy", "nll", "brier", "ece", "ece_mass", "ece_debiased", "classwise_ece")


def main() -> None:
    """Train by folds, and print a table each of the base and of the adapter."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--data", type=Path, help="JSONL instead of the demo's project")
    parser.add_argument("--group", default="topic", help="the column to group by")
    parser.add_argument("--rows", type=int, help="only so many, drawn at random")
    parser.add_argument("--seed", type=int, default=13)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    base = load_base("starter")
    examples = read_rows(options)
    said = softmax(Judge(base).logits([example.pair for example in examples]))
    print(f"{platform.machine()}, {options.threads} threads, torch {torch.__version__}")
    report("starter", judged(examples, said))
    started = time.monotonic()
    unseen = out_of_fold(base, with_sources(examples, said), options)
    print(f"\nTraining took {time.monotonic() - started:.0f} s.")
    report("starter + adapter, out of fold", judged(examples, unseen))


def report(title: str, rows: Judged) -> None:
    """Every method's figures, and how they relate to the raw ones."""
    choice = choose(rows)
    raw = measures(rows)
    print(f"\n## {title}: {len(rows.labels)} pairs, {len(set(rows.groups))} groups\n")
    print(f"| | {' | '.join(SHOWN)} | ECE / raw ECE |\n|---|{'---|' * (len(SHOWN) + 1)}")
    for method, trial in choice.trials.items():
        after = measures(trial.unseen)
        figures = {name: after[name] for name in SHOWN}
        figures["share"] = ratio(after["ece"], raw["ece"])
        found = estimate(figures, rows.groups)
        name = "raw" if method == "identity" else method
        print(f"| {name}{' (refused)' if trial.refusal else ''} | {cells(found)} |")
    print(f"\nBy cross-validated NLL: {choice.method}.")
    for method, why in choice.refused.items():
        print(f"{method} is refused: {why}.")


def cells(found: Mapping[str, Estimate]) -> str:
    """The columns of one row."""
    return " | ".join(map(str, found.values()))


def judged(examples: Sequence[Example], probabilities: Probabilities) -> Judged:
    """What a model said of the examples."""
    labels = np.array([INDEX[example.label] for example in examples])
    groups = [example.group for example in examples]
    return Judged(probabilities, probabilities.argmax(axis=1), labels, groups)


def with_sources(examples: Sequence[Example], said: Probabilities) -> list[Example]:
    """The examples as reviews of the base: agreed where it was right, else corrected."""
    right = [
        INDEX[e.label] == answer for e, answer in zip(examples, said.argmax(axis=1), strict=True)
    ]
    return [
        replace(example, source="agreed" if agreed else "correction")
        for example, agreed in zip(examples, right, strict=True)
    ]


def out_of_fold(
    base: Base, examples: Sequence[Example], options: argparse.Namespace
) -> Probabilities:
    """The probabilities of students that had not learned from the row's group, [n, 3]."""
    recipe = TrainingSettings(seed=options.seed, threads=options.threads)
    replay = load_replay()
    count = min(DatasetSettings().replayed(len(examples)), len(replay), 2 * len(examples))
    mixed = [*examples, *random.Random(options.seed).sample(replay, count)]
    with tempfile.TemporaryDirectory() as folder, TrainingLog(Path(folder)) as log:
        trainer = trainer_of(base, recipe, log, cache=Path(folder) / "hidden")
        unseen = trainer.out_of_fold(trainer.lessons(mixed))
    if unseen is None:
        raise SystemExit("the rows have too few groups for two folds")
    place = {example.id: index for index, example in enumerate(unseen.examples)}
    answers = softmax(unseen.honest().numpy())
    return np.stack([answers[place[example.id]] for example in examples])


def read_rows(options: argparse.Namespace) -> list[Example]:
    """Labelled pairs, as many as wanted."""
    examples = read_domain(options.data, options.group)
    count = min(options.rows or len(examples), len(examples))
    drawn = set(random.Random(options.seed).sample(range(len(examples)), count))
    return [example for index, example in enumerate(examples) if index in drawn]


if __name__ == "__main__":
    main()
