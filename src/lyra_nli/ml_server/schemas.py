"""What goes over the wire: Lyra's fields under Lyra's names, and a few more."""

from __future__ import annotations

from typing import Self

from pydantic import BaseModel, ConfigDict, Field, JsonValue, model_validator

from lyra_nli.labels import Label
from lyra_nli.records import MAX_TEXT_CHARS, Pair

_PAIR: dict[str, JsonValue] = {
    "pair_id": "p1",
    "premise": "Mortality did not differ between the arms (HR 0.98, 95% CI 0.81-1.19).",
    "hypothesis": "The drug lowers mortality.",
}
_RESULT: dict[str, JsonValue] = {
    "pair_id": "p1",
    "label": "refutes",
    "confidence": 0.94,
    "raw_label": "contradiction",
    "probabilities": {"supports": 0.01, "refutes": 0.94, "neutral": 0.05},
    "truncated": False,
    "windows": 1,
    "evidence": None,
    "adapter": "lora-lyra-v3",
    "base_model": "starter",
    "model_version": "starter@0f3a52c1b7de+lora-lyra-v3@9b1c44d0e2fa",
    "calibrated_confidence": 0.81,
    "calibration": 4,
    "raw_confidence": None,
}


def example(value: dict[str, JsonValue]) -> ConfigDict:
    """Show it in the documentation of the API."""
    return ConfigDict(json_schema_extra={"examples": [value]})


class NLIPair(BaseModel):
    """A pair to judge. Lyra's two generations name the hypothesis differently; both work."""

    model_config = example(_PAIR)

    pair_id: str = Field(min_length=1, max_length=512, description="unique in the request")
    premise: str = Field(max_length=MAX_TEXT_CHARS)
    hypothesis: str | None = Field(None, max_length=MAX_TEXT_CHARS)
    nli_hypothesis: str | None = Field(
        None, max_length=MAX_TEXT_CHARS, description="the newer name of `hypothesis`"
    )
    source_url: str = Field(
        "",
        max_length=4096,
        description="where the premise comes from: chooses the version by `nli.routes` of the "
        "settings, and is counted by domain",
    )
    adapter: str | None = Field(
        None,
        max_length=256,
        description="who judges this pair: `active`, `base`, or a version's name. Without it: the "
        "request's `adapter`, else what the site of `source_url` is routed to, else `active`",
    )

    @model_validator(mode="after")
    def _one_hypothesis(self) -> Self:
        if self.hypothesis is None and self.nli_hypothesis is None:
            raise ValueError("hypothesis is missing (or nli_hypothesis)")
        both = self.hypothesis is not None and self.nli_hypothesis is not None
        if both and self.hypothesis != self.nli_hypothesis:
            raise ValueError("hypothesis and nli_hypothesis differ: send one of them")
        return self

    @property
    def texts(self) -> Pair:
        """The pair, whichever name its hypothesis came under."""
        return Pair(self.premise, self.hypothesis or self.nli_hypothesis or "")


class NLIRequest(BaseModel):
    """Pairs to judge in one go; the answers come in the same order."""

    model_config = example({"pairs": [_PAIR], "use_slow": False})

    pairs: list[NLIPair]
    use_slow: bool | None = Field(None, description="ask the slow model")
    adapter: str | None = Field(
        None, max_length=256, description="who judges the pairs that name none themselves"
    )
    key: str | None = Field(
        None,
        max_length=512,
        description="of a task or a user: while a canary is tried out, all requests of one key are "
        "answered by the same version; without it all repeats of one pair",
    )
    slow_below: float | None = Field(
        None,
        gt=0,
        le=1,
        allow_inf_nan=False,
        description="ask the slow model again where the fast one's probability of its label is "
        "below this, and answer what it says there",
    )
    windows: bool | None = Field(
        None,
        description="judge a premise that is too long by overlapping windows; null: what "
        "`nli.windows` of the settings says",
    )
    deadline_seconds: float | None = Field(
        None,
        gt=0,
        allow_inf_nan=False,
        description="give up after this, with 504; at most `ml_server.deadline_seconds`",
    )

    @model_validator(mode="after")
    def _fast_then_slow(self) -> Self:
        if self.use_slow and self.slow_below is not None:
            raise ValueError("use_slow asks the slow model alone: send it or slow_below, not both")
        return self


class NLIResult(BaseModel):
    """The judgement of one pair."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [_RESULT]},
        protected_namespaces=(),
    )

    pair_id: str
    label: Label
    confidence: float = Field(
        description="the probability of `label`; the calibrated one, where there is one and "
        "`monitoring.calibrated_confidence` is set"
    )
    raw_label: str = Field(description="the model's own name for the class")
    probabilities: dict[Label, float]
    truncated: bool = Field(description="the premise was cut to fit; the hypothesis never is")
    windows: int = Field(1, description="windows of a long premise that were judged")
    evidence: tuple[int, int] | None = Field(
        None,
        description="where the window that decided begins and ends in the premise, in characters "
        "(Unicode code points); null: the premise was read as one",
    )
    adapter: str = Field(description="the version that judged, or `base`")
    base_model: str = Field(description="the base model that judged, the fast one or the slow one")
    model_version: str = Field(description="base and adapter, each with its fingerprint")
    calibrated_confidence: float | None = Field(
        None, description="how likely `label` is to be right, by what people said; null: unknown"
    )
    calibration: int | None = Field(None, description="the number of the calibration behind it")
    raw_confidence: float | None = Field(
        None, description="the probability of `label`, where `confidence` is the calibrated one"
    )


class NLIResponse(BaseModel):
    """All judgements, in the order of the request."""

    model_config = example({"ok": True, "results": [_RESULT], "error": None})

    ok: bool = True
    results: list[NLIResult]
    error: str | None = None


class ErrorResponse(BaseModel):
    """What every failure looks like; the HTTP status says which kind it is."""

    model_config = example(
        {
            "ok": False,
            "results": [],
            "error": "1 text(s) can't be judged",
            "message": "1 text(s) can't be judged",
            "problems": ["pair 'p1': the premise is empty"],
            "hint": "",
        }
    )

    ok: bool = False
    results: list[NLIResult] = []
    error: str
    message: str = Field(description="the same, where Lyra's adapter calls look for it")
    problems: list[str] = Field([], description="every single problem")
    hint: str = Field("", description="what to do about it")


class MessageResponse(BaseModel):
    """It worked, and this is what was done."""

    ok: bool = True
    message: str


class WarmupResponse(MessageResponse):
    """The fast model is in memory and has judged a pair."""

    models_loaded: dict[str, bool]


class HealthResponse(BaseModel):
    """Lyra's health answer."""

    model_config = ConfigDict(protected_namespaces=())

    status: str = Field(description="`ok`, `loading`, or `error`")
    models_loaded: dict[str, bool]
    error: str | None = None


class ReadyResponse(BaseModel):
    """Whether pairs are judged."""

    ready: bool
    error: str | None = None
