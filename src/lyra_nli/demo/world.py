"""A sample research project in which a general NLI model really errs.

Clinical and policy statistics in words: "HR 0.98 (95% CI 0.81-1.19)" against "X lowers the
risk of Y". Drugs, trials, laws and places are invented; the labels follow from structured
facts by the codebook (`lyra_nli.demo.codebook`), not from the wording. The same seed gives
the same bytes in every process.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from random import Random
from typing import Any

from lyra_nli.demo.clinic import clinic_topic
from lyra_nli.demo.codebook import about, askable, label
from lyra_nli.demo.drafts import Names, Topic
from lyra_nli.demo.facts import (
    Fact,
    PrimaryMet,
    Proposition,
    Silent,
)
from lyra_nli.demo.phrases import load_text
from lyra_nli.demo.policy import policy_topic
from lyra_nli.labels import LABELS, Label
from lyra_nli.records import Pair

PAIRS_PER_TOPIC = 12
"""A topic offers more pairs than it keeps, so that the labels can be balanced."""


@dataclass(frozen=True, slots=True)
class Page:
    """A web page of the project."""

    id: str
    url: str
    domain: str
    title: str
    topic: str


@dataclass(frozen=True, slots=True)
class Fragment:
    """A passage of a page: the premise. ``facts`` is what it states."""

    id: str
    page_id: str
    text: str
    kind: str
    facts: tuple[Fact, ...]


@dataclass(frozen=True, slots=True)
class Claim:
    """A hypothesis. ``proposition`` is what it states; None when nobody wrote that down."""

    id: str
    topic: str
    text: str
    proposition: Proposition | None


@dataclass(frozen=True, slots=True)
class Edge:
    """A fragment that is judged against a claim, with the true label.

    Attributes:
        kind: the kind of finding in the fragment, a key of text/mix.yaml.
    """

    id: str
    fragment_id: str
    claim_id: str
    label: Label
    topic: str
    kind: str


@dataclass(frozen=True)
class World:
    """The whole project."""

    pages: tuple[Page, ...]
    fragments: tuple[Fragment, ...]
    claims: tuple[Claim, ...]
    edges: tuple[Edge, ...]

    def pairs(self) -> dict[str, Pair]:
        """The texts of every edge, by its id."""
        premises = {fragment.id: fragment.text for fragment in self.fragments}
        hypotheses = {claim.id: claim.text for claim in self.claims}
        return {
            edge.id: Pair(premises[edge.fragment_id], hypotheses[edge.claim_id])
            for edge in self.edges
        }


def build_world(seed: int = 7, n_pairs: int = 960, mix: Mapping[str, Any] | None = None) -> World:
    """Write a project.

    Args:
        seed: another seed, another project: other names, figures and wordings.
        n_pairs: how many edges it has, exactly.
        mix: weights instead of those in text/mix.yaml.

    Raises:
        ValueError: for more pairs than there are names for, or fewer than one topic has.
    """
    if n_pairs < PAIRS_PER_TOPIC:
        raise ValueError(f"a project has at least {PAIRS_PER_TOPIC} pairs, not {n_pairs}")
    mix = mix or load_text("mix")
    names = Names(Random(f"{seed}:names"))
    topics = []
    for number in range(-(-n_pairs // PAIRS_PER_TOPIC)):
        rng = Random(f"{seed}:{number}")
        write = clinic_topic if rng.random() < mix["clinic_share"] else policy_topic
        topics.append(_lay_out(seed, rng, write(rng, names, mix)))
    chosen = _choose(Random(f"{seed}:edges"), topics, n_pairs, mix)
    return _assemble(topics, chosen)


@dataclass(frozen=True, slots=True)
class _Laid:
    """A topic on its pages, and every pair of it that may be asked."""

    pages: tuple[Page, ...]
    fragments: tuple[Fragment, ...]
    claims: tuple[Claim, ...]
    candidates: tuple[tuple[Edge, bool], ...]


def _lay_out(seed: int, rng: Random, topic: Topic) -> _Laid:
    def make_id(prefix: str, number: int) -> str:
        name = f"{seed}:{topic.slug}:{prefix}:{number}"
        return f"{prefix}_{hashlib.sha256(name.encode()).hexdigest()[:16]}"

    count = 1 + max(passage.page for passage in topic.passages)
    sites = rng.sample(load_text("names")["site"], count)
    pages = tuple(
        Page(
            id=make_id("page", number),
            url=f"https://{site}/{topic.slug}-{rng.randint(100, 999)}",
            domain=site,
            title=title,
            topic=topic.slug,
        )
        for number, (site, title) in enumerate(zip(sites, topic.titles, strict=False))
    )
    texts = {passage.text: passage for passage in topic.passages}
    fragments = tuple(
        Fragment(make_id("frag", number), pages[each.page].id, each.text, each.kind, each.facts)
        for number, each in enumerate(texts.values())
    )
    # Two statements of one proposition would be one claim in two wordings: the last stays.
    propositions = {each.proposition: each.text for each in topic.statements}
    claims = tuple(
        Claim(make_id("claim", number), topic.slug, text, proposition)
        for number, (proposition, text) in enumerate(propositions.items())
    )
    asked = [
        (fragment, claim, proposition)
        for fragment in fragments
        for claim, proposition in zip(claims, propositions, strict=True)
        if askable(fragment.facts, proposition) and not _unnamed_trial(fragment, proposition)
    ]
    candidates = tuple(
        (
            Edge(
                id=make_id("edge", number),
                fragment_id=fragment.id,
                claim_id=claim.id,
                label=label(fragment.facts, proposition),
                topic=topic.slug,
                kind=fragment.kind,
            ),
            about(fragment.facts, proposition),
        )
        for number, (fragment, claim, proposition) in enumerate(asked)
    )
    return _Laid(pages, fragments, claims, candidates)


def _unnamed_trial(fragment: Fragment, proposition: Proposition) -> bool:
    """A text that may or may not come from the trial whose primary outcome is claimed."""
    if not isinstance(proposition, PrimaryMet):
        return False
    if any(isinstance(fact, Silent) for fact in fragment.facts):
        return False
    if any(getattr(fact, "primary_of", "") for fact in fragment.facts):
        return False
    named = re.search(r"the (\S+) trial", fragment.text, re.IGNORECASE)
    return named is None or named[1] == proposition.trial


def _choose(rng: Random, topics: list[_Laid], n_pairs: int, mix: Mapping[str, Any]) -> set[str]:
    """The ids of the edges to keep: the wanted mix of labels, few on foreign subjects."""
    piles: dict[Label, list[tuple[float, str]]] = {name: [] for name in LABELS}
    for topic in topics:
        for edge, on_subject in topic.candidates:
            weight = 1.0 if on_subject else mix["foreign_weight"]
            # Weighted sampling without replacement (Efraimidis and Spirakis 2006).
            piles[edge.label].append((rng.random() ** (1 / weight), edge.id))
    for pile in piles.values():
        pile.sort(reverse=True)
    wanted = {name: round(n_pairs * mix["labels"][name]) for name in LABELS}
    chosen = [edge_id for name in LABELS for _, edge_id in piles[name][: wanted[name]]]
    # What rounding or a short pile left open is filled from what remains, best first.
    rest = sorted((item for name in LABELS for item in piles[name][wanted[name] :]), reverse=True)
    chosen += [edge_id for _, edge_id in rest]
    if len(chosen) < n_pairs:
        raise ValueError(f"the mix yields {len(chosen)} pairs, fewer than {n_pairs}")
    return set(chosen[:n_pairs])


def _assemble(topics: list[_Laid], chosen: set[str]) -> World:
    """The project without the texts that no chosen edge uses."""
    edges = tuple(edge for topic in topics for edge, _ in topic.candidates if edge.id in chosen)
    used = {item for edge in edges for item in (edge.fragment_id, edge.claim_id)}
    fragments = tuple(item for item in _all(topics, "fragments") if item.id in used)
    used |= {fragment.page_id for fragment in fragments}
    return World(
        pages=tuple(item for item in _all(topics, "pages") if item.id in used),
        fragments=fragments,
        claims=tuple(item for item in _all(topics, "claims") if item.id in used),
        edges=edges,
    )


def _all(topics: list[_Laid], what: str) -> Iterator[Any]:
    for topic in topics:
        yield from getattr(topic, what)
