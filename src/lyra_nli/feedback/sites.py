"""The site that a source comes from: what the domain rules say about it, told to a reviewer."""

from __future__ import annotations

from sqlalchemy import Connection, Engine

from lyra_nli.errors import FeedbackError
from lyra_nli.feedback.domains import explain
from lyra_nli.storage.engine import read
from lyra_nli.storage.generation import Generation, inspect_database


def describe_site(
    connection: Connection, generation: Generation, url: str
) -> dict[str, str] | None:
    """Say what applies to a page's host.

    Returns:
        ``host``, ``decision`` (block, unblock or none), ``why``, and of the rule that decides
        ``pattern`` and ``reason``, empty without one; None for what is no address in the web.
    """
    if not url.lower().startswith(("http://", "https://")):
        return None
    try:
        decided = explain(connection, generation, url)
    except FeedbackError:  # no host
        return None
    rule = decided.rule
    return {
        "host": decided.host,
        "decision": decided.decision,
        "why": decided.why,
        "pattern": rule.domain_pattern if rule else "",
        "reason": rule.reason if rule else "",
    }


def look_up_site(engine: Engine, url: str) -> dict[str, str] | None:
    """Do what `describe_site` does, for a database."""
    generation = inspect_database(engine)
    with read(engine) as connection:
        return describe_site(connection, generation, url)
