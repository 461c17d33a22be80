from __future__ import annotations

import os
import time
from pathlib import Path

import pytest
from tiny_versions import new_manifest, write_adapter

from lyra_nli.errors import AdapterExistsError, AdapterInvalidError, TrainingError
from lyra_nli.registry.artifact import publish, seal, staged, sweep_staging, verify


def problems(folder: Path) -> str:
    with pytest.raises(AdapterInvalidError) as caught:
        verify(folder)
    return "\n".join(caught.value.problems)


def test_a_published_version_verifies(folder: Path) -> None:
    manifest = verify(folder)
    assert manifest.name == folder.name == "lora-lyra-v1"
    assert set(manifest.files) == {
        "adapter_config.json",
        "adapter_model.safetensors",
        "report.md",
    }


def test_the_digest_follows_the_files_and_every_field_of_the_manifest(tmp_path: Path) -> None:
    digests = []
    for number, (value, created_at) in enumerate(
        [(0.5, "monday"), (0.5, "monday"), (0.5, "tuesday"), (0.6, "monday")]
    ):
        folder = tmp_path / str(number)
        folder.mkdir()
        write_adapter(folder, value)
        digests.append(seal(folder, new_manifest(created_at=created_at)).digest)
    assert digests[0] == digests[1]
    assert len(set(digests)) == 3


def test_people_may_write_into_the_readme(folder: Path) -> None:
    (folder / "README.md").write_text("my notes")
    verify(folder)


def test_an_unpublished_staging_folder_is_gone_afterwards(directory: Path) -> None:
    def interrupted() -> None:
        with staged(directory) as staging:
            write_adapter(staging)
            raise KeyboardInterrupt

    with staged(directory) as staging:
        write_adapter(staging)
    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert list(directory.iterdir()) == []


def test_other_failures_pass_through_staged(directory: Path) -> None:
    with pytest.raises(FileNotFoundError), staged(directory) as staging:
        (staging / "nowhere" / "file").read_bytes()


def test_a_place_that_can_not_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "adapters").write_text("a file")
    with pytest.raises(TrainingError, match="adapters"), staged(tmp_path / "adapters"):
        pass


@pytest.mark.parametrize("occupy", [Path.mkdir, Path.touch, lambda path: path.symlink_to("x")])
def test_publish_never_takes_a_name_that_is_taken(directory: Path, occupy) -> None:
    with staged(directory) as staging:
        write_adapter(staging)
        seal(staging, new_manifest(name="lora-lyra-v1"))
        occupy(directory / "lora-lyra-v1")
        with pytest.raises(AdapterExistsError):
            publish(staging, directory, "lora-lyra-v1")


def test_publish_loses_a_race_cleanly(
    folder: Path, directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other process publishes after the look and before the rename."""
    before = verify(folder)
    lexists = os.path.lexists
    monkeypatch.setattr(os.path, "lexists", lambda path: path != folder and lexists(path))
    with staged(directory) as staging:
        write_adapter(staging, 0.9)
        seal(staging, new_manifest(name="lora-lyra-v1"))
        with pytest.raises(AdapterExistsError):
            publish(staging, directory, "lora-lyra-v1")
    assert verify(folder) == before


@pytest.mark.parametrize("name", ["lora-lyra-v2", "../lora-lyra-v1", ".staging-1", ""])
def test_publish_refuses_a_name_that_was_not_sealed(directory: Path, name: str) -> None:
    with staged(directory) as staging:
        write_adapter(staging)
        seal(staging, new_manifest(name="lora-lyra-v1"))
        with pytest.raises(AdapterInvalidError):
            publish(staging, directory, name)
    assert list(directory.iterdir()) == []


def test_publish_refuses_what_changed_after_sealing(directory: Path) -> None:
    with staged(directory) as staging:
        write_adapter(staging)
        seal(staging, new_manifest(name="lora-lyra-v1"))
        (staging / "optimizer.pt").write_bytes(b"x")
        with pytest.raises(AdapterInvalidError, match=r"optimizer\.pt"):
            publish(staging, directory, "lora-lyra-v1")


def test_only_dead_staging_folders_are_swept(directory: Path, folder: Path) -> None:
    two_days_ago = time.time() - 2 * 86400
    old, young, still_written = (directory / f".staging-{i}" for i in "abc")
    for path in (old, young, still_written):
        path.mkdir()
        (path / "adapter_model.safetensors").write_bytes(b"x")
    for path in (old / "adapter_model.safetensors", old, still_written, folder):
        os.utime(path, (two_days_ago, two_days_ago))
    assert sweep_staging(directory) == [old]
    assert not old.exists()
    assert young.exists()
    assert still_written.exists()
    assert folder.exists()


def test_the_next_save_sweeps_what_a_killed_one_left(directory: Path) -> None:
    dead = directory / ".staging-dead"
    dead.mkdir(parents=True)
    os.utime(dead, (0, 0))
    with staged(directory):
        assert not dead.exists()


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(AdapterInvalidError, match="no version folder"):
        verify(tmp_path / "lora-lyra-v9")


def test_a_link_to_a_version_is_no_version(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(folder)
    with pytest.raises(AdapterInvalidError):
        verify(tmp_path / "link")


def test_every_problem_is_told_at_once(folder: Path) -> None:
    (folder / "adapter_model.safetensors").write_bytes(b"other tensors")
    (folder / "adapter_config.json").unlink()
    (folder / "adapter_model.bin").write_bytes(b"x")
    (folder / "modeling.py").write_text("print()")
    (folder / "nested").mkdir()
    (folder / "passwd").symlink_to("/etc/passwd")
    found = problems(folder)
    assert "adapter_model.safetensors: changed" in found
    assert "adapter_config.json: missing" in found
    assert "adapter_model.bin: a pickle" in found
    assert "modeling.py: not in the manifest" in found
    assert "nested: not a regular file" in found
    assert "passwd: a link" in found
    assert len(found.splitlines()) == 6


@pytest.mark.parametrize("name", ["adapter_model.bin", "x.pt", "x.PTH", "x.pkl", "x.ckpt"])
def test_a_pickle_is_refused_even_where_the_manifest_lists_it(tmp_path: Path, name: str) -> None:
    write_adapter(tmp_path)
    (tmp_path / name).write_bytes(b"x")
    seal(tmp_path, new_manifest(name="lora-lyra-v1"))
    assert problems(tmp_path) == f"{name}: a pickle, which can run code when it is loaded"


def test_a_link_to_the_right_bytes_is_refused(folder: Path, tmp_path: Path) -> None:
    weights = folder / "adapter_model.safetensors"
    outside = weights.rename(tmp_path / "outside.safetensors")
    weights.symlink_to(outside)
    assert problems(folder) == "adapter_model.safetensors: a link; a version holds its own files"


def test_a_pipe_is_never_opened(folder: Path) -> None:
    (folder / "report.md").unlink()
    os.mkfifo(folder / "report.md")  # reading it would wait for ever
    assert problems(folder) == "report.md: not a regular file"


@pytest.mark.parametrize("name", ["../x", "/etc/passwd", "a/b", "a\\b", "C:x", "..", ".", ""])
def test_names_that_leave_the_folder_are_refused(tmp_path: Path, name: str) -> None:
    write_adapter(tmp_path)
    sealed = seal(tmp_path, new_manifest(name="lora-lyra-v1"))
    evil = new_manifest(name="lora-lyra-v1", files={**sealed.files, name: "0" * 64})
    (tmp_path / "manifest.json").write_text(evil.to_json())
    assert problems(tmp_path) == f"{name!r}: not a plain file name, it could leave the folder"


def test_the_tensors_must_be_listed(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("x")
    seal(tmp_path, new_manifest(name="lora-lyra-v1"))
    found = problems(tmp_path)
    assert "adapter_model.safetensors: not listed" in found
    assert "adapter_config.json: not listed" in found


def test_without_a_manifest_the_unsafe_files_are_still_told(folder: Path) -> None:
    (folder / "manifest.json").unlink()
    (folder / "adapter_model.bin").write_bytes(b"x")
    assert problems(folder).splitlines() == [
        "manifest.json: missing",
        "adapter_model.bin: a pickle, which can run code when it is loaded",
    ]
