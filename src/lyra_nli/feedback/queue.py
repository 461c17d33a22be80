"""The review queue: which edges a person looks at next.

A settable share is drawn at random whatever the order: only a random sample says how often the
model errs, for the other orders look for its errors. Leases keep two people from judging the
same edge at once; a share of the reviewed edges is shown to a second person, blind, which
measures how far people agree. Edges of rejected claims and of blocked sites stay in: what the
model said of a pair is right or wrong all the same, and a lesson either way.
"""

from __future__ import annotations

from collections.abc import Iterable
from random import Random
from typing import Final, get_args

from sqlalchemy import Engine, select

from lyra_nli.errors import FeedbackError
from lyra_nli.feedback import leases
from lyra_nli.feedback.draws import Drawn, Draws, Order
from lyra_nli.feedback.item import Hand
from lyra_nli.feedback.item import QueueItem as QueueItem
from lyra_nli.feedback.leases import Purpose
from lyra_nli.storage.engine import lock, now, read, write
from lyra_nli.storage.generation import inspect_database
from lyra_nli.storage.tables import nli_leases, nli_reviews

ORDERS: Final[tuple[Order, ...]] = get_args(Order)
"""``uncertain``: least confident first. ``disagree``: where models disagree most. ``suspect``:
human labels to look at again. ``random``: a sample. ``recent``: newest first."""

MAX_ITEMS: Final = 100


def next_items(
    engine: Engine,
    *,
    order: str = "uncertain",
    limit: int = 1,
    reviewer: str = "",
    lease: bool = True,
    random_share: float = 0.3,
    second_share: float = 0.1,
    lease_seconds: float = 300.0,
    skip: Iterable[str] = (),
    rng: Random | None = None,
) -> list[QueueItem]:
    """Give the next edges to review.

    An order that has nothing to give falls back to ``uncertain``, then ``recent``:
    `QueueItem.reason_for` says which order each edge came from.

    Args:
        engine: a database that was upgraded; opened for writing when leasing.
        order: one of `ORDERS`.
        limit: how many; 1 to `MAX_ITEMS`.
        reviewer: who will look; without a name nobody gets second looks.
        lease: keep others from getting the same edges, in one short write transaction.
        random_share: probability of a random draw instead of the order, for each edge.
        second_share: probability of a second look, where there is one to give.
        lease_seconds: how long a lease holds.
        skip: ids of edges not to give.
        rng: for all that is random.

    Raises:
        FeedbackError: for an unknown order or a limit out of bounds.
        StorageError: when the database was not upgraded, or can't be written for leases.
    """
    chosen = _check(order, limit)
    rng = rng or Random()
    generation = inspect_database(engine)
    generation.require_upgraded()
    if not generation.has_edges:
        return []
    with (write if lease else read)(engine) as connection:
        draws = Draws(connection, generation, moment=now(), skip=skip, rng=rng)
        hand = Hand(connection, generation, reviewer, lease_seconds if lease else None)
        if lease:
            if limit > 1:  # two who take the same edges in another order would wait for each other
                lock(connection, nli_leases)
            leases.forget_old(connection)
        items: list[QueueItem] = []
        while len(items) < limit:
            drawn, purpose, why = _choose(draws, chosen, reviewer, rng, random_share, second_share)
            if drawn is None:
                break
            draws.skip(drawn.edge_id)
            item = hand.out(drawn, purpose, why)
            items += [item] if item else []
        return items


def show_again(
    engine: Engine, review_id: str, *, reviewer: str, lease_seconds: float
) -> QueueItem | None:
    """Lease the edge of an undone review once more; how it was drawn the first time stays.

    Returns:
        The item; None when the review has no edge, or another person has it on the screen.
    """
    generation = inspect_database(engine)
    review = nli_reviews.c
    with write(engine) as connection:
        found = connection.execute(
            select(review.edge_id, review.sampling).where(review.id == review_id)
        ).one_or_none()
        if found is None or found.edge_id is None:
            return None
        hand = Hand(connection, generation, reviewer, lease_seconds)
        # An undo whose answer got lost is sent again: the edge is on its own sender's screen then.
        return hand.out(Drawn(found.edge_id), "first", "undone", found.sampling, renew=True)


def release(engine: Engine, token: str) -> bool:
    """End a lease early; tells whether it was still there."""
    with write(engine) as connection:
        return leases.give_back(connection, token)


def _choose(
    draws: Draws,
    order: Order,
    reviewer: str,
    rng: Random,
    random_share: float,
    second_share: float,
) -> tuple[Drawn | None, Purpose, str]:
    """Decide what comes next: a second look, a random draw, or the order's first."""
    if rng.random() < second_share and (drawn := draws.second_look(reviewer)):
        return drawn, "second", "second"
    if rng.random() < random_share:
        order = "random"
    fallbacks: tuple[Order, ...] = (order, "uncertain", "recent")
    for each in dict.fromkeys(fallbacks):
        if drawn := draws.draw(each):
            return drawn, "first", each
    return None, "first", order


def _check(order: str, limit: int) -> Order:
    if order not in ORDERS:
        raise FeedbackError(
            f"order: {order!r} is none of {', '.join(ORDERS)}",
            code="wrong_value",
            parameter="order",
            expected=" | ".join(ORDERS),
        )
    if not 1 <= limit <= MAX_ITEMS:
        raise FeedbackError(
            f"limit: {limit} is not between 1 and {MAX_ITEMS}",
            code="wrong_value",
            parameter="limit",
            expected=f"1 to {MAX_ITEMS}",
        )
    return order
