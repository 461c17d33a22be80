"""Fitness: whether a version may answer, being proven, and can, being whole."""

from __future__ import annotations

from lyra_nli.errors import AdapterError, AdapterInvalidError
from lyra_nli.registry import artifact
from lyra_nli.registry.manifest import Manifest
from lyra_nli.registry.rows import Version


def require_fit(version: Version, reason: str) -> None:
    """Refuse to let a version answer everybody that is not proven to, unless a reason is given.

    Raises:
        AdapterError: the gate did not pass it, or for one domain only.
    """
    if version.status in ("rejected", "unproven") and not reason.strip():
        raise AdapterError(
            f"the gate has not passed {version.name}: it is {version.status}",
            hint="To let it answer nevertheless, give a reason; the history keeps it.",
        )
    if version.domain and not reason.strip():
        raise AdapterError(
            f"{version.name} was trained and proven for {version.domain} only",
            hint="Name it in nli.routes, or in the requests of that domain. To let it "
            "judge everything, give a reason; the history keeps it.",
        )


def verified(version: Version) -> Manifest:
    """Check all files of a version against its manifest, and that against the database.

    Raises:
        AdapterError: it was removed.
        AdapterInvalidError: with every problem at once.
    """
    if version.status == "removed":
        raise AdapterError(f"{version.name} was removed: its files are gone")
    manifest = artifact.verify(version.path)
    problems = [
        f"{field}: the manifest has {getattr(manifest, field)!r}, the database {expected!r}"
        for field in ("name", "base_model", "base_fingerprint", "digest")
        if (expected := getattr(version, field)) != getattr(manifest, field)
    ]
    if problems:
        raise AdapterInvalidError(
            f"{version.path} does not hold what was registered as {version.name}",
            problems=problems,
            hint="Restore the folder from an export, or train again.",
        )
    return manifest
