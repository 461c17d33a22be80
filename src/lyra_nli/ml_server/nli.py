"""NLIService: judges pairs with a base or with an adapter version of it, and changes versions.

The event loop never waits for a model: `Judging` has threads that judge, and a *loader* builds
models and versions. It is the only thread that changes what is current, so that two changes never
race. Requests go on being answered meanwhile. A *reader* reads the slow base beside it.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from typing import Any, Final

from lyra_nli.errors import AdapterError, InputError, LyraNliError, ModelError
from lyra_nli.ml_server.bases import Bases, Change
from lyra_nli.ml_server.deadline import deadline
from lyra_nli.ml_server.judging import Judging
from lyra_nli.ml_server.observer import Observer, Timing
from lyra_nli.ml_server.question import ACTIVE, Answer, Opinion, Question, at
from lyra_nli.ml_server.served import Served
from lyra_nli.ml_server.shadowing import Shadow
from lyra_nli.ml_server.slot import PROBE, Slot
from lyra_nli.ml_server.source import RegistrySource
from lyra_nli.ml_server.threads import on, worker
from lyra_nli.ml_server.trying import Trying
from lyra_nli.ml_server.watching import Watcher
from lyra_nli.monitoring.shadow_log import ShadowLog
from lyra_nli.records import BASE, Judgement, Pair
from lyra_nli.registry.versions import Version
from lyra_nli.settings import Settings

UNLOAD_REASON: Final = "POST /nli/adapter/unload"


class NLIService:
    """The fast and the slow base model, each with the adapter versions made for it.

    Bases are immutable: adapted weights are built beside them, and unloading points back at
    the untouched base, whose logits are the same to the bit.

    Attributes:
        observer: what keeps account of the answers; `create_metrics_router` shows it.
    """

    def __init__(self, settings: Settings) -> None:
        self._nli = settings.nli
        self.observer = Observer(settings)
        self.watcher = Watcher(settings)
        self._source = RegistrySource(settings)
        self._bases = Bases(settings, self._source)
        self._judging = Judging(settings.ml_server)
        self._loader, self._reader = worker("nli-loader"), worker("nli-reader")
        self._deadline_seconds = settings.ml_server.deadline_seconds
        self._shadow_log = ShadowLog(settings.storage, settings.monitoring)
        self._shadow = Shadow(self._again, self._shadow_log, settings.ml_server.shadow_cpu)
        self._reading: asyncio.Task[Slot] | None = None
        self.ready = False
        self.startup_error: str | None = None

    async def start(self) -> None:
        """Load the fast base and its active version, and judge one pair for real.

        Raises:
            ModelError: when the base can't be loaded; requests are then answered with that.
        """
        self.observer.start()
        try:
            slot = await on(self._loader, self._bases.loaded, self._nli.fast_model)
            await self._judging.judged(slot, [slot.current], [PROBE])
        except LyraNliError as error:
            if not self.ready:  # a server that judges is not broken by one that comes at a bad time
                self.startup_error = str(error)
            raise
        self.startup_error = None
        self.ready = True

    async def close(self) -> None:
        """Finish what runs, drop what waits, and end all threads."""
        self.ready = False
        if self._reading is not None:
            self._reading.cancel()
        await self._shadow.close()
        for executor in (self._reader, self._loader):
            await asyncio.to_thread(executor.shutdown, wait=True, cancel_futures=True)
        await self._judging.close()
        await asyncio.to_thread(self.observer.close)
        await asyncio.to_thread(self._shadow_log.close)

    async def judge(
        self,
        pairs: Sequence[Pair],
        use_slow: bool = False,
        adapters: Sequence[str] = (),
        sources: Sequence[str] = (),
        *,
        pair_ids: Sequence[str] = (),
        key: str = "",
        slow_below: float | None = None,
        windows: bool | None = None,
        deadline_seconds: float | None = None,
    ) -> Answer:
        """Judge pairs, in order; those of one version together.

        Args:
            pairs: what to judge; none gives no judgements.
            use_slow: ask the slow base, which is loaded at its first use.
            adapters: who judges each pair: ``active``, ``base`` or a version's name, of the
                chosen base. Empty: what the site of its source is routed to, else ``active``.
            sources: the URL that each premise comes from, empty where nobody knows.
            pair_ids: what the caller calls each pair; Lyra gives the edge's id.
            key: decides whether a canary answers; empty: each pair's texts do.
            slow_below: ask the slow base again where the fast one's probability is below this;
                its answers stand there. A version of the fast base that was named is none of
                the slow one's: what that serves judges.
            windows: judge long premises by windows; None: what the settings say.
            deadline_seconds: give up then; at most what the settings say.

        Raises:
            InputError: listing every pair that can't be judged, by position; or more versions
                are named than are kept in memory.
            ModelError: the model is still loading, or can't be loaded.
            AdapterNotFoundError: no version of that name; says what exists.
            AdapterError: a version of the other base, or one that can't be served.
            BusyError: too many pairs wait already.
            LateError: the deadline passed.
        """
        overlap = self._nli.overlap(windows)
        question = Question(pairs, adapters, sources, overlap, pair_ids, key)
        async with deadline(self._deadline_seconds, deadline_seconds):
            first = await self._opinion(question, use_slow)
            unsure = first.unsure(slow_below)
            second = await self._opinion(question.again(unsure), True) if unsure else None
        sure = sorted({*range(len(pairs))}.difference(unsure))
        self._note(first, sure)
        if second is not None:
            self._note(second, range(len(unsure)))
        return Answer.of(first, second, unsure)

    async def load(
        self, adapter: str | None = None, *, who: str = "http", reason: str = ""
    ) -> Change:
        """Make a registered version the active one, here and for all who share the registry.

        Its files are verified, and its weights built unless they are in memory, before anything
        changes.

        Args:
            adapter: a version's folder in the registry, or its name. None: the settings'
                ``nli.adapter_path``, else the version that is active already.
            who: who asks, for the registry's history.
            reason: why; needed for a version that did not pass the gate.

        Raises:
            AdapterNotFoundError: not registered, or nothing to load; says what exists.
            AdapterInvalidError: outside the registry's folder, damaged, or of another base.
            AdapterError: the registry refuses, for instance a rejected version without reason.
            StorageError: there is no database, or it can't be written.
        """
        return await on(self._loader, self._bases.activate, adapter, who, reason)

    async def unload(self, *, who: str = "http", reason: str = "") -> Change:
        """Serve the untouched bases again, here and for all who share the registry.

        Raises:
            StorageError: the registry can't be written.
        """
        return await on(self._loader, self._bases.deactivate, who, reason or UNLOAD_REASON)

    async def follow(self) -> None:
        """Serve what the registry calls active now; ``status`` tells of failures."""
        await on(self._loader, self._bases.follow)

    def following_ended(self, error: BaseException) -> None:
        """Tell in ``status`` that a bug ended the following; what is served stays."""
        self._bases.following_ended(error)

    async def versions(self) -> list[Version]:
        """List the versions in the registry; none when there is no database."""
        return await asyncio.to_thread(self._source.versions)

    def status(self) -> dict[str, Any]:
        """Tell what is served, on what, since when, and how trials, following and logging go."""
        return {
            **self._bases.status(),
            "trials": self._bases.trials(),
            "prediction_log": asdict(self.observer.log.status()),
            "watch_error": self.watcher.error,
            "shadow_log_error": self._shadow_log.problem or None,
        }

    @property
    def models_loaded(self) -> dict[str, bool]:
        """Which of the two bases are in memory, under Lyra's names."""
        return {
            "nli_fast": self._bases.get(self._nli.fast_model) is not None,
            "nli_slow": self._bases.get(self._nli.slow_model) is not None,
        }

    async def _opinion(self, question: Question, use_slow: bool) -> Opinion:
        """What one base says."""
        slot = await self._slot(use_slow)
        with self._bases.used(slot):
            serving = slot.serving
            active, canary = serving.current, serving.canary
            chosen = serving.choose(question.places, question.keys if canary else [])
            if any(question.adapters):
                named = await self._named(slot, active, frozenset(question.adapters) - {""})
                wanted = zip(question.adapters, chosen, strict=True)
                chosen = [named.get(name, served) for name, served in wanted]
            if not question.pairs:
                return Opinion(slot, question, [], [], None)
            asked = time.monotonic()
            judge = partial(self._judging.judged, overlap=question.overlap)
            own = question.unnamed(canary.served, chosen) if canary else []
            with self.observer.queued():
                if canary and own:
                    trying = Trying(slot, canary, own, active)
                    chosen, (said, began) = await trying.judged(chosen, question.pairs, judge)
                else:
                    said, began = await judge(slot, chosen, question.pairs)
        timing = Timing(asked, began, time.monotonic())
        versions = [served.model_version for served in chosen]
        live = question.unnamed(active, chosen)
        return Opinion(slot, question, said, versions, timing, live)

    def _note(self, opinion: Opinion, positions: Sequence[int]) -> None:
        """Keep account of the answers at these positions, which are those that were given."""
        question, said = opinion.question, opinion.judgements
        if opinion.timing is None or not positions:
            return
        self.observer.judged(
            opinion.base_model,
            at(positions, question.pairs),
            at(positions, said),
            at(positions, question.sources),
            opinion.timing,
        )
        # A shadow judges as the settings say: who wished otherwise can't be compared with it.
        if opinion.slot.trials and question.overlap == self._nli.overlap(None):
            live = sorted({*opinion.live}.intersection(positions))
            names = (question.pair_ids, question.sources)
            self._shadow.saw(opinion.slot, live, question.pairs, said, *names)

    async def _again(self, slot: Slot, served: Served, pair: Pair) -> tuple[Judgement, float]:
        """Judge a pair between two batches; tells too how many seconds the model took."""
        overlap = self._nli.overlap(None)
        [judgement], began = await self._judging.judged(
            slot, [served], [pair], overlap, background=True
        )
        return judgement, time.monotonic() - began

    async def _slot(self, use_slow: bool) -> Slot:
        name = self._nli.slow_model if use_slow else self._nli.fast_model
        slot = self._bases.get(name)
        if slot is not None:
            return slot
        if use_slow:
            if self._reading is None:
                self._reading = asyncio.create_task(self._read(name), name=f"reading {name}")
                # Who asked may have given up by then: the next one is told.
                self._reading.add_done_callback(lambda task: task.cancelled() or task.exception())
            return await asyncio.shield(self._reading)  # others wait for it, too
        if self.startup_error:
            raise ModelError(self.startup_error)
        raise ModelError(f"the model {name} is still loading", hint="GET /readyz tells when.")

    async def _read(self, name: str) -> Slot:
        """Load the slow base; it may come from the Hub, and versions change meanwhile."""
        try:
            await on(self._loader, self._bases.make_room, name)
            base = await on(self._reader, self._bases.read, name)
            return await on(self._loader, self._bases.take, base)
        finally:
            self._reading = None

    async def _named(
        self, slot: Slot, active: Served, names: frozenset[str]
    ) -> Mapping[str, Served]:
        """Make everybody ready who is named in a request."""
        chosen = {ACTIVE: active, BASE: slot.pristine}
        names = names.difference(chosen)
        if len(names) > self._nli.resident_versions:
            raise InputError(
                f"{len(names)} versions in one request, {self._nli.resident_versions} are kept "
                "in memory",
                hint="Send several requests, or raise nli.resident_versions.",
            )
        versions = await asyncio.to_thread(self._source.named, names) if names else {}
        _check_base(versions.values(), slot.base.name)
        for name, version in versions.items():
            resident = slot.resident(version)
            if resident is None:
                resident = await on(self._loader, self._bases.make_resident, slot, version)
            chosen[name] = resident
        return chosen


def _check_base(versions: Iterable[Version], base_model: str) -> None:
    foreign = [v for v in versions if v.base_model != base_model]
    if foreign:
        raise AdapterError(
            f"this request asks {base_model}, and names versions of another base model",
            problems=[f"{v.name} is a version of {v.base_model}" for v in foreign],
            hint="Change use_slow, or name a version of the right base (GET /nli/adapters).",
        )
