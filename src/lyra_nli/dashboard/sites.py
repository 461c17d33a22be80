"""Where the model errs: the random reviews by the site that their premise comes from."""

from __future__ import annotations

from collections import Counter
from typing import Any, Final

from sqlalchemy import Connection, Select, and_, func, literal_column, null, select

from lyra_nli.dashboard import stamps
from lyra_nli.dashboard.view import Fields, View
from lyra_nli.hosts import site_of
from lyra_nli.monitoring.shares import Share
from lyra_nli.storage.generation import Generation
from lyra_nli.storage.tables import edges, fragments, nli_reviews, pages

NEWEST: Final = 10_000
"""So many reviews, the newest, say enough about the sites that are read now."""

SITES: Final = 25


def sites(view: View) -> list[Fields]:
    """The correction rate of each site, the most reviewed first; empty where nobody knows it."""
    return view.ask(
        "the sites",
        [],
        _count,
        needs={"nli_reviews": ("undone_at", "sampling", "source_url")},
        stamp=stamps.of_reviews,
    )


def _count(connection: Connection, generation: Generation) -> list[Fields]:
    reviewed: Counter[str] = Counter()
    corrected: Counter[str] = Counter()
    known: dict[str, str] = {}
    seen: set[str] = set()
    for judgement, url, changed in connection.execute(_statement(generation)):
        if judgement in seen:
            continue
        seen.add(judgement)
        if url not in known:
            known[url] = site_of(url) or ""
        reviewed[known[url]] += 1
        corrected[known[url]] += bool(changed)
    return [
        {"domain": site, "correction_rate": Share(corrected[site], n).to_dict()}
        for site, n in reviewed.most_common(SITES)
    ]


def _statement(generation: Generation) -> Select[Any]:
    """Select the newest random reviews, with the address of the review or of its edge's page."""
    review = nli_reviews.c
    newest = (
        select(
            func.coalesce(review.edge_id, review.pair_key).label("judgement"),
            review.edge_id,
            review.source_url,
            (review.predicted_label != review.correct_label).label("changed"),
            review.reviewed_at,
            review.id,
        )
        # The condition of the partial index, to the letter: a bound value would not match it.
        .where(review.sampling == literal_column("'random'"), review.undone_at.is_(None))
        .order_by(review.reviewed_at.desc(), review.id.desc())
        .limit(NEWEST)
        .subquery()
    )
    graph = ("edges", "fragments", "pages")
    found: Any = newest
    page_url: Any = null()
    if all(generation.has(table) for table in graph) and generation.has("pages", "url"):
        from_fragment = and_(edges.c.source_type == "fragment", fragments.c.id == edges.c.source_id)
        found = (
            newest.outerjoin(edges, edges.c.id == newest.c.edge_id)
            .outerjoin(fragments, from_fragment)
            .outerjoin(pages, pages.c.id == fragments.c.page_id)
        )
        page_url = pages.c.url
    url = func.coalesce(func.nullif(newest.c.source_url, ""), page_url, "")
    order = (newest.c.reviewed_at, newest.c.id)  # of two verdicts on an edge, the first counts
    return select(newest.c.judgement, url, newest.c.changed).select_from(found).order_by(*order)
