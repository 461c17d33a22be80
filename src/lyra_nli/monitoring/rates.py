"""How often each version errs, as far as the random reviews can say.

Only reviews that were drawn at random are a sample of what the model judges, see
`lyra_nli.feedback.sampling`. A judgement counts once, by its first random verdict that stands.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from functools import cache
from typing import Any, Final, NamedTuple

from sqlalchemy import ColumnElement, Connection, Select, and_, case, func, literal_column, select

from lyra_nli.labels import LABELS
from lyra_nli.monitoring.shares import Share
from lyra_nli.storage.generation import Generation
from lyra_nli.storage.tables import nli_predictions, nli_reviews

WEEKS: Final = 53
"""How far back weeks are shown."""

ALIKE: Final = 0.01
"""Two probabilities of one judgement differ by less: float types round otherwise."""

UNKNOWN: Final = "unknown"
"""The version of judgements of which nobody kept who made them."""


class RandomReview(NamedTuple):
    """The first random verdict on a judgement.

    Attributes:
        day: UTC, YYYY-MM-DD; empty when the time can't be read or has not come yet.
        version: the adapter version that judged, ``base``, or ``unknown``.
        predicted: the model's label.
        correct: the human's.
        brier: multi-class Brier score of the judgement, 0 to 2 (Brier, 1950, eq. 2); None
            when the log of predictions does not have it.
        confidence: what the server said of its label, calibrated where it was; None likewise.
        calibration: number of the calibration that gave it; None where none did.
    """

    day: str
    version: str
    predicted: str
    correct: str
    brier: float | None = None
    confidence: float | None = None
    calibration: int | None = None

    @property
    def corrected(self) -> bool:
        """The human changed the label."""
        return self.predicted != self.correct


@dataclass(frozen=True, slots=True)
class Week:
    """One version in one week.

    Attributes:
        week: ISO year and week, ``2026-W05``.
        start: its Monday.
        corrected: the correction rate; accuracy is what it leaves.
        brier: mean of those judgements that the log of predictions has.
        brier_n: how many those are.
    """

    week: str
    start: str
    version: str
    corrected: Share
    brier: float | None
    brier_n: int

    @property
    def accuracy(self) -> Share:
        """Share of judgements that people left as they were."""
        return Share(self.corrected.n - self.corrected.k, self.corrected.n)


def read_random_reviews(
    connection: Connection, generation: Generation, today: date | None = None
) -> list[RandomReview]:
    """Read the random reviews, oldest first; none where the database was never upgraded.

    The version is that which the review names, else that of the newest logged prediction of the
    same pair and label before the review.

    Args:
        connection: for reading.
        generation: what the database is.
        today: UTC; what is later by more than a day is left undated: some clock was wrong.
    """
    if not generation.has("nli_reviews", "undone_at", "predicted_by"):
        return []
    last = ((today or datetime.now(UTC).date()) + timedelta(days=1)).isoformat()
    seen: set[str] = set()
    found = []
    rows = connection.execute(_statement(generation))
    for judgement, at, version, predicted, correct, *logged in rows:
        if judgement in seen:
            continue
        seen.add(judgement)
        said = _said(predicted, correct, *logged) if logged else ()
        found.append(RandomReview(day_of(at, last), version or UNKNOWN, predicted, correct, *said))
    return found


def day_of(at: object, last: str) -> str:
    """The day of a time as the database has it; empty for no time, or one after `last`."""
    text = str(at)[:10]
    try:
        date.fromisoformat(text)
    except ValueError:
        return ""
    return text if text <= last else ""


def by_version(reviews: Iterable[RandomReview]) -> dict[str, Share]:
    """The correction rate of each version over all time."""
    counts: dict[str, list[int]] = {}
    for review in reviews:
        count = counts.setdefault(review.version, [0, 0])
        count[0] += review.corrected
        count[1] += 1
    return {version: Share(k, n) for version, (k, n) in sorted(counts.items())}


def by_week(reviews: Iterable[RandomReview]) -> list[Week]:
    """Correction rate, accuracy and Brier score by week and version, oldest first."""
    groups: dict[tuple[str, str], list[RandomReview]] = defaultdict(list)
    for review in reviews:
        if review.day:
            groups[monday_of(review.day), review.version].append(review)
    return [_week(*key, groups[key]) for key in sorted(groups)]


def brier_of(reviews: Iterable[RandomReview]) -> tuple[float | None, int]:
    """The mean Brier score, and of how many."""
    known = [review.brier for review in reviews if review.brier is not None]
    return (sum(known) / len(known) if known else None), len(known)


def first_week(today: date) -> str:
    """The Monday of the first of the `WEEKS` weeks that end with this day's."""
    return (today - timedelta(days=today.weekday(), weeks=WEEKS - 1)).isoformat()


@cache
def monday_of(day: str) -> str:
    """The Monday of a YYYY-MM-DD's week, written the same way."""
    moment = date.fromisoformat(day)
    return (moment - timedelta(days=moment.weekday())).isoformat()


def week_of(day: str) -> str:
    """``2026-W05`` of a YYYY-MM-DD: its ISO year and week."""
    year, week, _ = date.fromisoformat(day).isocalendar()
    return f"{year}-W{week:02}"


def _week(start: str, version: str, reviews: Sequence[RandomReview]) -> Week:
    brier, brier_n = brier_of(reviews)
    share = Share(sum(review.corrected for review in reviews), len(reviews))
    return Week(week_of(start), start, version, share, brier, brier_n)


def _statement(generation: Generation) -> Select[Any]:
    """Select every random review that stands, in the order of the index that covers it."""
    review, answer = nli_reviews.c, nli_predictions.c
    named = func.nullif(review.predicted_by, "")
    columns: list[ColumnElement[Any]] = [
        func.coalesce(review.edge_id, review.pair_key),
        review.reviewed_at,
        named,
        review.predicted_label,
        review.correct_label,
    ]
    statement = select(*columns)
    if generation.has("nli_predictions"):
        columns[2] = func.coalesce(named, answer.version)
        chances = [answer[label] for label in LABELS]
        statement = select(*columns, answer.calibrated, answer.calibration, *chances)
        judged = nli_reviews.outerjoin(nli_predictions, answer.id == _newest_prediction())
        statement = statement.select_from(judged)
    # The condition of the partial index, to the letter: a bound value would not match it.
    drawn = and_(review.sampling == literal_column("'random'"), review.undone_at.is_(None))
    return statement.where(drawn).order_by(review.reviewed_at, review.id)


def _newest_prediction() -> ColumnElement[int]:
    """Find the logged answer that a review was about: ids rise, whatever the clock does.

    The newest of those that were as sure as the reviewer saw it, else the newest of all: another
    version may have given the same label since, to whoever looked at the pair.
    """
    review, answer = nli_reviews.c, nli_predictions.alias("answer").c
    said = case({label: answer[label] for label in LABELS}, value=review.predicted_label)
    sure = review.predicted_confidence
    alike = (func.abs(said - sure) <= ALIKE) | (func.abs(answer.calibrated - sure) <= ALIKE)
    wanted = func.coalesce(func.max(case((alike, answer.id))), func.max(answer.id))
    newest = select(wanted).where(
        answer.pair_key == review.pair_key,
        answer.label == review.predicted_label,
        answer.at <= review.reviewed_at,
        func.coalesce(review.predicted_by, "").in_(("", answer.version)),
    )
    return newest.correlate(nli_reviews).scalar_subquery()


def _said(
    predicted: str, correct: str, calibrated: object, calibration: object, *chances: object
) -> tuple[float | None, float | None, int | None]:
    """Brier score, confidence and calibration of a logged answer.

    SQLite holds whatever was put there: what is no number is not known. It would even count a
    text as 0, so this is no work for the database.
    """
    number = calibration if isinstance(calibration, int) else None
    known = {str(label): _share(chance) for label, chance in zip(LABELS, chances, strict=True)}
    gaps = [chance - (label == correct) for label, chance in known.items() if chance is not None]
    brier = sum(gap * gap for gap in gaps) if len(gaps) == len(LABELS) else None
    return brier, known.get(predicted) if calibrated is None else _share(calibrated), number


def _share(value: object) -> float | None:
    """A probability, which rounding may have put a little over 1; None for anything else."""
    return float(value) if isinstance(value, float | int) and 0 <= value <= 1.001 else None
