"""What an existing database is: ours, an older or newer Lyra's, the proposal's, or a mixture.

==============  ===================  ====================
                older Lyra           newer Lyra
==============  ===================  ====================
nli_corrections hypothesis           nli_hypothesis
edges           nli_confidence       nli_edge_confidence
agreed reviews  in nli_corrections   only in edges
==============  ===================  ====================

Names are resolved per table, once, so a database with tables of both works too.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from sqlalchemy import Connection, Engine, inspect

from lyra_nli.errors import StorageError
from lyra_nli.storage import tables
from lyra_nli.storage.engine import read

VERSION_TABLE = "nli_schema_version"
"""Which of our migrations a database has had."""

_ALIASES: Mapping[tuple[str, str], str] = {
    ("nli_corrections", "hypothesis"): "nli_hypothesis",
    ("edges", "nli_confidence"): "nli_edge_confidence",
}

_OURS = frozenset(
    table.name for table in tables.metadata.tables.values() if table.info.get("owner")
)

_NEEDED: Mapping[str, tuple[str, ...]] = {
    "nli_corrections": (
        "id",
        "edge_id",
        "premise",
        "hypothesis",
        "predicted_label",
        "predicted_confidence",
        "correct_label",
        "corrected_at",
    ),
    "edges": (
        "id",
        "source_type",
        "source_id",
        "target_type",
        "target_id",
        "relation",
        "nli_label",
        "nli_confidence",
    ),
    "fragments": ("id", "page_id", "text_content"),
    "claims": ("id", "claim_text"),
}
"""What can't be added afterwards: without these a table is not the one we know."""


@dataclass(frozen=True, slots=True)
class Generation:
    """The names that a database uses.

    Attributes:
        columns: table -> its columns, for every table of `lyra_nli.storage.tables` that the
            database has.
        required: (table, column) pairs that can't be NULL.
        migrated: our migrations have run here, the last one too.
    """

    columns: Mapping[str, frozenset[str]]
    required: frozenset[tuple[str, str]] = frozenset()
    migrated: bool = False

    def has(self, table: str, *columns: str) -> bool:
        """Whether the table is there, with all of these columns."""
        return table in self.columns and self.columns[table].issuperset(columns)

    def column(self, table: str, name: str) -> str:
        """Translate a column's name in our databases to its name in this one."""
        other = _ALIASES.get((table, name))
        return other if other and self.has(table, other) else name

    @property
    def corrections_hypothesis(self) -> str:
        """``hypothesis`` or ``nli_hypothesis``."""
        return self.column("nli_corrections", "hypothesis")

    @property
    def edge_confidence(self) -> str:
        """``nli_confidence`` or ``nli_edge_confidence``."""
        return self.column("edges", "nli_confidence")

    @property
    def has_corrections(self) -> bool:
        """There is a table ``nli_corrections``."""
        return "nli_corrections" in self.columns

    @property
    def has_edges(self) -> bool:
        """There is an evidence graph."""
        return "edges" in self.columns

    @property
    def has_reviews(self) -> bool:
        """There is our own table of reviews."""
        return "nli_reviews" in self.columns

    @property
    def has_trained_adapter_id(self) -> bool:
        """Corrections name the adapter that was trained on them."""
        return self.has("nli_corrections", "trained_adapter_id")

    @property
    def has_used_for_training(self) -> bool:
        """Corrections have the proposal's mark."""
        return self.has("nli_corrections", "used_for_training")

    @property
    def stores_agreed(self) -> bool:
        """Agreed reviews are rows of ``nli_corrections`` too, as in the older Lyra."""
        older = self.has("nli_corrections", "hypothesis") and not self.has_used_for_training
        return older and self.corrections_hypothesis == "hypothesis"

    @property
    def name(self) -> str:
        """What to call it in a sentence."""
        if not self.has_corrections and not self.has_edges:
            return "lyra-nli"
        names = set()
        if self.has_corrections:
            names.add(self._corrections_generation())
        if self.has_edges and names != {"lyra-nli"}:
            newer = self.edge_confidence == "nli_edge_confidence"
            proposal = names == {"proposal"} and not newer
            names.add("proposal" if proposal else "newer Lyra" if newer else "older Lyra")
        return " and ".join(sorted(names))

    def _corrections_generation(self) -> str:
        if self.corrections_hypothesis == "nli_hypothesis":
            return "newer Lyra"
        if not self.has_used_for_training:
            return "older Lyra"
        return "lyra-nli" if self.has_trained_adapter_id else "proposal"

    def require_upgraded(self) -> None:
        """Stop what needs our own tables, with the command that makes them.

        Raises:
            StorageError: when `lyra-nli db upgrade` has not been run on this database.
        """
        if not self.migrated:
            raise StorageError(
                f"this database ({self.name}) lacks tables for reviews and versions",
                hint="Add them with `lyra-nli db upgrade` (it lists what it adds, asks, and "
                "makes a backup first).",
            )


def inspect_database(engine: Engine) -> Generation:
    """Look at a database and resolve the names it uses.

    Raises:
        StorageError: when it is empty, is no Lyra database, or lacks tables or columns
            that can't be added; every one of them is named.
    """
    with read(engine) as connection:
        generation, others = look(connection)
    problems = shortcomings(generation)
    if not generation.columns and not others:
        raise StorageError("the database is empty", hint="Make the tables with `lyra-nli db init`.")
    if not any(table in generation.columns for table in ("nli_corrections", "edges")):
        if generation.has_reviews:
            return generation
        found = ", ".join(sorted(others | set(generation.columns))[:8])
        raise StorageError(
            f"this is no Lyra database: it has the tables {found}",
            problems=[f"table {name} is missing" for name in _NEEDED],
            hint="Name another with --db, or make a new one with `lyra-nli db init`.",
        )
    if problems:
        raise StorageError(
            "the database has not the tables that a Lyra database has",
            problems=problems,
            hint="Is it the right file? Name another with --db.",
        )
    return generation


def look(connection: Connection) -> tuple[Generation, frozenset[str]]:
    """List what is there, judging nothing: the tables we know, and the names of the others."""
    inspector = inspect(connection)
    names = set(inspector.get_table_names())
    known = sorted(names & set(tables.metadata.tables))
    reflected = inspector.get_multi_columns(filter_names=known) if known else {}
    columns = {name: found for (_, name), found in reflected.items()}
    generation = Generation(
        columns=MappingProxyType(
            {name: frozenset(column["name"] for column in columns[name]) for name in known}
        ),
        required=frozenset(
            (name, column["name"])
            for name in known
            for column in columns[name]
            if not column["nullable"]
        ),
        migrated=VERSION_TABLE in names and names.issuperset(_OURS),
    )
    return generation, frozenset(names - set(known) - {VERSION_TABLE})


def shortcomings(generation: Generation) -> list[str]:
    """Every table and column that is missing and that no upgrade can add."""
    problems = []
    if generation.has_edges:
        problems += [
            f"table {name} is missing (edges point to it)"
            for name in ("fragments", "claims")
            if name not in generation.columns
        ]
    for table, needed in _NEEDED.items():
        if table not in generation.columns:
            continue
        for name in needed:
            if generation.has(table, generation.column(table, name)):
                continue
            other = _ALIASES.get((table, name))
            problems.append(f"column {table}.{name}{f' (or {other})' if other else ''} is missing")
    return problems
