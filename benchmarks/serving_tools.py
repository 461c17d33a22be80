"""What the parts of `serving` share: pairs, adapters, a registry, clocks and targets."""

from __future__ import annotations

import json
import random
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch

from lyra_nli.labels import LABELS
from lyra_nli.ml_server.served import Served
from lyra_nli.ml_server.slot import Slot
from lyra_nli.models.adapter import save_adapter
from lyra_nli.models.base import Base
from lyra_nli.models.encoding import encode
from lyra_nli.models.lora import attach, low_rank_layers
from lyra_nli.models.machine import compute_dtype
from lyra_nli.provenance import library_versions
from lyra_nli.records import Judgement, Pair
from lyra_nli.registry.artifact import Manifest, staged
from lyra_nli.registry.versions import Registry
from lyra_nli.settings import Settings, TrainingSettings
from lyra_nli.storage.engine import open_database
from lyra_nli.storage.upgrade import init_database


@dataclass(frozen=True)
class Ground:
    """What every part is given."""

    base: Base
    pairs: Sequence[Pair]
    threads: int
    repeat: int


@dataclass(frozen=True)
class Target:
    """What the project set itself, and what this run says of it; None: it can't say."""

    name: str
    measured: str
    met: bool | None


def precisions() -> dict[str, torch.dtype]:
    """What this processor multiplies natively, by the name that `nli.precision` has for it."""
    native = {"fp32": torch.float32}
    if compute_dtype("auto") == torch.bfloat16:
        native["bf16"] = torch.bfloat16
    return native


def read(files: Sequence[Path]) -> list[Pair]:
    """At most a thousand pairs of each file."""
    lines = (line for file in files for line in file.read_text("utf-8").splitlines()[:1000])
    return [Pair(row["premise"], row["hypothesis"]) for row in map(json.loads, lines)]


def mixed(pairs: Sequence[Pair]) -> list[Pair]:
    """The pairs, and as many of twice their length."""
    longer = (Pair(f"{a.premise} {b.premise}", a.hypothesis) for a, b in pairwise(pairs))
    return [*pairs, *longer]


def apart(one: Judgement, other: Judgement) -> float:
    """The largest gap between two answers' probabilities."""
    return max(abs(one.probabilities[label] - other.probabilities[label]) for label in LABELS)


def of_length(base: Base, pairs: Sequence[Pair], count: int, seed: int) -> list[Pair]:
    """Some pairs of 20 to 200 tokens."""
    rows = encode(base, pairs)
    fit = [pair for pair, row in zip(pairs, rows, strict=True) if 20 <= len(row) <= 200]
    return random.Random(seed).sample(fit, count)


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


def standing_in(slot: Slot, variant: Any) -> Served:
    """What a slot serves, without a registry."""
    now = slot.pristine
    return Served(variant, None, now.model_version, now.loaded_at, 0.0, variant.own_bytes)


def project(base: Base, folder: Path, threads: int, versions: int = 2) -> Settings:
    """A database and some versions, of which the first is active."""
    settings = Settings.model_validate(
        {
            "storage": {"database_path": str(folder / "lyra.db")},
            "nli": {"fast_model": "starter", "adapters_dir": str(folder / "adapters")},
            "ml_server": {"threads": threads},
        }
    )
    init_database(settings.storage.database_path)
    with registry_of(settings) as registry:
        for seed in range(1, versions + 1):
            with staged(registry.directory) as staging:
                adapter(base, staging, seed)
                registry.publish(
                    manifest(base, seed),
                    staging,
                    status="passed",
                    run_id=None,
                    parent=None,
                    samples_used=0,
                    metrics={},
                    verdict="pass",
                    report_path=None,
                )
        registry.activate("v1", who="benchmark")
    return settings


@contextmanager
def registry_of(settings: Settings) -> Iterator[Registry]:
    """The registry of a project."""
    engine = open_database(settings.storage.database_path)
    try:
        yield Registry(engine, Path(settings.nli.adapters_dir))
    finally:
        engine.dispose()


def manifest(base: Base, seed: int) -> Manifest:
    """Of a version that nobody trained."""
    return Manifest(
        base_model=base.name,
        base_revision=base.revision,
        base_fingerprint=base.fingerprint,
        dataset_hash="0" * 64,
        split_hash="0" * 64,
        row_ids={},
        recipe={},
        dataset_settings={},
        library_versions=library_versions(),
        git_commit=None,
        seed=seed,
        threads=1,
        created_at="2026-01-01T00:00:00+00:00",
        metrics={},
    )
