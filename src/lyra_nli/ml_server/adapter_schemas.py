"""What goes over the wire about adapter versions: Lyra's fields, and a few more."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

from lyra_nli.ml_server.schemas import example
from lyra_nli.monitoring.predictions import LogStatus


class LoadRequest(BaseModel):
    """Which version to make active."""

    model_config = example(
        {"adapter_path": "adapters/lora-lyra-v3", "reason": "beats v2 on the hold-out"}
    )

    adapter_path: str | None = Field(
        None,
        max_length=4096,
        description="a version's folder in the registry, or its name. Without it: "
        "`nli.adapter_path` of the settings, else the active version, read anew",
    )
    reason: str | None = Field(
        None, max_length=4096, description="needed for a version that did not pass the gate"
    )


class UnloadRequest(BaseModel):
    """Why the base shall serve again."""

    reason: str | None = Field(None, max_length=4096)


class LoadResponse(BaseModel):
    """The version that is active now."""

    model_config = example(
        {
            "ok": True,
            "adapter_path": "adapters/lora-lyra-v3",
            "message": "lora-lyra-v3 is now active, freshly loaded",
        }
    )

    ok: bool = True
    adapter_path: str | None
    message: str


class SlotStatus(BaseModel):
    """One base model and the version current on it."""

    model_config = ConfigDict(protected_namespaces=())

    adapter_loaded: bool
    adapter_path: str | None
    base_model: str
    base_loaded: bool = Field(description="the base is in memory")
    base_fingerprint: str | None = Field(description="SHA-256 over its weights and configuration")
    base_bytes: int | None = Field(
        description="its memory: the module, and the weights and tables that were laid out anew"
    )
    last_used: str | None = Field(description="when its last request was answered")
    device: str = Field(description="cpu or cuda")
    precision: str | None = Field(
        description="float32, or bfloat16 or float16 where feed-forward products run in it"
    )
    version: str | None
    digest: str | None = Field(description="SHA-256 over the digests of the version's files")
    model_version: str | None
    loaded_at: str | None
    calibration: int | None = Field(description="the number of the calibration of its answers")


class ResidentVersion(BaseModel):
    """A version in memory, current or not."""

    version: str
    base_model: str
    loaded_at: str
    load_seconds: float
    bytes: int = Field(description="memory that it does not share with the base")
    pinned: list[str] = Field(
        description="why it stays in memory: `active`, `previous`, `shadow`, `canary`, the "
        "sites routed to it; "
        "without a reason it goes when there are too many"
    )


class Route(BaseModel):
    """A site whose premises are judged by a version of their own."""

    model_config = ConfigDict(protected_namespaces=())

    site: str
    adapter: str = Field(description="as the settings name it")
    model_versions: list[str] = Field(
        description="the weights in memory that it leads to; none: the active version judges, "
        "and `follow_error` says why"
    )


class TrialStatus(BaseModel):
    """A version that is tried out on live pairs, and how that goes in this server."""

    id: str
    kind: str = Field(
        description="`shadow`: it judges again what was answered; `canary`: it answers a share"
    )
    base_model: str
    version: str
    share: float
    started_at: str
    judged: int
    disagreed: int = Field(description="pairs to which a shadow gives another label")
    skipped: int = Field(description="pairs drawn for a shadow for which there was no time")
    failed: int = Field(description="pairs that it could not judge")
    problem: str = Field(description="why not, the last time")


class StatusResponse(SlotStatus):
    """The fast model's status at the top, as Lyra reads it; the slow one's under `slow`."""

    slow: SlotStatus
    resident: list[ResidentVersion]
    resident_limit: int = Field(description="versions of one base that are kept in memory")
    memory_bytes: int = Field(description="of all bases and resident versions")
    memory_limit_mb: float | None = Field(description="what they may take; null: no bound")
    routes: list[Route]
    trials: list[TrialStatus]
    database: str
    database_found: bool
    follow_error: str | None = Field(
        description="why the registry can't be followed, or its active version not served"
    )
    prediction_log: LogStatus = Field(description="how the log of predictions is doing")
    watch_error: str | None = Field(
        description="why the watch can't look, which ends canaries and rolls back; null: it does"
    )
    shadow_log_error: str | None = Field(
        description="why what shadows say is not written; null: it is"
    )


class AdapterItem(BaseModel):
    """A version in the registry."""

    name: str
    base_model: str
    path: str
    digest: str
    status: str = Field(description="passed, rejected, or unproven")
    domain: str = Field(description="what it was trained for; empty: everything")
    aliases: list[str] = Field(description="active, previous")
    samples_used: int
    created_at: str
    resident: bool


class AdaptersResponse(BaseModel):
    """Every version that exists."""

    ok: bool = True
    adapters: list[AdapterItem]
    message: str = ""
