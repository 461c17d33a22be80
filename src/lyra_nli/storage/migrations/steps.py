"""The only things a migration may do: create a table, add a column, add an index.

A version lists its steps for the schema it finds, so the same list says in plain words what
an upgrade would add and, applied, adds it. What exists already makes no step.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from sqlalchemy import Connection, Table, inspect

from lyra_nli.storage.generation import look


@dataclass(frozen=True, slots=True)
class Step:
    """One addition.

    Attributes:
        words: what it adds, for the person who is asked.
    """

    words: str
    apply: Callable[[Connection], object]


@dataclass(slots=True)
class Schema:
    """What is there, and what the steps listed so far will have added."""

    columns: dict[str, set[str]]
    indexes: set[str]
    dialect: str = "sqlite"

    @classmethod
    def of(cls, connection: Connection) -> Schema:
        """Read the present schema of a database, as far as it is ours to know."""
        generation, _ = look(connection)
        inspector = inspect(connection)
        return cls(
            columns={table: set(names) for table, names in generation.columns.items()},
            indexes={
                str(index["name"])
                for table in generation.columns
                for index in inspector.get_indexes(table)
            },
            dialect=connection.dialect.name,
        )

    def create_table(self, table: Table, what: str) -> list[Step]:
        """Create a table with its indexes, unless one of that name is there."""
        if table.name in self.columns:
            return []
        self.columns[table.name] = {column.name for column in table.columns}
        self.indexes |= {str(index.name) for index in table.indexes}
        return [Step(f"table {table.name}: {what}", table.create)]

    def add_column(self, table: str, name: str, definition: str, what: str) -> list[Step]:
        """Add a column that may be NULL or has a default, unless it is there."""
        if table not in self.columns or name in self.columns[table]:
            return []
        self.columns[table].add(name)
        sql = f"ALTER TABLE {table} ADD COLUMN {name} {definition}"
        return [Step(f"column {table}.{name}: {what}", _execute(sql))]

    def add_index(self, name: str, table: str, rest: str, what: str) -> list[Step]:
        """Add an index, unless one of that name is there."""
        if table not in self.columns or name in self.indexes:
            return []
        self.indexes.add(name)
        sql = f"CREATE INDEX IF NOT EXISTS {name} ON {table} {rest}"
        return [Step(f"index {name}: {what}", _execute(sql))]


def apply_all(steps: Iterable[Step], connection: Connection) -> None:
    """Take the steps, in order."""
    for step in steps:
        step.apply(connection)


def _execute(sql: str) -> Callable[[Connection], object]:
    return lambda connection: connection.exec_driver_sql(sql)
