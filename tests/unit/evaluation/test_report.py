"""The gate's report holds the figures that the verdict rests on, and quotes texts as texts."""

from __future__ import annotations

from html.parser import HTMLParser

import numpy as np
import pytest

from lyra_nli.evaluation.evidence import Evidence
from lyra_nli.evaluation.gate import judge_candidate
from lyra_nli.evaluation.report import HEADLINES, Report
from lyra_nli.labels import LABELS
from lyra_nli.records import Example, Pair, Review
from lyra_nli.settings import GateSettings

NASTY = '<script>alert("x")</script> | `code` *bold* [link](http://evil) & _under_ a_b'


def examples(count: int, **texts: str) -> tuple[Example, ...]:
    def example(n: int) -> Example:
        pair = Pair(texts.get("premise", f"premise {n}"), texts.get("claim", f"claim {n}"))
        label = LABELS[n % 3]
        review = Review(f"r{n}", pair, label, None, None, f"2026-01-{n % 28 + 1:02}T10:00:00+00:00")
        return Example(f"r{n}", pair, label, "correction", f"g{n}", review=review)

    return tuple(map(example, range(count)))


def says(rows: tuple[Example, ...], right: range, sure: float = 0.8) -> np.ndarray:
    """Right on these rows, wrong on the others."""
    answers = np.full((len(rows), 3), (1 - sure) / 2)
    for n, row in enumerate(rows):
        answers[n, (LABELS.index(row.label) + (n not in right)) % 3] = sure
    return answers


def report(
    base: range,
    candidate: range,
    active: range | None = None,
    *,
    sure: float = 0.9,
    unasked: range = range(0),
    looks: int = 1,
    **texts: str,
) -> Report:
    """Judge models by the rows that they have right; the active one learned from `unasked`."""
    judged = examples(100, **texts)
    answers = {"base": says(judged, base), "candidate": says(judged, candidate, sure)}
    if active is not None:
        answers["active"] = says(judged, active)
        answers["active"][list(unasked)] = np.nan
    evidence = Evidence(judged, answers)
    name = "lora-lyra-v1" if active else None
    verdict = judge_candidate(
        evidence, evidence, GateSettings(), kind="holdout", active=name, looks=looks
    )
    return Report("lora-lyra-v2", verdict, evidence, {"base model": "starter", "seed": "13"})


def table(page: str, title: str) -> dict[str, list[str]]:
    """Cells of the rows of a section's first table, by the first cell."""
    section = page.split(f"## {title}\n")[1].split("\n## ")[0]
    lines = next(block for block in section.strip().split("\n\n") if block[0] == "|").splitlines()
    assert len({line.replace(r"\|", "").count("|") for line in lines}) == 1, "ragged table"
    cells = [[cell.strip() for cell in line.strip("|").split(" |")] for line in lines[2:]]
    return {row[0]: row[1:] for row in cells}


class Page(HTMLParser):
    """The tags, addresses and words of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: set[str] = set()
        self.addresses: list[str] = []
        self.words = ""
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        if tag not in ("meta", "rect", "circle", "path"):
            self.open.append(tag)
        self.addresses += [value for key, value in attrs if key in ("src", "href", "action")]

    def handle_startendtag(self, tag, attrs):
        self.tags.add(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.words += data


def test_both_say_the_verdict_first() -> None:
    found = report(range(50), range(3, 90))
    assert found.markdown().startswith("# Gate report: lora-lyra-v2\n\n**PASS: it may serve.** ")
    words = " ".join(Page(found.html()).words.split())
    assert f"{HEADLINES['pass']} {found.verdict.sentence}" in words


@pytest.mark.parametrize(
    ("candidate", "outcome"), [(range(20), "fail"), (range(52), "insufficient")]
)
def test_the_other_verdicts(candidate: range, outcome: str) -> None:
    found = report(range(50), candidate, sure=0.8)
    assert found.verdict.outcome == outcome
    assert f"**{HEADLINES[outcome]}.**" in found.markdown()
    assert f'class="verdict {outcome}"' in found.html()


def test_every_check_is_put_in_words() -> None:
    found = report(range(50), range(3, 90))
    rows = table(found.markdown(), "What it must show")
    assert list(rows) == [check.name for check in found.verdict.checks]
    for check in found.verdict.checks:
        assert rows[check.name][0].replace("\\", "") == check.text
    assert rows["accuracy of the proposal"][1] == "shown"
    low = table(report(range(10), range(50)).markdown(), "What it must show")
    assert low["accuracy of the proposal"][1] == "the contrary is shown; it does not decide"
    unclear = table(report(range(50), range(52)).markdown(), "What it must show")
    assert unclear["better than the base (p)"][1] == "not shown"


def test_what_changed_is_counted_and_shown_side_by_side() -> None:
    found = report(range(50), range(3, 90))
    rows = table(found.markdown(), "What changed")
    assert rows["reviewed"][:2] == ["100", "100"]
    assert rows["reviewed"][2].startswith("50.0% [")
    assert rows["reviewed"][3].startswith("87.0% [")
    assert rows["reviewed"][4].startswith("+37.0 [")
    assert rows["reviewed"][5].startswith("40 of 50 (80.0% [")
    assert rows["reviewed"][6].startswith("3 of 50 (6.0% [")
    assert list(rows)[:2] == ["reviewed", "corrections"]
    broken = found.markdown().split("### Broken\n")[1].split("\n## ")[0]
    assert [f"claim {n}" in broken for n in range(5)] == [True, True, True, False, False]
    assert "People: supports. Base: supports (80%). Candidate: refutes (90%)." in broken
    fixed = found.markdown().split("### Fixed\n")[1].split("\n### ")[0]
    assert fixed.count("- **") == 12
    assert "- and 28 more." in fixed


def test_the_active_version_is_compared_on_what_it_may_be_asked() -> None:
    found = report(range(50), range(90), active=range(70), unasked=range(40))
    row = table(found.markdown(), "What changed")["reviewed, against lora-lyra-v1"]
    assert row[:4] == ["60", "60", "50.0%", "83.3%"]  # 30 and 50 of rows 40 to 99
    assert row[5].startswith("20 of 30 (")
    assert "lora-lyra-v1" in Page(found.html()).words
    assert "Brier: active" in found.markdown()


def test_what_stands_beside_the_figures() -> None:
    first, fourth = report(range(50), range(90)), report(range(50), range(90), looks=4)
    assert "chance to be lucky" not in first.markdown()
    assert "it is number 4." in fourth.markdown()
    assert f"p = {fourth.verdict.level:.2g}" in fourth.markdown()
    assert "The rows were held out" in first.markdown()
    assert "all reviews, also those that were picked" in first.markdown()
    assert first.verdict.warnings
    for warning in first.verdict.warnings:
        assert warning in Page(first.html()).words


def test_reliability_counts_the_rows_of_every_bar() -> None:
    section = report(range(50), range(90)).markdown().split("by how sure it was:\n", 1)[1]
    bars = [line for line in section.split("\n## ")[0].splitlines() if "% to" in line]
    assert bars[0].startswith("| 80% to 90% | 100 | 80.0% | 50.0% [")
    assert bars[1].startswith("| 90% to 100% | 100 | 90.0% | 90.0% [")
    assert len(bars) == 2


def test_rows_that_a_model_was_not_asked_about_are_left_out() -> None:
    found = report(range(50), range(90))
    found.reviewed.answers["candidate"][:20] = np.nan
    assert "| 90% to 100% | 80 | 90.0% | 87.5% [" in found.markdown()


def test_texts_are_quoted_and_nothing_more() -> None:
    found = report(range(50), range(90), premise=NASTY, claim=NASTY)
    page = Page(found.html())
    assert not page.tags & {"script", "img", "iframe", "a", "link", "form"}
    assert page.addresses == []
    assert page.open == []
    assert NASTY in page.words
    quoted = r"\<script\>alert("
    assert quoted in found.markdown()
    assert "<script" not in found.markdown().replace(r"\<", "")
    assert r"\| \`code\` \*bold\* [link]\(http://evil) \& \_under\_ a_b" in found.markdown()


def test_long_texts_are_cut() -> None:
    found = report(range(50), range(90), premise="word " * 1000)
    assert "word …" in found.markdown()
    assert len(found.markdown()) < 40_000


def test_the_page_needs_nothing_from_elsewhere() -> None:
    html = report(range(50), range(90)).html()
    assert "http" not in html.replace("http-equiv", "")
    assert "default-src 'none'" in html
    assert "url(" not in html
    assert "prefers-color-scheme: dark" in html
    assert "@media print" in html


def test_lineage_and_the_time_of_the_reviews() -> None:
    page = report(range(50), range(90)).markdown()
    assert "- base model: starter" in page
    assert "- judged on reviews: from 2026-01-01 to 2026-01-28" in page
