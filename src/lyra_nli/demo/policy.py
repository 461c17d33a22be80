"""Topics about a law or a public programme, and the pages that report on them."""

from __future__ import annotations

from collections.abc import Mapping
from random import Random
from typing import Any

from lyra_nli.demo.drafts import Names, Passage, Topic
from lyra_nli.demo.law import Law
from lyra_nli.demo.programme import Programme


def policy_topic(rng: Random, names: Names, mix: Mapping[str, Any]) -> Topic:
    """One topic: a law or a programme in one place, two or three pages, three or four claims.

    Args:
        rng: the source of every choice.
        names: knows which pairs of place and policy are taken.
        mix: the weights of text/mix.yaml.
    """
    policy = (Law if rng.random() < mix["law_share"] else Programme)(rng, names, mix)
    passages = []
    for page in range(rng.choice((2, 3))):
        for kind in rng.choices(
            list(policy.kinds), list(policy.kinds.values()), k=rng.randint(3, 5)
        ):
            text, facts = policy.findings[kind]()
            passages.append(Passage(kind, page, policy.framed(text), facts))
    return Topic(policy.slug, policy.titles(), tuple(passages), policy.statements())
