"""The three judgements, and how a model's own class order maps onto them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal, cast, get_args

from lyra_nli.errors import InputError, ModelError

Label = Literal["supports", "refutes", "neutral"]
LABELS: Final[tuple[Label, ...]] = get_args(Label)
"""The order of every probability and logit vector in this project."""

INDEX: Final[Mapping[Label, int]] = {label: index for index, label in enumerate(LABELS)}

_SYNONYMS: Final[Mapping[str, Label]] = {
    "supports": "supports",
    "entailment": "supports",
    "entail": "supports",
    "entails": "supports",
    "refutes": "refutes",
    "contradiction": "refutes",
    "contradict": "refutes",
    "contradicts": "refutes",
    "neutral": "neutral",
}


def parse_label(text: object) -> Label:
    """Read one of the three labels, exactly as Lyra writes them.

    Raises:
        InputError: for anything else, synonyms included: a label that was meant for
            another system is better refused than guessed.
    """
    if isinstance(text, str) and text in LABELS:
        return text
    raise InputError(f"unknown label {text!r}: expected one of {', '.join(LABELS)}")


@dataclass(frozen=True, slots=True)
class LabelMap:
    """Where a model keeps each of the three labels.

    Attributes:
        order: for each of ``LABELS``, the index of that class in the model's logits.
        raw_names: the model's own names, in the order of ``LABELS``.
    """

    order: tuple[int, int, int]
    raw_names: tuple[str, str, str]

    @classmethod
    def from_id2label(cls, id2label: Mapping[int, str]) -> LabelMap:
        """Map a transformers ``config.id2label`` onto the three labels.

        Raises:
            ModelError: when the classes are not exactly entailment / contradiction /
                neutral under names that are known.
        """
        found: dict[Label, int] = {}
        unknown = []
        for index, name in id2label.items():
            label = _SYNONYMS.get(str(name).strip().lower())
            if label is None or label in found:
                unknown.append(f"{index}: {name!r}")
            else:
                found[label] = int(index)
        if unknown or sorted(found.values()) != [0, 1, 2]:
            raise ModelError(
                f"the model's labels {dict(id2label)!r} can't be mapped to {', '.join(LABELS)}",
                problems=unknown,
                hint="Name the classes entailment, contradiction and neutral in the model's "
                "config.json (id2label).",
            )
        order = cast("tuple[int, int, int]", tuple(found[label] for label in LABELS))
        names = cast("tuple[str, str, str]", tuple(str(id2label[i]) for i in order))
        return cls(order=order, raw_names=names)
