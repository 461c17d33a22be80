"""The gate: pass, fail or insufficient, and what each check says."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import numpy as np
import pytest

from lyra_nli.errors import DatasetError
from lyra_nli.evaluation.checks import Check, level_of
from lyra_nli.evaluation.clusters import flip_test
from lyra_nli.evaluation.gate import Evidence, Verdict, judge_candidate
from lyra_nli.evaluation.metrics import mcnemar
from lyra_nli.evaluation.tables import facts
from lyra_nli.labels import LABELS
from lyra_nli.records import Example, Pair, Review
from lyra_nli.settings import GateSettings

SETTINGS = GateSettings()


def examples(count: int, source: str = "correction", groups: int = 0) -> list[Example]:
    """Rows of all labels; each a group of its own, or so many groups in turn."""
    return [
        Example(f"r:{i}", Pair("p", "h"), LABELS[i % 3], source, group=f"g{i % (groups or count)}")
        for i in range(count)
    ]


def says(rows: list[Example], right: set[int], sure: float = 0.8) -> np.ndarray:
    """Answers that are right on these rows and wrong on the others."""
    said = [
        LABELS.index(row.label) if index in right else (LABELS.index(row.label) + 1) % 3
        for index, row in enumerate(rows)
    ]
    answers = np.full((len(rows), 3), (1 - sure) / 2)
    answers[np.arange(len(rows)), said] = sure
    return answers


def judge(
    base: range | set[int],
    candidate: range | set[int],
    *,
    rows: int | list[Example] = 120,
    active: range | set[int] | None = None,
    general: tuple[int, int] | None = None,
    refit: range | None = None,
    looks: int = 1,
    start: str = "",
    sure: float = 0.8,
    **settings: object,
) -> Verdict:
    """Judge models by the rows that they have right; `general`: of 100, base and candidate."""
    reviewed = examples(rows) if isinstance(rows, int) else rows
    answers = {"base": says(reviewed, set(base)), "candidate": says(reviewed, set(candidate), sure)}
    if active is not None:
        answers["active"] = says(reviewed, set(active))
    others = examples(100, "replay")
    forgotten = None
    if general:
        both = zip(("base", "candidate"), general, strict=True)
        forgotten = Evidence(others, {name: says(others, set(range(n))) for name, n in both})
    known = Evidence(reviewed, {"candidate": says(reviewed, set(refit))}) if refit else None
    return judge_candidate(
        Evidence(reviewed, answers),
        forgotten,
        SETTINGS.model_copy(update=settings),
        kind="out of fold" if refit else "holdout",
        active="lora-lyra-v1" if active is not None else None,
        looks=looks,
        refit=known,
        start=start,
    )


class TestWarmStart:
    def test_what_the_start_knew_must_not_get_worse(self):
        """As accurate as its start, and more often sure of what is wrong."""
        warm = {"active": range(100), "start": "lora-lyra-v1"}
        kept = judge(range(60), range(100), **warm)
        found = check(kept, "no worse than its start")
        assert (kept.outcome, found.state, found.enforced) == ("pass", "shown", True)
        assert "it started from lora-lyra-v1: on 120 rows that neither had learned" in found.text
        worse = judge(range(60), range(84), **warm)
        assert check(worse, "no worse than its start").state == "harm"
        assert worse.outcome == "fail"
        assert check(judge(range(60), range(84)), "better than the base").state == "shown"

    def test_only_beside_the_version_that_it_started_from(self):
        for start, active in (
            ("", range(100)),
            ("lora-lyra-v9", range(100)),
            ("lora-lyra-v1", None),
        ):
            verdict = judge(range(60), range(100), active=active, start=start)
            assert not [c for c in verdict.checks if "its start" in c.name]

    def test_more_reviews_are_new_ones(self):
        verdict = judge(range(6), range(8), rows=12, active=range(8), start="lora-lyra-v1")
        assert verdict.outcome == "insufficient"
        assert "reviews that lora-lyra-v1 has not learned from" in verdict.sentence


def check(verdict: Verdict, start: str) -> Check:
    return next(each for each in verdict.checks if each.name.startswith(start))


class TestOutcome:
    def test_a_clear_gain_passes(self):
        verdict = judge(range(60), range(100))
        assert verdict.outcome == "pass"
        assert (verdict.against_base.fixed, verdict.against_base.broken) == (40, 0)
        assert verdict.against_base.gain.value == pytest.approx(1 / 3)
        assert "40 errors fixed, 0 right answers broken" in verdict.sentence

    def test_a_clear_loss_fails(self):
        verdict = judge(range(100), range(60))
        assert verdict.outcome == "fail"
        assert check(verdict, "better than the base").state == "harm"

    def test_no_change_is_no_evidence(self):
        verdict = judge(range(60), range(60))
        assert verdict.outcome == "insufficient"
        assert verdict.more is not None

    def test_a_hair_on_every_row_is_no_gain(self):
        """Whoever is a millionth better everywhere is significantly so, and changes no answer."""
        rows = examples(120)
        before = says(rows, set(range(60)))
        after = before + 1e-6 * (says(rows, set(range(120)), 1.0) - before)
        answers = {"base": before, "candidate": after}
        verdict = judge_candidate(Evidence(rows, answers), None, SETTINGS, kind="holdout")
        assert verdict.outcome == "insufficient"

    def test_a_small_gain_asks_for_more_reviews(self):
        verdict = judge(range(60), range(63))
        assert verdict.outcome == "insufficient"
        assert verdict.more.count > 0
        assert f"about {verdict.more.count} more" in verdict.sentence
        assert verdict.more.kind.endswith("held out: most new ones are learned from")
        folded = judge(range(60), range(63), refit=range(63))
        assert "held out" not in folded.more.kind

    def test_groups_that_hold_most_rows_count_for_less(self):
        rows = examples(400)
        rows = [replace(row, group="g0" if i < 100 else row.group) for i, row in enumerate(rows)]
        verdict = judge(range(200), range(204), rows=rows)
        worth = round(400**2 / (100**2 + 300))
        assert f"in 301 groups, which count for about {worth}:" in " ".join(verdict.warnings)

    def test_what_is_asked_for_would_settle_what_is_open(self):
        """A gain that is shown needs no more reviews: the comparison with the active one does."""
        mixed = {*range(55), *range(60, 100)}
        verdict = judge(range(60), mixed, active=range(95))
        assert check(verdict, "better than the base").state == "shown"
        found = check(verdict, "as accurate as the active")
        assert (verdict.outcome, found.state, found.value) == ("insufficient", "open", 0.0)
        assert "a gain of 3 points" not in verdict.sentence
        often = (found.value - found.low) / 0.03
        assert verdict.more.count == math.ceil(120 * often**2) - 120
        later = range(120 + verdict.more.count)
        scaled = [len(later) * share // 120 for share in (55, 60, 95, 100)]
        much = judge(
            range(scaled[1]),
            {*range(scaled[0]), *range(scaled[1], scaled[3])},
            active=range(scaled[2]),
            rows=len(later),
        )
        assert much.outcome == "pass"

    def test_a_gain_too_small_to_matter_asks_for_nothing(self):
        many = 3000
        verdict = judge(range(1500), {*range(1, 1500), 2000, 2001}, rows=many)
        assert verdict.outcome == "insufficient"
        assert verdict.more.count is None
        assert "a gain of 3 points would probably have been seen by now" in verdict.sentence

    def test_where_nothing_changed_a_gain_may_hide(self):
        few, many = (judge(range(n // 2), range(n // 2), rows=n).against_base for n in (30, 300))
        assert 0.05 < few.detectable < 0.3
        assert many.detectable < few.detectable / 5

    def test_rows_of_few_groups_count_for_less(self):
        """The same 12 fixed rows: each alone they show a gain, all in one group they do not."""
        alone = judge(range(60), range(72))
        base, fixed = set(range(60)), set(range(60, 72))
        rows = [replace(e, group="one") if i in fixed else e for i, e in enumerate(examples(120))]
        assert alone.outcome == "pass"
        assert judge(base, base | fixed, rows=rows).outcome == "insufficient"

    def test_no_rows(self):
        with pytest.raises(DatasetError, match="no rows"):
            judge(set(), set(), rows=[])


class TestAccuracy:
    def test_better_probabilities_do_not_hide_lost_answers(self):
        """As many right, and far better known which: but they may be four points fewer."""
        rows = examples(120)
        answers = {"base": says(rows, set(range(60))), "candidate": says(rows, set(range(10, 71)))}
        wrong = [i for i in range(120) if not 10 <= i < 71]
        answers["candidate"][wrong] = 0.1 * answers["candidate"][wrong] + 0.3
        verdict = judge_candidate(Evidence(rows, answers), None, SETTINGS, kind="holdout")
        assert check(verdict, "better than the base").holds
        accurate = check(verdict, "as accurate as the base")
        assert (accurate.state, accurate.value) == ("open", pytest.approx(1 / 120))
        assert "a loss of 3.0 must be ruled out" in accurate.text
        assert verdict.outcome == "insufficient"
        assert verdict.more.count > 0

    def test_a_loss_is_harm(self):
        verdict = judge(range(60), range(40))
        assert check(verdict, "as accurate as the base").state == "harm"
        assert verdict.outcome == "fail"


class TestSampling:
    def drawn(self, count: int) -> list[Example]:
        """So many of 120 rows were drawn at random, the others picked."""
        return [
            replace(
                row,
                review=Review(
                    row.id, row.pair, row.label, None, None, "",
                    sampling="random" if i % 120 < count else "queue",
                ),
            )
            for i, row in enumerate(examples(120))
        ]  # fmt: skip

    def test_what_is_not_known_of_the_traffic_is_said(self):
        """45 of 60 errors fixed, 15 of 60 right answers broken: even at a quarter."""
        verdict = judge(range(60), range(15, 105), rows=self.drawn(0))
        assert verdict.outcome == "pass"
        assert "errs on less than 25% of what it is asked" in " ".join(verdict.warnings)
        nothing_broken = judge(range(60), range(105), rows=self.drawn(0))
        assert "breaks more than it fixes." not in " ".join(nothing_broken.warnings)

    @pytest.mark.parametrize(("count", "outcome"), [(0, "insufficient"), (30, "pass")])
    def test_random_reviews_can_be_required(self, count, outcome):
        verdict = judge(range(60), range(105), rows=self.drawn(count), require_random=True)
        assert verdict.outcome == outcome
        if not count:
            assert "about 30 more reviews of pairs drawn at random" in verdict.sentence


class TestFlips:
    @pytest.mark.parametrize(("fixed", "broken"), [(19, 9), (12, 4), (40, 40), (5, 0), (9, 19)])
    def test_one_row_groups_give_the_exact_mcnemar_test(self, fixed, broken):
        steps = np.array([1.0] * fixed + [-1.0] * broken)[:, None]
        p = mcnemar(fixed, broken)
        assert flip_test(steps) == pytest.approx(p, abs=4 * math.sqrt(p * (1 - p) / 9999) + 1e-3)


def test_copies_answered_out_of_fold():
    """The adapter itself has learned from those rows."""
    assert "30 errors fixed" in judge(range(60), range(90), refit=range(110)).sentence
    assert "judged by copies" in judge(range(60), range(90), refit=range(110)).sentence
    assert "it never saw" in judge(range(60), range(90)).sentence


class TestLooks:
    def test_the_levels_of_all_looks_add_up_to_the_significance(self):
        levels = [level_of(look, 0.05) for look in range(1, 5000)]
        assert levels[0] == pytest.approx(0.0304, abs=1e-4)
        assert levels == sorted(levels, reverse=True)
        assert 0.0499 < sum(levels) < 0.05

    def test_what_is_beyond_doubt_the_hundredth_shows_too(self):
        """Its level is finer than the flips of an ordinary test."""
        verdict = judge(range(60), range(100), looks=100)
        assert verdict.outcome == "pass"
        assert 0 < check(verdict, "better than the base").value < level_of(100, 0.05) < 1e-5

    def test_what_the_first_look_shows_the_thirtieth_does_not(self):
        assert judge(range(60), range(69)).outcome == "pass"
        late = judge(range(60), range(69), looks=30)
        assert (late.outcome, late.looks) == ("insufficient", 30)


class TestProtections:
    def test_forgotten_general_nli_fails(self):
        verdict = judge(range(60), range(100), general=(95, 75))
        assert verdict.outcome == "fail"
        assert check(verdict, "general NLI").state == "harm"

    @pytest.mark.parametrize(("after", "state"), [(95, "shown"), (92, "shown"), (91, "open")])
    def test_general_nli_may_lose_three_points_of_what_was_measured(self, after, state):
        verdict = judge(range(60), range(100), general=(95, after))
        assert check(verdict, "general NLI").state == state
        assert verdict.outcome == ("pass" if state == "shown" else "insufficient")

    def test_worse_than_the_active_version_fails(self):
        assert judge(range(60), range(80), active=range(110)).outcome == "fail"
        assert judge(range(60), range(110), active=range(80)).outcome == "pass"

    def test_rows_that_the_active_version_learned_from_do_not_count_against_it(self):
        rows = examples(120)
        known = says(rows, set(range(120)))
        known[:60] = np.nan
        answers = {
            "base": says(rows, set(range(60))),
            "candidate": says(rows, set(range(100))),
            "active": known,
        }
        verdict = judge_candidate(
            Evidence(rows, answers), None, SETTINGS, kind="out of fold", active="lora-lyra-v1"
        )
        assert (verdict.against_base.n, verdict.against_active.n) == (120, 60)

    def test_an_active_version_that_learned_from_every_row_is_named(self):
        rows = examples(120)
        answers = {
            "base": says(rows, set(range(60))),
            "candidate": says(rows, set(range(100))),
            "active": np.full((120, 3), np.nan),
        }
        verdict = judge_candidate(
            Evidence(rows, answers), None, SETTINGS, kind="out of fold", active="lora-lyra-v1"
        )
        assert verdict.against_active is None
        assert "lora-lyra-v1 learned from all of these rows" in verdict.warnings[-1]

    def test_probabilities_that_got_worse_fail(self):
        """Three more right, and as sure of what is wrong as of what is right."""
        verdict = judge(range(60), range(63), sure=1.0)
        assert verdict.outcome == "fail"
        assert check(verdict, "Brier").state == "harm"

    def test_an_adapter_that_was_saved_broken_fails(self):
        assert judge(range(60), range(100), refit=range(110)).outcome == "pass"
        verdict = judge(range(60), range(100), refit=range(40))
        assert verdict.outcome == "fail"
        assert check(verdict, "saved adapter").state == "harm"

    def test_the_proposals_threshold_is_shown_and_enforced_when_asked(self):
        shown = check(judge(range(60), range(100)), "accuracy of the proposal")
        assert (shown.value, shown.threshold) == (pytest.approx(100 / 120), 0.85)
        assert (shown.holds, shown.enforced) == (False, False)
        assert judge(range(60), range(100), enforce_min_accuracy=True).outcome == "fail"


class TestPopulations:
    def test_sources_labels_and_general_nli_have_their_own_figures(self):
        rows = [*examples(60), *(replace(e, source="agreed") for e in examples(60))]
        verdict = judge(range(60, 120), range(30, 115), rows=rows, general=(90, 90))
        found = {population.name: population for population in verdict.populations}
        assert {"corrections", "agreed", "general NLI", *(f"label {x}" for x in LABELS)} <= set(
            found
        )
        assert found["corrections"].scores["base"].accuracy.value == 0
        assert found["corrections"].scores["candidate"].accuracy.value == 0.5
        assert found["agreed"].scores["candidate"].accuracy.value == pytest.approx(55 / 60)

    def test_a_harmed_site_is_named(self):
        def of(site: str, row: Example) -> Example:
            review = Review(
                row.id, row.pair, row.label, None, None, "", source_url=f"https://{site}/x"
            )
            return replace(row, review=review)

        rows = [of("good.org" if i < 90 else "bad.org", e) for i, e in enumerate(examples(120))]
        harmed = set(range(90, 120))
        verdict = judge(harmed, set(range(80)), rows=rows)
        assert "bad.org" in " ".join(verdict.warnings)
        assert judge(harmed, set(range(80)), rows=rows, enforce_groups=True).outcome == "fail"

    def test_a_label_whose_rows_err_together_is_not_called_harmed(self):
        """12 rows of one group broken, 2 elsewhere fixed: each row alone would show harm."""
        rows = [
            replace(e, group="one") if i in range(0, 36, 3) else e
            for i, e in enumerate(examples(120))
        ]
        base = set(range(0, 36, 3)) | set(range(60, 90))
        candidate = (base - set(range(0, 36, 3))) | {90, 93}
        alone, together = (
            check(judge(base, candidate, rows=each), "labels, pages").text
            for each in (examples(120), rows)
        )
        assert "label supports" in alone
        assert "none is harmed" in together

    def test_claims_are_named_by_their_words(self):
        """Of two long ones that begin alike, the harmed one; too few rows are not shown."""
        claims = ["The drug " + "works well " * 20 + end for end in ("in adults.", "in children.")]

        def of(claim: str, row: Example) -> Example:
            pair = Pair(f"premise of {row.id}", claim)
            return replace(row, pair=pair, review=Review(row.id, pair, row.label, None, None, ""))

        told = [claims[0]] * 80 + [claims[1]] * 31 + ["Seldom asked."] * 9
        rows = [of(claim, row) for claim, row in zip(told, examples(120), strict=True)]
        verdict = judge(set(range(80, 120)), set(range(80)), rows=rows)
        shown = {p.name: p for p in verdict.populations if p.name.startswith("claim ")}
        assert [p.change.n for p in shown.values()] == [31, 80]  # the most harmed one first
        harmed = next(iter(shown))
        assert harmed in " ".join(verdict.warnings)
        assert harmed.startswith('claim "The drug works well')
        assert len(harmed) < 110


def test_the_correction_rate_before_and_after():
    """48 of 120 were wrong; 30 of them are mended, and 6 others broken."""
    verdict = judge(range(72), set(range(6, 102)))
    found = verdict.traffic
    assert (found.errors.value, found.left.value) == (48 / 120, pytest.approx(24 / 120))
    assert found.left.low < 24 / 120 < found.left.high
    said = " ".join(facts(verdict))
    assert "is wrong on 40.0%" in said
    assert "people would correct 20.0%" in said


def test_it_is_json():
    verdict = judge(range(60), range(100), active=range(70), general=(90, 90))
    told = json.loads(json.dumps(verdict.to_dict()))
    assert told["outcome"] == "pass"
    assert told["populations"][0]["scores"]["candidate"]["accuracy"]["value"] > 0.8
