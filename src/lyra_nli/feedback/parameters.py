"""The arguments of an action: described once, for whoever calls it and for its schema."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches

from lyra_nli.errors import FeedbackError
from lyra_nli.feedback.fields import MAX_NOTE_CHARS, fault


@dataclass(frozen=True, slots=True)
class Parameter:
    """One argument; every argument of every action is a text.

    Attributes:
        choices: the only values it may have; empty when it is free text.
        noun: what a value that is none of the choices is called.
    """

    name: str
    description: str
    required: bool = False
    choices: tuple[str, ...] = ()
    max_chars: int = 200
    noun: str = "value"

    @property
    def expected(self) -> str:
        """What may stand here, in words."""
        if self.choices:
            return f"one of {', '.join(self.choices)}"
        return f"text of at most {self.max_chars:,} characters"

    def fault(self, value: object) -> tuple[str, str] | None:
        """Tell the code and the words of what is wrong with a value; None when nothing is."""
        if value is None or (value == "" and not self.required):
            return ("missing", "is missing") if self.required else None
        if not isinstance(value, str):
            return "wrong_type", f"expected text, found {type(value).__name__}"
        if self.choices:
            known = value in self.choices
            words = f"unknown {self.noun} {value[:80]!r}: expected {self.expected}"
            return None if known else ("wrong_value", words)
        if self.required and not value.strip():
            return "missing", "is empty"
        words = fault(value, self.max_chars)
        if words:
            return "too_long" if len(value) > self.max_chars else "wrong_value", words
        return None


REASON = Parameter("reason", "why, for the record", max_chars=MAX_NOTE_CHARS["reason"])
NEEDED_REASON = Parameter(
    "reason", "why, for the record", required=True, max_chars=MAX_NOTE_CHARS["reason"]
)
WHO = Parameter("who", "who does it")
IDEMPOTENCY_KEY = Parameter(
    "idempotency_key", "a text that is new for every intended write", required=True
)


def check(parameters: Iterable[Parameter], args: Mapping[str, object]) -> dict[str, str]:
    """Check all arguments at once.

    Returns:
        The arguments that are there, by name; None and "" mean that an optional one is not.

    Raises:
        FeedbackError: naming every fault: unknown, missing, of a wrong type, too long, ….
    """
    known = {parameter.name: parameter for parameter in parameters}
    details = [_unknown(name, known) for name in args if name not in known]
    for name, parameter in known.items():
        found = parameter.fault(args.get(name))
        if found:
            code, words = found
            details.append(_detail(code, name, parameter.expected, f"{name}: {words}"))
    refuse(details)
    return {name: value for name, value in args.items() if value and isinstance(value, str)}


def refuse(details: list[dict[str, str]]) -> None:
    """Raise one error for all faults.

    Raises:
        FeedbackError: when there is any; code, parameter and expected are the first one's.
    """
    if not details:
        return
    first = details[0]
    messages = [detail["message"] for detail in details]
    several = len(details) > 1
    raise FeedbackError(
        f"{len(details)} arguments are wrong" if several else messages[0],
        code=first["code"],
        parameter=first["parameter"],
        expected=first["expected"],
        problems=messages if several else (),
        details=details,
    )


def _unknown(name: object, known: Mapping[str, Parameter]) -> dict[str, str]:
    shown = str(name)[:80]
    meant = get_close_matches(shown, known, n=1, cutoff=0.5)
    words = f"{shown!r}: unknown parameter" + (f"; did you mean {meant[0]}?" if meant else "")
    return _detail("unknown_parameter", shown, f"one of {', '.join(known)}", words)


def _detail(code: str, parameter: str, expected: str, message: str) -> dict[str, str]:
    return {"code": code, "parameter": parameter, "expected": expected, "message": message}
