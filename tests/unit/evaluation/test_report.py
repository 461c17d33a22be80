"""The gate's report holds the figures that the verdict rests on."""

from __future__ import annotations

import pytest
from test_gate import judge

from lyra_nli.evaluation.report import markdown


@pytest.fixture
def page() -> str:
    verdict = judge(range(50), set(range(3, 90)), active=range(70), general=(90, 88))
    return markdown(verdict, "lora-lyra-v2", {"base model": "starter", "seed": 13})


def table(page: str, title: str) -> list[list[str]]:
    """Cells of the rows of a section's table, without its head."""
    section = page.split(f"## {title}\n")[1].split("\n## ")[0]
    lines = [line for line in section.splitlines() if line.startswith("|")]
    assert len({line.count("|") for line in lines}) == 1, "ragged table"
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


def test_the_headline_is_the_verdict(page):
    assert page.startswith("# Gate report: lora-lyra-v2\n")
    assert "**PASS: the candidate may serve.** Better than the base on 100" in page


@pytest.mark.parametrize(
    ("candidate", "headline"),
    [(range(40), "FAIL: the candidate is kept"), (range(52), "INSUFFICIENT EVIDENCE")],
)
def test_the_other_headlines(candidate, headline):
    assert headline in markdown(judge(range(50), candidate), "v", {})


def test_every_check_has_its_figure_and_threshold(page):
    rows = {row[0]: row[1:] for row in table(page, "Checks")}
    assert rows["accuracy not below the base"] == ["0.870", "0.500", "holds"]
    assert rows["accuracy not below the active version"] == ["0.870", "0.700", "holds"]
    assert rows["general NLI accuracy kept"] == ["0.880", "0.870", "holds"]
    assert rows["accuracy of the proposal"] == ["0.870", "0.850", "holds"]


def test_a_check_that_does_not_hold_says_whether_it_counts():
    shown = markdown(judge(range(30), range(70)), "v", {})
    assert "| 0.700 | 0.850 | does not hold (shown, not enforced) |" in shown
    enforced = markdown(judge(range(30), range(70), enforce_min_accuracy=True), "v", {})
    assert "| 0.700 | 0.850 | **does not hold** |" in enforced


def test_every_model_is_scored_on_every_population(page):
    rows = {row[0]: row[1:] for row in table(page, "Accuracy and Brier score")}
    assert rows["hold-out"][0] == "100"
    assert rows["hold-out"][1].startswith("0.500 [0.404, 0.596]")
    assert rows["hold-out"][2].startswith("0.700 [")
    assert rows["hold-out"][3].startswith("0.870 [")
    # Right at .8 costs .06, wrong at .8 costs 1.46.
    assert rows["hold-out"][4:] == ["0.760", "0.480", "0.242"]
    assert rows["general NLI"][0] == "100"
    assert "accuracy active (lora-lyra-v1)" in page


def test_fixed_and_broken_are_shown_against_both(page):
    base, active = table(page, "Fixed and broken")
    assert base[0] == "base"
    assert base[1].startswith("40 of 50 (0.800 [")
    assert base[2].startswith("3 of 50 (0.060 [")
    assert active[0] == "active (lora-lyra-v1)"
    assert active[1].startswith("20 of 30 (")


def test_nothing_to_break_is_no_rows():
    assert "0 of 0 (no rows)" in markdown(judge(set(), range(50)), "v", {})


def test_the_lineage_is_listed(page):
    assert page.endswith("## Made from\n\n- base model: starter\n- seed: 13\n")
