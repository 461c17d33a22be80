"""Many versions in one batch, and the ways to another version, of `serving`."""

from __future__ import annotations

import random
import tempfile
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import psutil
import torch
from peft import PeftModel
from serving_engine import Rows, ours
from serving_tools import Ground, Target, adapter, in_turn, mixed, precisions, standing_in
from transformers import AutoModelForSequenceClassification

from lyra_nli.ml_server.served import Served
from lyra_nli.ml_server.slot import Slot
from lyra_nli.models import starter
from lyra_nli.models.adapter import read_adapter
from lyra_nli.models.base import Base
from lyra_nli.models.encoding import collate, encode
from lyra_nli.models.engine import Engine, engine_of

RELOAD = "reload, PeftModel.from_pretrained, merge_and_unload"
LOAD = "our load from disk, held against the base"
FLIP = "our flip of a resident version"


def versions(ground: Ground) -> list[Target]:
    """A batch of one version, of eight, and what eight passes take."""
    base = ground.base
    rows = encode(base, mixed(ground.pairs))
    some = random.Random(2).sample([row for row in rows if 20 <= len(row) <= 200], 32)
    print("\n| 32 rows | the base ms | one version ms | 8 versions ms | of one's speed |")
    print("|---|---|---|---|---|")
    kept = []
    with tempfile.TemporaryDirectory() as folder:
        paths = [adapter(base, Path(folder) / str(seed), seed) for seed in range(8)]
        for name, dtype in precisions().items():
            engine = engine_of(base, dtype)
            ready = [engine.variant(read_adapter(base, path)) for path in paths]
            ways = {
                "base": partial(ours, engine, some),
                "one": partial(ours, engine, some, ready[:1] * 32),
                "eight": partial(ours, engine, some, ready * 4),
            }
            ms = in_turn(ways, ground.repeat)
            kept.append(ms["one"] / ms["eight"])
            cells = " | ".join(f"{each:.0f}" for each in ms.values())
            print(f"| {name} | {cells} | {ms['one'] / ms['eight']:.0%} |")
        engine = engine_of(base)
        ready = [engine.variant(read_adapter(base, path)) for path in paths]
        got = ours(engine, some, ready * 4)
        apart = max(
            (got[i::8] - by_peft(path, some[i::8], base)).abs().max().item()
            for i, path in enumerate(paths)
        )
    print(f"\nlargest logit difference from PEFT, row by row, float32: {apart:.1e}")
    return [
        Target(
            "32 rows of 8 versions: 80% of one version's speed, logits within 1e-4 of PEFT",
            f"{min(kept):.0%}, {apart:.1e}",
            min(kept) >= 0.8 and apart <= 1e-4,
        )
    ]


def by_peft(path: Path, rows: Rows, base: Base) -> torch.Tensor:
    """Row by row, by transformers and PEFT."""
    model = AutoModelForSequenceClassification.from_pretrained(str(starter.materialise()))
    model = PeftModel.from_pretrained(model, str(path)).eval()
    with torch.inference_mode():
        return torch.cat([model(**collate(base, [row])).logits for row in rows])


def swaps(ground: Ground) -> list[Target]:
    """Time the ways to get another version to answer; then load a thousand."""
    base = ground.base
    with tempfile.TemporaryDirectory() as name:
        paths = [adapter(base, Path(name) / str(seed), seed) for seed in range(2)]
        source, engine, slot = str(starter.materialise()), engine_of(base), Slot(base)
        served = [standing_in(slot, engine.variant(read_adapter(base, path))) for path in paths]

        def proposal() -> object:
            loaded = AutoModelForSequenceClassification.from_pretrained(source)
            return PeftModel.from_pretrained(loaded, str(paths[0])).merge_and_unload()

        ms = in_turn(
            {
                RELOAD: proposal,
                LOAD: lambda: engine.variant(read_adapter(base, paths[0])),
                FLIP: lambda: flip(slot, served),
            },
            ground.repeat,
        )
        size = (paths[0] / "adapter_model.safetensors").stat().st_size
        print("\n| another version answers after | ms |\n|---|---|")
        for way, each in ms.items():
            print(f"| {way} | {each:.3f} |")
        print(f"\nadapter: {size / 2**20:.2f} MB; in memory {served[0].own_bytes / 2**20:.2f} MB")
        grown, same = cycles(base, engine, paths, encode(base, ground.pairs[:8]))
    return [
        Target(
            "flip of a resident version: under 1 ms, 50x faster than reload and merge",
            f"{ms[FLIP]:.3f} ms, {ms[RELOAD] / ms[FLIP]:,.0f}x",
            ms[FLIP] < 1 and ms[RELOAD] >= 50 * ms[FLIP],
        ),
        Target(
            "1,000 loads: the base's logits the same to the bit, memory under 5 MB",
            f"{'the same' if same else 'CHANGED'}, {grown:+.1f} MB",
            same and grown < 5,
        ),
    ]


def flip(slot: Slot, served: Sequence[Served]) -> None:
    """To the one that is not current."""
    slot.flip(served[slot.current is served[0]])


def cycles(base: Base, engine: Engine, paths: Sequence[Path], rows: Rows) -> tuple[float, bool]:
    """A thousand versions come and go: megabytes that memory has grown, and the base's bits."""
    process, before = psutil.Process(), ours(engine, rows)
    for number in range(1100):
        if number == 100:  # by then the allocator has what it needs
            memory = process.memory_info().rss
        variant = engine.variant(read_adapter(base, paths[number % 2]))
        ours(engine, rows[:1], [variant])
    grown = (process.memory_info().rss - memory) / 2**20
    return grown, torch.equal(ours(engine, rows), before)
