"""Domains: reviews by the site that a premise comes from, or by the group of an import."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

from lyra_nli.errors import DatasetError
from lyra_nli.hosts import site_of
from lyra_nli.records import Review

_GROUP = "group:"

_SHOWN = 20


def domains_of(review: Review) -> frozenset[str]:
    """The registrable site of its source, and its groups; empty where neither is known."""
    groups = {a.removeprefix(_GROUP) for a in review.anchors if a.startswith(_GROUP)}
    return frozenset({site_of(review.source_url), *groups} - {""})


def find_domain(reviews: Sequence[Review], name: str) -> str:
    """Find what is meant by a group's name, a site's, or any address there.

    Raises:
        DatasetError: nobody reviewed anything of that name; lists what there is.
    """
    counts = Counter(domain for review in reviews for domain in domains_of(review))
    for domain in (name, site_of(name)):
        if domain in counts:
            return domain
    shown = [f"{domain}: {count} reviews" for domain, count in counts.most_common(_SHOWN)]
    if len(counts) > _SHOWN:
        shown.append(f"and {len(counts) - _SHOWN} more")
    raise DatasetError(
        f"there are no reviews of the domain {name!r}",
        problems=shown,
        hint="A domain is the site of `source_url` (example.org), or a `group` of an import.",
    )


def of_domain(reviews: Sequence[Review], domain: str) -> list[Review]:
    """The reviews of a domain, as `find_domain` names it.

    That they share its group says nothing here: inside it, groups are pages, claims and texts.
    """
    return untied([review for review in reviews if domain in domains_of(review)], domain)


def untied(reviews: Sequence[Review], domain: str) -> list[Review]:
    """The same reviews; those that share the domain's group are not tied by it."""
    group = {f"{_GROUP}{domain}"}
    return [replace(review, anchors=review.anchors - group) for review in reviews]
