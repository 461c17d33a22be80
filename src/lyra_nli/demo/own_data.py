"""A user's own reviewed pairs as a project, so that the demo can play the loop on them."""

from __future__ import annotations

import hashlib
from pathlib import Path
from urllib.parse import urlsplit

from lyra_nli.demo.world import Claim, Edge, Fragment, Page, World
from lyra_nli.errors import InputError
from lyra_nli.feedback.fields import ImportRow
from lyra_nli.feedback.importing import read_rows


def world_of_reviews(file: Path) -> World:
    """Read a file of reviewed pairs; the human labels are taken for the truth.

    A topic is the file's ``group``; without one, the page (``source_url``) or the premise.

    Raises:
        InputError: with every bad row, or when the file has fewer than two topics.
    """
    rows, problems = read_rows(file)
    if problems:
        raise InputError(f"{file}: {len(problems)} problem(s)", problems=problems)
    pages: dict[str, Page] = {}
    fragments: dict[str, Fragment] = {}
    claims: dict[str, Claim] = {}
    edges: dict[str, Edge] = {}
    for row in rows:
        topic = row.group or row.source_url or row.pair.premise
        page = _id("page", topic, row.source_url)
        fragment = _id("frag", page, row.pair.premise)
        claim = _id("clm", topic, row.pair.hypothesis)
        pages[page] = _page(page, topic, row)
        fragments[fragment] = Fragment(fragment, page, row.pair.premise, kind="", facts=())
        claims[claim] = Claim(claim, topic, row.pair.hypothesis, proposition=None)
        edge = _id("edge", fragment, claim)
        edges[edge] = Edge(edge, fragment, claim, row.correct_label, topic, kind="")
    if len({edge.topic for edge in edges.values()}) < 2:
        raise InputError(
            f"{file} has one topic only: nothing would be left to judge the result on",
            hint="Give the rows a `group`, e.g. the page or the question they belong to.",
        )
    return World(
        tuple(pages.values()),
        tuple(fragments.values()),
        tuple(claims.values()),
        tuple(edges.values()),
    )


def _page(page_id: str, topic: str, row: ImportRow) -> Page:
    url = row.source_url or f"https://example.org/{page_id}"
    return Page(page_id, url, urlsplit(url).hostname or "", title=topic[:80], topic=topic)


def _id(prefix: str, *parts: str) -> str:
    joined = "\x1f".join(parts).encode("utf-8", "surrogatepass")
    return f"{prefix}_{hashlib.sha256(joined).hexdigest()[:16]}"
