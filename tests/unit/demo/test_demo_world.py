from __future__ import annotations

import os
import re
import subprocess
import sys
from collections import Counter
from itertools import pairwise

import demo_reader as reader
import pytest

from lyra_nli.demo import facts as c
from lyra_nli.demo.numbers import CHANGES
from lyra_nli.demo.world import Edge, World, build_world
from lyra_nli.labels import LABELS
from lyra_nli.records import Pair

SEEDS = (7, 2024)


@pytest.fixture(scope="module", params=SEEDS)
def world(request: pytest.FixtureRequest) -> World:
    return build_world(request.param)


def rows(world: World) -> list[tuple[Edge, Pair, tuple[c.Fact, ...], c.Proposition]]:
    facts = {fragment.id: fragment.facts for fragment in world.fragments}
    propositions = {claim.id: claim.proposition for claim in world.claims}
    pairs = world.pairs()
    return [
        (edge, pairs[edge.id], facts[edge.fragment_id], propositions[edge.claim_id])
        for edge in world.edges
    ]


# --- the labels, read a second time from the text ---------------------------------------------


def reread(edge: Edge, pair: Pair, facts: tuple[c.Fact, ...], claim: c.Proposition) -> str | None:
    """The label as the text has it; None where reading is left to the codebook's own tests."""
    if all(isinstance(fact, c.Silent) for fact in facts):
        return "neutral"
    fact = facts[0]
    if isinstance(claim, c.Effect) and isinstance(fact, c.Estimate) and len(facts) == 1:
        return reread_effect(pair, fact, claim)
    if isinstance(claim, c.Noninferior) and isinstance(fact, c.Noninferiority):
        return reread_margin(pair)
    if isinstance(claim, c.Size) and isinstance(fact, c.Change):
        return reread_size(pair, claim)
    return reread_law(pair, fact, claim)


def reread_effect(pair: Pair, fact: c.Estimate, claim: c.Effect) -> str | None:
    if (fact.subject, fact.scope) != (claim.subject, claim.scope) or not fact.conclusive:
        return "neutral"
    neutral = 0.0 if "percentage points" in pair.premise or " points" in pair.premise else 1.0
    if reader.INTERVAL.search(pair.premise):
        reading = reader.side(*reader.interval(pair.premise), neutral)
    elif neutral == 1.0:
        reading = reader.reading_from_p(pair.premise)
    else:
        size = re.search(r"(-?\d+\.\d) percentage points( lower)?", pair.premise)
        assert size is not None
        down = size[1].startswith("-") or size[2]
        p_value = reader.P_VALUE.search(pair.premise)
        assert p_value is not None
        small = p_value[1] == "<" or float(p_value[3]) < 0.05
        reading = ("lower" if down else "higher") if small else "same"
    return reader.effect_label(reading, reader.direction(pair.hypothesis))


def reread_margin(pair: Pair) -> str:
    margins = re.findall(
        r"margin (?:was|of) (\d\.\d+)|below (\d\.\d+)|margin (\d\.\d+)", pair.premise
    )
    margin = float(next(filter(None, margins[0])))
    bounds = re.search(r"(\d\.\d\d)(?:-| to |, )(\d\.\d\d)", pair.premise)
    upper = float(bounds[2] if bounds else re.search(r"interval (\d\.\d\d)", pair.premise)[1])
    denied = re.search(r"not (established|shown)|failed", pair.hypothesis)
    return "supports" if (upper < margin) == (denied is None) else "refutes"


def reread_size(pair: Pair, claim: c.Size) -> str:
    figure = r"(\d+(?:\.\d)?)"
    if thousand := re.search(r"thousand .*?, (\d+) .* and (\d+) with", pair.premise):
        per_cent = [float(item) / 10 for item in thousand.groups()]
    elif fall := re.search(rf"from {figure} to {figure} per cent", pair.premise):
        per_cent = [float(item) for item in fall.groups()]
    else:
        per_cent = [float(item) for item in re.findall(rf"{figure}%", pair.premise)][:2]
    before, after = max(per_cent), min(per_cent)
    claimed = float(re.search(r"(?:by |is |about |About )(\d+(?:\.\d+)?)", pair.hypothesis)[1])
    if "percentage points" in pair.hypothesis:
        true = before - after
    elif "%" in pair.hypothesis or "per cent" in pair.hypothesis:
        true = 100 * (before - after) / before
    else:
        true = 100 / (before - after)
    assert claim.kind in {"points", "relative", "nnt"}
    return "supports" if claimed == pytest.approx(true) else "refutes"


def reread_law(pair: Pair, fact: c.Fact, claim: c.Proposition) -> str | None:
    premise, hypothesis = pair.premise, pair.hypothesis
    if isinstance(claim, c.BoundBySize) and isinstance(fact, c.Threshold):
        size = reader.number(hypothesis, r"(?:with|has) ([\d,]*\d) ")
        free = re.search(r"need not|free not", hypothesis) is not None
        return "supports" if (size >= reader.least_bound(premise)) != free else "refutes"
    if isinstance(claim, c.InForce) and isinstance(fact, c.Start):
        due, asked = reader.dates(premise)[-1], reader.dates(hypothesis)[0]
        denied = re.search(r"not yet|not begun", hypothesis) is not None
        return "supports" if (asked >= due) != denied else "refutes"
    if isinstance(claim, c.FineOf) and isinstance(fact, c.Fine):
        least, most = reader.fine_bounds(premise)
        amount = reader.number(hypothesis, r"([\d,]*\d) crowns")
        denied = "cannot" in hypothesis
        return "supports" if (least <= amount <= most) != denied else "refutes"
    if isinstance(claim, c.Spending) and isinstance(fact, c.Budget):
        cash, inflation = (float(i) for i in re.findall(r"(\d+(?:\.\d)?)(?:%| per cent)", premise))
        if re.search(r"\b(fell|dropped|less)\b", premise):
            cash = -cash
        cash -= 0 if "cash" in hypothesis else inflation
        down = re.search(r"\b(fell|less|lost|was cut)\b", hypothesis) is not None
        return "supports" if (cash > 0) != down else "refutes"
    return None


def test_every_label_that_can_be_read_from_the_text_is_right(world: World) -> None:
    read: Counter[str] = Counter()
    for edge, pair, facts, claim in rows(world):
        label = reread(edge, pair, facts, claim)
        if label is not None:
            read[edge.kind] += 1
            assert label == edge.label, (edge.kind, pair)
    assert sum(read.values()) > 0.6 * len(world.edges)
    assert {"numbers", "pvalue", "effect", "threshold", "start", "fine", "budget"} <= set(read)


def test_every_label_follows_from_the_facts_by_counting_possible_worlds(world: World) -> None:
    """A finding leaves some true effects possible; a claim holds in all, none or some."""
    truths = {
        "lower": lambda sign: sign < 0,
        "higher": lambda sign: sign > 0,
        "same": lambda sign: sign == 0,
        "not lower": lambda sign: sign >= 0,
        "not higher": lambda sign: sign <= 0,
    }
    checked = 0
    for edge, _, facts, claim in rows(world):
        if not isinstance(claim, c.Effect):
            continue
        possible = {-1, 0, 1}
        for fact in facts:
            scope = getattr(fact, "scope", c.EVERYONE)
            if getattr(fact, "subject", None) == claim.subject and scope == claim.scope:
                possible &= signs(fact)
        answers = {truths[claim.direction](sign) for sign in possible}
        expected = (
            "neutral" if len(answers) == 2 else "supports" if answers == {True} else "refutes"
        )
        assert edge.label == expected, (facts, claim)
        checked += 1
    assert checked > 0.5 * len(world.edges)


def signs(fact: c.Fact) -> set[int]:
    match fact:
        case c.Estimate(conclusive=False) | c.Silent():
            return {-1, 0, 1}
        case c.Estimate() | c.Noninferiority():
            neutral = getattr(fact, "neutral", 1.0)
            if fact.low <= neutral <= fact.high:
                return {0}
            return {-1} if fact.low < neutral else {1}
        case c.Verdict():
            return {{"lower": -1, "same": 0, "higher": 1}[fact.reading]}
        case c.Change():
            return {-1} if fact.caused else {-1, 0, 1}
        case _:
            raise AssertionError(fact)


def test_printed_intervals_are_the_facts_own(world: World) -> None:
    for fragment in world.fragments:
        for fact in fragment.facts:
            if isinstance(fact, (c.Estimate, c.Noninferiority)) and "CI" in fragment.text:
                digits = 1 if isinstance(fact, c.Estimate) and fact.neutral == 0 else 2
                assert f"{fact.low:.{digits}f}" in fragment.text
                assert f"{fact.high:.{digits}f}" in fragment.text


# --- the project as a whole -------------------------------------------------------------------


def test_size_labels_and_balance(world: World) -> None:
    assert len(world.edges) == 960
    shares = {label: n / 960 for label, n in Counter(e.label for e in world.edges).items()}
    assert all(0.25 <= shares[label] <= 0.42 for label in LABELS), shares
    assert 60 <= len({edge.topic for edge in world.edges}) <= 90


def test_a_claims_wording_does_not_give_the_label_away(world: World) -> None:
    """For every way of claiming an effect both answers occur, so the finding must be read."""
    seen: dict[str, set[str]] = {}
    for edge, _, _, claim in rows(world):
        if isinstance(claim, c.Effect):
            seen.setdefault(claim.direction, set()).add(edge.label)
    assert len(seen) == 5
    assert all(labels == set(LABELS) for labels in seen.values()), seen


def test_which_arm_had_fewer_events_does_not_give_the_label_away(world: World) -> None:
    labels = Counter(
        edge.label
        for edge, _, facts, claim in rows(world)
        for fact in facts
        if isinstance(claim, c.Effect)
        and claim.direction == "lower"
        and isinstance(fact, c.Estimate)
        and fact.conclusive
        and fact.value < fact.neutral
        and (fact.subject, fact.scope) == (claim.subject, claim.scope)
    )
    assert labels["refutes"] > 15
    assert labels["supports"] > 15


def test_no_text_pair_twice_and_ids_unique(world: World) -> None:
    texts = [(pair.premise, pair.hypothesis) for pair in world.pairs().values()]
    assert len(set(texts)) == len(texts)
    for table in (world.pages, world.fragments, world.claims, world.edges):
        ids = [row.id for row in table]
        assert len(set(ids)) == len(ids)
    fragment_texts = [fragment.text for fragment in world.fragments]
    assert len(set(fragment_texts)) == len(fragment_texts)


def test_everything_hangs_together(world: World) -> None:
    pages = {page.id: page for page in world.pages}
    fragments = {fragment.id: fragment for fragment in world.fragments}
    claims = {claim.id: claim for claim in world.claims}
    assert {fragment.page_id for fragment in world.fragments} == set(pages)
    assert {edge.fragment_id for edge in world.edges} == set(fragments)
    assert {edge.claim_id for edge in world.edges} == set(claims)
    for edge in world.edges:
        assert pages[fragments[edge.fragment_id].page_id].topic == edge.topic
        assert claims[edge.claim_id].topic == edge.topic
    for page in world.pages:
        assert re.fullmatch(rf"https://{page.domain}/[a-z0-9-]+", page.url)
        assert re.search(r"\.example\.(org|net|com)$", page.domain)


@pytest.mark.parametrize("fault", [
    r"[\[\]{}|]", r"<(?!0\.001)(?! 0\.001)", r"\s{2}", r"\s[,.;:]", r"\b[Aa] (odds|online|offer)",
    r"\b[Aa]n (hazard|risk)", r"\bthe the\b", r"\.\.", r"^[a-z]", r"[^.!?)]$",
    r"(^|\. )(Injurious falls|Falls|Severe asthma attacks|Pressure ulcers|Vivid nightmares) was",
])  # fmt: skip
def test_texts_are_well_formed(world: World, fault: str) -> None:
    texts = [fragment.text for fragment in world.fragments] + [c.text for c in world.claims]
    assert [text for text in texts if re.search(fault, text)] == []


def test_fragments_are_of_realistic_length(world: World) -> None:
    words = [len(fragment.text.split()) for fragment in world.fragments]
    assert min(words) >= 8
    assert max(words) <= 90
    assert sum(" The " in f.text or ". " in f.text for f in world.fragments) > 0.4 * len(words)


def test_a_holdout_of_topics_has_unseen_names_and_figures(world: World) -> None:
    topics = sorted({edge.topic for edge in world.edges})
    unseen = set(topics[::5])
    pairs = world.pairs()
    before = {pairs[e.id].premise for e in world.edges if e.topic not in unseen}
    figures = {figure for text in before for figure in re.findall(r"\d\.\d\d-\d\.\d\d", text)}
    names = {topic.split("-")[0] for topic in topics}
    assert len(names) > 0.7 * len(topics)
    new = [
        figure
        for edge in world.edges
        if edge.topic in unseen
        for figure in re.findall(r"\d\.\d\d-\d\.\d\d", pairs[edge.id].premise)
    ]
    assert sum(figure not in figures for figure in new) > 0.7 * len(new)


# --- seeds and sizes --------------------------------------------------------------------------


def test_same_seed_same_bytes_in_another_process() -> None:
    code = (
        "import hashlib; from lyra_nli.demo.world import build_world;"
        "print(hashlib.sha256(repr(build_world(3, 120)).encode()).hexdigest())"
    )
    digests = {
        subprocess.run(
            [sys.executable, "-c", code],
            env=os.environ | {"PYTHONHASHSEED": hash_seed},
            check=True,
            capture_output=True,
            text=True,
        ).stdout
        for hash_seed in ("0", "1")
    }
    assert len(digests) == 1


def test_another_seed_is_another_project() -> None:
    one, two = build_world(1, 120), build_world(2, 120)
    assert {f.text for f in one.fragments}.isdisjoint(f.text for f in two.fragments)
    assert {e.id for e in one.edges}.isdisjoint(e.id for e in two.edges)


@pytest.mark.parametrize("n_pairs", [12, 100, 600, 2000])
def test_as_many_pairs_as_asked(n_pairs: int) -> None:
    assert len(build_world(5, n_pairs).edges) == n_pairs


@pytest.mark.parametrize("n_pairs", [0, 11])
def test_too_few_pairs_for_a_topic(n_pairs: int) -> None:
    with pytest.raises(ValueError, match="at least 12"):
        build_world(5, n_pairs)


def test_the_mix_is_a_parameter() -> None:
    from lyra_nli.demo.phrases import load_text

    mix = load_text("mix") | {"clinic_share": 1.0, "labels": {
        "supports": 0.2, "refutes": 0.3, "neutral": 0.5}}  # fmt: skip
    world = build_world(5, 600, mix)
    counts = Counter(edge.label for edge in world.edges)
    assert (counts["supports"], counts["refutes"], counts["neutral"]) == (120, 180, 300)
    assert not any(isinstance(claim.proposition, c.Mandatory) for claim in world.claims)


def test_no_heavy_import() -> None:
    code = "import sys, lyra_nli.demo.world; print('torch' in sys.modules, 'numpy' in sys.modules)"
    out = subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True
    ).stdout
    assert out.split() == ["False", "False"]


def test_a_composite_lies_between_its_components(world: World) -> None:
    trios = [f.facts for f in world.fragments if f.kind == "components"]
    assert trios
    for whole, unmoved, moved in trios:
        assert moved.value < whole.value < unmoved.value


@pytest.mark.parametrize("change", CHANGES)
def test_sizes_of_falls_are_round(change: tuple[float, float]) -> None:
    before, after = change
    for figure in (before - after, 100 * (before - after) / before):
        assert figure == pytest.approx(round(figure, 1))


def test_intervals_cover_their_estimate(world: World) -> None:
    for fragment in world.fragments:
        for fact in fragment.facts:
            if isinstance(fact, c.Estimate):
                ordered = (fact.low, fact.value, fact.high)
                assert all(a <= b for a, b in pairwise(ordered))
