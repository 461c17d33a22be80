"""Time, memory and effect of one training, beside the proposal's own recipe.

    make bench                                         # the demo's project
    python benchmarks/loop.py --data FILE --group topic   # your own pairs

The same 500 reviewed pairs and the same hold-out of other groups for every row; each row in a
process of its own, one after the other, so that memory is its own and nothing runs beside it.

- ``base``: the starter as it is.
- ``proposal``: transformers' Trainer and PEFT as the proposal's section 7.3 has them, with the
  module names mended: corrections only, fp32, batch 8, lr 2e-4, 3 epochs, a head of its own.
- ``proposal + agreed``: the same on all reviewed pairs.
- ``ours``: what `lyra-nli train` does with its default settings.

FILE is JSONL with ``premise``, ``hypothesis``, ``label`` and a column to group by.
"""

from __future__ import annotations

import argparse
import json
import platform
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import peers
import torch
from domains import read_domain
from recording import peak_megabytes
from torch import nn

from lyra_nli.dataset.replay import load_replay, share_out
from lyra_nli.evaluation.metrics import brier
from lyra_nli.labels import INDEX
from lyra_nli.models.adapter import merged_model, read_adapter, save_adapter
from lyra_nli.models.base import Base, load_base
from lyra_nli.models.judge import Judge, softmax
from lyra_nli.records import Example
from lyra_nli.settings import DatasetSettings, TrainingSettings
from lyra_nli.trainers import trainer_of
from lyra_nli.training.log import TrainingLog

ROWS = ("base", "proposal", "proposal + agreed", "ours")
REVIEWED = 500
GENERAL = 300


@dataclass(frozen=True)
class Task:
    """What every row is given.

    Attributes:
        reviewed: pairs with human labels; ``source`` tells which the base got wrong.
        holdout: pairs of other groups.
        replay, general: general NLI to learn from, and to measure forgetting on.
    """

    reviewed: list[Example]
    holdout: list[Example]
    replay: list[Example]
    general: list[Example]


@dataclass
class Row:
    """One row of the table."""

    name: str
    seconds: float = 0.0
    peak_mb: float = 0.0
    trained_share: float = 0.0
    adapter_mb: float = 0.0
    accuracy: float = 0.0
    brier: float = 0.0
    fixed: float = 0.0
    broken: float = 0.0
    general: float = 0.0


def main() -> None:
    """Run every row in its own process and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0] if __doc__ else "")
    parser.add_argument("--data", type=Path, help="JSONL instead of the demo's project")
    parser.add_argument("--group", default="topic", help="the column to group by")
    parser.add_argument("--base", default="starter")
    parser.add_argument("--seed", type=int, default=13)
    parser.add_argument("--row", choices=ROWS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.row:
        print(json.dumps(asdict(measure(options))))
        return
    print(f"{platform.machine()}, {torch.get_num_threads()} threads, torch {torch.__version__}")
    rows = [run_row(name) for name in ROWS]
    print(table(rows))


def run_row(name: str) -> Row:
    """Run one row in a process of its own."""
    command = [sys.executable, __file__, *sys.argv[1:], "--row", name]
    result = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    return Row(**json.loads(result.stdout.splitlines()[-1]))


def table(rows: Sequence[Row]) -> str:
    """The rows as Markdown."""
    lines = [
        "| | seconds | peak MB | trained | adapter MB | accuracy | Brier | fixed | broken "
        "| general |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {r.name} | {r.seconds:.0f} | {r.peak_mb:.0f} | {r.trained_share:.2%} "
        f"| {r.adapter_mb:.2f} | {r.accuracy:.3f} | {r.brier:.3f} | {r.fixed:.2f} "
        f"| {r.broken:.2f} | {r.general:.3f} |"
        for r in rows
    ]
    return "\n".join(lines)


def measure(options: argparse.Namespace) -> Row:
    """Train and judge one row."""
    base = load_base(options.base)
    task = make_task(base, options)
    row = Row(options.row)
    started = time.monotonic()
    if options.row == "ours":
        model = train_ours(base, task, row)
    elif options.row == "base":
        model = base.model
    else:
        model = train_proposal(base, task, row, corrections_only=options.row == "proposal")
    row.seconds = time.monotonic() - started if options.row != "base" else 0.0
    row.peak_mb = peak_megabytes()
    judge_row(base, model, task, row)
    return row


def make_task(base: Base, options: argparse.Namespace) -> Task:
    """Reviewed pairs and a hold-out of other groups; the base's answers decide the source."""
    labelled = read_domain(options.data, options.group)
    said = Judge(base).judge([example.pair for example in labelled])
    examples = [
        replace(example, source="agreed" if answer.label == example.label else "correction")
        for example, answer in zip(labelled, said, strict=True)
    ]
    names = sorted({example.group for example in examples})
    random.Random(options.seed).shuffle(names)
    order = {name: place for place, name in enumerate(names)}
    examples.sort(key=lambda example: order[example.group])
    last = examples[REVIEWED - 1].group
    settings = DatasetSettings()
    # By whole groups: a premise stands in three pairs, and two of them tell the third one's label.
    learned, general = share_out(load_replay(), settings.replayed(REVIEWED), options.seed)
    return Task(
        reviewed=examples[:REVIEWED],
        holdout=[e for e in examples[REVIEWED:] if e.group != last],
        replay=learned,
        general=general[:GENERAL],
    )


def train_ours(base: Base, task: Task, row: Row) -> nn.Module:
    """The default recipe of `lyra-nli train`."""
    recipe = TrainingSettings()
    with tempfile.TemporaryDirectory() as folder, TrainingLog(Path(folder)) as log:
        trainer = trainer_of(base, recipe, log, cache=Path(folder) / "hidden")
        trained = trainer.train([*task.reviewed, *task.replay], [])
        save_adapter(base, trainer.student.model, recipe, Path(folder), trained.strength)
        row.adapter_mb = (Path(folder) / "adapter_model.safetensors").stat().st_size / 2**20
        row.trained_share = trained.trainable / trained.total
        return merged_model(base, read_adapter(base, Path(folder)))


def train_proposal(base: Base, task: Task, row: Row, *, corrections_only: bool) -> nn.Module:
    """The proposal's script, with module names that exist."""
    examples = [e for e in task.reviewed if e.source == "correction" or not corrections_only]
    model = peers.with_lora(base)
    trained, total = model.get_nb_trainable_parameters()
    row.trained_share = trained / total
    row.adapter_mb = peers.fit(base, model, examples, peers.PROPOSAL).megabytes
    merged: nn.Module = model.merge_and_unload()
    return merged.eval()


def judge_row(base: Base, model: nn.Module, task: Task, row: Row) -> None:
    """Accuracy, Brier score, shares fixed and broken, and general NLI."""
    judge = Judge(base, model)
    labels = torch.tensor([INDEX[example.label] for example in task.holdout]).numpy()
    probabilities = softmax(judge.logits([example.pair for example in task.holdout]))
    right = probabilities.argmax(axis=1) == labels
    was_right = torch.tensor([example.source == "agreed" for example in task.holdout]).numpy()
    row.accuracy = float(right.mean())
    row.brier = brier(probabilities, labels)
    row.fixed = float(right[~was_right].mean())
    row.broken = float((~right[was_right]).mean())
    general = judge.logits([example.pair for example in task.general]).argmax(axis=1)
    hits = [INDEX[e.label] == answer for e, answer in zip(task.general, general, strict=True)]
    row.general = sum(hits) / len(hits)


if __name__ == "__main__":
    main()
