"""What people say about the evidence, over HTTP: the routes behind the review page and Lyra."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from dataclasses import asdict
from typing import Annotated, Any

from fastapi import APIRouter, Header, Query, Request, Response
from pydantic import JsonValue

from lyra_nli.feedback import actions, queue
from lyra_nli.feedback.seconds import second_review
from lyra_nli.feedback.sites import look_up_site
from lyra_nli.feedback.undo import undo_review
from lyra_nli.ml_server.database import Database
from lyra_nli.ml_server.feedback_schemas import (
    FeedbackErrorResponse,
    NextResponse,
    ReleaseRequest,
    ReleaseResponse,
    SecondRequest,
    SiteResponse,
    UndoRequest,
)
from lyra_nli.ml_server.progress import review_progress
from lyra_nli.ml_server.wire import OwnPagesRoute, error_response
from lyra_nli.settings import ReviewSettings, Settings

_ERRORS: dict[int | str, dict[str, Any]] = {
    status: {"model": FeedbackErrorResponse, "description": words}
    for status, words in {
        403: "a page of another site asks, or the server is called by a foreign name",
        409: "somebody else changed the edge meanwhile",
        415: "the body is no application/json",
        422: "what is wrong, parameter by parameter",
        503: "the database is missing, was not upgraded, or can't be written",
    }.items()
}
IdempotencyKey = Annotated[
    str | None, Header(description="new for every intended write; sent again, it gives the same")
]

Reviewer = Annotated[str, Query(max_length=200, description="who does it")]


class FeedbackRoute(OwnPagesRoute):
    """A route that a browser may only use from a page of this server, and only with JSON."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Refuse bodies that a foreign page could send unasked."""
        handler = super().get_route_handler()

        async def handle(request: Request) -> Response:
            kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
            if request.method == "POST" and kind != "application/json":
                return error_response(415, "send the body as application/json")
            response = await handler(request)
            response.headers["Cache-Control"] = "no-store"
            response.headers["X-Content-Type-Options"] = "nosniff"
            return response

        return handle


def create_feedback_router(settings: Settings) -> APIRouter:
    """All endpoints that take and hand out feedback; none needs a model."""
    router = APIRouter(
        route_class=FeedbackRoute, prefix="/feedback", tags=["feedback"], responses=_ERRORS
    )
    database = Database(settings.storage)
    _writing(router, settings.review, database)
    _reading(router, settings, database)
    return router


def _writing(router: APIRouter, review: ReviewSettings, database: Database) -> None:
    # Plain functions: FastAPI runs each in a thread, so a busy database blocks nobody else.

    @router.post("")
    def feedback(
        body: dict[str, JsonValue], reviewer: Reviewer = "", idempotency_key: IdempotencyKey = None
    ) -> dict[str, Any]:
        """Do one of the six actions, in either shape: flat, or `{action, args: {...}}`."""
        action, args = actions.unwrap(body)
        return actions.perform(
            database.engine(), action, args, who=reviewer, idempotency_key=idempotency_key
        )

    @router.post("/second")
    def second(request: SecondRequest, idempotency_key: IdempotencyKey = None) -> dict[str, Any]:
        """Give a blind second verdict: it measures agreement, and changes no edge."""
        return second_review(database.engine(), **dict(request), idempotency_key=idempotency_key)

    @router.post("/undo")
    def undo(request: UndoRequest, idempotency_key: IdempotencyKey = None) -> dict[str, Any]:
        """Take a review back; `item` is its edge again, to judge it better."""
        engine = database.engine()
        done = undo_review(
            engine,
            request.review_id,
            who=request.reviewer,
            reason=request.reason,
            idempotency_key=idempotency_key,
        )
        again = queue.show_again(
            engine,
            request.review_id,
            reviewer=request.reviewer,
            lease_seconds=review.lease_seconds,
        )
        return {**done, "item": again and asdict(again)}

    @router.post("/release")
    def release(request: ReleaseRequest) -> ReleaseResponse:
        """Give an edge back to the queue unjudged."""
        return ReleaseResponse(released=queue.release(database.engine(), request.lease))


def _reading(router: APIRouter, settings: Settings, database: Database) -> None:
    @router.get("/next")
    def next_item(
        order: str = "uncertain",
        reviewer: Reviewer = "",
        skip: Annotated[list[str] | None, Query(max_length=500)] = None,
    ) -> NextResponse:
        """Hand out the next edge, leased to the reviewer for a while."""
        review = settings.review
        items = queue.next_items(
            database.engine(),
            order=order,
            reviewer=reviewer,
            random_share=review.random_share,
            second_share=review.second_share,
            lease_seconds=review.lease_seconds,
            skip=skip or (),
        )
        return NextResponse.model_validate({"item": asdict(items[0]) if items else None})

    @router.get("/site")
    def site(url: Annotated[str, Query(max_length=10_000)]) -> SiteResponse:
        """Tell what the domain rules say about the site of a page."""
        return SiteResponse.model_validate({"site": look_up_site(database.engine(), url)})

    @router.get("/progress")
    def progress(
        reviewer: Reviewer = "",
        day_start: Annotated[str, Query(max_length=40)] = "",
    ) -> dict[str, Any]:
        """Tell today's counts, what is left until training is due, and what reviews show."""
        return review_progress(database.engine(), settings, reviewer, day_start)
