"""Which unreviewed edge a live pair belongs to: by the id that came with it, else by its texts.

Only what no index answers is dear: the claims' texts are read through once for many pairs.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Final

from sqlalchemy import Connection, bindparam, inspect, text

from lyra_nli.records import Pair
from lyra_nli.storage.engine import batches
from lyra_nli.storage.tables import UNREVIEWED

_TEXTS: Final = """
JOIN fragments ON edges.source_type = 'fragment' AND fragments.id = edges.source_id
JOIN claims ON edges.target_type = 'claim' AND claims.id = edges.target_id
"""

_BY_ID: Final = f"""
SELECT edges.id, fragments.text_content, claims.claim_text FROM edges {_TEXTS}
WHERE edges.id IN :ids AND {UNREVIEWED}"""  # noqa: S608 - names of our own

_CLAIMS: Final = "SELECT id FROM claims WHERE claim_text IN :texts"

AT_ONCE: Final = 200


def edges_named(connection: Connection, named: Mapping[str, Pair]) -> set[str]:
    """Of the ids that callers gave their pairs, find those of unreviewed edges with these texts.

    A caller may count its pairs and call one ``7``, which an edge may be called too: the texts
    tell.
    """
    if not named or not inspect(connection).has_table("edges"):
        return set()
    found: set[str] = set()
    for ids in batches(named):
        for edge_id, premise, hypothesis in _ask(connection, _BY_ID, ids=ids):
            if named[edge_id] == Pair(premise, hypothesis):
                found.add(edge_id)
    return found


def edges_of(connection: Connection, pairs: Collection[Pair]) -> dict[Pair, str]:
    """Find an unreviewed edge with exactly these texts for each pair that has one."""
    if not pairs or not inspect(connection).has_table("edges"):
        return {}
    found: dict[Pair, str] = {}
    for some in batches(pairs, AT_ONCE):
        texts = sorted({pair.hypothesis for pair in some})
        claims = [row[0] for row in _ask(connection, _CLAIMS, texts=texts)]
        premises = sorted({pair.premise for pair in some})
        wanted = set(some)
        for ids in batches(claims):
            rows = _ask(connection, _by_texts(connection), claims=ids, premises=premises)
            for edge_id, premise, hypothesis in rows:
                if (pair := Pair(premise, hypothesis)) in wanted:
                    found.setdefault(pair, edge_id)
    return found


def _by_texts(connection: Connection) -> str:
    """Walk the index of the unreviewed edges by claim: SQLite may prefer one on ``relation``."""
    index = "INDEXED BY ix_nli_edges_target" if connection.dialect.name == "sqlite" else ""
    return f"""
SELECT edges.id, fragments.text_content, claims.claim_text FROM edges {index} {_TEXTS}
WHERE edges.target_id IN :claims AND {UNREVIEWED} AND fragments.text_content IN :premises
ORDER BY edges.id"""  # noqa: S608


def _ask(connection: Connection, sql: str, **lists: list[str]) -> list[tuple[str, ...]]:
    statement = text(sql).bindparams(*(bindparam(name, expanding=True) for name in lists))
    return list(connection.execute(statement, lists))
