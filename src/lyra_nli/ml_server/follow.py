"""Following the registry: what another process activates or rolls back is served soon after.

A version and its calibration change together: both are in the one ``Served`` that is flipped to.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import Final

from sqlalchemy.exc import SQLAlchemyError

from lyra_nli.errors import AdapterError, LyraNliError, StorageError
from lyra_nli.ml_server.calibrations import Calibrations
from lyra_nli.ml_server.on_trial import OnTrial
from lyra_nli.ml_server.served import Served
from lyra_nli.ml_server.slot import Slot
from lyra_nli.ml_server.source import RegistrySource
from lyra_nli.registry.trials import Trial, TrialKind, Trials
from lyra_nli.registry.versions import Registry, Version
from lyra_nli.settings import NliSettings

logger = logging.getLogger(__name__)

WHO: Final = "server"
"""The name that the history keeps for a trial that a server ended."""

RETRY_SECONDS: Final = 5.0
"""A version that could not be loaded is tried again this much later, or when it changes."""


class Follower:
    """Makes each slot serve what the registry calls active, the versions of its routes and trials.

    On failure the slot goes on with what it serves, a route that can't be served leads to the
    active version, a trial that can't be run does not run, and ``error`` says why.

    Args:
        source: the registry.
        nli: names the routes, and the bases whose versions they may lead to.
    """

    def __init__(self, source: RegistrySource, nli: NliSettings) -> None:
        self._source = source
        self._nli = nli
        self._failed: dict[tuple[str, str, str], tuple[float, str]] = {}
        self._error: str | None = None
        self._ended: str | None = None

    @property
    def error(self) -> str | None:
        """Why the registry can't be followed, or its active version not served."""
        return self._ended or self._error

    def end(self, error: BaseException) -> None:
        """Remember that a bug ended the following: what is served stays, until a restart."""
        self._ended = f"following the registry ended, restart the server: {error!r}"

    def look(self, slots: Iterable[Slot]) -> None:
        """Look once, load what changed, flip. Blocks; never raises a LyraNliError."""
        problems = []
        try:
            with self._source.open(read_only=True) as registry:
                calibrations = Calibrations(registry.engine)
                routed, lost = self._routed(registry)
                for slot in slots:
                    wanted = registry.active(slot.base.name)
                    problem = self._serve(slot, wanted, calibrations)
                    problems += [problem] if problem else []
                    problems += self._route(slot, routed, calibrations)
                    problems += self._try_out(slot, Trials(registry), calibrations)
                    calibrations.renew(slot)
                problems += [*lost, *dict.fromkeys(calibrations.problems)]
        except (LyraNliError, OSError, SQLAlchemyError) as error:
            problems.append(str(error))
        self._tell("\n".join(problems) or None)

    def forget(self) -> None:
        """Someone acted by hand: what failed before may be tried again at once."""
        self._failed.clear()
        self._error = None

    def _serve(self, slot: Slot, wanted: Version | None, calibrations: Calibrations) -> str | None:
        """Make `wanted` current; returns why that is not possible."""
        if slot.current.holds(wanted):
            return None
        if wanted is None:
            slot.flip(slot.pristine)
            logger.info("%s: serving the base model", slot.base.name)
            return None
        served, problem = self._built(slot, wanted, calibrations)
        if served is None:
            return f"{wanted.name} is active but {slot.current.name} is still served: {problem}"
        slot.flip(served)
        logger.info("%s: serving %s", slot.base.name, wanted.name)
        return None

    def _routed(self, registry: Registry) -> tuple[Mapping[str, Version], list[str]]:
        """The version of each site that is routed to one; and the routes that lead nowhere."""
        names = self._nli.routed_versions
        wanted = {site: name for site, name in self._nli.routes.items() if name in names}
        if not wanted:
            return {}, []
        versions = registry.list()
        named = {name: v for v in versions for name in (v.name, v.name.rpartition("-")[2])}
        routed = {site: named[name] for site, name in wanted.items() if name in named}
        bases = (self._nli.fast_model, self._nli.slow_model)
        problems = [
            _lost(site, f"there is no version {name!r}")
            for site, name in wanted.items()
            if site not in routed
        ]
        problems += [
            _lost(site, f"{version.name} is a version of {version.base_model}")
            for site, version in routed.items()
            if version.base_model not in bases
        ]
        return routed, problems

    def _route(
        self, slot: Slot, routed: Mapping[str, Version], calibrations: Calibrations
    ) -> Sequence[str]:
        """Lead the sites to their versions of this base; returns why some can't be led there."""
        routes = {s: slot.pristine for s, name in self._nli.routes.items() if name == "base"}
        problems = []
        for site, version in routed.items():
            if version.base_model == slot.base.name:
                served, problem = self._built(slot, version, calibrations)
                if served is None:
                    problems.append(_lost(site, problem))
                else:
                    routes[site] = served
        slot.route(routes)
        return problems

    def _try_out(self, slot: Slot, trials: Trials, calibrations: Calibrations) -> Sequence[str]:
        """Make the open trials of this base ready; returns why some can't be."""
        ready: dict[TrialKind, OnTrial] = {}
        problems: list[str] = []
        for trial in trials.open(slot.base.name):
            if (failure := slot.failed(trial)) is not None:
                problems += self._end(trial, failure)
                continue
            if slot.current.name == trial.version:
                continue  # it became active a moment ago, the trial is over
            known = slot.trials.get(trial.kind)
            if known is not None and known.trial == trial:
                ready[trial.kind] = known
                continue
            version = trials.registry.get(trial.version)
            served, problem = self._built(slot, version, calibrations)
            if served is None:
                problems.append(f"the {trial.kind} {trial.version} does not run: {problem}")
            else:
                ready[trial.kind] = OnTrial(trial, served)
        slot.try_out(ready)
        return problems

    def _end(self, trial: Trial, failure: str) -> Sequence[str]:
        """End a trial whose version failed here; returns why that is not possible yet."""
        reason = f"it can't judge: {failure}"
        try:
            with self._source.open(read_only=False) as registry:
                Trials(registry).end(
                    trial.kind, trial.base_model, who=WHO, reason=reason, only=trial.id
                )
        except AdapterError:  # somebody else has ended it meanwhile
            pass
        except StorageError as error:
            return [f"the {trial.kind} {trial.version} runs no more, {reason}; {error}"]
        logger.warning("the %s %s is over: %s", trial.kind, trial.version, reason)
        return []

    def _built(
        self, slot: Slot, version: Version, calibrations: Calibrations
    ) -> tuple[Served | None, str]:
        """A version, resident; or why that is not possible, now or a moment ago."""
        if (resident := slot.resident(version)) is not None:
            fresh = calibrations.renewed(resident, slot.base.name)
            slot.exchange(resident, fresh)
            return fresh, ""
        key = (slot.base.name, version.name, version.digest)
        until, problem = self._failed.get(key, (0.0, ""))
        if time.monotonic() < until:
            return None, problem
        try:
            served = calibrations.renewed(slot.build(version), slot.base.name)
        except (LyraNliError, OSError, RuntimeError) as error:  # torch: RuntimeError, no memory
            self._failed[key] = (time.monotonic() + RETRY_SECONDS, str(error))
            return None, str(error)
        slot.keep(served)
        return served, ""

    def _tell(self, error: str | None) -> None:
        if error != self._error:
            if error:
                logger.warning("following the registry: %s", error)
            else:
                logger.info("following the registry again: %s", self._source.shown)
        self._error = error


def _lost(site: str, why: str) -> str:
    return f"the route of {site} leads nowhere, the active version judges it: {why}"


async def keep_following(look: Callable[[], Awaitable[None]], seconds: float) -> None:
    """Look for ever, every so many seconds, until cancelled."""
    while True:
        await asyncio.sleep(seconds)
        await look()
