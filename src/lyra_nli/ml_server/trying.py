"""Canary: a version on trial answers a share; where it fails the active version does."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from lyra_nli.errors import AdapterInvalidError
from lyra_nli.ml_server.on_trial import OnTrial
from lyra_nli.ml_server.served import Served
from lyra_nli.ml_server.slot import Slot
from lyra_nli.records import Pair

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Trying:
    """A request of which a canary answers some pairs.

    Attributes:
        own: positions of those pairs.
        active: answers them if the canary can't.
    """

    slot: Slot
    canary: OnTrial
    own: Sequence[int]
    active: Served

    async def judged(
        self,
        chosen: Sequence[Served],
        pairs: Sequence[Pair],
        judge: Callable[[Slot, Sequence[Served], Sequence[Pair]], Awaitable[T]],
    ) -> tuple[list[Served], T]:
        """Judge; gives who judged each pair in the end, and what `judge` says.

        If the canary can't, twice, and the active version can, it was the canary's fault: its
        trial is over, here at once, and everywhere with the next look at the registry. Twice,
        because memory that runs out for a moment is nobody's fault.
        """
        try:
            try:
                said = await judge(self.slot, chosen, pairs)
            except RuntimeError:  # torch
                said = await judge(self.slot, chosen, pairs)
        except (AdapterInvalidError, RuntimeError) as error:
            others = [self.active if i in self.own else each for i, each in enumerate(chosen)]
            said = await judge(self.slot, others, pairs)
            self.canary.tally.failed += len(self.own)
            self.canary.tally.problem = str(error)
            self.slot.give_up(self.canary, str(error))
            return others, said
        self.canary.tally.judged += len(self.own)
        return list(chosen), said
