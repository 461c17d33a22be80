"""The tools: what an assistant reads about each, and the one function behind it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from mcp_types import Tool, ToolAnnotations
from sqlalchemy import Engine

from lyra_nli.feedback import calibration
from lyra_nli.feedback.actions import ACTIONS, Action, perform, unwrap
from lyra_nli.feedback.calibration_answers import EVERY_MODEL
from lyra_nli.feedback.parameters import IDEMPOTENCY_KEY, NEEDED_REASON, REASON, Parameter, check
from lyra_nli.feedback.queue import ORDERS, next_items
from lyra_nli.feedback.undo import REVIEW_ID, undo_review
from lyra_nli.mcp_server import answers
from lyra_nli.mcp_server.schemas import Count, Schema, input_schema, two_shapes
from lyra_nli.records import BASE
from lyra_nli.settings import Settings

Arguments = Mapping[str, Any]
Answer = dict[str, object]


@dataclass(frozen=True, slots=True)
class Desk:
    """What the tools work on, and for whom.

    Attributes:
        who: the person, for the record.
    """

    engine: Engine
    settings: Settings
    who: str


@dataclass(frozen=True, slots=True)
class FeedbackTool:
    """A tool as the protocol describes it, and the function that answers its calls."""

    description: Tool
    call: Callable[[Desk, Arguments], Answer]


def _tool(
    call: Callable[[Desk, Arguments], Answer],
    name: str,
    title: str,
    words: str,
    takes: Schema,
    gives: Schema,
    *,
    reads_only: bool = False,
    destructive: bool = False,
) -> FeedbackTool:
    hints = ToolAnnotations(
        title=title,
        read_only_hint=reads_only,
        destructive_hint=destructive,
        idempotent_hint=reads_only,
        open_world_hint=False,
    )
    description = Tool(
        name=name,
        title=title,
        description=words,
        input_schema=takes,
        output_schema=gives,
        annotations=hints,
    )
    return FeedbackTool(description, call)


# --- feedback -----------------------------------------------------------------------------


def _feedback(desk: Desk, arguments: Arguments) -> Answer:
    action, args = unwrap(arguments)
    key: Any = args.pop(IDEMPOTENCY_KEY.name, None)
    return perform(desk.engine, action, args, who=desk.who, idempotency_key=key)


def _usage(action: Action) -> str:
    """Write an action as a call: ``- claim_reject(claim_id, reason): Take a claim out.``."""
    names = (f"{each.name}{'' if each.required else '?'}" for each in action.parameters)
    return f"- {action.name}({', '.join(names)}): {action.description}"


FEEDBACK = _tool(
    _feedback,
    "feedback",
    "Give feedback",
    "Record what the user says about the evidence. Only the user decides: never "
    "call this with a verdict of your own. `edge_correct` with the present relation records "
    "that the user agrees, which is worth as much as a correction.\n"
    + "\n".join(map(_usage, ACTIONS.values())),
    two_shapes(
        {name: (*action.parameters, IDEMPOTENCY_KEY) for name, action in ACTIONS.items()},
        "What the user wants to say.",
    ),
    answers.FEEDBACK,
    destructive=any(action.destructive for action in ACTIONS.values()),
)

# --- calibration_metrics ------------------------------------------------------------------

_SOURCE = Parameter(
    "source",
    f"an adapter version's name, or `{BASE}`; `{EVERY_MODEL}` for all together (the default)",
)
_METRICS: Mapping[str, tuple[Callable[..., Answer], tuple[Parameter, ...]]] = {
    "get_stats": (calibration.get_stats, ()),
    "evaluate": (
        calibration.evaluate,
        (_SOURCE, Count("min_samples", "refuse with fewer reviews", least=2)),
    ),
    "get_evaluations": (
        calibration.get_evaluations,
        (Count("limit", "at most so many, newest first", least=1, most=1000), _SOURCE),
    ),
    "get_diagram_data": (
        calibration.get_diagram_data,
        (Parameter("evaluation_id", "of which evaluation; the newest by default"), _SOURCE),
    ),
}
_METRIC = Parameter("action", "what to do", required=True, choices=tuple(_METRICS), noun="action")


def _metrics(desk: Desk, arguments: Arguments) -> Answer:
    check([_METRIC], {"action": arguments.get("action")})
    function, parameters = _METRICS[arguments["action"]]
    given = _given((_METRIC, *parameters), arguments)
    del given["action"]
    if function is calibration.evaluate:
        nli = desk.settings.nli
        given |= {"base_model": nli.fast_model, "directory": Path(nli.adapters_dir)}
        given |= {"who": desk.who}
    return function(desk.engine, **given)


CALIBRATION_METRICS = _tool(
    _metrics,
    "calibration_metrics",
    "Calibration of the model's confidence",
    "Is the model as often right as its confidence says, judged by the user's "
    "reviews?\n"
    "- get_stats(): how many reviews there are, the current calibration, the newest figures.\n"
    "- evaluate(source?, min_samples?): measure now (Brier score, calibration error, all with "
    "intervals). For one model version also fit what corrects its confidence and keep it, if "
    "enough of its reviewed edges were drawn at random.\n"
    "- get_evaluations(limit?, source?): earlier figures.\n"
    "- get_diagram_data(evaluation_id?, source?): the bars of a reliability diagram.",
    input_schema(
        dict.fromkeys((_METRIC, *(each for _, some in _METRICS.values() for each in some)))
    ),
    answers.CALIBRATION_METRICS,
)

# --- calibration_rollback -----------------------------------------------------------------

_ROLLBACK = (
    NEEDED_REASON,
    Count("version", "make this one current; 0: none. By default the one before the present one"),
    Parameter("source", "of which model version; by default the one whose calibration is newest"),
)


def _rollback(desk: Desk, arguments: Arguments) -> Answer:
    given = _given(_ROLLBACK, arguments)
    if given.get("source") == BASE:  # every base has one; `evaluate` measures this one's
        given["base_model"] = desk.settings.nli.fast_model
    return calibration.rollback(desk.engine, **given, who=desk.who)


CALIBRATION_ROLLBACK = _tool(
    _rollback,
    "calibration_rollback",
    "Roll back the calibration",
    "Make an earlier calibration of the model's confidence current again. Ask the user first.",
    input_schema(_ROLLBACK),
    answers.CALIBRATION_ROLLBACK,
    destructive=True,
)

# --- review_queue -------------------------------------------------------------------------

_QUEUE = (
    Parameter(
        "order",
        "which edges first: uncertain (the default), disagree (models differ), suspect (human "
        "labels to look at again), random (a sample), recent",
        choices=ORDERS,
        noun="order",
    ),
    Count("limit", "at most so many (default 1)", least=1, most=20),
)


def _queue(desk: Desk, arguments: Arguments) -> Answer:
    given = _given(_QUEUE, arguments)
    review = desk.settings.review
    # Second looks are blind, which an assistant that has read the database can't be.
    items = next_items(
        desk.engine,
        **given,
        reviewer=desk.who,
        random_share=review.random_share,
        second_share=0.0,
        lease_seconds=review.lease_seconds,
    )
    return {
        "ok": True,
        "items": [asdict(item) for item in items],
        "message": f"{len(items)} edge(s) to review." if items else "Nothing is left to review.",
    }


REVIEW_QUEUE = _tool(
    _queue,
    "review_queue",
    "What to review next",
    "The edges most worth a human's look. Show the user the premise, the "
    "hypothesis and the source, ask whether the one supports, refutes or is neutral towards "
    "the other, and record the answer by `feedback` with action edge_correct, passing on "
    "`edge_id`, `edge_version` and `lease`. A share is drawn at random whatever the "
    "order; those tell how often the model errs, so leave none of them out. Nobody else gets "
    "these edges for a while, and the next call gives others: take as many as you will ask.",
    input_schema(_QUEUE),
    answers.REVIEW_QUEUE,
)

# --- review_undo --------------------------------------------------------------------------

_UNDO = (REVIEW_ID, REASON)


def _undo(desk: Desk, arguments: Arguments) -> Answer:
    return undo_review(desk.engine, **_given(_UNDO, arguments), who=desk.who)


REVIEW_UNDO = _tool(
    _undo,
    "review_undo",
    "Take a review back",
    "Undo a verdict that `feedback` recorded by edge_correct: the edge is as it was before, "
    "and nothing is learned from the verdict. Only the newest review of an edge can be undone.",
    input_schema(_UNDO),
    answers.REVIEW_UNDO,
    destructive=True,
)

TOOLS: Mapping[str, FeedbackTool] = {
    tool.description.name: tool
    for tool in (FEEDBACK, CALIBRATION_METRICS, CALIBRATION_ROLLBACK, REVIEW_QUEUE, REVIEW_UNDO)
}


def _given(parameters: tuple[Parameter, ...], arguments: Arguments) -> dict[str, Any]:
    """The arguments that are there, checked; null and "" are the same as absent."""
    check(parameters, arguments)
    return {name: value for name, value in arguments.items() if value not in (None, "")}
