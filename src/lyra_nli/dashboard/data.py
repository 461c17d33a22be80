"""The page of data: what people reviewed, how far they agree, and what waits for them."""

from __future__ import annotations

from dataclasses import asdict
from datetime import UTC, date, datetime, timedelta
from typing import Any, Final

from sqlalchemy import Connection, and_, case, func, select

from lyra_nli.dashboard import stamps
from lyra_nli.dashboard.queues import queue, scored
from lyra_nli.dashboard.view import Fields, View
from lyra_nli.feedback.sampling import SamplingCounts, count_sampling
from lyra_nli.feedback.seconds import Agreement, agreement
from lyra_nli.monitoring.shares import Share
from lyra_nli.storage.generation import Generation
from lyra_nli.storage.reviews import ReviewCounts, count_reviews
from lyra_nli.storage.tables import nli_reviews

DAYS: Final = 90
REVIEWERS: Final = 25
_REVIEWS: Final = {"nli_reviews": ("undone_at", "sampling")}


def data(view: View) -> Fields:
    """Reviews by day and by person, agreement, queue and suspects."""
    agreed: Agreement | None = view.ask(
        "the agreement of reviewers",
        None,
        lambda connection, _: agreement(connection),
        needs={**_REVIEWS, "nli_second_reviews": ("label",)},
        stamp=stamps.of_reviews,
    )
    return {
        "days": days(view),
        "totals": totals(view),
        "reviewers": reviewers(view),
        "agreement": agreed and {**asdict(agreed), "text": agreed.text},
        "queue": queue(view),
        "suspects": scored(view, "suspect"),
    }


def counts_of(view: View) -> ReviewCounts:
    """Everything that people said, in Lyra's own tables too."""
    return view.ask(
        "the number of reviews",
        ReviewCounts(0, 0, 0),
        count_reviews,
        needs={},
        stamp=stamps.of_verdicts,
    )


def totals(view: View) -> Fields:
    """How many reviews there are, and how they were drawn."""
    counts = counts_of(view)
    drawn = view.ask(
        "how reviews were drawn",
        SamplingCounts(),
        count_sampling,
        needs=_REVIEWS,
        stamp=stamps.of_reviews,
    )
    undone = view.ask("undone reviews", 0, _undone, needs=_REVIEWS, stamp=stamps.of_reviews)
    return {
        "reviewed": counts.reviewed,
        "corrected": counts.corrected,
        "corrected_unused": counts.corrected_unused,
        "random": drawn.random,
        "queue": drawn.queue,
        "unknown": drawn.unknown,
        "undone": undone,
        "correction_rate": Share(drawn.random_corrected, drawn.random).to_dict(),
    }


def days(view: View) -> list[Fields]:
    """The reviews of the last days, those without any among them; none without reviews."""
    today = datetime.now(UTC).date()
    first = today - timedelta(days=DAYS - 1)
    found: dict[str, Fields] = view.ask(
        "the reviews by day",
        {},
        lambda connection, _: _by_day(connection, first),
        needs=_REVIEWS,
        stamp=lambda connection, generation: (stamps.of_reviews(connection, generation), first),
    )
    late = sum(row["reviewed"] for day, row in found.items() if day > today.isoformat())
    if late:
        view.notes.append(
            f"{late} reviews bear a time that has not come yet: some clock was wrong. They stand "
            "in no day."
        )
    if not found:
        return []
    wanted = [(first + timedelta(days=number)).isoformat() for number in range(DAYS)]
    nothing = dict.fromkeys(("reviewed", "corrected", "agreed", "random", "queue", "unknown"), 0)
    return [{"day": day, **found.get(day, nothing)} for day in wanted]


def _by_day(connection: Connection, first: date) -> dict[str, Fields]:
    review = nli_reviews.c
    day = func.substr(review.reviewed_at, 1, 10)
    changed = review.predicted_label != review.correct_label
    columns: list[Any] = [
        func.count(),
        func.count(case((changed, 1))),
        *(func.count(case((review.sampling == how, 1))) for how in ("random", "queue", "unknown")),
    ]
    statement = (
        select(day, *columns)
        .where(and_(review.reviewed_at >= first.isoformat(), review.undone_at.is_(None)))
        .group_by(day)
    )
    return {
        str(when): {
            "reviewed": n,
            "corrected": corrected,
            "agreed": n - corrected,
            "random": random,
            "queue": queued,
            "unknown": unknown,
        }
        for when, n, corrected, random, queued, unknown in connection.execute(statement)
    }


def reviewers(view: View) -> list[Fields]:
    """Who reviewed how much, the most first; an empty name is nobody's."""
    return view.ask("the reviewers", [], _reviewers, needs=_REVIEWS, stamp=stamps.of_reviews)


def _reviewers(connection: Connection, _: Generation) -> list[Fields]:
    review = nli_reviews.c
    changed = review.predicted_label != review.correct_label
    statement = (
        select(
            review.reviewer,
            func.count().label("reviewed"),
            func.count(case((changed, 1))).label("corrected"),
            func.max(review.reviewed_at).label("last"),
        )
        .where(review.undone_at.is_(None))
        .group_by(review.reviewer)
        .order_by(func.count().desc(), review.reviewer)
        .limit(REVIEWERS)
    )
    return [dict(row) for row in connection.execute(statement).mappings()]


def _undone(connection: Connection, _: Generation) -> int:
    undone = nli_reviews.c.undone_at.is_not(None)
    return connection.execute(select(func.count()).where(undone)).scalar_one()
