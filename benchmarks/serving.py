"""Serving: latency, precision, versions, throughput and swaps, beside what else there is.

    make bench                         # or: python benchmarks/serving.py [--only PART ...]

The starter, and random LoRA adapters of rank 8 on all matrices of its upper six layers: the
default recipe's shape. Peers and ours are called in turn; medians. Parts:

- ``latency``: one pair and 32 mixed ones: transformers' forward pass in float32, ONNX Runtime in
  float32 (the same weights, exported), ours in float32 and in bf16.
- ``precision``: labels and probabilities of bf16 against transformers' float32, on --data or the
  demo's pairs.
- ``versions``: 32 rows of one version and of eight, in one pass.
- ``server``: 32 clients that send single pairs over HTTP, to ours and to a server like Lyra's,
  which judges pair by pair with a transformers pipeline.
- ``shadow``: what callers wait without and with a shadow that draws every pair, one after the
  other and four at a time, in turn.
- ``swaps``: the ways to another version; memory and the base's logits after a thousand loads.
"""

from __future__ import annotations

import argparse
import json
import platform
import random
import socket
import statistics
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import httpx
import psutil
import torch
import uvicorn
from fastapi import FastAPI
from onnx_serving import exported
from peft import PeftModel
from transformers import AutoModelForSequenceClassification, pipeline

from lyra_nli.demo.world import build_world
from lyra_nli.ml_server.main import create_app
from lyra_nli.ml_server.slot import Served, Slot
from lyra_nli.models import starter
from lyra_nli.models.adapter import read_adapter, save_adapter
from lyra_nli.models.base import Base, load_base
from lyra_nli.models.encoding import EncodedPair, by_length, collate, encode
from lyra_nli.models.engine import Engine, engine_of
from lyra_nli.models.lora import attach, low_rank_layers
from lyra_nli.records import Pair
from lyra_nli.registry.artifact import Manifest, staged
from lyra_nli.registry.trials import Trials
from lyra_nli.registry.versions import Registry
from lyra_nli.settings import Settings, TrainingSettings
from lyra_nli.storage.engine import now, open_database
from lyra_nli.storage.upgrade import init_database

PARTS = ("latency", "precision", "versions", "server", "shadow", "swaps")
Rows = Sequence[EncodedPair]

SHADOW_TURN = 2.0
"""Seconds with or without a shadow: short, so that what else the machine does meets both."""


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
    if "versions" in options.only:
        versions(base, encode(base, mixed(pairs)), options.repeat)
    if "server" in options.only:
        server(pairs, options.threads)
    if "shadow" in options.only:
        shadow(base, pairs, options.threads, options.repeat)
    if "swaps" in options.only:
        swaps(base, pairs, options.repeat)
    print(f"\nresident memory: {psutil.Process().memory_info().rss / 2**20:.0f} MB")


def read(files: Sequence[Path]) -> list[Pair]:
    """At most a thousand pairs of each file."""
    lines = (line for file in files for line in file.read_text("utf-8").splitlines()[:1000])
    return [Pair(row["premise"], row["hypothesis"]) for row in map(json.loads, lines)]


def mixed(pairs: Sequence[Pair]) -> list[Pair]:
    """The pairs, and as many of twice their length."""
    longer = (Pair(f"{a.premise} {b.premise}", a.hypothesis) for a, b in pairwise(pairs))
    return [*pairs, *longer]


def transformers_logits(base: Base, rows: Rows) -> torch.Tensor:
    """One padded batch through transformers' own forward pass."""
    with torch.inference_mode():
        logits: torch.Tensor = base.model(**collate(base, rows)).logits
    return logits


def ours(engine: Engine, rows: Rows, variants: Sequence[Any] = ()) -> torch.Tensor:
    """One batch through the engine."""
    return engine.logits(rows, variants or [None] * len(rows))


def in_turn(ways: Mapping[str, Callable[[], object]], repeat: int) -> dict[str, float]:
    """Median milliseconds of functions that are called in turn.

    One call of each before the one that counts: what lies in the caches is its own then.
    """
    times: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(repeat):
        for name, way in ways.items():
            way()
            began = time.perf_counter()
            way()
            times[name].append(1000 * (time.perf_counter() - began))
    return {name: statistics.median(each) for name, each in times.items()}


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
    batches = list(by_length(rows, 32))

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


def adapter(base: Base, folder: Path, seed: int) -> Path:
    """A random adapter of the default recipe's shape, in PEFT's format."""
    torch.manual_seed(seed)
    recipe = TrainingSettings()
    model = attach(base, recipe)
    for _, layer in low_rank_layers(model):
        torch.nn.init.normal_(layer.lora_B, std=0.02)
    folder.mkdir(parents=True, exist_ok=True)
    save_adapter(base, model, recipe, folder)
    return folder


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


@contextmanager
def running(app: FastAPI) -> Iterator[str]:
    """A real server on a free port, in a thread of this process."""
    listener = socket.create_server(("127.0.0.1", 0))
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    process = uvicorn.Server(uvicorn.Config(app, log_config=None))
    thread = threading.Thread(target=process.run, kwargs={"sockets": [listener]})
    thread.start()
    try:
        while httpx.get(f"{url}/readyz", trust_env=False, timeout=60).status_code != 200:
            time.sleep(0.1)
        yield url
    finally:
        process.should_exit = True
        thread.join()
        listener.close()


def load(
    url: str, pairs: Sequence[Pair], *, seconds: float, clients: int = 32
) -> tuple[float, list[float]]:
    """Pairs a second, and the seconds that each took."""
    end = time.monotonic() + seconds

    def client(seed: int) -> list[float]:
        own, times = random.Random(seed), []
        with httpx.Client(trust_env=False, timeout=120) as http:
            while time.monotonic() < end:
                pair = own.choice(pairs)
                body = {"pair_id": "p", "premise": pair.premise, "hypothesis": pair.hypothesis}
                began = time.perf_counter()
                http.post(f"{url}/nli", json={"pairs": [body]}).raise_for_status()
                times.append(time.perf_counter() - began)
        return times

    began = time.monotonic()
    with ThreadPoolExecutor(clients) as pool:
        times = [each for found in pool.map(client, range(clients)) for each in found]
    return len(times) / (time.monotonic() - began), times


def shadow(base: Base, pairs: Sequence[Pair], threads: int, repeat: int) -> None:
    """The same server by turns without and with a shadow, so that a busy machine is fair."""
    with tempfile.TemporaryDirectory() as name:
        settings = Settings.model_validate(
            {
                "storage": {"database_path": f"{name}/lyra.db"},
                "nli": {"fast_model": "starter", "adapters_dir": f"{name}/adapters"},
                "ml_server": {"threads": threads},
            }
        )
        init_database(settings.storage.database_path)
        engine = open_database(settings.storage.database_path)
        registry = Registry(engine, Path(settings.nli.adapters_dir))
        for seed in range(2):
            publish(registry, base, seed)
        registry.activate("v1", who="bench", reason="bench")
        print(
            "\n| clients | pairs | p50 ms without | with | | p99 ms without | with | | shadows/s |"
        )
        print("|---|---|---|---|---|---|---|---|---|")
        with running(create_app(settings)) as url:
            for clients in (1, 4):
                shadow_row(Trials(registry), url, pairs, clients, repeat)
        engine.dispose()
    print(f"\nshadow_cpu {settings.ml_server.shadow_cpu:g}, share 1.0; {repeat} turns of each kind")


def shadow_row(trials: Trials, url: str, pairs: Sequence[Pair], clients: int, repeat: int) -> None:
    """Short turns: without, with, with, without; the quantiles of all requests of a kind."""
    times: dict[bool, list[float]] = {False: [], True: []}
    judged = 0
    load(url, pairs, seconds=SHADOW_TURN, clients=clients)
    for turn in range(2 * repeat):
        on = turn % 4 in (1, 2)
        if on:
            trials.start("shadow", "v2", share=1.0, who="bench")
        time.sleep(1)  # the server follows
        times[on] += load(url, pairs, seconds=SHADOW_TURN, clients=clients)[1]
        if on:
            [trial] = httpx.get(f"{url}/nli/adapter/status", trust_env=False).json()["trials"]
            judged += trial["judged"]
            trials.end("shadow", "starter", who="bench")
    cuts = {on: statistics.quantiles([1000 * t for t in times[on]], n=100) for on in times}
    cells = " | ".join(
        f"{cuts[False][p]:.1f} | {cuts[True][p]:.1f} | {cuts[True][p] / cuts[False][p] - 1:+.1%}"
        for p in (49, 98)
    )
    speed = judged / (SHADOW_TURN * repeat)
    print(f"| {clients} | {len(times[True])} | {cells} | {speed:.1f} |")


def publish(registry: Registry, base: Base, seed: int) -> None:
    """Register a random adapter as a version that passed."""
    with staged(registry.directory) as staging:
        adapter(base, staging, seed)
        manifest = Manifest(
            base_model=base.name,
            base_revision=None,
            base_fingerprint=base.fingerprint,
            dataset_hash="none",
            split_hash="none",
            row_ids={},
            recipe={},
            dataset_settings={},
            library_versions={},
            git_commit=None,
            seed=seed,
            threads=1,
            created_at=now(),
            metrics={},
        )
        registry.publish(
            manifest,
            staging,
            status="passed",
            run_id=None,
            parent=None,
            samples_used=0,
            metrics={},
            verdict="pass",
            report_path=None,
        )


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


def standing_in(slot: Slot, variant: Any) -> Served:
    """What a slot serves, without a registry."""
    now = slot.pristine
    return Served(variant, None, now.model_version, now.loaded_at, 0.0, variant.own_bytes)


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
