"""The base models in memory and which version of each is current: load, follow, activate.

All of this blocks, and nothing here but ``read`` is safe to run twice at a time: ``NLIService``
gives it a thread of its own. Only ``Slot`` is shared with the threads that answer requests.
"""

from __future__ import annotations

import logging
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from typing import Any, Final

from lyra_nli.errors import AdapterInvalidError, AdapterNotFoundError
from lyra_nli.ml_server.calibrations import Calibrations
from lyra_nli.ml_server.follow import Follower
from lyra_nli.ml_server.memory import Memory, Usage, give_back
from lyra_nli.ml_server.served import Served
from lyra_nli.ml_server.slot import Slot
from lyra_nli.ml_server.source import RegistrySource
from lyra_nli.models.base import Base, blank_model, load_base, reach_of
from lyra_nli.models.engine import expected_bytes
from lyra_nli.models.machine import compute_dtype, device_of
from lyra_nli.registry.versions import Registry, Version
from lyra_nli.settings import Settings

logger = logging.getLogger(__name__)

LOAD_REASON: Final = "POST /nli/adapter/load"


@dataclass(frozen=True, slots=True)
class Change:
    """What a load or unload did: the path that is served now, and a sentence."""

    adapter_path: str | None
    message: str


class Bases:
    """The fast and the slow base, each a slot; the slow one comes at its first use.

    Args:
        source: the registry.

    Raises:
        SettingsError: the machine has no such device, or it multiplies no such numbers.
    """

    def __init__(self, settings: Settings, source: RegistrySource) -> None:
        self._nli = settings.nli
        self._source = source
        self._follower = Follower(source, settings.nli)
        self._slots: dict[str, Slot] = {}
        self._usage: dict[str, Usage] = {}
        self._device = device_of(self._nli.device)
        self._dtype = compute_dtype(self._nli.precision, self._device)
        self._memory = Memory(
            self._nli.memory_mb,
            slots=lambda: list(self._slots.values()),
            idle=lambda: self._unused_slow(0.0),
            unload=self.unload_slow,
        )

    def get(self, name: str) -> Slot | None:
        """Give the slot of a base if it is in memory."""
        return self._slots.get(name)

    def loaded(self, name: str) -> Slot:
        """Give a base's slot, loaded if need be, with its active version already current.

        Raises:
            ModelError: it can't be loaded, or there is no room for it.
            AdapterInvalidError: it is not one of the two bases of this server.
        """
        slot = self._slots.get(name)
        if slot is None:
            self.make_room(name)
            slot = self.take(self.read(name))
        return slot

    def make_room(self, name: str) -> None:
        """Let go of what must go for a base that is to be loaded.

        Raises:
            ModelError: that would not be enough; nothing goes then.
            AdapterInvalidError: it is not one of the two bases of this server.
        """
        if name not in self._names:
            raise AdapterInvalidError(
                f"that adapter is made for the base model {name}",
                hint=f"This server runs {' and '.join(self._names)}.",
            )
        if self._nli.memory_mb is not None:
            blank = blank_model(name, revision=self._nli.revision_of(name))
            reach = reach_of(blank.config, self._nli.max_length)
            self._memory.make_room(expected_bytes(blank, reach, self._dtype), f"the model {name}")

    def read(self, name: str) -> Base:
        """Read a base from disk, or from the Hub; safe beside everything else.

        Raises:
            ModelError: it can't be read.
        """
        revision, longest = self._nli.revision_of(name), self._nli.max_length
        base = load_base(name, revision=revision, max_length=longest)
        base.model.to(self._device)
        return base

    def take(self, base: Base) -> Slot:
        """Serve a base that was read, unless it is served already.

        Raises:
            ModelError: there is no room for it any more.
        """
        if (slot := self._slots.get(base.name)) is not None:
            return slot
        self.make_room(base.name)  # versions may have come while it was read
        before = self._usage.get(base.name)
        self._usage[base.name] = Usage(before.last_used if before else None)
        slot = Slot(
            base,
            dtype=self._dtype,
            residents=self._nli.resident_versions,
            consume=True,
            admit=lambda slot, need: self._memory.make_room(need, "the version", slot),
        )
        self._follower.look([*self._slots.values(), slot])
        # Replaced, not changed: the event loop may be walking over it.
        self._slots = {**self._slots, base.name: slot}
        return slot

    def used(self, slot: Slot) -> AbstractContextManager[None]:
        """Tell that somebody uses a base, who holds it and finishes on it whatever goes."""
        return self._usage[slot.base.name].by_one()

    def unload_slow(self) -> None:
        """Let the slow base and its versions go; it comes back at its next use."""
        name = self._nli.slow_model
        self._slots = {other: slot for other, slot in self._slots.items() if other != name}
        give_back()
        logger.info("%s: unloaded", name)

    def _unused_slow(self, seconds: float) -> Slot | None:
        """The slow base, if it is one of its own and nobody has used it for longer than that."""
        name = self._nli.slow_model
        slot = self._slots.get(name) if name != self._nli.fast_model else None
        usage = self._usage.get(name)
        return slot if usage and usage.idle_seconds > seconds else None

    def follow(self) -> None:
        """Serve what the registry calls active now; ``status`` tells of failures.

        A slow base that nobody has used for `nli.slow_idle_minutes` goes.
        """
        seconds = 60 * self._nli.slow_idle_minutes
        if seconds and self._unused_slow(seconds) is not None:
            self.unload_slow()
        self._follower.look(self._slots.values())

    def following_ended(self, error: BaseException) -> None:
        """Tell in ``status`` that a bug ended the following."""
        self._follower.end(error)

    def make_resident(self, slot: Slot, version: Version) -> Served:
        """Build a version that a request names, without making it current.

        Raises:
            AdapterInvalidError: it can't be served.
            StorageError: the registry can't be read.
        """
        if (resident := slot.resident(version)) is not None:
            return resident
        with self._source.open(read_only=True) as registry:
            served = _ready(slot, version, registry)
        slot.keep(served)
        return served

    def activate(self, adapter: str | None, who: str, reason: str) -> Change:
        """See ``NLIService.load``."""
        with self._source.open(read_only=False) as registry:
            version = self._wanted(registry, adapter or self._nli.adapter_path)
            slot = self.loaded(version.base_model)
            resident = slot.resident(version) is not None
            if resident:  # the files of others are verified when they are built
                registry.verify(version.name)
            served = _ready(slot, version, registry)
            active = registry.active(version.base_model)
            changed = active is None or active.name != version.name
            if changed:
                # One that failed the gate, or is for one domain, needs a person's reason.
                fit = version.status == "passed" and not version.domain
                default = LOAD_REASON if fit else ""
                registry.activate(version.name, who=who, reason=reason or default)
        slot.flip(served)
        self._follower.forget()
        loaded = "it was in memory already" if resident else "freshly loaded"
        message = f"{version.name} is {'now' if changed else 'still'} active, {loaded}"
        return Change(str(version.path), message)

    def deactivate(self, who: str, reason: str) -> Change:
        """See ``NLIService.unload``."""
        off = {slot.current.name for slot in self._slots.values() if slot.current.version}
        if off or self._source.exists:
            with self._source.open(read_only=False) as registry:
                for name in self._names:
                    active = registry.active(name)
                    if active is not None:
                        registry.deactivate(name, who=who, reason=reason)
                        off.add(active.name)
        for slot in self._slots.values():
            slot.flip(slot.pristine)
        self._follower.forget()
        names = ", ".join(sorted(off))
        return Change(None, f"{names} unloaded" if names else "no adapter was loaded")

    def status(self) -> dict[str, Any]:
        """Tell what is served, on what, since when; and whether the registry is followed."""
        return {
            **self._slot_status(self._nli.fast_model),
            "slow": self._slot_status(self._nli.slow_model),
            "resident": [
                {
                    "version": served.name,
                    "base_model": slot.base.name,
                    "loaded_at": served.loaded_at,
                    "load_seconds": served.load_seconds,
                    "bytes": served.own_bytes,
                    "pinned": slot.pinned(served),
                }
                for slot in self._slots.values()
                for served in slot.all_resident()
            ],
            "resident_limit": self._nli.resident_versions,
            "memory_bytes": self._memory.used,
            "memory_limit_mb": self._nli.memory_mb,
            "routes": [self._route_status(*route) for route in self._nli.routes.items()],
            "database": self._source.shown,
            "database_found": self._source.exists,
            "follow_error": self._follower.error,
        }

    def trials(self) -> list[dict[str, Any]]:
        """List the versions that are tried out, since when, and how that goes here."""
        return [
            {
                "id": on.trial.id,
                "kind": kind,
                "base_model": slot.base.name,
                "version": on.trial.version,
                "share": on.trial.share,
                "started_at": on.trial.started_at,
                **asdict(on.tally),
            }
            for slot in self._slots.values()
            for kind, on in slot.trials.items()
        ]

    def _slot_status(self, name: str) -> dict[str, Any]:
        slot = self._slots.get(name)
        served = slot.current if slot else None
        version = served.version if served else None
        usage = self._usage.get(name)
        return {
            "adapter_loaded": version is not None,
            "adapter_path": str(version.path) if version else None,
            "base_model": name,
            "base_loaded": slot is not None,
            "base_fingerprint": slot.base.fingerprint if slot else None,
            "base_bytes": slot.engine.base_bytes if slot else None,
            "last_used": usage.last_used if usage else None,
            "device": self._device.type,
            "precision": str(slot.engine.dtype).removeprefix("torch.") if slot else None,
            "version": version.name if version else None,
            "digest": version.digest if version else None,
            "model_version": served.model_version if served else None,
            "loaded_at": served.loaded_at if served else None,
            "calibration": served.calibration.number if served and served.calibration else None,
        }

    def _route_status(self, site: str, name: str) -> dict[str, Any]:
        serving = [slot.routes[site] for slot in self._slots.values() if site in slot.routes]
        return {
            "site": site,
            "adapter": name,
            "model_versions": [served.model_version for served in serving],
        }

    @property
    def _names(self) -> list[str]:
        """The bases of this server; one entry when fast and slow are the same."""
        return list(dict.fromkeys((self._nli.slow_model, self._nli.fast_model)))

    def _wanted(self, registry: Registry, adapter: str | None) -> Version:
        if adapter is not None:
            return self._source.find(registry, adapter)
        active = registry.active(self._nli.fast_model)
        if active is None:
            names = ", ".join(version.name for version in registry.list()) or "none yet"
            raise AdapterNotFoundError(
                "the request names no adapter, nli.adapter_path is not set and none is active",
                hint=f'Give "adapter_path". Versions: {names}.',
            )
        return active


def _ready(slot: Slot, version: Version, registry: Registry) -> Served:
    """The version's weights, built where they are not in memory, with the calibration of today."""
    calibrations, name = Calibrations(registry.engine), slot.base.name
    if (resident := slot.resident(version)) is None:
        return calibrations.renewed(slot.build(version), name)
    fresh = calibrations.renewed(resident, name)
    slot.exchange(resident, fresh)
    return fresh
