"""Killed processes, full disks, and many processes at once."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path

import pytest
from sqlalchemy import Engine
from tiny_versions import BASE, OUTCOME

from lyra_nli.errors import AdapterError, TrainingError
from lyra_nli.registry.artifact import Manifest, sweep_staging, verify
from lyra_nli.registry.versions import Registry, Version

Child = Callable[..., subprocess.Popen[str]]

OPEN = """
import sys, os, time
from pathlib import Path
from tiny_versions import OUTCOME, new_manifest, write_adapter
from lyra_nli.registry.artifact import staged
from lyra_nli.registry.versions import Registry
from lyra_nli.storage.engine import open_database
registry = Registry(open_database(sys.argv[1]), Path(sys.argv[2]))
"""

PUBLISH_AND_HANG_AT = (
    OPEN
    + """
def hang(*_, **__):
    print("now", flush=True)
    time.sleep(60)

def half(folder):
    (folder / "adapter_model.safetensors").write_bytes(b"half")
    hang()

if sys.argv[3] == "rename":
    Path.rename = hang
elif sys.argv[3] == "register":
    Registry.register = hang
write = half if sys.argv[3] == "write" else write_adapter
with staged(registry.directory) as staging:
    write(staging)
    registry.publish(new_manifest(), staging, **OUTCOME)
"""
)

PUBLISH_THREE = (
    OPEN
    + """
for _ in range(3):
    with staged(registry.directory) as staging:
        write_adapter(staging)
        registry.publish(new_manifest(), staging, **OUTCOME)
"""
)

ACTIVATE = (
    OPEN
    + """
from lyra_nli.errors import AdapterError
for turn in range(6):
    try:
        registry.activate(f"v{turn % 3 + 1}", who=sys.argv[3])
    except AdapterError as error:
        assert "already active" in error.message, error
"""
)


def kill(process: subprocess.Popen[str]) -> None:
    """Wait until the child says so, then kill it: no handler, no finally, no flush."""
    assert process.stdout is not None
    assert process.stdout.readline() == "now\n"
    process.send_signal(signal.SIGKILL)
    process.wait()


def database(engine: Engine) -> str:
    assert engine.url.database is not None
    return engine.url.database


# --- killed -------------------------------------------------------------------------------


@pytest.mark.parametrize("moment", ["write", "rename"])
def test_a_process_killed_while_saving_leaves_no_version(
    registry: Registry, train: Callable[..., Version], child: Child, moment: str
) -> None:
    kill(child(PUBLISH_AND_HANG_AT, database(registry.engine), registry.directory, moment))
    (left,) = registry.directory.iterdir()
    assert left.name.startswith(".staging-")
    assert registry.list() == []
    assert train().name == "lora-lyra-v1"

    assert sweep_staging(registry.directory) == []
    for path in (*left.iterdir(), left):
        os.utime(path, (time.time() - 90_000, time.time() - 90_000))
    assert sweep_staging(registry.directory) == [left]
    assert [path.name for path in registry.directory.iterdir()] == ["lora-lyra-v1"]


def test_a_process_killed_before_it_registers_leaves_a_whole_folder_that_nobody_uses(
    registry: Registry, train: Callable[..., Version], child: Child
) -> None:
    kill(child(PUBLISH_AND_HANG_AT, database(registry.engine), registry.directory, "register"))
    assert registry.list() == []
    assert train().name == "lora-lyra-v2"
    orphan = registry.directory / "lora-lyra-v1"
    registry.register(verify(orphan), orphan, **OUTCOME)
    assert [version.name for version in registry.list()] == ["lora-lyra-v1", "lora-lyra-v2"]


# --- a full disk --------------------------------------------------------------------------

FILL_THE_DISK = (
    OPEN
    + """
import resource
from lyra_nli.errors import TrainingError
if sys.argv[3] == "plain":
    import tiny_versions
    tiny_versions.save_file = lambda tensors, path: path.write_bytes(b"0" * 1000)
try:
    with staged(registry.directory) as staging:
        resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))
        write_adapter(staging)
except TrainingError as error:
    print(error)
"""
)


@pytest.mark.parametrize("writer", ["safetensors", "plain"])
def test_a_disk_that_is_full_is_told_and_leaves_nothing(
    registry: Registry, child: Child, writer: str
) -> None:
    process = child(FILL_THE_DISK, database(registry.engine), registry.directory, writer)
    said, _ = process.communicate(timeout=30)
    assert "could not be saved" in said
    assert "File too large" in said
    assert "MB are free there" in said
    assert list(registry.directory.iterdir()) == []


def test_a_disk_that_is_full_while_sealing_leaves_nothing(
    registry: Registry, train: Callable[..., Version], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr(Manifest, "to_json", full)
    with pytest.raises(TrainingError, match="No space left on device"):
        train()
    assert registry.list() == []
    assert list(registry.directory.iterdir()) == []


# --- at once ------------------------------------------------------------------------------


def test_processes_that_publish_at_once_get_names_of_their_own(
    registry: Registry, child: Child
) -> None:
    registry.directory.mkdir()
    arguments = (PUBLISH_THREE, database(registry.engine), registry.directory)
    processes = [child(*arguments) for _ in range(4)]
    assert [process.wait(timeout=60) for process in processes] == [0] * 4
    names = [f"lora-lyra-v{number}" for number in range(1, 13)]
    assert [version.name for version in registry.list()] == names
    for name in names:
        registry.verify(name)
    assert sorted(path.name for path in registry.directory.iterdir()) == sorted(names)


def test_two_databases_may_share_a_folder(
    registry: Registry, train: Callable[..., Version], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another process takes the name between the look and the rename."""
    names = iter(["lora-lyra-v1", "lora-lyra-v1", "lora-lyra-v2"])
    monkeypatch.setattr(Registry, "new_name", lambda self: next(names))
    assert [train().name, train().name] == ["lora-lyra-v1", "lora-lyra-v2"]


def test_a_name_that_is_taken_in_the_database_alone_is_passed_over(
    registry: Registry, train: Callable[..., Version], tmp_path: Path, monkeypatch
) -> None:
    train()
    (registry.directory / "lora-lyra-v1").rename(tmp_path / "elsewhere")
    names = iter(["lora-lyra-v1", "lora-lyra-v2"])
    monkeypatch.setattr(Registry, "new_name", lambda self: next(names))
    assert train().name == "lora-lyra-v2"
    assert [path.name for path in registry.directory.iterdir()] == ["lora-lyra-v2"]


def assert_consistent(registry: Registry) -> None:
    """One active version, where the last event led; each event starts where one ended."""
    events = registry.events(BASE)
    assert events[0].from_version is None
    for one, following in pairwise(events):
        assert following.from_version == one.to_version
        assert following.at >= one.at
    active = registry.active(BASE)
    assert (active.name if active else None) == events[-1].to_version
    previous = registry.previous(BASE)
    assert (previous.name if previous else None) == events[-1].from_version
    aliases = Counter(alias for version in registry.list() for alias in version.aliases)
    assert max(aliases.values()) == 1


def test_threads_that_activate_at_once_leave_one_active_version(
    registry: Registry, train: Callable[..., Version]
) -> None:
    for _ in range(3):
        train()

    def decide(who: int) -> None:
        for turn in range(6):
            try:
                if (who + turn) % 4 == 3:
                    registry.rollback(BASE, who=str(who))
                else:
                    registry.activate(f"v{(who + turn) % 3 + 1}", who=str(who))
            except AdapterError as error:
                if "already active" not in error.message and "ever active" not in error.message:
                    raise

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(decide, range(8)))  # raises what a thread raised
    assert len(registry.events()) > 8
    assert_consistent(registry)


def test_processes_that_activate_at_once_leave_one_active_version(
    registry: Registry, train: Callable[..., Version], child: Child
) -> None:
    for _ in range(3):
        train()
    arguments = (ACTIVATE, database(registry.engine), registry.directory)
    processes = [child(*arguments, f"process {number}") for number in range(4)]
    assert [process.wait(timeout=60) for process in processes] == [0] * 4
    assert len({event.who for event in registry.events()}) > 1
    assert_consistent(registry)


def test_the_registry_loads_no_heavy_library(child: Child) -> None:
    heavy = {"torch", "transformers", "peft", "safetensors", "numpy", "sklearn", "fastapi"}
    script = "import lyra_nli.registry.versions, sys; print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert heavy.isdisjoint(done.stdout.split())
