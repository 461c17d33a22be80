"""The gate: pass, fail or insufficient, and every check on its own."""

from __future__ import annotations

import json

import numpy as np
import pytest

from lyra_nli.evaluation.gate import Answers, Verdict, judge_candidate
from lyra_nli.labels import LABELS
from lyra_nli.records import Example, Pair
from lyra_nli.settings import GateSettings

SETTINGS = GateSettings()


def examples(count: int, source: str = "correction") -> list[Example]:
    return [
        Example(f"r:{index}", Pair("p", "h"), LABELS[index % 3], source, group="")
        for index in range(count)
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
    active: range | set[int] | None = None,
    rows: int = 100,
    general: tuple[int, int] | None = None,
    sure: float = 0.8,
    sure_when: float = 0.8,
    **settings: object,
) -> Verdict:
    """Judge models by the rows that they have right; `general`: of 100, base and candidate."""
    holdout, others = examples(rows), examples(100 if general else 0, "replay")
    of_general = general or (0, 0)
    answers = {
        "base": Answers(says(holdout, set(base), sure), says(others, set(range(of_general[0])))),
        "candidate": Answers(
            says(holdout, set(candidate), sure_when), says(others, set(range(of_general[1])))
        ),
    }
    if active is not None:
        answers["active"] = Answers(
            says(holdout, set(active), sure), says(others, set(range(of_general[0])))
        )
    return judge_candidate(
        holdout,
        others,
        answers,
        SETTINGS.model_copy(update=settings),
        "lora-lyra-v1" if active is not None else None,
    )


def failing(verdict: Verdict) -> list[str]:
    return [check.name for check in verdict.checks if check.enforced and not check.holds]


def test_a_clear_gain_passes():
    verdict = judge(range(50), range(90))
    assert verdict.outcome == "pass"
    assert verdict.sentence.startswith("Better than the base on 100 hold-out rows")
    assert "40 errors fixed, 0 right answers broken" in verdict.sentence
    assert failing(verdict) == []


class TestFail:
    def test_accuracy_below_the_base(self):
        verdict = judge(range(90), range(85))
        assert verdict.outcome == "fail"
        assert failing(verdict) == [
            "accuracy not below the base",
            "Brier score not above the base",
        ]
        assert "accuracy not below the base; Brier" in verdict.sentence

    def test_one_row_less_is_less(self):
        # Less sure where it is wrong: better Brier, and still below the base.
        verdict = judge(range(50), range(49), sure=0.9, sure_when=0.5)
        assert failing(verdict) == ["accuracy not below the base"]

    def test_a_worse_brier_score_for_more_accuracy(self):
        verdict = judge(range(50), range(62), sure=0.5, sure_when=0.99)
        assert verdict.outcome == "fail"
        assert failing(verdict) == ["Brier score not above the base"]

    def test_a_brier_score_within_the_allowance(self):
        allowed = judge(range(50), range(62), sure=0.5, sure_when=0.99, max_brier_increase=0.2)
        assert allowed.outcome == "pass"

    def test_accuracy_below_the_active_version(self):
        verdict = judge(range(50), range(80), active=range(81))
        assert verdict.outcome == "fail"
        assert failing(verdict) == ["accuracy not below the active version"]

    @pytest.mark.parametrize(("candidate", "outcome"), [(90, "pass"), (87, "pass"), (86, "fail")])
    def test_general_nli_forgotten(self, candidate, outcome):
        verdict = judge(range(50), range(90), general=(90, candidate))
        assert verdict.outcome == outcome
        assert failing(verdict) == ["general NLI accuracy kept"] * (outcome == "fail")

    @pytest.mark.parametrize("before", range(3, 101))
    def test_a_drop_of_exactly_what_is_allowed_is_allowed(self, before):
        """Also where the difference of two fractions rounds upwards."""
        verdict = judge(range(50), range(90), general=(before, before - 3))
        assert failing(verdict) == []

    def test_how_much_may_be_forgotten_is_a_setting(self):
        verdict = judge(range(50), range(90), general=(90, 80), max_general_drop=0.1)
        assert verdict.outcome == "pass"

    def test_all_failing_checks_are_named(self):
        verdict = judge(range(80), range(60), active=range(90), general=(90, 50))
        assert len(failing(verdict)) == 4
        assert all(name in verdict.sentence for name in failing(verdict))

    def test_a_failure_is_no_lack_of_evidence(self):
        verdict = judge(range(51), range(50))
        assert verdict.outcome == "fail"


class TestInsufficient:
    def test_a_gain_that_could_be_chance_names_the_rows_it_would_take(self):
        # 13 fixed and 7 broken of 100: p = .13; 342 rows would show it.
        candidate = set(range(7, 50)) | set(range(50, 63))
        verdict = judge(range(50), candidate)
        assert verdict.outcome == "insufficient"
        assert failing(verdict) == []
        assert "13 errors fixed, 7 right answers broken, p = 0.13" in verdict.sentence
        assert verdict.sentence.endswith("It would take about 242 more hold-out rows.")

    def test_no_gain_takes_more_reviews(self):
        verdict = judge(range(90), range(90))
        assert verdict.outcome == "insufficient"
        assert "0 errors fixed, 0 right answers broken" in verdict.sentence
        assert verdict.sentence.endswith("It would take more reviews.")

    def test_how_sure_the_gate_must_be_is_a_setting(self):
        candidate = set(range(7, 50)) | set(range(50, 63))
        assert judge(range(50), candidate, significance=0.2).outcome == "pass"

    def test_a_tiny_holdout_shows_nothing(self):
        verdict = judge(range(6), range(9), rows=10)
        assert verdict.outcome == "insufficient"
        assert verdict.against_base.p == pytest.approx(1 / 8)


class TestTheProposalsThreshold:
    def test_is_shown_and_not_enforced(self):
        verdict = judge(range(30), range(70))
        (check,) = (c for c in verdict.checks if c.name == "accuracy of the proposal")
        assert (check.value, check.threshold) == (0.70, 0.85)
        assert not check.holds
        assert not check.enforced
        assert verdict.outcome == "pass"

    def test_can_be_enforced(self):
        verdict = judge(range(30), range(70), enforce_min_accuracy=True)
        assert verdict.outcome == "fail"
        assert failing(verdict) == ["accuracy of the proposal"]

    def test_is_reached_at_its_value(self):
        verdict = judge(range(30), range(85), enforce_min_accuracy=True)
        assert verdict.outcome == "pass"


class TestFigures:
    def test_fixed_and_broken_are_shares_of_errors_and_of_right_answers(self):
        change = judge(range(60), set(range(5, 60)) | set(range(60, 80))).against_base
        assert (change.fixed, change.broken) == (20, 5)
        assert (change.efr.value, change.efr.n) == (0.5, 40)
        assert (change.nfr.value, change.nfr.n) == (pytest.approx(5 / 60), 60)

    def test_the_active_version_is_compared_on_the_same_rows(self):
        verdict = judge(range(50), range(90), active=range(70))
        assert verdict.active == "lora-lyra-v1"
        assert verdict.against_active is not None
        assert verdict.against_active.fixed == 20
        assert verdict.against_base.fixed == 40
        assert set(verdict.populations[0].scores) == {"base", "candidate", "active"}

    def test_without_an_active_version_there_is_no_such_comparison(self):
        verdict = judge(range(50), range(90))
        assert verdict.active is None
        assert verdict.against_active is None
        assert not any("active" in check.name for check in verdict.checks)

    def test_populations_are_the_parts_of_the_holdout_and_general_nli(self):
        holdout = [*examples(30), *examples(12, "agreed")]
        right, none = says(holdout, set(range(42))), says(holdout, set())
        answers = {
            "base": Answers(none, says(examples(6), set())),
            "candidate": Answers(right, says(examples(6), set(range(6)))),
        }
        verdict = judge_candidate(holdout, examples(6), answers, SETTINGS)
        sizes = {p.name: p.scores["candidate"].n for p in verdict.populations}
        assert sizes == {
            "hold-out": 42,
            "corrections": 30,
            "agreed": 12,
            "label supports": 14,
            "label refutes": 14,
            "label neutral": 14,
            "general NLI": 6,
        }
        for population in verdict.populations:
            assert population.scores["base"].accuracy.value == 0
            assert population.scores["candidate"].accuracy.value == 1

    def test_a_population_without_rows_is_left_out(self):
        names = [population.name for population in judge(range(5), range(9), rows=10).populations]
        assert "agreed" not in names
        assert "general NLI" not in names

    def test_the_verdict_is_json(self):
        verdict = judge(range(50), range(90), active=range(70), general=(90, 88))
        plain = json.loads(json.dumps(verdict.to_dict()))
        assert plain["outcome"] == "pass"
        assert plain["against_base"]["fixed"] == 40
        assert plain["populations"][0]["scores"]["candidate"]["accuracy"]["value"] == 0.9
        assert len(plain["checks"]) == 5

    @pytest.mark.parametrize("base", [range(0), range(100)], ids=["all wrong", "all right"])
    def test_a_base_without_errors_or_without_right_answers_is_json_too(self, base):
        text = json.dumps(judge(base, range(100)).to_dict(), allow_nan=False)
        assert json.loads(text)["against_base"]["efr"]["n"] == 100 - len(base)
