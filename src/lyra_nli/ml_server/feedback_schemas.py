"""What the feedback routes take and give."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field, JsonValue

from lyra_nli.labels import Label
from lyra_nli.ml_server.schemas import ErrorResponse
from lyra_nli.records import Sampling

_ID = Field(max_length=200)
_NAME = Field("", max_length=200, description="who does it")


class Asked(BaseModel):
    """A body; an unknown field is an error, not a silent loss."""

    model_config = ConfigDict(extra="forbid")


class UndoRequest(Asked):
    """Which review to take back."""

    review_id: str = _ID
    reviewer: str = _NAME
    reason: str = ""


class SecondRequest(Asked):
    """A blind second verdict."""

    edge_id: str = _ID
    label: str
    reviewer: str = _NAME
    reason: str = ""
    lease: str | None = Field(None, max_length=200)


class ReleaseRequest(Asked):
    """An edge that goes back into the queue."""

    lease: str = _ID


class ReleaseResponse(BaseModel):
    """Whether there was such a lease."""

    ok: bool = True
    released: bool


class Site(BaseModel):
    """What the domain rules say about a source's host; see `feedback.sites`."""

    host: str
    decision: str = Field(description="`block`, `unblock` or `none`")
    why: str
    pattern: str = Field(description="of the rule that decides; empty without one")
    reason: str


class SiteResponse(BaseModel):
    """The site of a page; null when the URL is no address in the web."""

    ok: bool = True
    site: Site | None


class Item(BaseModel):
    """An edge to judge; see `feedback.queue.QueueItem`."""

    edge_id: str
    premise: str
    hypothesis: str
    relation: Label | None = Field(description="what stands; null in a blind second look")
    confidence: float | None
    reason_for: str = Field(description="the order that brought it up, `random`, or `second`")
    sampling: Sampling
    edge_version: str = Field(description="give it back with the verdict")
    source_url: str
    page_title: str
    task_id: str | None
    lease: str | None = Field(description="give it back with the verdict")
    purpose: str = Field(description="`first`: POST /feedback; `second`: POST /feedback/second")
    score: float | None
    detail: dict[str, JsonValue]
    reviewed_before: dict[str, str] | None
    claim_id: str | None
    claim_adoption_status: str = Field(description="`not_adopted`: a person rejected the claim")
    claim_rejection_reason: str
    site: Site | None


class NextResponse(BaseModel):
    """The next edge; null when nothing is left."""

    ok: bool = True
    item: Item | None


class FeedbackErrorResponse(ErrorResponse):
    """An error of the feedback routes: what is wrong, also for a program."""

    code: str = ""
    parameter: str = ""
    expected: str = ""
    details: list[dict[str, str]] = Field(
        [], description="all of it, when several things are wrong"
    )
