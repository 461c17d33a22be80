"""Which versions can be made again: those whose manifest says all that their bytes depend on."""

from __future__ import annotations

import pytest

from lyra_nli.errors import AdapterError, TrainingError
from lyra_nli.registry.manifest import Manifest
from lyra_nli.reproduction import recipe_of
from lyra_nli.settings import TrainingSettings
from lyra_nli.trainers import told


def manifest(recipe: dict[str, object], groups: dict[str, str]) -> Manifest:
    return Manifest(
        base_model="starter",
        base_revision=None,
        base_fingerprint="ab" * 32,
        dataset_hash="d" * 64,
        split_hash="e" * 64,
        row_ids={"train": ["nli_reviews:1"], "dev": [], "holdout": []},
        groups=groups,
        recipe=recipe,
        dataset_settings={},
        library_versions={},
        git_commit=None,
        seed=13,
        threads=1,
        created_at="2026-01-01T00:00:00+00:00",
        metrics={},
    )


RECIPE = TrainingSettings(rank=4).model_dump(mode="json")


def test_its_own_recipe_counts_not_the_settings_of_today():
    assert recipe_of(manifest(RECIPE, {"nli_reviews:1": "g"})).rank == 4


def test_without_groups_its_foreign_pairs_are_not_known():
    with pytest.raises(AdapterError, match="another release") as caught:
        recipe_of(manifest(RECIPE, {}))
    assert list(caught.value.problems) == ["groups: not in its manifest"]
    assert "by that release" in caught.value.hint


def test_everything_that_is_missing_or_unknown_is_listed():
    recipe = {k: v for k, v in RECIPE.items() if k != "rank"} | {"early_stopping": True}
    with pytest.raises(AdapterError) as caught:
        recipe_of(manifest(recipe, {}))
    problems = " ".join(caught.value.problems)
    assert all(word in problems for word in ("rank", "groups", "early_stopping"))


@pytest.mark.parametrize("fault", [MemoryError(), RuntimeError("No executable batch size")])
def test_what_the_machine_stopped_is_told(fault: Exception) -> None:
    with pytest.raises(TrainingError, match="training stopped: "), told():
        raise fault
