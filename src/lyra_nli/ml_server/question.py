"""What a request asks, and what one base says to it; a second base may be asked after the first."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final, TypeVar

from lyra_nli.ml_server.observer import Timing
from lyra_nli.ml_server.served import Served
from lyra_nli.ml_server.slot import Slot
from lyra_nli.records import BASE, Judgement, Pair

ACTIVE: Final = "active"

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Question:
    """Pairs to judge.

    Attributes:
        adapters: who judges each; or none at all.
        sources: where each premise comes from; or none at all.
        overlap: of windows, see `models.windows.cut`; None: no windows.
        pair_ids: what the caller calls each; or none at all.
        key: decides whether a canary answers; empty: each pair's texts do.
    """

    pairs: Sequence[Pair]
    adapters: Sequence[str] = ()
    sources: Sequence[str] = ()
    overlap: int | None = None
    pair_ids: Sequence[str] = ()
    key: str = ""

    @property
    def places(self) -> Sequence[str]:
        """The source of each premise, empty where nobody said."""
        return self.sources or [""] * len(self.pairs)

    @property
    def keys(self) -> list[str]:
        """What decides for each pair whether a canary answers."""
        return [self.key or pair.key for pair in self.pairs]

    def unnamed(self, who: Served, chosen: Sequence[Served]) -> list[int]:
        """Positions of the pairs that a version judges for which no version was named."""
        named = self.adapters or [""] * len(chosen)
        return [
            i
            for i, (served, name) in enumerate(zip(chosen, named, strict=True))
            if served is who and name in ("", ACTIVE)
        ]

    def again(self, positions: Sequence[int]) -> Question:
        """Some of the pairs, for the slow base: a version that was named is none of its own."""
        named = [name if name in (ACTIVE, BASE) else "" for name in at(positions, self.adapters)]
        pairs, sources = at(positions, self.pairs), at(positions, self.sources)
        names = at(positions, self.pair_ids)
        return Question(pairs, named, sources, self.overlap, names, self.key)


@dataclass(frozen=True, slots=True)
class Opinion:
    """One base's answers to a question, in its order.

    Attributes:
        model_versions: the exact weights behind each, see ``Served.model_version``.
        timing: None: there was nothing to judge.
        live: positions of the pairs that the active version judged, as nobody named another.
    """

    slot: Slot
    question: Question
    judgements: list[Judgement]
    model_versions: list[str]
    timing: Timing | None
    live: Sequence[int] = ()

    @property
    def base_model(self) -> str:
        """The name of the base."""
        return self.slot.base.name

    def unsure(self, threshold: float | None) -> list[int]:
        """Positions of the answers whose probability is below; None: of none."""
        if threshold is None:
            return []
        return [i for i, said in enumerate(self.judgements) if said.confidence < threshold]


@dataclass(frozen=True, slots=True)
class Answer:
    """Judgements of one request, in the order of its pairs.

    Attributes:
        model_versions: the exact weights behind each, see ``Served.model_version``.
        base_models: the name of the base behind each.
    """

    judgements: list[Judgement] = field(default_factory=list)
    model_versions: list[str] = field(default_factory=list)
    base_models: list[str] = field(default_factory=list)

    @classmethod
    def of(cls, first: Opinion, second: Opinion | None, unsure: Sequence[int]) -> Answer:
        """The first opinion, and the second in the places where that was unsure."""
        count = len(first.judgements)
        answer = cls(list(first.judgements), list(first.model_versions), [first.base_model] * count)
        if second is not None:
            for own, place in enumerate(unsure):
                answer.judgements[place] = second.judgements[own]
                answer.model_versions[place] = second.model_versions[own]
                answer.base_models[place] = second.base_model
        return answer


def at(positions: Sequence[int], values: Sequence[T]) -> list[T]:
    """The values at these positions; none where there are no values at all."""
    return [values[i] for i in positions] if values else []
