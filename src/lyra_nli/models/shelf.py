"""A shelf: arrays by key in a folder of bounded size, kept from run to run, safe to delete.

Arrays of one width are packed, end to end, into segments of a few megabytes: ``NAME.bin`` holds
the rows, ``NAME.json`` says which rows belong to which key, and their checksum. A segment is
written once, under another name first; half of one is never seen.
"""

from __future__ import annotations

import json
import os
import time
import zlib
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np
from numpy.typing import NDArray

_SEGMENT_BYTES = 16 * 2**20
_STALE_SECONDS = 3600.0
"""A half-written segment older than this was left by a process that was killed."""


@dataclass(frozen=True)
class _Place:
    """Where an array lies: a segment, and its rows in there; `crc` is the CRC-32 of its bytes."""

    segment: Path
    start: int
    rows: int
    crc: int


class Shelf:
    """Arrays [rows, width] by key.

    Reads go through the file, not a memory map: pages of a map count as the process's memory.

    Args:
        folder: of all shelves; they share the bound.
        name: of this shelf: arrays of another name have nothing in common with these.
        width: columns of every array.
        dtype: numpy's type of the numbers.
        limit: bytes that the arrays of all shelves in the folder may take. Beyond it the segments
            that were used longest ago go, when it is opened too; those that were asked for here
            stay, and new arrays are not kept. Processes that write at once may pass it by a
            segment each.

    Attributes:
        full: no more is kept.
    """

    def __init__(
        self, folder: Path, name: str, *, width: int, dtype: np.dtype[Any], limit: int
    ) -> None:
        self.root, self.folder = folder, folder / name
        self.width, self.dtype, self.limit = width, dtype, limit
        self._places: dict[str, _Place] = {}
        self._used: set[Path] = set()
        self._fresh: dict[str, NDArray[Any]] = {}
        self._fresh_bytes = 0
        self.full = limit <= 0
        if not self.full:
            with suppress(OSError):  # where it can't be made, nothing is kept
                self.folder.mkdir(parents=True, exist_ok=True)
                self._make_room(0)
            self._read_index()

    def __contains__(self, key: str) -> bool:
        """Whether it is here; asking for it is a use."""
        if place := self._places.get(key):
            self._use(place.segment)
        return place is not None or key in self._fresh

    def get(self, key: str) -> NDArray[Any] | None:
        """The array, or None when it is not here (any more)."""
        if key in self._fresh:
            return self._fresh[key]
        place = self._places.get(key)
        if place is None:
            return None
        self._use(place.segment)
        count, offset = place.rows * self.width, place.start * self.width * self.dtype.itemsize
        try:
            flat = np.fromfile(place.segment, self.dtype, count, offset=offset)
        except OSError:  # somebody emptied the folder meanwhile
            flat = np.empty(0, self.dtype)
        if len(flat) != count or zlib.crc32(flat.data) != place.crc:
            del self._places[key]
            return None
        return flat.reshape(place.rows, self.width)

    def put(self, key: str, array: NDArray[Any]) -> None:
        """Keep an array, if there is room; it is on disk after the next `flush`."""
        if self.full or key in self:
            return
        self._fresh[key] = array
        self._fresh_bytes += array.nbytes
        if self._fresh_bytes >= min(_SEGMENT_BYTES, self.limit // 2):
            self.flush()

    def flush(self) -> None:
        """Write what is new as one segment; a full disk or folder keeps nothing, and no more."""
        fresh, size = self._fresh, self._fresh_bytes
        self._fresh, self._fresh_bytes = {}, 0
        if not fresh:
            return
        segment = self.folder / f"{uuid4().hex}.bin"
        try:
            self.full = not self._make_room(size)
            if not self.full:
                self._places |= _write(segment, fresh)
                self._used.add(segment)
        except OSError:
            self.full = True
            with suppress(OSError):
                segment.unlink()

    def _read_index(self) -> None:
        for index in self.folder.glob("*.json"):
            segment = index.with_suffix(".bin")
            if not segment.is_file():
                continue
            with suppress(OSError, ValueError, TypeError, AttributeError):
                rows: Mapping[str, list[int]] = json.loads(index.read_text("utf-8"))
                self._places |= {key: _Place(segment, *place) for key, place in rows.items()}

    def _use(self, segment: Path) -> None:
        """Keep a segment from now on, and let other processes know."""
        if segment not in self._used:
            self._used.add(segment)
            with suppress(OSError):
                os.utime(segment)

    def _make_room(self, size: int) -> bool:
        """Delete segments that nobody used for long until `size` more bytes fit."""
        gone = set()
        found = sorted(_segments(self.root), key=lambda item: item[1])
        total = sum(size for _, _, size in found) + size
        for segment, _, taken in found:
            if total <= self.limit:
                break
            if segment not in self._used:
                segment.with_suffix(".json").unlink(missing_ok=True)
                segment.unlink(missing_ok=True)
                total -= taken
                gone.add(segment)
        self._places = {k: place for k, place in self._places.items() if place.segment not in gone}
        return total <= self.limit


def _segments(root: Path) -> Iterator[tuple[Path, float, int]]:
    """Every segment with the time of its last use and its bytes; sweeps up what kills left."""
    for file in (*root.glob("*/*.bin"), *root.glob("*/*.tmp")):
        with suppress(FileNotFoundError):  # another process may delete it meanwhile
            stat = file.stat()
            if file.suffix == ".bin" and file.with_suffix(".json").is_file():
                yield file, stat.st_mtime, stat.st_size
            elif time.time() - stat.st_mtime > _STALE_SECONDS:
                file.unlink()


def _write(segment: Path, arrays: Mapping[str, NDArray[Any]]) -> dict[str, _Place]:
    places, start = {}, 0
    with segment.open("wb") as file:
        for key, array in arrays.items():
            content = np.ascontiguousarray(array).data
            file.write(content)
            places[key] = _Place(segment, start, len(array), zlib.crc32(content))
            start += len(array)
    rows = {key: [place.start, place.rows, place.crc] for key, place in places.items()}
    # The index makes the segment exist; it comes last, and at once.
    unfinished = segment.with_suffix(".tmp")
    unfinished.write_text(json.dumps(rows), "utf-8")
    unfinished.replace(segment.with_suffix(".json"))
    return places
