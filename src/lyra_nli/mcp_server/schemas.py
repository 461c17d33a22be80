"""JSON schemas of what the tools take and give, made from the descriptions of the arguments.

No schema combines alternatives at its root (`oneOf`, `anyOf`, `allOf`): the protocol allows
it, but the interfaces of several language models refuse such tools.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from lyra_nli.feedback.parameters import Parameter

Schema = dict[str, object]


@dataclass(frozen=True, slots=True)
class Count(Parameter):
    """A whole number between two bounds."""

    least: int = 0
    most: int = 1_000_000

    @property
    def expected(self) -> str:
        """What may stand here, in words."""
        return f"a whole number from {self.least} to {self.most}"

    def fault(self, value: object) -> tuple[str, str] | None:
        """Tell the code and the words of what is wrong with a value; None when nothing is."""
        if value is None:
            return ("missing", "is missing") if self.required else None
        if not isinstance(value, int) or isinstance(value, bool):
            return "wrong_type", f"expected {self.expected}, found {type(value).__name__}"
        if not self.least <= value <= self.most:
            return "wrong_value", f"expected {self.expected}, found {value}"
        return None


def input_schema(parameters: Iterable[Parameter]) -> Schema:
    """An object with these arguments and no other."""
    parameters = tuple(parameters)
    return {
        "type": "object",
        "properties": {parameter.name: _property(parameter) for parameter in parameters},
        "required": [parameter.name for parameter in parameters if parameter.required],
        "additionalProperties": False,
    }


def two_shapes(actions: Mapping[str, Iterable[Parameter]], action: str) -> Schema:
    """An action with its arguments beside it, or in ``args``: both ways are in use.

    Args:
        actions: name -> its arguments.
        action: what an action is, in a sentence.
    """
    optional: Schema = {}
    for parameters in actions.values():
        optional |= {parameter.name: _property(parameter) for parameter in parameters}
    return {
        "type": "object",
        "properties": {
            "action": {"type": "string", "enum": list(actions), "description": action},
            **optional,
            "args": {
                "type": "object",
                "description": "The action's arguments, where they do not stand beside it.",
                "properties": optional,
                "additionalProperties": False,
            },
            "task_id": {"type": ["string", "null"], "description": "Ignored; Lyra sends it."},
        },
        "required": ["action"],
        "additionalProperties": False,
    }


def answer(required: Mapping[str, Schema], **optional: Schema) -> Schema:
    """An object with ``ok`` and these fields; more may be added one day."""
    return {
        "type": "object",
        "properties": {"ok": {"const": True}, **required, **optional},
        "required": ["ok", *required],
    }


def text(description: str = "", *, null: bool = False) -> Schema:
    """A text; `null` when it may be absent."""
    return _described({"type": ["string", "null"] if null else "string"}, description)


def number(description: str = "", *, whole: bool = False, null: bool = False) -> Schema:
    """A number; `null` when it may be absent."""
    kind = "integer" if whole else "number"
    return _described({"type": [kind, "null"] if null else kind}, description)


def listed(items: Schema, description: str = "") -> Schema:
    """An array."""
    return _described({"type": "array", "items": items}, description)


def record(
    properties: Mapping[str, Schema], description: str = "", *, null: bool = False
) -> Schema:
    """An object, all of whose fields are there."""
    shape: Schema = {
        "type": ["object", "null"] if null else "object",
        "properties": dict(properties),
        "required": list(properties),
    }
    return _described(shape, description)


def choice(*values: str) -> Schema:
    """One of these texts."""
    return {"type": "string", "enum": list(values)}


def _property(parameter: Parameter) -> Schema:
    shape: Schema = {"type": "string", "description": parameter.description}
    if isinstance(parameter, Count):
        shape |= {"type": "integer", "minimum": parameter.least, "maximum": parameter.most}
    elif parameter.choices:
        shape["enum"] = list(parameter.choices)
    else:
        shape["maxLength"] = parameter.max_chars
    return shape


def _described(shape: Schema, description: str) -> Schema:
    return {**shape, "description": description} if description else shape
