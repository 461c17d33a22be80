"""Warm start: a training that goes on from the active version instead of from fresh adapters.

Whatever that version had learned from proves nothing about its successor. Only rows that it had
not seen may judge: held-out ones, or the new reviews, answered out of fold.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch

from lyra_nli.dataset.build import Dataset
from lyra_nli.errors import AdapterError
from lyra_nli.models.adapter import Adapter, read_adapter
from lyra_nli.models.base import Base
from lyra_nli.models.lora import low_rank_layers
from lyra_nli.models.low_rank import LowRankLinear
from lyra_nli.registry.manifest import Manifest, check_base
from lyra_nli.registry.rows import Version
from lyra_nli.training.student import Student, Weights
from lyra_nli.workspace import Workspace

_NAMED = 4
"""Matrices that a message names."""


@dataclass(frozen=True)
class Start:
    """The version that a training starts from.

    Attributes:
        digest: of its manifest, and so of all its files.
        learned: ids of the rows that it, or one that it started from, learned from.
    """

    version: str
    digest: str
    adapter: Adapter
    learned: frozenset[str]

    def weights(self, student: Student) -> Weights:
        """What the student is to start from, so that at full strength it answers as the version.

        Another alpha or strength is no hindrance: what the adapter adds is ``scale * B @ A``, and
        B takes up what the scales differ by.

        Raises:
            AdapterError: it adapts other matrices, or with another rank.
        """
        layers = dict(low_rank_layers(student.model))
        problems = list(self._misfits(layers))
        if problems:
            raise AdapterError(
                f"a warm start from {self.version} is not possible: its adapter has another shape",
                problems=problems,
                hint="Train with the rank, layers and target_modules that its manifest names, or "
                "without a warm start.",
            )
        found: dict[int, torch.Tensor] = {}
        for name, (a, b) in self.adapter.matrices.items():
            layer = layers[name]
            factor = self.adapter.scale / layer.scale
            found |= {id(layer.lora_A): a.clone(), id(layer.lora_B): factor * b}
        return [found[id(each)].to(student.device) for each in student.parameters]

    def facts(self, dataset: Dataset) -> dict[str, Any]:
        """What the manifest keeps of it."""
        own = {example.id for example in (*dataset.train, *dataset.dev)}
        inherited = sorted(self.learned - own)
        return {"version": self.version, "digest": self.digest, "inherited": inherited}

    def _misfits(self, layers: dict[str, LowRankLinear]) -> Iterator[str]:
        theirs = self.adapter.matrices
        for what, names in (
            ("it adapts, and the recipe does not", theirs.keys() - layers.keys()),
            ("the recipe adapts, and it does not", layers.keys() - theirs.keys()),
        ):
            if names:
                shown = ", ".join(sorted(names)[:_NAMED])
                more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
                yield f"{what}: {shown}{more}"
        ranks = {len(a) for a, _ in theirs.values()}
        wanted = {len(layer.lora_A) for layer in layers.values()}
        if ranks != wanted:
            yield f"its rank is {max(ranks)}, the recipe's {max(wanted)}"


def find_start(workspace: Workspace, base: Base, active: Version | None) -> Start | None:
    """The active version, if the settings ask for a warm start; None: nothing to start from.

    Raises:
        AdapterError: its files do not verify.
    """
    if active is None or not workspace.settings.training.warm_start:
        return None
    return read_start(workspace, base, active.name)


def read_start(workspace: Workspace, base: Base, name: str) -> Start:
    """A version as the start of a training.

    Raises:
        AdapterError: its files do not verify, or were made for other weights.
    """
    manifest = workspace.registry.verify(name)
    check_base(manifest, base.name, base.fingerprint)
    adapter = read_adapter(base, workspace.registry.get(name).path)
    return Start(name, manifest.digest, adapter, frozenset(manifest.learned))


def start_again(workspace: Workspace, base: Base, manifest: Manifest) -> Start | None:
    """The very start of an earlier training; None: it started from fresh adapters.

    Raises:
        AdapterError: that version is gone, or is another one now.
    """
    name = manifest.started_from
    if not name:
        return None
    missing = AdapterError(
        f"{manifest.name} started from {name}, which is not there any more",
        hint=f"Without the files of {name} it can't be made again.",
    )
    if workspace.registry.get(name).status == "removed":
        raise missing
    start = read_start(workspace, base, name)
    if start.digest != manifest.metrics["warm_start"]["digest"]:
        raise missing
    return start
