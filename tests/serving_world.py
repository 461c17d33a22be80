"""What a server needs: two tiny bases, a database, and adapter versions of any kind."""

from __future__ import annotations

import json
import shutil
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import httpx
import torch
import uvicorn
from safetensors.torch import save_file
from tiny_models import make_tiny_model

from lyra_nli.labels import LABELS
from lyra_nli.ml_server.main import create_app
from lyra_nli.models.base import Base, load_base
from lyra_nli.models.judge import Judge
from lyra_nli.records import Judgement, Pair
from lyra_nli.registry.artifact import Manifest, staged
from lyra_nli.registry.versions import Registry, Version
from lyra_nli.settings import Settings
from lyra_nli.storage.engine import open_database
from lyra_nli.storage.upgrade import init_database

Tensors = dict[str, torch.Tensor]

PAIRS = [
    Pair("The vaccine lowered admissions by a third.", "The vaccine prevents admissions."),
    Pair("No difference was found between the arms.", "The drug lowers mortality."),
    Pair("The subsidy began in March.", "Heat pumps are popular."),
]


@dataclass(frozen=True)
class World:
    """A folder with a database and a registry, and the settings that name them."""

    folder: Path
    settings: Settings

    @property
    def database(self) -> str:
        return self.settings.storage.database_path

    @property
    def adapters(self) -> Path:
        return Path(self.settings.nli.adapters_dir)

    @property
    def fast(self) -> Base:
        return _base(self.settings.nli.fast_model)

    @property
    def slow(self) -> Base:
        return _base(self.settings.nli.slow_model)

    @contextmanager
    def registry(self) -> Iterator[Registry]:
        engine = open_database(self.database)
        try:
            yield Registry(engine, self.adapters)
        finally:
            engine.dispose()

    def publish(
        self,
        base: Base | None = None,
        *,
        seed: int = 1,
        status: str = "passed",
        damage: Callable[[Tensors], None] | None = None,
        alpha: float = 32.0,
        files: Mapping[str, str] | None = None,
        **changes: Any,
    ) -> Version:
        """Register a random version; `damage` may change its tensors before they are sealed."""
        base = base or self.fast
        with staged(self.adapters) as staging, self.registry() as registry:
            _write_adapter(base, staging, seed, damage, alpha)
            for file, text in (files or {}).items():
                (staging / file).write_text(text, "utf-8")
            manifest = _manifest(base, **changes)
            return registry.publish(
                manifest,
                staging,
                status=status,  # type: ignore[typeddict-item]
                run_id=None,
                parent=None,
                samples_used=100,
                metrics=manifest.metrics,
                verdict="pass",
                report_path=None,
            )

    def activate(self, name: str) -> None:
        with self.registry() as registry:
            registry.activate(name, who="test", reason="test")


def make_world(
    folder: Path, *, like: World | None = None, database: bool = True, **nli: Any
) -> World:
    """A fast DeBERTa and a slow BERT of two layers each, and an empty registry.

    `like` lends its models and the database that it was made with, to save time.
    """
    models = like.folder if like else folder
    if like is None:
        make_tiny_model(folder / "fast", "deberta-v2", seed=1)
        make_tiny_model(folder / "slow", "bert", seed=2)
    settings = Settings.model_validate(
        {
            "storage": {"database_path": str(folder / "lyra.db")},
            "nli": {
                "fast_model": str(models / "fast"),
                "slow_model": str(models / "slow"),
                "adapters_dir": str(folder / "adapters"),
                "precision": "fp32",
                **nli,
            },
            "ml_server": {"follow_seconds": 0.1, "max_pairs": 50, "threads": 1},
        }
    )
    if database and like:
        shutil.copyfile(like.database, settings.storage.database_path)
    elif database:
        init_database(settings.storage.database_path)
    return World(folder, settings)


@contextmanager
def live_server(settings: Settings) -> Iterator[str]:
    """A real server on a free port, in a thread; gives its URL once it is ready."""
    listener = socket.create_server(("127.0.0.1", 0))
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # as the server does
    url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    server = uvicorn.Server(uvicorn.Config(create_app(settings), log_config=None))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    try:
        wait_until(lambda: httpx.get(f"{url}/readyz", trust_env=False).status_code == 200)
        yield url
    finally:
        server.should_exit = True
        thread.join(10)
        listener.close()


def wait_until(condition: Callable[[], bool], seconds: float = 60.0) -> float:
    """Wait for a condition; gives the seconds that it took."""
    start = time.monotonic()
    while not condition():
        assert time.monotonic() - start < seconds, "waited in vain"
        time.sleep(0.02)
    return time.monotonic() - start


def body(pairs: list[Pair], **more: Any) -> dict[str, Any]:
    """The JSON of a request, ids p0, p1, ..."""
    return {
        "pairs": [
            {"pair_id": f"p{i}", "premise": pair.premise, "hypothesis": pair.hypothesis}
            for i, pair in enumerate(pairs)
        ],
        **more,
    }


def threshold(world: World) -> tuple[float, int]:
    """Below which the fast model is unsure of one pair, with room for rounding; and the pair."""
    fast = [judgement.confidence for judgement in Judge(world.fast).judge(PAIRS)]
    unsure, next_one, *_ = sorted(fast)
    return (unsure + next_one) / 2, fast.index(unsure)


def alike(answers: Sequence[Judgement], expected: Sequence[Judgement]) -> bool:
    """Whether answers are the same but for rounding: products of other shapes round otherwise."""

    def words(judgement: Judgement) -> tuple[object, ...]:
        return judgement.label, judgement.raw_label, judgement.truncated, judgement.adapter

    return [words(one) for one in answers] == [words(one) for one in expected] and all(
        abs(one.probabilities[label] - other.probabilities[label]) < 1e-5
        for one, other in zip(answers, expected, strict=True)
        for label in LABELS
    )


def probabilities(results: list[dict[str, Any]]) -> list[list[float]]:
    return [[result["probabilities"][label] for label in LABELS] for result in results]


_base = cache(load_base)


def _write_adapter(
    base: Base, folder: Path, seed: int, damage: Callable[[Tensors], None] | None, alpha: float
) -> None:
    """A LoRA adapter of rank 2 on query and value, in PEFT's format."""
    names = ("query_proj", "value_proj", "query", "value")
    generator = torch.Generator().manual_seed(seed)
    tensors: Tensors = {}
    targets = []
    for name, module in base.model.named_modules():
        if isinstance(module, torch.nn.Linear) and name.split(".")[-1] in names:
            targets.append(name)
            shapes = {"A": (2, module.in_features), "B": (module.out_features, 2)}
            for side, shape in shapes.items():
                key = f"base_model.model.{name}.lora_{side}.weight"
                tensors[key] = torch.randn(shape, generator=generator) * 0.2
    if damage:
        damage(tensors)
    save_file(tensors, folder / "adapter_model.safetensors")
    config = {
        "peft_type": "LORA",
        "bias": "none",
        "r": 2,
        "lora_alpha": alpha,
        "target_modules": targets,
    }
    (folder / "adapter_config.json").write_text(json.dumps(config), "utf-8")


def _manifest(base: Base, **changes: Any) -> Manifest:
    values: dict[str, Any] = {
        "base_model": base.name,
        "base_revision": None,
        "base_fingerprint": base.fingerprint,
        "dataset_hash": "d" * 64,
        "split_hash": "e" * 64,
        "row_ids": {"train": [], "dev": [], "holdout": []},
        "recipe": {},
        "dataset_settings": {},
        "library_versions": {},
        "git_commit": None,
        "seed": 13,
        "threads": 1,
        "created_at": "2026-01-01T00:00:00+00:00",
        "metrics": {},
    }
    return Manifest(**{**values, **changes})
