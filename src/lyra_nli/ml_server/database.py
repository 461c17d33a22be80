"""A database that is kept open, and opened anew when the file changes."""

from __future__ import annotations

import threading
from pathlib import Path

from sqlalchemy import Engine
from sqlalchemy.engine import make_url

from lyra_nli.settings import StorageSettings
from lyra_nli.storage.engine import open_database

Identity = tuple[int, int] | None


class Database:
    """One engine for all requests, which saves preparing every statement for every request.

    A SQLite file that is made, replaced or removed meanwhile is noticed at the next request.
    """

    def __init__(self, settings: StorageSettings, *, read_only: bool = False) -> None:
        self._settings = settings
        self._read_only = read_only
        self._lock = threading.Lock()
        self._engine: Engine | None = None
        self._identity: Identity = None

    def engine(self) -> Engine:
        """Give the engine of the file that is there now.

        Raises:
            StorageError: when there is none, or it is no database.
        """
        with self._lock:
            identity = self._look()
            if self._engine is None or identity != self._identity:
                if self._engine is not None:
                    self._engine.dispose()
                self._engine = None
                self._engine = open_database(
                    self._settings.database_path,
                    read_only=self._read_only,
                    busy_timeout=self._settings.busy_timeout_seconds,
                )
                self._identity = identity
            return self._engine

    def _look(self) -> Identity:
        """Tell which file it is; open connections keep its number from being used again."""
        location = self._settings.database_path
        if "://" in location:
            url = make_url(location)
            if url.get_backend_name() != "sqlite":
                return None
            location = url.database or ""
        try:
            state = Path(location).stat()
        except OSError:
            return 0, 0
        return state.st_dev, state.st_ino
