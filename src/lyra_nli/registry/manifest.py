"""``manifest.json``: what a version was made from, and the digest of every file it holds."""

from __future__ import annotations

import hashlib
import json
from dataclasses import field
from pathlib import Path
from typing import Annotated, Any, Final

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass
from pydantic_core import from_json, to_json

from lyra_nli.errors import AdapterInvalidError

SCHEMA_VERSION: Final = 1
MANIFEST: Final = "manifest.json"

Text = Annotated[str, Field(min_length=1)]
Digest = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]


@dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))
class Manifest:
    """Everything that a version was made from: enough to make it again, byte for byte.

    Attributes:
        name: ``lora-lyra-vN``; empty until the version is published.
        base_model: the base as the user named it: Hub id, folder or ``starter``.
        base_fingerprint: SHA-256 over the base's weights and config.
        row_ids: ids of the rows by split: ``train``, ``dev``, ``holdout``.
        groups: id -> group of the reviewed rows that were, or could be, learned from: which foreign
            pairs are made depends on it. Versions of earlier releases have none.
        recipe: the training settings, as they were resolved.
        metrics: what the gate measured.
        max_length: tokens a pair could have, where premises were cut.
        files: file name -> SHA-256; filled in by `artifact.seal`.
    """

    name: str = ""
    base_model: Text
    base_revision: str | None
    base_fingerprint: Text
    dataset_hash: Text
    split_hash: Text
    row_ids: dict[str, list[str]]
    recipe: dict[str, Any]
    dataset_settings: dict[str, Any]
    library_versions: dict[str, str]
    git_commit: str | None
    seed: int
    threads: int
    created_at: Text
    metrics: dict[str, Any]
    max_length: int = 512
    groups: dict[str, str] = field(default_factory=dict)
    files: dict[str, Digest] = field(default_factory=dict)
    schema_version: int = SCHEMA_VERSION

    @property
    def digest(self) -> str:
        """The identity of the version: SHA-256 over this manifest, its files' digests included."""
        return hashlib.sha256(self.to_json().encode()).hexdigest()

    @property
    def started_from(self) -> str:
        """The version that its training started from; empty: fresh adapters."""
        return str(self.metrics.get("warm_start", {}).get("version", ""))

    @property
    def inherited(self) -> list[str]:
        """Ids of rows that only the versions it started from had learned from."""
        return list(self.metrics.get("warm_start", {}).get("inherited", ()))

    @property
    def learned(self) -> list[str]:
        """Ids of all rows that it, or a version it started from, learned from."""
        return [*self.row_ids["train"], *self.row_ids["dev"], *self.inherited]

    def to_json(self) -> str:
        """Write the text of ``manifest.json``: sorted keys, null for a metric that is NaN."""
        plain = from_json(to_json(_ADAPTER.dump_python(self), inf_nan_mode="null"))
        return json.dumps(plain, indent=2, sort_keys=True) + "\n"


_ADAPTER = TypeAdapter(Manifest)


def read_manifest(path: Path) -> Manifest:
    """Read the manifest of the version folder `path`; says nothing about the other files.

    Raises:
        AdapterInvalidError: with every field that is wrong.
    """
    file = path / MANIFEST
    message = f"the manifest of {path} can't be used"
    if file.is_symlink() or not file.is_file():
        raise AdapterInvalidError(message, problems=[f"{MANIFEST}: missing"])
    try:
        data = from_json(file.read_bytes())
    except (OSError, ValueError) as error:
        raise AdapterInvalidError(message, problems=[f"{MANIFEST}: {error}"]) from error
    found = data.get("schema_version") if isinstance(data, dict) else None
    if found != SCHEMA_VERSION:
        raise AdapterInvalidError(
            message,
            problems=[f"{MANIFEST}: schema_version is {found!r}, expected {SCHEMA_VERSION}"],
            hint="If a newer lyra-nli made this version, upgrade this one.",
        )
    try:
        return _ADAPTER.validate_python(data)
    except ValidationError as error:
        problems = [
            f"{MANIFEST}: {'.'.join(map(str, item['loc']))}: {item['msg']}"
            for item in error.errors()
        ]
        raise AdapterInvalidError(message, problems=problems) from error


def check_base(manifest: Manifest, base_name: str, fingerprint: str) -> None:
    """Make sure that an adapter is put on the very weights that it was trained on.

    The weights decide, not the name: a base may be reached by its Hub id or as a folder.

    Raises:
        AdapterInvalidError: when the weights are others.
    """
    if manifest.base_fingerprint == fingerprint:
        return
    if manifest.base_model == base_name:
        what = f"another {base_name}: the weights under that name have changed since"
    else:
        what = f"{manifest.base_model}, this is {base_name}"
    raise AdapterInvalidError(
        f"the adapter {manifest.name} was trained for {what}",
        problems=[
            f"fingerprint of the base: {manifest.base_fingerprint[:12]}… expected, "
            f"{fingerprint[:12]}… loaded"
        ],
        hint="Load the base that it was trained for (its manifest names the revision), "
        "or train a new version on this one.",
    )
