from __future__ import annotations

from datetime import date

import pytest
from watched_world import day

from lyra_nli.monitoring.changes import changes, last_change
from lyra_nli.monitoring.rates import RandomReview
from lyra_nli.monitoring.sequential import weigh
from lyra_nli.monitoring.shares import Share
from lyra_nli.registry.rows import Action, Event

V1, V2 = "lora-lyra-v1", "lora-lyra-v2"


def event(at: str, before: str | None, after: str | None, action: Action = "activate") -> Event:
    return Event(at, "ada", action, "starter", before, after, "")


def said(offset: int, version: str, n: int, corrected: int) -> list[RandomReview]:
    label = ["refutes"] * corrected + ["supports"] * (n - corrected)
    return [RandomReview(day(offset), version, "supports", correct) for correct in label]


HISTORY = [
    event(f"{day(10)}T09:00:00+00:00", None, V1),
    event(f"{day(20)}T09:00:00+00:00", V1, V2),
    event(f"{day(25)}T09:00:00+00:00", V1, None, "remove"),
    event(f"{day(30)}T09:00:00+00:00", V2, V1, "rollback"),
]
REVIEWS = [
    *said(5, "base", 100, 20),
    *said(10, "base", 10, 2),  # the day of the change belongs to both sides
    *said(10, V1, 10, 1),
    *said(11, "base", 50, 50),  # a late look at what served before
    *said(15, V1, 100, 8),
    *said(22, V2, 60, 30),
    *said(31, V1, 40, 4),
    *said(32, "unknown", 9, 9),
]


def test_before_and_after_each_change() -> None:
    first, second, third = changes(HISTORY, REVIEWS, 0.05, date.fromisoformat(day(40)))
    assert [(c.day, c.from_version, c.to_version) for c in (first, second, third)] == [
        (day(10), "base", V1), (day(20), V1, V2), (day(30), V2, V1),
    ]  # fmt: skip
    assert (first.before, first.after) == (Share(22, 110), Share(13, 150))
    assert (second.before, second.after) == (Share(9, 110), Share(30, 60))
    assert (third.before, third.after) == (Share(30, 60), Share(4, 40))
    assert first.difference is not None
    assert first.difference.value == pytest.approx(13 / 150 - 0.2)
    assert first.text.endswith("; looks better")
    assert second.text.endswith("; looks worse")
    assert (second.p or 1) < 1e-6 < 0.5 < (third.p or 0)
    assert last_change(HISTORY, REVIEWS, 0.05, date.fromisoformat(day(40))) == third
    assert third.to_dict()["before"]["n"] == 60


def test_evidence_comes_from_whole_days() -> None:
    end = date.fromisoformat(day(22))
    change = changes(HISTORY[1:2], REVIEWS, 0.05, end)[0]
    assert (change.evidence.days, change.evidence.highest) == (2, 1.0)
    change = changes(HISTORY[1:2], REVIEWS, 0.05, date.fromisoformat(day(23)))[0]
    old = [r.corrected for r in REVIEWS if r.version == V1][:110]
    assert change.evidence == weigh(old, [0, 0, 60], [0, 0, 30], 0.05)
    assert change.evidence.highest > 20
    assert change.reached_on == day(22)


def test_what_can_not_be_compared_says_so() -> None:
    nothing = changes(HISTORY[:1], [], 0.05, date.fromisoformat(day(11)))[0]
    assert nothing.text == f"no random review of {V1} yet"
    assert (nothing.difference, nothing.p, nothing.evidence.highest) == (None, None, 1.0)
    one_side = changes(HISTORY[:1], said(11, V1, 5, 1), 0.05, date.fromisoformat(day(12)))[0]
    assert one_side.text == "no random review of base to compare with"
    few = changes(HISTORY[:1], said(9, "base", 5, 1) + said(11, V1, 5, 1), 0.05)[0]
    assert few.text.endswith("too few to say much")
    assert last_change([], REVIEWS, 0.05) is None


@pytest.mark.parametrize("at", ["yesterday", "2126-01-01T00:00:00+00:00"])
def test_a_change_without_a_time(at: str) -> None:
    change = changes([event(at, None, V1)], REVIEWS, 0.05, date.fromisoformat(day(40)))[0]
    assert (change.day, change.before.n, change.after.n, change.evidence.days) == ("", 0, 0, 0)
