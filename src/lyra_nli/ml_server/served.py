"""What a server answers with: a base or a version of it, ready to judge, and its calibration."""

from __future__ import annotations

from dataclasses import dataclass

from lyra_nli.evaluation.calibrators import Calibrator
from lyra_nli.models.engine import Variant
from lyra_nli.registry.versions import Version


@dataclass(frozen=True, slots=True)
class Calibration:
    """What corrects the confidence of one version: its number in the history, and how."""

    number: int
    calibrator: Calibrator


@dataclass(frozen=True, eq=False)
class Served:
    """A model that can judge, and what it is. Never changed once made.

    Attributes:
        variant: its weights beside the base, for the slot's engine; None is the base itself.
        version: the adapter version in those weights; None is the base itself.
        model_version: names the exact weights: base and fingerprint, adapter and digest.
        loaded_at: ISO-8601, UTC.
        load_seconds: what it took to verify and build them; 0 for the base itself.
        own_bytes: memory of the tensors that are not shared with the base.
        calibration: made for these weights; None while there is none.
    """

    variant: Variant | None
    version: Version | None
    model_version: str
    loaded_at: str
    load_seconds: float
    own_bytes: int
    calibration: Calibration | None = None

    @property
    def name(self) -> str:
        """The version's name, or ``base``."""
        return self.version.name if self.version else "base"

    def holds(self, version: Version | None) -> bool:
        """Whether these are the weights of that version (None: of the base)."""
        if version is None or self.version is None:
            return version is self.version
        return (version.name, version.digest) == (self.version.name, self.version.digest)
