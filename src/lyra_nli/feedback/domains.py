"""Domain rules: which sites a person has blocked or let through, and what applies to a URL."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from sqlalchemy import Connection, insert, select, update

from lyra_nli.errors import FeedbackError
from lyra_nli.feedback.parameters import NEEDED_REASON, Parameter
from lyra_nli.feedback.patterns import covers
from lyra_nli.feedback.patterns import normalise_pattern as normalise_pattern
from lyra_nli.hosts import comparable, host_of
from lyra_nli.storage.engine import new_id, now, utc
from lyra_nli.storage.generation import Generation
from lyra_nli.storage.tables import domain_override_events, domain_override_rules

PATTERN = Parameter(
    "domain_pattern",
    "example.com for one host, *.example.com for all below it",
    required=True,
    max_chars=300,
)
PARAMETERS = (PATTERN, NEEDED_REASON)

_CREATED_BY = "feedback"  # what Lyra writes where nobody gave a name


@dataclass(frozen=True, slots=True)
class Rule:
    """One row of ``domain_override_rules``."""

    id: str
    domain_pattern: str
    decision: Literal["block", "unblock"]
    reason: str
    created_at: str
    updated_at: str
    is_active: bool
    created_by: str

    @property
    def changed_at(self) -> str:
        """When it was last written, in UTC."""
        return utc(self.updated_at) or utc(self.created_at)


@dataclass(frozen=True, slots=True)
class DomainDecision:
    """What the rules say about a URL.

    Attributes:
        rule: the one that decides; None when none applies.
        losing: rules that apply too, strongest first.
    """

    host: str
    decision: Literal["block", "unblock", "none"]
    rule: Rule | None
    why: str
    losing: tuple[Rule, ...] = ()


def list_rules(
    connection: Connection, generation: Generation, *, active_only: bool = True
) -> list[Rule]:
    """List the rules, newest first; none when the database has no such table."""
    table = domain_override_rules
    if not generation.has(table.name):
        return []
    statement = select(table)
    if active_only:
        statement = statement.where(table.c.is_active == 1)
    rules = [
        Rule(
            id=row.id,
            domain_pattern=row.domain_pattern,
            decision=row.decision,
            reason=row.reason or "",
            created_at=str(row.created_at or ""),
            updated_at=str(row.updated_at or ""),
            is_active=bool(row.is_active),
            created_by=row.created_by or "",
        )
        for row in connection.execute(statement)
    ]
    return sorted(rules, key=lambda rule: (rule.changed_at, rule.id), reverse=True)


def explain(connection: Connection, generation: Generation, url: str) -> DomainDecision:
    """Say what the rules decide for a URL or a host, and why.

    An exact pattern is stronger than any ``*.``; of those the longest is; then the newest.

    Raises:
        FeedbackError: when there is no host in it.
    """
    host = host_of(url)
    ranked = sorted(  # stable: the newest come first already
        (
            rule
            for rule in list_rules(connection, generation)
            if covers(comparable(rule.domain_pattern), host)
        ),
        key=lambda rule: (rule.domain_pattern.startswith("*."), -len(rule.domain_pattern)),
    )
    if not ranked:
        return DomainDecision(host, "none", None, f"no active rule covers {host}")
    winner, *losing = ranked
    return DomainDecision(host, winner.decision, winner, _why(winner, losing), tuple(losing))


def perform_block(
    connection: Connection, generation: Generation, values: Mapping[str, str], who: str
) -> dict[str, object]:
    """Answer the action ``domain_block``."""
    return _decide(connection, generation, "block", values, who)


def perform_unblock(
    connection: Connection, generation: Generation, values: Mapping[str, str], who: str
) -> dict[str, object]:
    """Answer the action ``domain_unblock``."""
    return _decide(connection, generation, "unblock", values, who)


def perform_clear(
    connection: Connection, generation: Generation, values: Mapping[str, str], who: str
) -> dict[str, object]:
    """Answer the action ``domain_clear_override``: deactivate the pattern's rules.

    Also clears patterns that would be refused today, as another program has stored them.
    """
    given = comparable(values[PATTERN.name])
    rules = _rules_of(connection, generation, given)
    if not rules:
        pattern = normalise_pattern(given)
        raise FeedbackError(
            f"there is no active rule for {pattern!r}",
            code="wrong_value",
            parameter=PATTERN.name,
            expected="the pattern of an active rule",
            hint="`lyra-nli domains list` shows them.",
        )
    table = domain_override_rules
    connection.execute(
        update(table)
        .where(table.c.id.in_([rule.id for rule in rules]))
        .values(is_active=0, updated_at=now())
    )
    events = [_log(connection, rule, "clear", values["reason"], who) for rule in rules]
    return {
        "ok": True,
        "action": "domain_clear_override",
        "domain_pattern": given,
        "rule_id": rules[0].id,
        "event_id": events[0],
        "cleared_rules": len(rules),
        "message": f"{given}: no longer {rules[0].decision}ed; the default applies again.",
    }


def _decide(
    connection: Connection,
    generation: Generation,
    decision: Literal["block", "unblock"],
    values: Mapping[str, str],
    who: str,
) -> dict[str, object]:
    """Make the pattern's rule, or change the active one."""
    pattern, reason = normalise_pattern(values[PATTERN.name]), values["reason"]
    at, table = now(), domain_override_rules
    present = _rules_of(connection, generation, pattern)
    if present:
        rule_id = present[0].id
        connection.execute(
            update(table)
            .where(table.c.id == rule_id)
            .values(decision=decision, reason=reason, updated_at=at)
        )
    else:
        rule_id = new_id("dor")
        connection.execute(
            insert(table).values(
                id=rule_id,
                domain_pattern=pattern,
                decision=decision,
                reason=reason,
                created_at=at,
                updated_at=at,
                is_active=1,
                created_by=who or _CREATED_BY,
            )
        )
    rule = next(rule for rule in _rules_of(connection, generation, pattern) if rule.id == rule_id)
    return {
        "ok": True,
        "action": f"domain_{decision}",
        "domain_pattern": pattern,
        "decision": decision,
        "previous_decision": present[0].decision if present else None,
        "rule_id": rule_id,
        "event_id": _log(connection, rule, decision, reason, who),
        "message": f"{pattern}: {decision}ed. {_reach(pattern)}",
    }


def _rules_of(connection: Connection, generation: Generation, pattern: str) -> list[Rule]:
    """Find a pattern's active rules, newest first."""
    rules = list_rules(connection, generation)
    return [rule for rule in rules if comparable(rule.domain_pattern) == pattern]


def _log(connection: Connection, rule: Rule, decision: str, reason: str, who: str) -> str:
    event_id = new_id("doe")
    action = "domain_clear_override" if decision == "clear" else f"domain_{decision}"
    connection.execute(
        insert(domain_override_events).values(
            id=event_id,
            rule_id=rule.id,
            action=action,
            domain_pattern=rule.domain_pattern,
            decision=decision,
            reason=reason,
            created_at=now(),
            created_by=who or _CREATED_BY,
        )
    )
    return event_id


def _reach(pattern: str) -> str:
    if pattern.startswith("*."):
        return f"It covers every host below {pattern[2:]}, not {pattern[2:]} itself."
    return f"It covers this one host; *.{pattern} covers those below it."


def _why(winner: Rule, losing: list[Rule]) -> str:
    exact = not winner.domain_pattern.startswith("*.")
    words = (
        f"{winner.domain_pattern} is the host itself"
        if exact
        else (f"the host is below {winner.domain_pattern[2:]}")
    )
    if not losing:
        return f"{words}; no other rule applies"
    second = losing[0]
    if comparable(second.domain_pattern) == comparable(winner.domain_pattern):
        return f"{words}; of the rules for it, this one is the newest"
    return (
        f"{words}, and an exact rule comes first"
        if exact
        else (f"{words}, the longest of the suffixes that apply")
    )
