"""Reproduction: a version made again from its manifest, and held against its bytes."""

from __future__ import annotations

from pydantic import ValidationError
from rich.console import Console

from lyra_nli import provenance
from lyra_nli.dataset.build import rebuild
from lyra_nli.errors import AdapterError, DatasetError
from lyra_nli.models.adapter import save_adapter
from lyra_nli.models.base import load_base
from lyra_nli.registry.artifact import staged
from lyra_nli.registry.manifest import Manifest
from lyra_nli.registry.rows import Version
from lyra_nli.settings import DatasetSettings, TrainingSettings
from lyra_nli.trainers import told, trainer_of
from lyra_nli.training.log import TrainingLog
from lyra_nli.warm_start import start_again
from lyra_nli.workspace import Workspace


def reproduce(workspace: Workspace, name: str, console: Console | None = None) -> Version:
    """Train a version again from its manifest, and compare the bytes.

    Raises:
        DatasetError: rows of that run are gone or changed.
        AdapterError: the base has changed, or the new adapter differs.
    """
    version = workspace.registry.get(name)
    manifest = workspace.registry.verify(version.name)
    base = load_base(
        manifest.base_model, revision=manifest.base_revision, max_length=manifest.max_length
    )
    if base.fingerprint != manifest.base_fingerprint:
        raise AdapterError(f"{version.name} was trained on other weights of {base.name}")
    people = manifest.metrics.get("people", {})  # versions of earlier releases counted none
    dataset = rebuild(
        workspace.reviews().reviews, workspace.replay(), manifest.row_ids, people, manifest.groups
    )
    dataset = dataset.weighed(DatasetSettings.model_validate(manifest.dataset_settings))
    if dataset.content_hash != manifest.dataset_hash:
        raise DatasetError(f"the rows that {version.name} learned from have changed since")
    recipe = recipe_of(manifest)
    figures = manifest.metrics["training"]
    start = start_again(workspace, base, manifest)
    with (
        told(),
        staged(workspace.registry.directory) as staging,
        TrainingLog(staging / "log", console) as log,
    ):
        trainer = trainer_of(
            base,
            recipe,
            log,
            micro_batch=figures["micro_batch"],
            pass_tokens=figures.get("pass_tokens"),  # earlier releases did not keep it
        )
        if start:
            trainer.start_from(start.weights(trainer.student), start.learned)
        trainer.repeat(
            dataset.train,
            dataset.dev,
            figures["strength"],
            dev_learned=figures["dev_learned"],
        )
        save_adapter(base, trainer.student.model, recipe, staging, figures["strength"])
        changed = [
            file
            for file in ("adapter_model.safetensors", "adapter_config.json")
            if provenance.file_digest(staging / file) != manifest.files[file]
        ]
    if changed:
        raise AdapterError(
            f"training {version.name} again gave other bytes",
            problems=changed,
            hint="The same machine, library versions and thread count are needed; the manifest "
            "names them.",
        )
    return version


def recipe_of(manifest: Manifest) -> TrainingSettings:
    """The recipe that a version was trained by.

    Raises:
        AdapterError: it was trained by another release, whose recipe means nothing here.
    """
    # A default of today says nothing about a recipe that did not have the setting.
    missing = TrainingSettings.model_fields.keys() - manifest.recipe.keys()
    problems = [f"{name}: not in its recipe" for name in sorted(missing)]
    if not manifest.groups:
        problems.append("groups: not in its manifest")
    try:
        recipe = TrainingSettings.model_validate(manifest.recipe)
    except ValidationError as error:
        problems += [f"{item['loc'][0]}: {item['msg']}" for item in error.errors()]
    if problems:
        raise AdapterError(
            "the version was trained by another release of lyra-nli",
            problems=problems,
            hint="Its bytes can only be made again by that release.",
        )
    return recipe
