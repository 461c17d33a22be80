"""The six actions: one code path behind MCP, HTTP and Python."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

from sqlalchemy import Connection, Engine

from lyra_nli.errors import FeedbackError
from lyra_nli.feedback import claims, domains, edges
from lyra_nli.feedback.idempotency import once
from lyra_nli.feedback.parameters import WHO, Parameter, check
from lyra_nli.storage.engine import write
from lyra_nli.storage.generation import Generation, inspect_database

Run = Callable[[Connection, Generation, dict[str, str], str], dict[str, object]]


@dataclass(frozen=True, slots=True)
class Action:
    """One thing that a person can say about the evidence.

    Attributes:
        destructive: it overwrites or withdraws something that stood.
    """

    name: str
    level: Literal["domain", "claim", "edge"]
    description: str
    parameters: tuple[Parameter, ...]
    destructive: bool
    run: Run


_ALL = (
    Action(
        "domain_block",
        "domain",
        "Take nothing from these hosts any more.",
        domains.PARAMETERS,
        destructive=True,
        run=domains.perform_block,
    ),
    Action(
        "domain_unblock",
        "domain",
        "Let these hosts through, whatever else says otherwise.",
        domains.PARAMETERS,
        destructive=False,
        run=domains.perform_unblock,
    ),
    Action(
        "domain_clear_override",
        "domain",
        "Withdraw the rule for this pattern; the default applies again.",
        domains.PARAMETERS,
        destructive=True,
        run=domains.perform_clear,
    ),
    Action(
        "claim_reject",
        "claim",
        "Take a claim out of the evidence.",
        claims.REJECT_PARAMETERS,
        destructive=True,
        run=claims.perform_reject,
    ),
    Action(
        "claim_restore",
        "claim",
        "Put a rejected claim back.",
        claims.RESTORE_PARAMETERS,
        destructive=False,
        run=claims.perform_restore,
    ),
    Action(
        "edge_correct",
        "edge",
        "Say how a fragment really stands to a claim, or confirm what the model said.",
        edges.PARAMETERS,
        destructive=True,
        run=edges.perform_edge_correct,
    ),
)

ACTIONS: Mapping[str, Action] = {action.name: action for action in _ALL}


def perform(
    engine: Engine,
    action: str,
    args: Mapping[str, object],
    *,
    who: str = "",
    idempotency_key: str | None = None,
) -> dict[str, object]:
    """Do one action in one transaction.

    Args:
        engine: a database opened for writing.
        action: one of `ACTIONS`.
        args: its parameters; all are texts, and None means absent.
        who: the person, for the record.
        idempotency_key: the same key with the same request again does nothing and gives
            the first answer, for a week.

    Returns:
        The answer as plain JSON values: ``ok``, ``action``, ``message`` and what is new.

    Raises:
        FeedbackError: naming everything that is wrong with the request at once, or why it
            can't be done.
        ConflictError: when somebody else has changed the edge meanwhile.
        StorageError: when the database was not upgraded or can't be written.
    """
    chosen = _find(action)
    values = check(chosen.parameters, args)
    check([WHO], {WHO.name: who})
    generation = inspect_database(engine)
    generation.require_upgraded()
    with write(engine) as connection:
        return once(
            connection,
            idempotency_key,
            [action, values, who],
            lambda: chosen.run(connection, generation, values, who),
        )


def unwrap(arguments: Mapping[str, object]) -> tuple[str, dict[str, object]]:
    """Read both shapes in use: ``{action, …}`` and ``{task_id?, action, args: {…}}``.

    Raises:
        FeedbackError: for a missing action, arguments of a wrong type, or a mixture.
    """
    rest = {name: value for name, value in arguments.items() if name not in ("task_id", "action")}
    action = arguments.get("action")
    if action is None:
        raise _wrong("missing", "action", _NAMES, "action: is missing")
    if not isinstance(action, str):
        raise _wrong("wrong_type", "action", _NAMES, "action: expected text")
    if rest.get("args") is None:
        rest.pop("args", None)
        return action, rest
    args = rest.pop("args")
    if not isinstance(args, Mapping):
        raise _wrong("wrong_type", "args", "an object", "args: expected an object of arguments")
    if rest:
        name = next(iter(rest))
        raise _wrong(
            "unknown_parameter",
            name,
            "all arguments inside args, or all beside action",
            f"arguments stand both in args and beside it: {', '.join(rest)}",
        )
    return action, dict(args)


_NAMES = f"one of {', '.join(ACTIONS)}"


def _find(action: str) -> Action:
    chosen = ACTIONS.get(action)
    if chosen is None:
        shown = f"there is no action {str(action)[:80]!r}"
        raise _wrong("unknown_action", "action", _NAMES, shown, hint=f"There is {_NAMES}.")
    return chosen


def _wrong(code: str, parameter: str, expected: str, words: str, hint: str = "") -> FeedbackError:
    return FeedbackError(words, code=code, parameter=parameter, expected=expected, hint=hint)
