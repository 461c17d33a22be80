"""Checkpoints: what a training has reached, so that one that was killed goes on from there."""

from __future__ import annotations

import hashlib
import io
import json
import os
import pickle
import shutil
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch

_STALE_SECONDS = 14 * 86400.0


class Checkpoints:
    """States by name, of one training that is told apart by everything that shapes it.

    Args:
        root: folder of all unfinished trainings.
        identity: what must be the same for a state to be of use: base, rows, recipe.
    """

    def __init__(self, root: Path, identity: Mapping[str, Any]) -> None:
        digest = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()
        self.folder = root / digest[:16]

    def load(self, name: str, where: torch.device | str = "cpu") -> dict[str, Any] | None:
        """The state, its tensors on a device; None when there is none that can be read."""
        file = self.folder / f"{name}.pt"
        try:
            digest, content = file.read_bytes().split(b"\n", 1)
        except (OSError, ValueError):
            return None
        if hashlib.sha256(content).hexdigest().encode() != digest:
            return None
        try:
            state: dict[str, Any] = torch.load(
                io.BytesIO(content), weights_only=True, map_location=where
            )
        except pickle.UnpicklingError:  # whole, but not one of ours: it holds more than numbers
            return None
        return state

    def save(self, name: str, state: Mapping[str, Any]) -> None:
        """Keep a state: the whole of it, or the one before."""
        self.folder.mkdir(parents=True, exist_ok=True)
        unfinished = self.folder / f"{name}.{os.getpid()}.tmp"  # two may run at once
        content = io.BytesIO()
        torch.save(dict(state), content)
        digest = hashlib.sha256(content.getvalue()).hexdigest().encode()
        try:
            unfinished.write_bytes(digest + b"\n" + content.getvalue())
            unfinished.replace(self.folder / f"{name}.pt")
        except OSError:  # a full disk is not to be kept full
            unfinished.unlink(missing_ok=True)
            raise

    def clear(self) -> None:
        """Forget all states: the training has finished. So do others of long ago, half-done."""
        shutil.rmtree(self.folder, ignore_errors=True)
        for other in self.folder.parent.glob("*"):
            with suppress(OSError):  # another training may clear it meanwhile
                if time.time() - other.stat().st_mtime > _STALE_SECONDS:
                    shutil.rmtree(other, ignore_errors=True)
