"""A version carried away: a plain copy of its folder, or a zip file."""

from __future__ import annotations

import shutil
from pathlib import Path
from zipfile import ZIP_DEFLATED, ZipFile

from lyra_nli.errors import AdapterError, AdapterExistsError


def export_version(source: Path, destination: Path) -> Path:
    """Copy the version folder `source` to `destination`; a ``.zip`` there makes an archive.

    Nothing is overwritten, and a copy that fails halfway is removed.

    Raises:
        AdapterExistsError: when something is at `destination` already.
        AdapterError: when it can't be written.
    """
    copy = _to_zip if destination.suffix.lower() == ".zip" else _to_folder
    try:
        destination.parent.mkdir(parents=True, exist_ok=True)
        copy(source, destination)
    except FileExistsError as error:
        raise AdapterExistsError(
            f"{error.filename} exists already", hint="Name a place where nothing is yet."
        ) from error
    except OSError as error:
        raise AdapterError(f"the export to {destination} failed: {error}") from error
    return destination


def _to_folder(source: Path, destination: Path) -> None:
    destination.mkdir()
    try:
        for file in sorted(source.iterdir()):
            shutil.copyfile(file, destination / file.name)
    except BaseException:
        shutil.rmtree(destination, ignore_errors=True)
        raise


def _to_zip(source: Path, destination: Path) -> None:
    with destination.open("xb") as stream:
        try:
            with ZipFile(stream, "w", ZIP_DEFLATED, strict_timestamps=False) as archive:
                for file in sorted(source.iterdir()):
                    archive.write(file, f"{source.name}/{file.name}")
        except BaseException:
            destination.unlink(missing_ok=True)
            raise
