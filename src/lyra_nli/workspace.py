"""The workspace: settings, a database and the folder of its versions, opened together."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from sqlalchemy import Engine

from lyra_nli.dataset.build import Dataset, build
from lyra_nli.dataset.clean import clean
from lyra_nli.dataset.domains import find_domain, of_domain
from lyra_nli.dataset.groups import Side
from lyra_nli.dataset.replay import load_replay
from lyra_nli.errors import DatasetError
from lyra_nli.records import Example, Review
from lyra_nli.registry.rows import Version
from lyra_nli.registry.versions import Registry
from lyra_nli.settings import Settings, TrainingSettings
from lyra_nli.storage.engine import open_database, read
from lyra_nli.storage.generation import Generation, inspect_database
from lyra_nli.storage.reviews import ReviewSet, count_reviews, read_reviews, read_withdrawn


@dataclass(frozen=True)
class Workspace:
    """Where a loop turns. Knows no models: it opens in milliseconds."""

    settings: Settings
    engine: Engine
    generation: Generation
    registry: Registry

    @classmethod
    def open(cls, settings: Settings, *, read_only: bool = False) -> Workspace:
        """Open the database of the settings and look at it once.

        Raises:
            StorageError: when it is missing, or not a database we can work with.
        """
        engine = open_database(
            settings.storage.database_path,
            read_only=read_only,
            busy_timeout=settings.storage.busy_timeout_seconds,
        )
        registry = Registry(engine, Path(settings.nli.adapters_dir))
        return cls(settings, engine, inspect_database(engine), registry)

    def with_recipe(self, recipe: TrainingSettings) -> Workspace:
        """The same place, with another recipe for training."""
        return replace(self, settings=self.settings.model_copy(update={"training": recipe}))

    def reviews(self) -> ReviewSet:
        """Everything that people said about the model's judgements."""
        with read(self.engine) as connection:
            return read_reviews(connection, self.generation)

    def enough_reviews(self, domain: str = "") -> tuple[Review, ...]:
        """All reviews, if they, or those of the domain, hold corrections enough to learn from.

        Raises:
            DatasetError: fewer corrections than `dataset.min_samples`, or no such domain.
        """
        with read(self.engine) as connection:
            corrections = count_reviews(connection, self.generation).corrected
        reviews = tuple(self.reviews().reviews)
        if domain:
            inside = of_domain(reviews, find_domain(reviews, domain))
            corrections = sum(review.corrected for review in clean(inside).reviews)
        wanted = self.settings.dataset.min_samples
        if corrections < wanted:
            where = f" of {domain}" if domain else ""
            raise DatasetError(
                f"not enough corrections{where}: {corrections} so far, at least {wanted} are "
                "needed",
                hint="Review more edges; dataset.min_samples in the settings is the threshold.",
            )
        return reviews

    def dataset(
        self, reviews: Sequence[Review], active: Version | None, domain: str = ""
    ) -> Dataset:
        """Clean, split and mix; what the active version learned from is never its hold-out."""
        seen: dict[str, Side] = {}
        if active:
            manifest = self.registry.manifest_of(active)
            seen |= dict.fromkeys(manifest.inherited, "train")
            side: Side
            for side in ("train", "dev", "holdout"):
                seen |= dict.fromkeys(manifest.row_ids.get(side, ()), side)
            earlier = self.earlier_ids(reviews)
            seen = {now: seen[then] for now, then in earlier if then in seen} | seen
        folds = self.settings.training.folds
        return build(
            reviews, self.replay(), self.settings.dataset, seen, folds=folds, domain=domain
        )

    def earlier_ids(self, reviews: Sequence[Review]) -> Iterator[tuple[str, str]]:
        """(id by now, id by then) of pairs that may have been learned under another id.

        A confirmed edge of Lyra's is one row, and another once somebody reviews it; so is a pair
        whose review was taken back and given anew.
        """
        with read(self.engine) as connection:
            withdrawn = read_withdrawn(connection, self.generation)
        yield from ((r.id, f"edges:{r.edge_id}") for r in reviews if r.edge_id)
        if withdrawn:  # a key is a hash of two texts
            yield from ((r.id, then) for r in reviews for then in withdrawn.get(r.pair.key, ()))

    def replay(self) -> list[Example]:
        """The replay set: the shipped one, or the user's own file."""
        file = self.settings.dataset.replay_file
        return load_replay(Path(file) if file else None)
