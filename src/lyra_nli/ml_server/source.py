"""The server's door to the registry: opened when needed, for the database may come and go."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from lyra_nli.errors import AdapterInvalidError, AdapterNotFoundError
from lyra_nli.ml_server.database import Database
from lyra_nli.registry.versions import Registry, Version
from lyra_nli.settings import Settings
from lyra_nli.storage.engine import database_exists, opened, shown


class RegistrySource:
    """Opens the registry of the settings' database.

    A file that is made, replaced or removed while the server runs is seen at the next look, and
    threads share no connection.
    """

    def __init__(self, settings: Settings) -> None:
        self._location = settings.storage.database_path
        database_exists(self._location)  # a URL that can't be read ends the start, not a request
        self._busy_timeout = settings.storage.busy_timeout_seconds
        self._to_read = Database(settings.storage, read_only=True)
        self.directory = Path(settings.nli.adapters_dir)

    @property
    def shown(self) -> str:
        """The database's place, without a password."""
        return shown(self._location)

    @property
    def exists(self) -> bool:
        """False when the database is a SQLite file that is not there (yet)."""
        return database_exists(self._location)

    @contextmanager
    def open(self, *, read_only: bool) -> Iterator[Registry]:
        """Open the registry for one piece of work.

        Raises:
            StorageError: when there is no database, or it can't be read.
        """
        if read_only:
            yield Registry(self._to_read.engine(), self.directory)
            return
        with opened(self._location, busy_timeout=self._busy_timeout) as engine:
            yield Registry(engine, self.directory)

    def versions(self) -> list[Version]:
        """List the versions that exist; none when there is no database."""
        if not self.exists:
            return []
        with self.open(read_only=True) as registry:
            return registry.list()

    def named(self, names: Collection[str]) -> Mapping[str, Version]:
        """Give the versions of these names (``v3`` or ``lora-lyra-v3``), by name.

        Raises:
            AdapterNotFoundError: naming all that are not there, and listing what is.
        """
        if not self.exists:
            raise AdapterNotFoundError(
                f"there is no version {' or '.join(map(repr, names))}: "
                f"there is no database at {self.shown}",
                hint='"active" and "base" both ask the base model.',
            )
        with self.open(read_only=True) as registry:
            found = registry.find(names)
            missing = []
            for name in names:
                try:
                    existing(found.get(name) or registry.get(name))
                except AdapterNotFoundError as error:
                    missing.append(error)
        if len(missing) > 1:
            raise AdapterNotFoundError(
                f"{len(missing)} of the adapters that the request names can't be had",
                problems=[error.message for error in missing],
                hint=missing[0].hint,
            )
        if missing:
            raise missing[0]
        return found

    def find(self, registry: Registry, reference: str) -> Version:
        """Find the registered version that a path or a name means.

        Raises:
            AdapterInvalidError: a path outside the registry's folder.
            AdapterNotFoundError: nothing of that name is registered.
            StorageError: no database.
        """
        if Path(reference).name == reference:
            return existing(registry.get(reference))
        try:
            path, folder = Path(reference).resolve(), self.directory.resolve()
        except (ValueError, OSError) as error:  # NUL, half a surrogate pair, a loop of links
            raise AdapterInvalidError(f"{reference!a} is not a path: {error}") from error
        if path.parent != folder:
            raise AdapterInvalidError(
                f"{reference} is not a version's folder in the registry {self.directory}",
                hint="Only registered versions are loaded: name one (`lyra-nli adapters list`), "
                f"or give its folder, such as {self.directory / 'lora-lyra-v1'}.",
            )
        return existing(registry.get(path.name))


def existing(version: Version) -> Version:
    """Refuse a version whose files were removed.

    Raises:
        AdapterNotFoundError: for those.
    """
    if version.status == "removed":
        raise AdapterNotFoundError(
            f"{version.name} was removed", hint="`lyra-nli adapters list` shows what exists."
        )
    return version
