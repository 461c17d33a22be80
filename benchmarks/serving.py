"""Serving: latency, throughput, swaps and memory, beside transformers and PEFT.

    make bench                         # or: python benchmarks/serving.py [--threads 2]

The starter with a random rank-8 adapter. All figures of one run stand side by side; medians.

- ``transformers``: the base's own forward pass, fp32, pair by pair or in batches of 32.
- ``ours``: `Judge`, the same weights, fp32.
- swap: our load of an adapter from disk, checked and built beside the base, and the proposal's
  way: the base from disk again, `PeftModel.from_pretrained`, `merge_and_unload`.
"""

from __future__ import annotations

import argparse
import platform
import random
import statistics
import tempfile
import time
from collections.abc import Callable
from functools import partial
from itertools import pairwise
from pathlib import Path

import psutil
import torch
from peft import PeftModel
from transformers import AutoModelForSequenceClassification

from lyra_nli.demo.world import build_world
from lyra_nli.models import starter
from lyra_nli.models.adapter import adapted_model, save_adapter
from lyra_nli.models.base import Base, load_base
from lyra_nli.models.encoding import collate, encode
from lyra_nli.models.judge import Judge
from lyra_nli.models.lora import attach
from lyra_nli.records import Pair
from lyra_nli.settings import TrainingSettings


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--repeat", type=int, default=15)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    base = load_base("starter")
    print(f"{platform.machine()}, {options.threads} threads, torch {torch.__version__}, fp32")
    pairs = list(build_world().pairs().values())
    judge = Judge(base)
    print("\n| pairs | transformers ms | ours ms | ratio | largest logit difference |")
    print("|---|---|---|---|---|")
    for name, batch in batches(base, pairs).items():
        slow, fast = side_by_side(
            partial(transformers_logits, base, batch), partial(judge.logits, batch), options.repeat
        )
        difference = abs(transformers_logits(base, batch) - judge.logits(batch)).max()
        print(f"| {name} | {slow:.1f} | {fast:.1f} | {slow / fast:.2f} | {difference:.1e} |")
    swaps(base, options.repeat)
    print(f"\nresident memory: {psutil.Process().memory_info().rss / 2**20:.0f} MB")


def batches(base: Base, pairs: list[Pair]) -> dict[str, list[Pair]]:
    """One pair of about 32 and of about 128 tokens, and 32 mixed ones."""
    lengths = [len(row) for row in encode(base, pairs)]
    short = min(range(len(pairs)), key=lambda i: abs(lengths[i] - 32))
    doubled = [
        Pair(f"{pair.premise} {other.premise}", pair.hypothesis) for pair, other in pairwise(pairs)
    ]
    long_lengths = [len(row) for row in encode(base, doubled)]
    long = min(range(len(doubled)), key=lambda i: abs(long_lengths[i] - 128))
    mixed = random.Random(1).sample(pairs + doubled, 32)
    tokens = [len(row) for row in encode(base, mixed)]
    return {
        f"1 of {lengths[short]} tokens": [pairs[short]],
        f"1 of {long_lengths[long]} tokens": [doubled[long]],
        f"32 of {min(tokens)}-{max(tokens)} tokens": mixed,
    }


def transformers_logits(base: Base, pairs: list[Pair]):  # type: ignore[no-untyped-def]
    """One padded batch through transformers' own forward pass, in the order of our labels."""
    batch = collate(base, encode(base, pairs))
    with torch.inference_mode():
        return base.model(**batch).logits[:, list(base.labels.order)].numpy()


def side_by_side(
    first: Callable[[], object], second: Callable[[], object], repeat: int
) -> tuple[float, float]:
    """Median milliseconds of two functions, called in turn after one warm-up each."""
    times: tuple[list[float], list[float]] = ([], [])
    for turn in range(repeat + 1):
        for function, kept in zip((first, second), times, strict=True):
            started = time.perf_counter()
            function()
            if turn:
                kept.append((time.perf_counter() - started) * 1000)
    return statistics.median(times[0]), statistics.median(times[1])


def swaps(base: Base, repeat: int) -> None:
    """Time the ways to get another version to answer."""
    with tempfile.TemporaryDirectory() as folder:
        recipe = TrainingSettings()
        model = attach(base, recipe)
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                torch.nn.init.normal_(parameter, std=0.02)
        save_adapter(base, model, recipe, Path(folder))
        source = str(starter.materialise())

        def proposal() -> object:
            loaded = AutoModelForSequenceClassification.from_pretrained(source)
            return PeftModel.from_pretrained(loaded, folder).merge_and_unload()

        def from_disk() -> object:
            return Judge(base, adapted_model(base, Path(folder)))

        peer, ours = side_by_side(proposal, from_disk, repeat)
        size = (Path(folder) / "adapter_model.safetensors").stat().st_size
    print("\n| another version answers after | ms |")
    print("|---|---|")
    print(f"| reload, PeftModel.from_pretrained, merge_and_unload | {peer:.0f} |")
    print(f"| our load from disk, beside the base | {ours:.0f} |")
    print(f"\nadapter: {size / 2**20:.2f} MB")


if __name__ == "__main__":
    main()
