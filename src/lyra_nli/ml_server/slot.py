"""One base model in memory, the versions resident beside it, and the one that is current."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Final

import torch

from lyra_nli.errors import AdapterInvalidError
from lyra_nli.ml_server.on_trial import OnTrial
from lyra_nli.ml_server.served import Served
from lyra_nli.ml_server.serving import Serving
from lyra_nli.models.adapter import read_adapter
from lyra_nli.models.base import Base
from lyra_nli.models.encoding import encode
from lyra_nli.models.engine import engine_of
from lyra_nli.records import Pair
from lyra_nli.registry.artifact import check_base, verify
from lyra_nli.registry.trials import Trial, TrialKind
from lyra_nli.registry.versions import Version
from lyra_nli.storage.engine import now

PROBE: Final = Pair("The trial met its primary end point.", "The trial succeeded.")
"""What a model judges before it is trusted to."""


class Slot:
    """An immutable base, its resident versions, the current one, the routes and the trials.

    Reading ``serving`` and ``flip`` are atomic; a request keeps what it read, so it finishes on
    the versions it started with, whatever is flipped meanwhile.

    Args:
        dtype: of the products that may be narrow, see ``models.engine``.
        residents: built versions kept beside the base; those that are ``pinned`` stay.
        consume: the base's model is this slot's alone, see ``engine.engine_of``.
        admit: told of a built version's bytes before it is kept; raises if there is no room.
    """

    def __init__(
        self,
        base: Base,
        *,
        dtype: torch.dtype = torch.float32,
        residents: int = 128,
        consume: bool = False,
        admit: Callable[[Slot, int], None] = lambda *_: None,
    ) -> None:
        self.base = base
        self.engine = engine_of(base, dtype, consume=consume)
        self._residents, self._admit = residents, admit
        self.pristine = Served(
            variant=None,
            version=None,
            model_version=_base_version(base),
            loaded_at=now(),
            load_seconds=0.0,
            own_bytes=self.engine.base_bytes,
        )
        self._serving = Serving(self.pristine, self.pristine.name)
        self._failed: dict[str, str] = {}
        # Encoded now, for a tokenizer must not be used by two threads at a time.
        self._probe = encode(base, (PROBE,))
        self._resident: OrderedDict[str, Served] = OrderedDict()
        self._lock = threading.Lock()

    @property
    def serving(self) -> Serving:
        """Who answers what right now."""
        return self._serving

    @property
    def current(self) -> Served:
        """What ``adapter: "active"`` means right now."""
        return self._serving.current

    @property
    def routes(self) -> Mapping[str, Served]:
        """Who judges the premises of which site, where that is not the current version."""
        return self._serving.routes

    @property
    def trials(self) -> Mapping[TrialKind, OnTrial]:
        """The open trials of versions that are in memory."""
        return self._serving.trials

    def choose(self, sources: Sequence[str], keys: Sequence[str] = ()) -> list[Served]:
        """Say who judges the premises of these URLs right now, see `Serving.choose`."""
        return self._serving.choose(sources, keys)

    def build(self, version: Version) -> Served:
        """Verify a version's files and build its weights beside the base; flips nothing.

        Raises:
            AdapterInvalidError: damaged, changed or unsafe files, another base, wrong tensors.
            ModelError: there is no room for it in memory.
        """
        began = time.monotonic()
        manifest = verify(version.path)
        problems = []
        if manifest.digest != version.digest:
            problems.append(
                f"the files' digest is {manifest.digest[:12]}, registered was {version.digest[:12]}"
            )
        if manifest.name != version.name:
            problems.append(f"the manifest names {manifest.name}")
        if problems:
            raise AdapterInvalidError(
                f"{version.path} does not hold what was registered as {version.name}",
                problems=problems,
            )
        check_base(manifest, self.base.name, self.base.fingerprint)
        variant = self.engine.variant(read_adapter(self.base, version.path))
        # Finite weights may still overflow: see it judge before anyone is answered by it.
        if not torch.isfinite(self.engine.logits(self._probe, [variant])).all():
            raise AdapterInvalidError(f"{version.name} answers with NaN or infinite values")
        self._admit(self, variant.own_bytes)
        return Served(
            variant=variant,
            version=version,
            model_version=f"{_base_version(self.base)}+{version.name}@{version.digest[:12]}",
            loaded_at=now(),
            load_seconds=time.monotonic() - began,
            own_bytes=variant.own_bytes,
        )

    def keep(self, served: Served) -> None:
        """Make a built version resident; the longest unused one goes when there are too many."""
        with self._lock:
            self._resident[served.name] = served
            self._resident.move_to_end(served.name)
            for name, other in list(self._resident.items()):
                if len(self._resident) <= self._residents:
                    break
                if other is not served and not self.pinned(other):
                    del self._resident[name]

    def unpinned(self) -> list[Served]:
        """List the resident versions that may go, longest unused first."""
        return [served for served in self.all_resident() if not self.pinned(served)]

    def shed(self) -> int:
        """Let the longest unused version go that may; gives its bytes, 0 when there is none."""
        for served in self.unpinned():
            with self._lock:
                del self._resident[served.name]
            return served.own_bytes
        return 0

    def pinned(self, served: Served) -> list[str]:
        """Say why a version stays, see `Serving.parts`."""
        return self._serving.parts(served.name)

    def resident(self, version: Version) -> Served | None:
        """Give the built weights of exactly this version, if they are in memory."""
        with self._lock:
            served = self._resident.get(version.name)
            if served is None or not served.holds(version):
                return None
            self._resident.move_to_end(version.name)
            return served

    def flip(self, served: Served) -> None:
        """Make it current. The next request is answered by it."""
        if served is not self.pristine:
            self.keep(served)
        with self._lock:
            self._serving = self._serving.flipped(served)

    def route(self, routes: Mapping[str, Served]) -> None:
        """Let resident versions judge the premises of these sites, and of no others."""
        with self._lock:
            self._serving = replace(self._serving, routes=dict(routes))

    def try_out(self, trials: Mapping[TrialKind, OnTrial]) -> None:
        """Let these be the open trials, but for those that were given up here."""
        with self._lock:
            left = {kind: on for kind, on in trials.items() if on.trial.id not in self._failed}
            self._serving = replace(self._serving, trials=left)

    def give_up(self, on: OnTrial, problem: str) -> None:
        """Take a trial out at once, and for good: its version fails here."""
        with self._lock:
            self._failed[on.trial.id] = problem
            self._serving = self._serving.without(on.trial.id)

    def failed(self, trial: Trial) -> str | None:
        """Say why a trial was given up here; None if it was not."""
        return self._failed.get(trial.id)

    def exchange(self, served: Served, fresh: Served) -> None:
        """Put the same weights with another calibration in the place of what is in memory."""
        with self._lock:
            if served is self.pristine:
                self.pristine = fresh
            elif self._resident.get(served.name) is served:
                self._resident[served.name] = fresh
            self._serving = self._serving.exchanged(served, fresh)

    def all_resident(self) -> list[Served]:
        """List the built versions, longest unused first; the base itself is not among them."""
        with self._lock:
            return list(self._resident.values())


def _base_version(base: Base) -> str:
    return f"{base.name}@{base.fingerprint[:12]}"
