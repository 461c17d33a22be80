"""Training speed: our loop beside transformers' Trainer with PEFT, on the same rows.

    make bench-train                                       # the demo's project
    python benchmarks/training.py --data FILE --group topic   # your own pairs
    python benchmarks/training.py --only speed growth      # parts of it

Parts, each fit in a process of its own, one after the other:

- ``speed``: wall time and peak memory of one fit, 3 epochs. ``trainer``: the proposal's recipe
  with the module names mended: fp32, batch 8, query and value of all layers, a head of its own.
- ``layers``: hold-out accuracy and seconds against the number of upper layers that learn.
- ``whole``: all of `lyra-nli train`: out-of-fold, final fit and gate, through the command.
- ``growth``: seconds and memory against the number of pairs, two epochs; the last rows with a cache
  that is too small.
- ``passes``: seconds against the rows of a pass, whatever their tokens; what training several
  adapters in one batch could win at most.
- ``full``: full fine-tuning of the base by the Trainer, on the reviewed rows of ``layers``.
- ``small``: ``speed`` on random weights of another shape (6 layers, hidden size 768).

FILE is JSONL with ``premise``, ``hypothesis``, ``label`` and a column to group by. Rows whose
label the base gives are agreed ones, the others corrections, as in a dataset of reviews. Ours runs
in the environment that `lyra-nli` sets for itself, the peers in the environment as it is.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import peers
import torch
from domains import read_domain
from projects import Project, command
from recording import measured_by, peak_megabytes, processor
from transformers import (
    AutoTokenizer,
    DebertaV2Config,
    DebertaV2ForSequenceClassification,
)

from lyra_nli.cli.environment import TUNED
from lyra_nli.dataset.replay import load_replay
from lyra_nli.labels import INDEX, LABELS
from lyra_nli.models import starter
from lyra_nli.models.base import Base, load_base
from lyra_nli.models.encoding import encode
from lyra_nli.models.judge import Judge
from lyra_nli.models.machine import compute_dtype
from lyra_nli.records import Example, Pair
from lyra_nli.settings import TrainingSettings
from lyra_nli.trainers import trainer_of
from lyra_nli.training.log import TrainingLog

PARTS = ("speed", "whole", "layers", "growth", "small", "passes", "full")
WAYS = (
    ("2", "all", 2e-3),
    *(("4", "all", rate) for rate in (1e-3, 2e-3, 4e-3)),
    ("6", "all", 2e-3),
    *(("all", "all", rate) for rate in (1e-3, 2e-3, 4e-3)),
)
"""(upper layers, modules, learning rate) whose accuracy is compared: the default and all layers at
the same rates, each of which is chosen on the pairs that judge it."""

SIZES = ((1_000, 4096), (10_000, 4096), (50_000, 4096), (5_000, 64), (10_000, 64))
"""Pairs, and megabytes that their hidden states may take: the last two have no room for all."""
GROWTH_EPOCHS = 2
PASSES_PAIRS = 320
PASS_ROWS = (4, 8, 16, 32, 64)
"""Rows a pass, of batches of as many rows as the last."""


@dataclass(frozen=True)
class Setup:
    """What one process fits."""

    way: str
    seed: int = 0
    pairs: int = 1000
    epochs: int = 3
    layers: str = ""
    modules: str = ""
    rate: float = 0.0
    model: str = "starter"
    cache_mb: int = 4096
    pass_rows: int = 0
    holdout: bool = False
    precision: str = ""


def main() -> None:
    """Run the parts and print their tables."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--data", type=Path, help="JSONL instead of the demo's project")
    parser.add_argument("--group", default="topic", help="the column to group by")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--plot", type=Path, help="where `layers` draws its figure")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--one", help=argparse.SUPPRESS)
    parser.add_argument("--agreed", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    if options.one:
        print(json.dumps(measure(Setup(**json.loads(options.one)), options)))
        return
    options.precision = "bf16" if compute_dtype("auto") == torch.bfloat16 else "fp32"
    facts = {"processor": processor(), "threads": options.threads, **measured_by()}
    print(", ".join(f"{name} {fact}" for name, fact in facts.items()))
    tables = {
        "speed": speed,
        "layers": layers,
        "whole": whole,
        "growth": growth,
        "small": small,
        "passes": passes,
        "full": full,
    }
    with tempfile.TemporaryDirectory() as folder:
        options.agreed = Path(folder) / "agreed.json"
        options.agreed.write_text(json.dumps(find_agreed(options)), "utf-8")
        for part in options.only:
            print(f"\n## {part}\n", flush=True)
            tables[part](options)


def find_agreed(options: argparse.Namespace) -> list[str]:
    """Ids of the rows whose label the base gives."""
    examples = read_domain(options.data, options.group)
    answers = Judge(load_base("starter")).logits([e.pair for e in examples]).argmax(axis=1)
    pairs = zip(examples, answers, strict=True)
    return [example.id for example, answer in pairs if INDEX[example.label] == answer]


def speed(options: argparse.Namespace, model: str = "starter", pairs: int = 1000) -> None:
    """Wall time, memory and size of one fit, ours and the Trainer's, in turn."""
    setups = {
        "Trainer + PEFT": Setup("trainer", pairs=pairs, model=model),
        "ours, all layers": Setup(
            "ours", pairs=pairs, model=model, layers="all", modules="query,value"
        ),
        "ours, default": Setup("ours", pairs=pairs, model=model),
    }
    runs = in_turn(setups, options)
    rows = {name: medians(found) for name, found in runs.items()}
    peer = rows["Trainer + PEFT"]
    print(
        "| | seconds | faster | first step s | peak MB | memory | predicted | trained | adapter |\n"
        "|---|---|---|---|---|---|---|---|---|"
    )
    for name, row in rows.items():
        predicted = "" if math.isnan(row["expected_mb"]) else f"{row['expected_mb']:.0f}"
        print(
            f"| {name} | {row['seconds']:.1f} | {peer['seconds'] / row['seconds']:.1f}x "
            f"| {row['first_step']:.1f} | {row['peak_mb']:.0f} "
            f"| {row['peak_mb'] / peer['peak_mb']:.0%} | {predicted} "
            f"| {row['trained']:.2%} | {row['adapter_mb']:.2f} MB |"
        )
    print(
        f"\n{peer['pairs']:.0f} pairs, {peer['tokens']:.0f} tokens on average, "
        f"medians of {options.seeds} seeds"
    )


def in_turn(
    setups: Mapping[str, Setup], options: argparse.Namespace
) -> dict[str, list[dict[str, float]]]:
    """Run all setups with one seed, then with the next: slow minutes of the machine hit all."""
    runs: dict[str, list[dict[str, float]]] = {name: [] for name in setups}
    for seed in range(options.seeds):
        for name, setup in setups.items():
            runs[name].append(run(replace(setup, seed=seed), options))
            done = {key: round(value, 3) for key, value in runs[name][-1].items()}
            print(f"seed {seed}, {name}: {done}", file=sys.stderr, flush=True)
    return runs


def medians(runs: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Median of every figure."""
    return {key: statistics.median(each[key] for each in runs) for key in runs[0]}


def small(options: argparse.Namespace) -> None:
    """`speed` on another shape of model."""
    speed(options, model="small", pairs=64)


def layers(options: argparse.Namespace) -> None:
    """Accuracy on other groups, and seconds, against the number of layers that learn."""
    setups = {
        f"{count} | {modules} | {rate:g}": Setup(
            "ours", layers=count, modules=modules, rate=rate, holdout=True
        )
        for count, modules, rate in WAYS
    }
    runs = in_turn(setups, options)
    print(
        "| upper layers | modules | learning rate | accuracy | by split | seconds, fastest "
        "| cached |\n"
        "|---|---|---|---|---|---|---|"
    )
    for name, found in runs.items():
        least, cached = fastest(found, "seconds"), fastest(found, "fit_seconds")
        print(f"| {name} | {by_seed(found)} | {least:.1f} | {cached:.1f} |")
    if options.plot:
        plot_layers(setups, runs, options.plot)


def plot_layers(
    setups: Mapping[str, Setup], runs: Mapping[str, Sequence[Mapping[str, float]]], file: Path
) -> None:
    """Draw time and accuracy against the layers that learn; all linears, the best rate of each."""
    best: dict[str, str] = {}
    for name, setup in setups.items():
        rival = best.get(setup.layers, name)
        if setup.modules == "all" and mean(runs[name]) >= mean(runs[rival]):
            best[setup.layers] = name
    names, place = list(best.values()), list(range(len(best)))
    figure, bars = plt.subplots(figsize=(6.4, 3.6), layout="constrained")
    bars.bar(place, [fastest(runs[n], "seconds") for n in names], width=0.5, color="#cfd8dc")
    bars.set(ylabel="seconds (bars)", xlabel="upper layers that learn")
    bars.set_xticks(place, list(best))
    line = bars.twinx()
    for at, name in zip(place, names, strict=True):
        line.plot([at] * len(runs[name]), [r["accuracy"] for r in runs[name]], "o", c="#90a4ae")
    line.plot(place, [mean(runs[name]) for name in names], "o-", c="#0d47a1")
    line.set(ylabel="accuracy on other topics: seeds, mean (line)")
    figure.savefig(file)


def fastest(runs: Sequence[Mapping[str, float]], figure: str) -> float:
    """Seconds of the split that the machine disturbed least."""
    return min(each[figure] for each in runs)


def mean(runs: Sequence[Mapping[str, float]]) -> float:
    """Mean accuracy."""
    return statistics.mean(each["accuracy"] for each in runs)


def by_seed(runs: Sequence[Mapping[str, float]]) -> str:
    """Mean accuracy, and every seed's."""
    found = ", ".join(f"{each['accuracy']:.3f}" for each in runs)
    return f"{mean(runs):.3f} | {found}"


def passes(options: argparse.Namespace) -> None:
    """Seconds against the rows of a pass."""
    setups = {str(rows): Setup("cached", pairs=PASSES_PAIRS, pass_rows=rows) for rows in PASS_ROWS}
    runs = in_turn(setups, options)
    print("| rows a pass | seconds per 1,000 rows and epoch |\n|---|---|")
    for name, found in runs.items():
        seconds = medians(found)["fit_seconds"] / Setup.epochs
        print(f"| {name} | {seconds / PASSES_PAIRS * 1000:.1f} |")


def full(options: argparse.Namespace) -> None:
    """Full fine-tuning on the rows of `layers`."""
    setups = {"full fine-tuning": Setup("full", holdout=True)}
    runs = in_turn(setups, options)["full fine-tuning"]
    print(
        "| | accuracy | by seed | seconds |\n|---|---|---|---|\n"
        f"| full fine-tuning | {by_seed(runs)} | {medians(runs)['seconds']:.1f} |"
    )


def growth(options: argparse.Namespace) -> None:
    """Seconds and memory against the number of pairs."""
    print(
        "| pairs | tokens | cache may take MB | takes MB | seconds | per 1,000 pairs | peak MB |\n"
        "|---|---|---|---|---|---|---|"
    )
    for pairs, limit in SIZES:
        setup = Setup("general", pairs=pairs, epochs=GROWTH_EPOCHS, cache_mb=limit)
        row = run(setup, options)
        print(
            f"| {pairs:,} | {row['tokens']:.0f} | {limit:,} "
            f"| {row['cache_mb']:.0f} | {row['seconds']:.0f} "
            f"| {row['seconds'] / pairs * 1000:.2f} | {row['peak_mb']:.0f} |",
            flush=True,
        )
    print(f"\n{GROWTH_EPOCHS} epochs, {options.threads} threads.")


def whole(options: argparse.Namespace) -> None:
    """`lyra-nli train` on 1,000 reviewed pairs in a database of its own."""
    base = load_base("starter")
    with tempfile.TemporaryDirectory() as folder:
        project = Project(Path(folder), {"OMP_NUM_THREADS": str(options.threads)})
        project.review(base, rows_of(base, Setup("ours"), options)[0])
        started = time.monotonic()
        outcome = project.train()
        seconds = time.monotonic() - started
    steps = {**outcome["seconds"], "the whole command": seconds}
    print("| step | seconds |\n|---|---|")
    for name, taken in steps.items():
        print(f"| {name} | {taken:.1f} |")
    training = outcome["training"]
    print(
        f"\n{training['folds']} folds, {training['epochs']} epochs, {training['steps']} steps of "
        f"{TrainingSettings().batch_size} rows in the last fit, one run, "
        f"{training['peak_memory'] / 2**20:.0f} MB, verdict {outcome['verdict']['outcome']}"
    )


def run(setup: Setup, options: argparse.Namespace) -> dict[str, float]:
    """Fit in a process of its own, so that memory is its own; all in the same float type."""
    setup = replace(setup, precision=options.precision)
    ours = {} if setup.way in ("trainer", "full") else TUNED
    text = command(
        sys.executable, __file__, *sys.argv[1:],
        "--agreed", str(options.agreed), "--one", json.dumps(vars(setup)),
        environment={**os.environ, **ours},
    )  # fmt: skip
    result: dict[str, float] = json.loads(text.splitlines()[-1])
    return result


def measure(setup: Setup, options: argparse.Namespace) -> dict[str, float]:
    """Fit once."""
    base = small_base() if setup.model == "small" else load_base("starter")
    taught, held = rows_of(base, setup, options)
    figures = (with_trainer if setup.way in ("trainer", "full") else with_ours)(
        base, setup, taught, held
    )
    peak = peak_megabytes()
    encoded = encode(base, [example.pair for example in taught])
    tokens = statistics.mean(map(len, encoded))
    return {**figures, "pairs": len(taught), "tokens": tokens, "peak_mb": peak}


def with_ours(
    base: Base, setup: Setup, taught: Sequence[Example], held: Sequence[Example]
) -> dict[str, float]:
    """One fit by our loop, from an empty cache unless the setup says otherwise."""
    changes: dict[str, object] = {"epochs": setup.epochs, "seed": setup.seed, "folds": 0}
    changes["precision"] = setup.precision
    if not held:
        changes["foreign_share"] = 0.0  # the same rows as the peer's, and no others
    if setup.pass_rows:
        changes["batch_size"] = PASS_ROWS[-1]
    micro_batch, tokens = (setup.pass_rows, 2**20) if setup.pass_rows else (None, None)
    if setup.layers:
        changes["layers"] = int(setup.layers) if setup.layers.isdigit() else setup.layers
    if setup.modules:
        changes["target_modules"] = tuple(setup.modules.split(","))
    if setup.rate:
        changes["learning_rate"] = setup.rate
    recipe = TrainingSettings.model_validate(
        {**TrainingSettings().model_dump(), "cache_mb": setup.cache_mb, **changes}
    )
    with tempfile.TemporaryDirectory() as folder, TrainingLog(Path(folder)) as log:
        cache = Path(folder) / "hidden"
        if setup.way == "cached":
            trainer_of(base, recipe, log, cache=cache).mixed(taught, ())
        started = time.monotonic()
        trainer = trainer_of(
            base, recipe, log, cache=cache, micro_batch=micro_batch, pass_tokens=tokens
        )
        trained = trainer.train(taught, ())
        seconds = time.monotonic() - started
        hits = float("nan")
        if held:
            lessons = trainer.lessons(held)
            answers = trainer.student.logits(lessons, range(len(held))).argmax(dim=1)
            hits = (answers == lessons.labels).float().mean().item()
        files = [file.stat().st_size for file in cache.rglob("*") if file.is_file()]
    return {
        "seconds": seconds,
        "fit_seconds": trained.fitted.seconds,
        "first_step": seconds - trained.fitted.seconds + trained.fitted.first_step,
        "trained": trained.trainable / trained.total,
        "adapter_mb": trained.trainable * 4 / 2**20,
        "expected_mb": trained.fitted.expected_memory / 2**20,
        "accuracy": hits,
        "cache_mb": sum(files) / 2**20,
    }


def with_trainer(
    base: Base, setup: Setup, taught: Sequence[Example], held: Sequence[Example]
) -> dict[str, float]:
    """The proposal's script, with module names that exist; or every weight learns."""
    torch.manual_seed(setup.seed)
    lora = setup.way == "trainer"
    model: Any = peers.with_lora(base) if lora else base.model.requires_grad_(True)
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    total = sum(p.numel() for p in model.parameters())
    recipe = peers.PROPOSAL if lora else peers.FULL
    fitted = peers.fit(base, model, taught, recipe, epochs=setup.epochs, seed=setup.seed)
    hits = float("nan")
    if held:
        labels = [INDEX[example.label] for example in held]
        answers = Judge(base, model.eval()).logits([example.pair for example in held])
        hits = float((answers.argmax(axis=1) == labels).mean())
    return {
        "seconds": fitted.seconds,
        "first_step": fitted.first_step,
        "trained": trained / total,
        "adapter_mb": fitted.megabytes,
        "expected_mb": float("nan"),
        "accuracy": hits,
        "cache_mb": 0.0,
    }


def rows_of(
    base: Base, setup: Setup, options: argparse.Namespace
) -> tuple[list[Example], list[Example]]:
    """Rows to learn from, and rows of other groups."""
    rng = random.Random(setup.seed)
    if setup.way == "general":
        return general_rows(setup.pairs), []
    agreed = set(json.loads(options.agreed.read_text("utf-8")))
    examples = [
        replace(example, source="agreed" if example.id in agreed else "correction")
        for example in read_domain(options.data, options.group)
    ]
    if setup.holdout:
        names = sorted({example.group for example in examples})
        rng.shuffle(names)
        place = {name: index for index, name in enumerate(names)}
        examples.sort(key=lambda example: place[example.group])
        last = examples[len(examples) // 2].group
        held = [e for e in examples if place[e.group] > place[last]]
        return [e for e in examples if place[e.group] <= place[last]], held
    # Where there are enough, the longer pairs, towards 90 tokens on average.
    lengths = [len(row) for row in encode(base, [example.pair for example in examples])]
    order = sorted(range(len(examples)), key=lambda index: lengths[index])
    while len(order) > setup.pairs and statistics.mean(lengths[i] for i in order) < 90:
        del order[: max(1, len(order) // 100)]
    return [examples[i] for i in sorted(rng.sample(order, min(setup.pairs, len(order))))], []


def general_rows(count: int) -> list[Example]:
    """Any number of different pairs: premises of the replay set with other hypotheses."""
    replay = load_replay()
    rng = random.Random(0)
    found: dict[tuple[str, str], Example] = {}
    while len(found) < count:
        one, other = rng.choice(replay), rng.choice(replay)
        found[one.id, other.id] = Example(
            id=f"general:{one.id}:{other.id}",
            pair=Pair(one.pair.premise, other.pair.hypothesis),
            label=rng.choice(LABELS),
            source="correction",
            group=one.id,
        )
    return list(found.values())


def small_base() -> Base:
    """Random weights: 6 layers, hidden size 768, as the slow model has; the starter's tokenizer."""
    place = Path(tempfile.gettempdir()) / f"lyra-nli-bench-{os.getuid()}-6x768"
    if not place.is_dir():
        tokenizer = AutoTokenizer.from_pretrained(starter.materialise())
        torch.manual_seed(0)
        config = DebertaV2Config.from_pretrained(
            starter.materialise(),
            num_hidden_layers=6,
            hidden_size=768,
            num_attention_heads=12,
            intermediate_size=3072,
            pooler_hidden_size=768,
        )
        unfinished = Path(tempfile.mkdtemp(dir=place.parent))
        DebertaV2ForSequenceClassification(config).save_pretrained(unfinished)
        tokenizer.save_pretrained(unfinished)
        unfinished.rename(place)
    return load_base(str(place))


if __name__ == "__main__":
    main()
