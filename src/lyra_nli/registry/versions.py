"""The registry: which versions exist, which one serves each base, and who decided so.

Per base model there are two aliases. ``active`` is what the server runs; without it the base
itself serves. ``previous`` is what served before; without it that was the base. Each change is
one transaction with a row in the audit log, so the log of a base is a chain: every change
starts from where the one before it led.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TypeAlias, Unpack

from sqlalchemy import ColumnElement, Connection, Engine, select, update

from lyra_nli.errors import (
    AdapterError,
    AdapterExistsError,
    AdapterInvalidError,
    AdapterNotFoundError,
    StorageError,
    SupersededError,
)
from lyra_nli.registry import artifact, rows, trial_rows
from lyra_nli.registry.export import export_version
from lyra_nli.registry.fitness import require_fit, verified
from lyra_nli.registry.lyra_table import row_ids
from lyra_nli.registry.manifest import Manifest, read_manifest
from lyra_nli.registry.rows import Action, Alias, Event, Outcome, Version
from lyra_nli.storage.engine import lock, now, read, write
from lyra_nli.storage.tables import nli_aliases, nli_versions

__all__ = ["Event", "Outcome", "Registry", "Version"]

Versions: TypeAlias = list[Version]  # inside Registry, `list` is the method
Events: TypeAlias = list[Event]

_ATTEMPTS = 100  # each one lost to another process that published meanwhile


class Registry:
    """The versions of one database and one folder.

    Any number of threads and processes may use it at once. On a database that was never
    upgraded, reading finds no versions.
    """

    def __init__(self, engine: Engine, directory: Path) -> None:
        self.engine = engine
        self.directory = directory

    # --- new versions ---------------------------------------------------------------------

    def new_name(self) -> str:
        """Find the next free ``lora-lyra-vN``; the names of removed versions stay taken."""
        with read(self.engine) as connection:
            taken = {version.name for version in self._load(connection)}
            taken.update(row_ids(connection), (path.name for path in self.directory.glob("*")))
        return f"lora-lyra-v{max(map(rows.version_number, taken), default=0) + 1}"

    def publish(
        self,
        manifest: Manifest,
        staging: Path,
        *,
        also: Callable[[Connection, Version], None] = lambda *_: None,
        **outcome: Unpack[Outcome],
    ) -> Version:
        """Seal the staged files under the next free name, and register the version.

        Of several processes that do so at once, each gets a name of its own. After an error
        the files are back in `staging` and nothing is registered; a process killed between the
        two steps leaves a whole folder that nobody uses, and whose name stays taken.

        Args:
            also: what is to be written with it: all of that is in the database, or nothing.
        """
        for _ in range(_ATTEMPTS):
            sealed = artifact.seal(staging, replace(manifest, name=self.new_name()))
            try:
                path = artifact.publish(staging, self.directory, sealed.name)
            except AdapterExistsError:
                continue  # another process was faster; ask for the name after its
            try:
                return self.register(sealed, path, also=also, **outcome)
            except AdapterExistsError:
                path.rename(staging)
            except BaseException:  # an interrupt too
                if not self._holds(sealed):  # else it came after all was written
                    path.rename(staging)
                raise
        raise AdapterExistsError(f"no free name for a version was found in {self.directory}")

    def register(
        self,
        manifest: Manifest,
        path: Path,
        *,
        also: Callable[[Connection, Version], None] = lambda *_: None,
        **outcome: Unpack[Outcome],
    ) -> Version:
        """Enter a published folder into the database, with its evaluation.

        Args:
            also: what is to be written in the same transaction.

        Raises:
            AdapterExistsError: when a version of that name is registered.
            AdapterInvalidError: when the folder does not verify.
        """
        if path.resolve() != (self.directory / manifest.name).resolve():
            raise AdapterError(f"{path} is not the folder of {manifest.name} in {self.directory}")
        if artifact.verify(path).digest != manifest.digest:
            raise AdapterInvalidError(f"{path} does not hold the files that were sealed")
        with self.exclusive() as connection:
            if self._load(connection, nli_versions.c.name == manifest.name):
                raise AdapterExistsError(f"{manifest.name} is registered already")
            rows.insert_version(connection, manifest, path, outcome)
            version = self.get_in(connection, manifest.name)
            also(connection, version)
            return version

    def _holds(self, manifest: Manifest) -> bool:
        """Whether a version is registered; true where nobody can tell: its files must stay then."""
        try:
            with read(self.engine) as connection:
                found = self._load(connection, nli_versions.c.name == manifest.name)
        except StorageError:
            return True
        return any(version.digest == manifest.digest for version in found)

    # --- reading --------------------------------------------------------------------------

    def list(self, base_model: str | None = None, include_removed: bool = False) -> Versions:
        """List the versions in the order of their numbers."""
        conditions: list[ColumnElement[bool]] = []
        if base_model is not None:
            conditions.append(nli_versions.c.base_model == base_model)
        if not include_removed:
            conditions.append(nli_versions.c.status != "removed")
        with read(self.engine) as connection:
            return self._load(connection, *conditions)

    def get(self, name: str) -> Version:
        """Find a version by ``lora-lyra-v3`` or ``v3``; a removed one still has its row.

        Raises:
            AdapterNotFoundError: listing what exists.
        """
        with read(self.engine) as connection:
            return self.get_in(connection, name)

    def find(self, names: Collection[str]) -> dict[str, Version]:
        """Find some of them as `get` does, at one look; what is not there is left out."""
        full = {name: _full_name(name) for name in names}
        with read(self.engine) as connection:
            found = self._load(connection, nli_versions.c.name.in_(full.values()))
        known = {version.name: version for version in found}
        return {name: known[each] for name, each in full.items() if each in known}

    def active(self, base_model: str) -> Version | None:
        """Say which version serves this base; None: the base itself."""
        return self._aliased(base_model, "active")

    def previous(self, base_model: str) -> Version | None:
        """Say which version served before the present one; None: the base itself."""
        return self._aliased(base_model, "previous")

    def resolve(self, reference: str, base_model: str) -> Version | None:
        """Find what ``active``, ``previous``, ``base`` or a name stands for; None: the base.

        Raises:
            AdapterNotFoundError: no such version, or it was removed.
            AdapterInvalidError: a version of another base.
        """
        match reference:
            case "base":
                return None
            case "active" | "previous":
                return self._aliased(base_model, reference)
        version = self.get(reference)
        if version.status == "removed":
            raise AdapterNotFoundError(f"{version.name} was removed")
        if version.base_model != base_model:
            raise AdapterInvalidError(
                f"{version.name} was trained for {version.base_model}, this is {base_model}"
            )
        return version

    def events(self, base_model: str | None = None, limit: int | None = None) -> Events:
        """Read the audit log, oldest first; `limit` keeps the newest."""
        with read(self.engine) as connection:
            return rows.load_events(connection, base_model, limit)

    def manifest_of(self, version: Version) -> Manifest:
        """Read what the version was made from; says nothing about its other files."""
        return read_manifest(version.path)

    def verify(self, name: str) -> Manifest:
        """Check all files of a version against its manifest, and that against the database.

        Raises:
            AdapterInvalidError: with every problem at once.
        """
        return verified(self.get(name))

    # --- what serves ----------------------------------------------------------------------

    def activate(
        self, name: str, *, who: str, reason: str = "", only_over: Sequence[str | None] = ()
    ) -> Event:
        """Let a version serve its base.

        Args:
            only_over: activate it only if one of these is active now, None being the base; for
                programs, which may not be the only ones to change what serves. Empty: any.

        Raises:
            AdapterError: it is active already, was removed, or no reason is given although it
                did not pass the gate, or was trained and proven for one domain only.
            SupersededError: another one is active than it may replace.
            AdapterInvalidError: its files do not verify.
        """
        with self.exclusive() as connection:
            version = self.get_in(connection, name)
            if "active" in version.aliases:
                raise AdapterError(f"{version.name} is already active")
            require_fit(version, reason)
            active = rows.load_aliases(connection, version.base_model).get("active")
            if only_over and active not in only_over:
                raise SupersededError(
                    f"{version.name} was judged beside {' or '.join(map(_said, only_over))}, and "
                    f"meanwhile {_said(active)} serves: it is registered, and not activated",
                    hint=f"`lyra-nli gate {version.name} --against {active}` judges it beside "
                    "that; `lyra-nli adapters activate` lets it serve."
                    if active
                    else "`lyra-nli adapters activate` lets it serve.",
                )
            return self._serve(connection, "activate", version.base_model, version, who, reason)

    def rollback(
        self, base_model: str, *, who: str, reason: str = "", only_from: str | None = None
    ) -> Event:
        """Go back to what served before: a version, or the base. Twice is back again.

        Args:
            only_from: roll back only if this version is active; for programs, which may not be
                the only ones to think of it.

        Raises:
            AdapterError: nothing served before, or `only_from` is not active.
            AdapterInvalidError: the files of the previous version do not verify.
        """
        with self.exclusive() as connection:
            aliases = rows.load_aliases(connection, base_model)
            if not aliases:
                raise AdapterError(f"no version was ever active for {base_model}")
            if only_from not in (None, aliases.get("active")):
                raise AdapterError(f"{only_from} is not active any more")
            previous = aliases.get("previous")
            target = self.get_in(connection, previous) if previous else None
            return self._serve(connection, "rollback", base_model, target, who, reason)

    def deactivate(self, base_model: str, *, who: str, reason: str = "") -> Event:
        """Let the base itself serve.

        Raises:
            AdapterError: it does so already.
        """
        with self.exclusive() as connection:
            if "active" not in rows.load_aliases(connection, base_model):
                raise AdapterError(f"no version is active for {base_model}: the base serves")
            return self._serve(connection, "deactivate", base_model, None, who, reason)

    # --- out of the registry --------------------------------------------------------------

    def remove(self, name: str, *, who: str, reason: str = "") -> Event:
        """Delete a version's folder; its row, its history and its name stay.

        Raises:
            AdapterError: it is active, previous or on trial, or was removed before.
        """
        with self.exclusive() as connection:
            version = self.get_in(connection, name)
            if version.aliases:
                raise AdapterError(
                    f"{version.name} is {' and '.join(version.aliases)}: it can't be removed",
                    hint="Activate another version first.",
                )
            if version.status == "removed" and not version.path.exists():
                raise AdapterError(f"{version.name} was removed before")
            for trial in trial_rows.open_trials(connection, version=version.name):
                raise AdapterError(
                    f"{version.name} is on trial as {trial.kind}: it can't be removed",
                    hint=f"Stop that first: `lyra-nli {trial.kind} stop`.",
                )
            row = nli_versions.c.name == version.name
            connection.execute(update(nli_versions).where(row).values(status="removed"))
            event = Event(now(), who, "remove", version.base_model, version.name, None, reason)
            rows.insert_event(connection, event)
        try:  # after the commit: a row without a folder would be a broken version
            shutil.rmtree(version.path)
        except FileNotFoundError:
            pass
        except OSError as error:
            raise AdapterError(
                f"{version.name} is out of the registry, but its folder could not be deleted: "
                f"{error}",
                hint="Remove it once more when that is repaired.",
            ) from error
        return event

    def export(self, name: str, destination: Path) -> Path:
        """Copy a version to a folder, or to an archive where `destination` ends with ``.zip``.

        Raises:
            AdapterExistsError: something is there already; nothing is ever overwritten.
            AdapterInvalidError: its files do not verify.
        """
        version = self.get(name)
        verified(version)
        return export_version(version.path, destination)

    # --- within a transaction -------------------------------------------------------------

    @contextmanager
    def exclusive(self) -> Iterator[Connection]:
        """Begin a transaction in which nobody else changes versions or aliases."""
        with write(self.engine) as connection:
            lock(connection, nli_aliases)
            yield connection

    def _load(self, connection: Connection, *conditions: ColumnElement[bool]) -> Versions:
        return rows.load_versions(connection, self.directory, *conditions)

    def get_in(self, connection: Connection, name: str) -> Version:
        """Find a version as `get` does, within a transaction of the caller's."""
        if found := self._load(connection, nli_versions.c.name == _full_name(name)):
            return found[0]
        known = [version.name for version in self._load(connection, _EXISTS)]
        raise AdapterNotFoundError(
            f"there is no adapter version {name!r}",
            hint=f"There are: {', '.join(known)}" if known else "None was trained yet.",
        )

    def _aliased(self, base_model: str, alias: Alias) -> Version | None:
        at = nli_aliases.c
        version = select(at.version).where(at.base_model == base_model, at.alias == alias)
        with read(self.engine) as connection:
            found = self._load(connection, nli_versions.c.name.in_(version))
        return found[0] if found else None

    def _serve(
        self,
        connection: Connection,
        action: Action,
        base_model: str,
        target: Version | None,
        who: str,
        reason: str,
    ) -> Event:
        """Make `target` active and what was active previous; None is the base."""
        if target is not None:
            verified(target)
        before = rows.load_aliases(connection, base_model).get("active")
        after = target.name if target else None
        rows.replace_aliases(connection, base_model, {"active": after, "previous": before})
        event = rows.insert_event(
            connection, Event(now(), who, action, base_model, before, after, reason)
        )
        for trial in trial_rows.open_trials(connection, version=after) if after else ():
            trial_rows.end_trial(connection, trial, who=who, reason=f"it became active: {action}")
        return event


_EXISTS = nli_versions.c.status != "removed"


def _full_name(name: str) -> str:
    return f"lora-lyra-{name}" if re.fullmatch("v[0-9]+", name) else name


def _said(version: str | None) -> str:
    return version or "the base"
