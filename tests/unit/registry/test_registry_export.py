from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from zipfile import ZipFile

import pytest

from lyra_nli.errors import AdapterError, AdapterExistsError, AdapterInvalidError
from lyra_nli.registry.artifact import verify
from lyra_nli.registry.versions import Registry, Version


def test_a_copy_verifies(registry: Registry, train: Callable[..., Version], tmp_path: Path) -> None:
    version = train()
    copy = registry.export("v1", tmp_path / "deep" / "copy")
    assert verify(copy) == verify(version.path)


def test_an_archive_holds_one_folder_that_verifies(
    registry: Registry, train: Callable[..., Version], tmp_path: Path
) -> None:
    version = train()
    archive = registry.export("v1", tmp_path / "v1.zip")
    with ZipFile(archive) as opened:
        opened.extractall(tmp_path / "unpacked")
    assert verify(tmp_path / "unpacked" / "lora-lyra-v1") == verify(version.path)


@pytest.mark.parametrize("name", ["v1.zip", "v1"])
def test_nothing_is_overwritten(
    registry: Registry, train: Callable[..., Version], tmp_path: Path, name: str
) -> None:
    train()
    (tmp_path / name).write_text("precious")
    with pytest.raises(AdapterExistsError, match=name):
        registry.export("v1", tmp_path / name)
    assert (tmp_path / name).read_text() == "precious"


def test_an_existing_folder_is_not_written_into(
    registry: Registry, train: Callable[..., Version], tmp_path: Path
) -> None:
    train()
    (tmp_path / "mine").mkdir()
    with pytest.raises(AdapterExistsError):
        registry.export("v1", tmp_path / "mine")
    assert list((tmp_path / "mine").iterdir()) == []


def test_damaged_files_are_not_exported(
    registry: Registry, train: Callable[..., Version], tmp_path: Path
) -> None:
    (train().path / "adapter_config.json").unlink()
    with pytest.raises(AdapterInvalidError):
        registry.export("v1", tmp_path / "copy")
    assert not (tmp_path / "copy").exists()


@pytest.mark.parametrize("name", ["v1.zip", "v1"])
def test_half_an_export_is_removed(
    registry: Registry,
    train: Callable[..., Version],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
) -> None:
    train()

    def fail(*arguments: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(shutil, "copyfile", fail)
    monkeypatch.setattr(ZipFile, "write", fail)
    with pytest.raises(AdapterError, match="No space left"):
        registry.export("v1", tmp_path / name)
    assert not (tmp_path / name).exists()
