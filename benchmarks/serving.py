"""Serving: latency, precision, versions, throughput and swaps, beside what else there is.

    make bench                         # or: python benchmarks/serving.py [--only PART ...]

The starter, and random LoRA adapters of rank 8 on all matrices of its upper six layers: the
default recipe's shape. Peers and ours are called in turn; medians. Parts:

- ``latency``: one pair and 32 mixed ones: transformers' forward pass in float32, ONNX Runtime in
  float32 (the same weights, exported), ours in float32 and in bf16.
- ``precision``: labels and probabilities of bf16 against transformers' float32, on --data or the
  demo's pairs.
- ``throughput``: 384 pairs of 20 to 200 tokens by sentence-transformers' ``CrossEncoder.predict``,
  by the same over ONNX Runtime, and by our service.
- ``versions``: 32 rows of one version and of eight, in one pass.
- ``server``: 32 clients that send single pairs over HTTP, to ours and to a server like Lyra's,
  which judges pair by pair with a transformers pipeline.
- ``swaps``: the ways to another version; memory and the base's logits after a thousand loads.
- ``saturated``: a thousand swaps of the active version while 32 clients ask without pause; every
  answer is held against what the version that it names says to that pair alone.
- ``memory``: what a slow base takes, and whether the system gets it back.
"""

from __future__ import annotations

import argparse
import platform
import random
import statistics
import tempfile
import threading
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import torch
from fastapi import FastAPI
from onnx_serving import exported
from peft import PeftModel
from serving_memory import memory
from serving_saturated import saturated
from serving_tools import adapter, in_turn, load, mixed, read, running, standing_in
from transformers import AutoModelForSequenceClassification, pipeline

from lyra_nli.demo.world import build_world
from lyra_nli.ml_server.main import create_app
from lyra_nli.ml_server.slot import Served, Slot
from lyra_nli.models import starter
from lyra_nli.models.adapter import read_adapter
from lyra_nli.models.base import Base, load_base
from lyra_nli.models.encoding import EncodedPair, by_length, collate, encode
from lyra_nli.models.engine import Engine, engine_of
from lyra_nli.records import Pair
from lyra_nli.settings import Settings

PARTS = ("latency", "precision", "throughput", "versions", "server", "swaps", "saturated", "memory")
Rows = Sequence[EncodedPair]


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--repeat", type=int, default=15)
    parser.add_argument("--data", type=Path, nargs="*", help="JSONL with premise and hypothesis")
    parser.add_argument("--only", nargs="*", choices=PARTS, default=PARTS)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    base = load_base("starter")
    print(f"{platform.machine()}, {options.threads} threads, torch {torch.__version__}")
    pairs = read(options.data) if options.data else list(build_world().pairs().values())
    if "latency" in options.only:
        latency(base, encode(base, mixed(pairs)), options.repeat, options.threads)
    if "precision" in options.only:
        precision(base, encode(base, pairs))
    if "throughput" in options.only:
        from serving_throughput import throughput  # the one part that needs sentence-transformers

        throughput(base, mixed(pairs), options.repeat, options.threads)
    if "versions" in options.only:
        versions(base, encode(base, mixed(pairs)), options.repeat)
    if "server" in options.only:
        server(pairs, options.threads)
    if "swaps" in options.only:
        swaps(base, pairs, options.repeat)
    if "saturated" in options.only:
        saturated(base, mixed(pairs), options.threads, seconds=400)
    if "memory" in options.only:
        memory()
    print(f"\nresident memory: {psutil.Process().memory_info().rss / 2**20:.0f} MB")


def transformers_logits(base: Base, rows: Rows) -> torch.Tensor:
    """One padded batch through transformers' own forward pass."""
    with torch.inference_mode():
        logits: torch.Tensor = base.model(**collate(base, rows)).logits
    return logits


def ours(engine: Engine, rows: Rows, variants: Sequence[Any] = ()) -> torch.Tensor:
    """One batch through the engine."""
    return engine.logits(rows, variants or [None] * len(rows))


def latency(base: Base, rows: Rows, repeat: int, threads: int) -> None:
    """One pair of about 32 and of about 128 tokens, and 32 of 20 to 200."""
    near = {n: min(rows, key=lambda row: abs(len(row) - n)) for n in (32, 128)}
    some = random.Random(1).sample([row for row in rows if 20 <= len(row) <= 200], 32)
    exact, narrow = engine_of(base), engine_of(base, torch.bfloat16)
    onnx = exported(base, threads)
    print("\n| pairs | transformers | ONNX Runtime | ours, fp32 | | ours, bf16 | |")
    print("|---|---|---|---|---|---|---|")
    for name, batch in (
        (f"1 of {len(near[32])} tokens", [near[32]]),
        (f"1 of {len(near[128])} tokens", [near[128]]),
        (f"32 of {min(map(len, some))} to {max(map(len, some))} tokens", some),
    ):
        ways: dict[str, Callable[[], object]] = {
            "transformers": partial(transformers_logits, base, batch),
            "onnx": partial(onnx, collate(base, batch)),
            "fp32": partial(ours, exact, batch),
            "bf16": partial(ours, narrow, batch),
        }
        ms = in_turn(ways, repeat if len(batch) == 1 else -(-repeat // 4))
        cells = [
            f"{ms[kind]:.1f} | {ms['transformers'] / ms[kind]:.1f}x, {ms['onnx'] / ms[kind]:.1f}x"
            for kind in ("fp32", "bf16")
        ]
        print(f"| {name} | {ms['transformers']:.1f} | {ms['onnx']:.1f} | {' | '.join(cells)} |")
    print("\nmilliseconds; how often faster than transformers, and than ONNX Runtime, both float32")


def precision(base: Base, rows: Rows) -> None:
    """Answers of both precisions against transformers' float32."""
    batches = list(by_length([len(row) for row in rows], 32))

    def all_of(way: Callable[[Rows], torch.Tensor]) -> torch.Tensor:
        said = torch.empty(len(rows), 3)
        for positions in batches:
            said[positions] = way([rows[i] for i in positions])
        return said

    expected = all_of(partial(transformers_logits, base))
    print(f"\n| {len(rows)} pairs | same label | largest gap, probability | logit |")
    print("|---|---|---|---|")
    for name, dtype in (("fp32", torch.float32), ("bf16", torch.bfloat16)):
        got = all_of(partial(ours, engine_of(base, dtype)))
        same = (got.argmax(1) == expected.argmax(1)).float().mean()
        apart = (got.softmax(1) - expected.softmax(1)).abs().max()
        print(f"| {name} | {same:.2%} | {apart:.1e} | {(got - expected).abs().max():.1e} |")


def versions(base: Base, rows: Rows, repeat: int) -> None:
    """A batch of one version, of eight, and what eight passes take."""
    some = random.Random(2).sample([row for row in rows if 20 <= len(row) <= 200], 32)
    print("\n| 32 rows | the base ms | one version ms | 8 versions ms | of one's speed |")
    print("|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        paths = [adapter(base, Path(folder) / str(seed), seed) for seed in range(8)]
        for name, dtype in (("fp32", torch.float32), ("bf16", torch.bfloat16)):
            engine = engine_of(base, dtype)
            ready = [engine.variant(read_adapter(base, path)) for path in paths]
            ways = {
                "base": partial(ours, engine, some),
                "one": partial(ours, engine, some, ready[:1] * 32),
                "eight": partial(ours, engine, some, ready * 4),
            }
            ms = in_turn(ways, repeat)
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


def by_peft(path: Path, rows: Rows, base: Base) -> torch.Tensor:
    """Row by row, by transformers and PEFT."""
    model = AutoModelForSequenceClassification.from_pretrained(str(starter.materialise()))
    model = PeftModel.from_pretrained(model, str(path)).eval()
    with torch.inference_mode():
        return torch.cat([model(**collate(base, [row])).logits for row in rows])


def server(pairs: Sequence[Pair], threads: int) -> None:
    """Requests a second and latencies with 32 clients, single pairs."""
    print("\n| server | pairs a second | p50 ms | p99 ms |")
    print("|---|---|---|---|")
    settings = {"nli": {"fast_model": "starter"}, "ml_server": {"threads": threads}}
    speeds = []
    for name, app in (
        ("one pipeline call a pair", pair_by_pair()),
        ("ours", create_app(Settings.model_validate(settings))),
    ):
        with running(app) as url:
            speed, times = load(url, pairs, seconds=20)
        speeds.append(speed)
        cut = statistics.quantiles(times, n=100)
        print(f"| {name} | {speed:.1f} | {1000 * cut[49]:.0f} | {1000 * cut[98]:.0f} |")
    print(f"\n{speeds[1] / speeds[0]:.1f}x")


def pair_by_pair() -> FastAPI:
    """A server to the letter of Lyra's: one pipeline call a pair, the texts joined."""
    app = FastAPI()
    judge = pipeline("text-classification", model=str(starter.materialise()), top_k=None)
    busy = threading.Lock()

    @app.get("/readyz")
    def readyz() -> dict[str, bool]:
        return {"ready": True}

    @app.post("/nli")
    def nli(request: dict[str, Any]) -> dict[str, Any]:
        with busy:
            texts = [f"{pair['premise']} [SEP] {pair['hypothesis']}" for pair in request["pairs"]]
            return {"ok": True, "results": [judge(text) for text in texts]}

    return app


def swaps(base: Base, pairs: Sequence[Pair], repeat: int) -> None:
    """Time the ways to get another version to answer; then flip while others ask."""
    with tempfile.TemporaryDirectory() as name:
        paths = [adapter(base, Path(name) / str(seed), seed) for seed in range(2)]
        source, engine, slot = str(starter.materialise()), engine_of(base), Slot(base)
        served = [standing_in(slot, engine.variant(read_adapter(base, path))) for path in paths]

        def proposal() -> object:
            loaded = AutoModelForSequenceClassification.from_pretrained(source)
            return PeftModel.from_pretrained(loaded, str(paths[0])).merge_and_unload()

        ms = in_turn(
            {
                "reload, PeftModel.from_pretrained, merge_and_unload": proposal,
                "our load from disk, checked": lambda: engine.variant(read_adapter(base, paths[0])),
                "our flip of a resident version": lambda: flip(slot, served),
            },
            repeat,
        )
        size = (paths[0] / "adapter_model.safetensors").stat().st_size
        print("\n| another version answers after | ms |\n|---|---|")
        for way, each in ms.items():
            print(f"| {way} | {each:.3f} |")
        print(f"\nadapter: {size / 2**20:.2f} MB; in memory {served[0].own_bytes / 2**20:.2f} MB")
        cycles(base, engine, paths, encode(base, pairs[:8]))


def flip(slot: Slot, served: Sequence[Served]) -> None:
    """To the one that is not current."""
    slot.flip(served[slot.current is served[0]])


def cycles(base: Base, engine: Engine, paths: Sequence[Path], rows: Rows) -> None:
    """A thousand versions come and go."""
    process, before = psutil.Process(), ours(engine, rows)
    for number in range(1100):
        if number == 100:  # by then the allocator has what it needs
            memory = process.memory_info().rss
        variant = engine.variant(read_adapter(base, paths[number % 2]))
        ours(engine, rows[:1], [variant])
    grown = (process.memory_info().rss - memory) / 2**20
    same = "the same to the bit" if torch.equal(ours(engine, rows), before) else "CHANGED"
    print(f"\nafter 1,000 loads: memory {grown:+.1f} MB, the base's logits {same}")


if __name__ == "__main__":
    main()
