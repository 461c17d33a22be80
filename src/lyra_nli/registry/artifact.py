"""A version on disk: one folder, written whole or not at all, and checked before anyone uses it.

adapters/
├── lora-lyra-v3/                  a version; never changes
│   ├── adapter_model.safetensors  the tensors, in PEFT's own format
│   ├── adapter_config.json        PEFT's settings
│   ├── manifest.json              what it was made from, and the digest of every file
│   ├── out_of_fold.jsonl          what was said of the rows that it was judged on
│   └── README.md, report.md|html  for people
└── .staging-5f1c…/                being written, or left by a killed process; nobody reads it

To write one: put the files into the folder of ``with staged(...)``, ``seal`` it, ``publish`` it.
"""

from __future__ import annotations

import errno
import os
import re
import shutil
import sys
import time
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path, PureWindowsPath
from secrets import token_hex
from typing import Final

from lyra_nli.errors import AdapterExistsError, AdapterInvalidError, TrainingError
from lyra_nli.provenance import file_digest
from lyra_nli.registry.manifest import MANIFEST, Manifest, check_base, read_manifest

__all__ = [
    "MANIFEST",
    "VERSION_NAME",
    "Manifest",
    "check_base",
    "publish",
    "read_manifest",
    "seal",
    "staged",
    "sweep_staging",
    "verify",
]

VERSION_NAME: Final = re.compile(r"lora-lyra-v([1-9][0-9]*)")

_REQUIRED = ("adapter_model.safetensors", "adapter_config.json")
_FOR_PEOPLE = frozenset({"README.md", "report.md"})
_PICKLES = frozenset({".bin", ".ckpt", ".joblib", ".pickle", ".pkl", ".pt", ".pth"})
_STAGING = ".staging-"
_DAY = 24 * 3600.0
_DISK_IS_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
_NAME_IS_TAKEN = frozenset({errno.EEXIST, errno.ENOTEMPTY, errno.ENOTDIR})


@contextmanager
def staged(directory: Path) -> Iterator[Path]:
    """Make a folder to write a version into; it is gone afterwards unless it was published.

    Whatever ends the block, an interrupt included, nothing stays. What a killed process left
    is swept by a later call, a day after.

    Raises:
        TrainingError: when `directory` can't be written, or the disk is full.
    """
    staging = directory / f"{_STAGING}{token_hex(8)}"
    try:
        staging.mkdir(parents=True)
    except OSError as error:
        raise TrainingError(f"no version can be written in {directory}: {error}") from error
    sweep_staging(directory)
    try:
        yield staging
    except _write_errors() as error:
        if not _disk_is_full(error):
            raise
        free = shutil.disk_usage(directory).free // 2**20
        raise TrainingError(
            f"the adapter could not be saved in {directory}: {error}; no version was made",
            hint=f"{free} MB are free there: make room, then train again.",
        ) from error
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def seal(staging: Path, manifest: Manifest) -> Manifest:
    """Write ``manifest.json`` with the digest of every file that lies in the folder.

    ``README.md`` stays out: people may write their notes into it later.
    """
    files = {
        file.name: file_digest(file)
        for file in sorted(staging.iterdir())
        if file.name not in (MANIFEST, "README.md")
    }
    sealed = replace(manifest, files=files)
    (staging / MANIFEST).write_text(sealed.to_json(), "utf-8")
    return sealed


def publish(staging: Path, directory: Path, name: str) -> Path:
    """Turn a sealed folder into the version `name`, in one step that a crash can't halve.

    Raises:
        AdapterExistsError: when the name is taken.
        AdapterInvalidError: when the folder does not verify, or was sealed for another name.
    """
    if not VERSION_NAME.fullmatch(name) or verify(staging).name != name:
        raise AdapterInvalidError(f"the folder {staging.name} was not sealed as {name!r}")
    target = directory / name
    taken = AdapterExistsError(f"there is already a version {name} in {directory}")
    if os.path.lexists(target):  # a rename would silently replace an empty folder
        raise taken
    for file in staging.iterdir():
        file.chmod(0o644)  # a server may run as another user
        _fsync(file)
    _fsync(staging)
    try:
        staging.rename(target)
    except OSError as error:
        if error.errno in _NAME_IS_TAKEN:
            raise taken from error
        raise
    _fsync(directory)
    return target


def sweep_staging(directory: Path, older_than: float = _DAY) -> list[Path]:
    """Remove what killed processes left: staging folders untouched for `older_than` seconds.

    Returns:
        the folders that are gone.
    """
    horizon = time.time() - older_than
    dead = [
        folder
        for folder in sorted(directory.glob(f"{_STAGING}*"))
        if folder.is_dir() and not folder.is_symlink() and _last_touched(folder) < horizon
    ]
    for folder in dead:
        shutil.rmtree(folder, ignore_errors=True)
    return dead


def verify(path: Path) -> Manifest:
    """Check every file of the version folder `path` before anything in it is loaded.

    Raises:
        AdapterInvalidError: with every problem at once: files that are missing, changed or
            unknown, pickles, links, names that leave the folder, a manifest that is wrong.
    """
    if path.is_symlink() or not path.is_dir():
        raise AdapterInvalidError(f"there is no version folder at {path}")
    try:
        manifest, problems, hint = read_manifest(path), [], ""
    except AdapterInvalidError as error:
        manifest, problems, hint = None, list(error.problems), error.hint
    problems += _unsafe_entries(path, manifest.files if manifest else None)
    problems += _listed_files(path, manifest.files) if manifest else ()
    if manifest is None or problems:
        raise AdapterInvalidError(
            f"the adapter in {path} must not be used: {len(problems)} problem(s)",
            problems=problems,
            hint=hint or "Restore the folder from an export, or train again.",
        )
    return manifest


def _unsafe_entries(path: Path, listed: Collection[str] | None) -> Iterator[str]:
    """Name what lies in the folder and should not; `listed` is None when nobody knows."""
    expected = None if listed is None else {MANIFEST, *_FOR_PEOPLE, *listed}
    for entry in sorted(path.iterdir()):
        if entry.is_symlink():
            yield f"{entry.name}: a link; a version holds its own files"
        elif entry.suffix.lower() in _PICKLES:
            yield f"{entry.name}: a pickle, which can run code when it is loaded"
        elif not entry.is_file():
            yield f"{entry.name}: not a regular file"
        elif expected is not None and entry.name not in expected:
            yield f"{entry.name}: not in the manifest"


def _listed_files(path: Path, files: Mapping[str, str]) -> Iterator[str]:
    """Name what the manifest promises and the folder does not hold."""
    yield from (f"{name}: not listed in the manifest" for name in _REQUIRED if name not in files)
    for name, digest in sorted(files.items()):
        file = path / name
        if name in ("", "..") or PureWindowsPath(name).name != name:  # knows / and \\
            yield f"{name!r}: not a plain file name, it could leave the folder"
        elif not os.path.lexists(file):
            yield f"{name}: missing"
        elif file.is_file() and not file.is_symlink():  # others are reported, never opened
            yield from _changed(file, digest)


def _changed(file: Path, digest: str) -> Iterator[str]:
    try:
        actual = file_digest(file)
    except OSError as error:
        yield f"{file.name}: can't be read: {error.strerror}"
        return
    if actual != digest:
        yield f"{file.name}: changed since it was sealed (SHA-256 {actual[:12]}…)"


def _fsync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _last_touched(folder: Path) -> float:
    try:
        return max(entry.lstat().st_mtime for entry in (folder, *folder.iterdir()))
    except FileNotFoundError:  # its owner has just published or removed it
        return time.time()


def _write_errors() -> tuple[type[BaseException], ...]:
    """Name what a failed write raises: safetensors, if in use, has a class of its own."""
    safetensors = sys.modules.get("safetensors")
    return (OSError,) if safetensors is None else (OSError, safetensors.SafetensorError)


def _disk_is_full(error: BaseException) -> bool:
    if isinstance(error, OSError):
        return error.errno in _DISK_IS_FULL
    code = re.search(r"(?:os error|code:) (\d+)", str(error))
    return code is not None and int(code[1]) in _DISK_IS_FULL
