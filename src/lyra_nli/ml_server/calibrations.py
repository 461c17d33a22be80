"""The calibration of what is served: read with the registry, carried by ``Served``."""

from __future__ import annotations

from dataclasses import replace

from sqlalchemy import Connection, Engine, inspect
from sqlalchemy.exc import NoSuchTableError

from lyra_nli.errors import StorageError
from lyra_nli.feedback.calibration_rows import current_rows, read_calibrator
from lyra_nli.ml_server.served import Calibration, Served
from lyra_nli.ml_server.slot import Slot
from lyra_nli.storage.engine import read
from lyra_nli.storage.generation import Generation
from lyra_nli.storage.tables import nli_calibrations


class Calibrations:
    """What is current now, by base and version; made anew for every look.

    Attributes:
        problems: why some version goes on with the calibration that it had.

    Raises:
        StorageError: the database can't be read.
    """

    def __init__(self, engine: Engine) -> None:
        with read(engine) as connection:
            self._rows = current_rows(connection, _generation(connection))
        self.problems: list[str] = []

    def renewed(self, served: Served, base_model: str) -> Served:
        """Give the same weights with the present calibration; itself if that has not changed."""
        row = self._rows.get((base_model, served.name))
        try:
            calibration = Calibration(*read_calibrator(row)) if row else None
        except StorageError as error:
            self.problems.append(f"{served.name} keeps the calibration that it had: {error}")
            return served
        same = calibration == served.calibration
        return served if same else replace(served, calibration=calibration)

    def renew(self, slot: Slot) -> None:
        """Do so for all that is in memory."""
        for served in (slot.pristine, *slot.all_resident()):
            fresh = self.renewed(served, slot.base.name)
            if fresh is not served:
                slot.exchange(served, fresh)


def _generation(connection: Connection) -> Generation:
    """What the database is, as far as it matters here: the server looks twice a second."""
    name = nli_calibrations.name
    try:
        columns = inspect(connection).get_columns(name)
    except NoSuchTableError:
        return Generation({})
    return Generation({name: frozenset(column["name"] for column in columns)})
