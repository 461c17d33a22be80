"""A real database file, a real folder, and versions of a few bytes."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine
from tiny_versions import BASE, OUTCOME, new_manifest, write_adapter

from lyra_nli.registry.artifact import publish, seal, staged
from lyra_nli.registry.versions import Registry, Version
from lyra_nli.storage.engine import open_database
from lyra_nli.storage.tables import metadata


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path / "adapters"


@pytest.fixture
def folder(directory: Path) -> Path:
    """A published version that no database knows."""
    with staged(directory) as staging:
        write_adapter(staging)
        seal(staging, new_manifest(name="lora-lyra-v1"))
        return publish(staging, directory, "lora-lyra-v1")


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    engine = open_database(str(tmp_path / "lyra.db"), create=True)
    metadata.create_all(engine)
    yield engine
    engine.dispose()


@pytest.fixture
def registry(engine: Engine, directory: Path) -> Registry:
    return Registry(engine, directory)


@pytest.fixture
def train(registry: Registry) -> Callable[..., Version]:
    """Make a version as the loop does, without the training."""

    def make(value: float = 0.5, *, base_model: str = BASE, **outcome: Any) -> Version:
        with staged(registry.directory) as staging:
            write_adapter(staging, value)
            manifest = new_manifest(base_model=base_model)
            return registry.publish(manifest, staging, **{**OUTCOME, **outcome})

    return make


@pytest.fixture
def child() -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Run a Python script in a process of its own; killed at the end at the latest."""
    processes: list[subprocess.Popen[str]] = []

    def start(script: str, *arguments: object) -> subprocess.Popen[str]:
        prelude = f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r})\n"
        command = [sys.executable, "-c", prelude + script, *map(str, arguments)]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        processes.append(process)
        return process

    yield start
    for process in processes:
        process.kill()
        process.communicate()
