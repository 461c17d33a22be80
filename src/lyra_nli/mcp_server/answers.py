"""The schemas of the tools' answers."""

from __future__ import annotations

from lyra_nli.feedback.actions import ACTIONS
from lyra_nli.feedback.queue import ORDERS
from lyra_nli.labels import LABELS
from lyra_nli.mcp_server.schemas import Schema, answer, choice, listed, number, record, text

_LABEL = choice(*LABELS)
_MESSAGE = text("what happened, in words for the user")
_SHARE = number("0 to 1")
_VERSION = number("number of a calibration; null: none", whole=True, null=True)

FEEDBACK = answer(
    {"action": choice(*ACTIONS), "message": _MESSAGE},
    edge_id=text(),
    previous_relation=_LABEL,
    new_relation=_LABEL,
    review_id=text("by which the verdict can be undone"),
    sample_id=text("the new row of corrections; null when the user agreed", null=True),
    claim_id=text(),
    previous_status=text("adopted or not_adopted"),
    new_status=text("adopted or not_adopted"),
    domain_pattern=text("as it was stored"),
    decision=choice("block", "unblock"),
    previous_decision=text("block or unblock; null without an earlier rule", null=True),
    rule_id=text(),
    event_id=text("the row of the audit log"),
    cleared_rules=number(whole=True),
)

_FIGURES: dict[str, Schema] = {
    "evaluation_id": text(),
    "source": text("a model version, or nli for all"),
    "samples": number(whole=True),
    "brier_score": number("of the confidence as it is; 0 is perfect"),
    "brier_score_calibrated": number("corrected, on reviews it was not fitted on", null=True),
    "improvement_ratio": number("the share of the Brier score that goes away", null=True),
    "expected_calibration_error": number("0 to 1", null=True),
    "calibration_version": _VERSION,
    "evaluated_at": text("ISO-8601"),
}
_EVALUATION = record(_FIGURES)
_EVALUATION_OR_NULL = record(_FIGURES, "the newest; null before the first", null=True)
_POPULATION = choice("random", "all")
_CALIBRATION: dict[str, Schema] = {
    "version": number(whole=True),
    "base_model": text(),
    "source": text("the model version whose confidence it corrects"),
    "method": text("identity, temperature, platt, isotonic or vector"),
    "params": {"type": "object"},
    "slope": number("of platt", null=True),
    "intercept": number("of platt", null=True),
    "samples": number(whole=True),
    "metrics": {"type": "object"},
    "created_at": text("ISO-8601"),
    "is_current": {"type": "boolean"},
}
_CURRENT = record(
    _CALIBRATION, "the newest; null: confidences stand as the model gives them", null=True
)
_BAR: dict[str, Schema] = {
    "low": _SHARE,
    "high": _SHARE,
    "n": number(whole=True),
    "confidence": number("mean; null without rows", null=True),
    "accuracy": number("share of agreed reviews", null=True),
    "accuracy_low": number("95% Wilson interval", null=True),
    "accuracy_high": number("95% Wilson interval", null=True),
}
_BIN = record({**_BAR, "calibrated": record(_BAR, "rows whose corrected confidence is here")})

CALIBRATION_METRICS = answer(
    {"action": choice("get_stats", "evaluate", "get_evaluations", "get_diagram_data")},
    message=_MESSAGE,
    # get_stats
    samples=number("reviews that can be evaluated", whole=True),
    samples_wanted=number(whole=True),
    population=_POPULATION,
    random_samples=number("drawn at random", whole=True),
    random_samples_wanted=number("for a calibration", whole=True),
    without_confidence=number("reviews whose confidence nobody kept", whole=True),
    sources={"type": "object", "additionalProperties": {"type": "integer"}},
    current=_CURRENT,
    calibrations=listed(record(_CALIBRATION), "the current one of every model version"),
    latest_evaluation=_EVALUATION_OR_NULL,
    # evaluate
    **{name: shape for name, shape in _FIGURES.items() if name != "samples"},
    expected_calibration_error_calibrated=number("0 to 1"),
    method=text("what did best out of fold; identity: the confidence as it is"),
    slope=number("of platt", null=True),
    intercept=number("of platt", null=True),
    refused={"type": "object", "description": "method: why it was not in the running"},
    metrics={"type": "object", "description": "every figure with its interval, before and after"},
    accepted={"type": "boolean", "description": "the new calibration is kept, and current"},
    # get_evaluations, get_diagram_data
    evaluations=listed(_EVALUATION, "newest first"),
    evaluation=_EVALUATION,
    # Lyra's own evaluations may have bars of another shape.
    bins=listed({**_BIN, "required": []}),
)

CALIBRATION_ROLLBACK = answer(
    {
        "action": choice("rollback"),
        "base_model": text(),
        "source": text("the model version whose calibration changed"),
        "from_version": _VERSION,
        "to_version": _VERSION,
        "message": _MESSAGE,
    }
)

_REVIEWED_BEFORE = record(
    {"label": _LABEL, "reviewer": text(), "reviewed_at": text()},
    "the verdict that stands; null without one",
    null=True,
)
_SITE = record(
    {
        "host": text(),
        "decision": choice("block", "unblock", "none"),
        "why": text(),
        "pattern": text("of the domain rule that decides; empty without one"),
        "reason": text(),
    },
    "what the domain rules say about the source; null when it has no address",
    null=True,
)
_ITEM = record(
    {
        "edge_id": text("for edge_correct"),
        "premise": text("what the source says"),
        "hypothesis": text("the claim"),
        "relation": {**_LABEL, "description": "the label that stands"},
        "confidence": number("the model's, 0 to 1; null when nobody kept it", null=True),
        "reason_for": choice(*ORDERS),
        "sampling": choice("random", "queue"),
        "edge_version": text("for edge_correct"),
        "lease": text("for edge_correct: keeps others from this edge, and knows the sampling"),
        "source_url": text(),
        "page_title": text(),
        "task_id": text(null=True),
        "score": number("how suspect or how disputed", null=True),
        "reviewed_before": _REVIEWED_BEFORE,
        "claim_id": text("for claim_reject", null=True),
        "claim_adoption_status": text("not_adopted when a person rejected the claim"),
        "claim_rejection_reason": text(),
        "site": _SITE,
    }
)

REVIEW_QUEUE = answer({"items": listed(_ITEM), "message": _MESSAGE})

REVIEW_UNDO = answer(
    {
        "action": choice("undo"),
        "review_id": text(),
        "edge_id": text("null for an imported review", null=True),
        "restored_relation": text("what the edge says again; null without an edge", null=True),
        "message": _MESSAGE,
    }
)
