"""Who answers what at one moment: a value that is never changed, only replaced as a whole."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from lyra_nli.hosts import site_of
from lyra_nli.ml_server.on_trial import OnTrial
from lyra_nli.ml_server.served import Served
from lyra_nli.registry.trials import TrialKind


@dataclass(frozen=True, slots=True)
class Serving:
    """The versions of one base that have a part to play.

    A request reads one of these and keeps to it, whatever is flipped meanwhile.

    Attributes:
        current: what ``adapter: "active"`` means.
        previous: the name of what was current before.
        routes: who judges the premises of which site, where that is not the current version.
        trials: the open trials of versions that are in memory.
    """

    current: Served
    previous: str
    routes: Mapping[str, Served] = field(default_factory=dict)
    trials: Mapping[TrialKind, OnTrial] = field(default_factory=dict)

    @property
    def canary(self) -> OnTrial | None:
        """The version that answers a share of the requests, where there is one."""
        return self.trials.get("canary")

    def choose(self, sources: Sequence[str], keys: Sequence[str] = ()) -> list[Served]:
        """Say who judges the premises of these URLs: what a site is routed to, else the current.

        Args:
            keys: one for each premise: where no route says otherwise the canary judges those that
                fall into its share. Without keys it judges none.
        """
        chosen = [self.current] * len(sources)
        if self.canary is not None:
            for i, key in enumerate(keys):
                if self.canary.trial.takes(key):
                    chosen[i] = self.canary.served
        if not self.routes:
            return chosen
        sites = {source: site_of(source) for source in set(sources)}
        return [
            self.routes.get(sites[s], served) for s, served in zip(sources, chosen, strict=True)
        ]

    def parts(self, name: str) -> list[str]:
        """Say what parts a version plays: ``active``, ``previous``, its trials, its sites."""
        aliases = [("active", self.current.name), ("previous", self.previous)]
        tried = [(kind, on.served.name) for kind, on in self.trials.items()]
        routed = [(site, served.name) for site, served in self.routes.items()]
        return [part for part, who in (*aliases, *tried, *routed) if who == name]

    def flipped(self, served: Served) -> Serving:
        """With another version as the current one."""
        before = self.previous if served.name == self.current.name else self.current.name
        return replace(self, current=served, previous=before)

    def exchanged(self, served: Served, fresh: Served) -> Serving:
        """With the same weights under another calibration in every part that they play."""
        return replace(
            self,
            current=fresh if self.current is served else self.current,
            routes={s: fresh if each is served else each for s, each in self.routes.items()},
            trials={
                kind: replace(on, served=fresh) if on.served is served else on
                for kind, on in self.trials.items()
            },
        )

    def without(self, trial_id: str) -> Serving:
        """With a trial taken out."""
        left = {kind: on for kind, on in self.trials.items() if on.trial.id != trial_id}
        return replace(self, trials=left)
