"""A version on trial in this server, and how that goes."""

from __future__ import annotations

from dataclasses import dataclass, field

from lyra_nli.ml_server.served import Served
from lyra_nli.registry.trials import Trial


@dataclass(slots=True)
class Tally:
    """How a trial goes, in this process.

    Attributes:
        judged: pairs that the version judged; a canary's were answered.
        disagreed: to which a shadow gave another label than the active version.
        skipped: drawn for a shadow, but there was no time for them.
        failed: pairs that it could not judge.
        problem: why not, the last time; empty when all is well.
    """

    judged: int = 0
    disagreed: int = 0
    skipped: int = 0
    failed: int = 0
    problem: str = ""


@dataclass(frozen=True, eq=False)
class OnTrial:
    """An open trial, the version that is tried out, and how that goes."""

    trial: Trial
    served: Served
    tally: Tally = field(default_factory=Tally)
