from __future__ import annotations

from datetime import date

import pytest

from lyra_nli.monitoring.canary import judge_canary
from lyra_nli.monitoring.rates import RandomReview
from lyra_nli.registry.rows import Action, Event
from lyra_nli.registry.trials import Trial

V1, V2, V3 = (f"lora-lyra-v{n}" for n in (1, 2, 3))
TODAY = date(2026, 3, 20)


def trial(ended_at: str | None = None) -> Trial:
    return Trial("nlt", "b", "canary", V2, 0.1, "2026-03-10T09:00:00+00:00", "ada", "", ended_at)


def event(day: int, to_version: str | None, action: Action = "activate") -> Event:
    return Event(f"2026-03-{day:02}T10:00:00+00:00", "ada", action, "b", None, to_version, "")


def reviews(day: int, version: str, n: int, corrected: int) -> list[RandomReview]:
    label = ["refutes"] * corrected + ["supports"] * (n - corrected)
    return [RandomReview(f"2026-03-{day:02}", version, "supports", each) for each in label]


def test_only_what_was_reviewed_meanwhile_of_what_was_active() -> None:
    said = [
        *reviews(9, V1, 50, 50), *reviews(9, V2, 50, 50),
        *reviews(10, V1, 20, 2), *reviews(12, V2, 30, 6),
        *reviews(15, V3, 10, 1), *reviews(15, "base", 10, 10), *reviews(20, V2, 5, 5),
    ]  # fmt: skip
    events = [event(1, "gone"), event(2, V1), event(14, V3), event(16, None, "canary_end")]
    found = judge_canary(trial(), events, said, 0.05, TODAY)
    assert found.actives == [V1, V3]
    assert (found.active.k, found.active.n) == (3, 30)
    assert (found.canary.k, found.canary.n) == (11, 35)
    assert found.evidence.days == 10, "today is not over"
    over = judge_canary(trial("2026-03-13T00:00:00+00:00"), events, said, 0.05, TODAY)
    assert (over.actives, over.active.n, over.canary.n, over.evidence.days) == ([V1], 20, 30, 3)


def test_one_that_was_promoted_is_not_compared_with_itself() -> None:
    ended = "2026-03-14T10:00:00+00:00"
    found = judge_canary(trial(ended), [event(14, V2)], [], 0.05, TODAY)
    assert found.actives == ["base"]
    assert found.text == "no random reviews of both since the start"


@pytest.mark.parametrize(
    ("corrected", "words"),
    [(60, "looks worse"), (20, "no clear difference"), (2, "looks better")],
)
def test_what_it_looks_like(corrected: int, words: str) -> None:
    said = [*reviews(12, V1, 200, 20), *reviews(12, V2, 200, corrected)]
    assert judge_canary(trial(), [event(1, V1)], said, 0.05, TODAY).text.endswith(words)


def test_a_trial_of_today_has_no_whole_day_yet() -> None:
    said = [*reviews(10, V1, 40, 1), *reviews(10, V2, 40, 40)]
    found = judge_canary(trial(), [event(1, V1)], said, 0.05, date(2026, 3, 10))
    assert (found.evidence.days, found.evidence.highest, found.canary.n) == (0, 1.0, 40)
