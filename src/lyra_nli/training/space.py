"""The space of a search: which parts of a recipe it may change, and how far."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)

from lyra_nli.settings import TrainingSettings

_FACTOR = 4.0
"""How far the learning rate and the adapter's scale may go, either way."""


class Space:
    """Recipes around one of them, which is part of it whatever its values are.

    Args:
        recipe: the one of the settings.
        depth: encoder layers of the base.
    """

    def __init__(self, recipe: TrainingSettings, depth: int) -> None:
        self.recipe = recipe
        self.depth = depth
        scale, rank = recipe.alpha / recipe.rank, recipe.rank
        layers = {max(1, depth // 3), max(1, depth // 2), max(1, 2 * depth // 3), self._layers}
        highest = min(0.5, recipe.learning_rate * _FACTOR)
        self.distributions: Mapping[str, BaseDistribution] = {
            "learning_rate": FloatDistribution(recipe.learning_rate / _FACTOR, highest, log=True),
            # Rather than alpha itself: it is what the rank leaves as it was.
            "scale": FloatDistribution(scale / _FACTOR, scale * _FACTOR, log=True),
            "rank": CategoricalDistribution(sorted({max(1, rank // 2), rank, min(256, 2 * rank)})),
            "layers": CategoricalDistribution(sorted(layers)),
            "epochs": IntDistribution(max(1, recipe.epochs - 1), min(100, recipe.epochs + 3)),
            "kl_weight": FloatDistribution(0.0, max(2.0, recipe.kl_weight)),
            "label_smoothing": FloatDistribution(0.0, max(0.2, recipe.label_smoothing)),
            "foreign_share": FloatDistribution(0.0, max(1.0, recipe.foreign_share)),
        }

    @property
    def own(self) -> dict[str, Any]:
        """Where the recipe itself lies."""
        values = {
            name: getattr(self.recipe, name) for name in self.distributions if name != "scale"
        }
        return {**values, "scale": self.recipe.alpha / self.recipe.rank, "layers": self._layers}

    def at(self, place: Mapping[str, Any]) -> TrainingSettings:
        """The recipe at a place; fractions to three digits, as people would write them."""
        values = {
            name: float(f"{value:.3g}") if isinstance(value, float) else value
            for name, value in place.items()
        }
        if values["layers"] == self._layers:
            values["layers"] = self.recipe.layers  # as the settings say it: third, half, all
        alpha = values.pop("scale") * values["rank"]
        return TrainingSettings.model_validate(
            {**self.recipe.model_dump(), **values, "alpha": float(f"{alpha:.3g}")}
        )

    def effort(self, recipe: TrainingSettings) -> float:
        """About how much longer a fit by this recipe takes than by the settings' own."""
        theirs = recipe.epochs * recipe.learning_layers(self.depth)
        return theirs / (self.recipe.epochs * self._layers)

    def changes(self, recipe: TrainingSettings) -> dict[str, Any]:
        """What another recipe has otherwise."""
        ours, theirs = self.recipe.model_dump(mode="json"), recipe.model_dump(mode="json")
        return {name: value for name, value in theirs.items() if value != ours[name]}

    @property
    def _layers(self) -> int:
        return self.recipe.learning_layers(self.depth)
