"""The endpoints, as a router that any FastAPI application can mount."""

from __future__ import annotations

from collections import Counter

from fastapi import APIRouter, Response

from lyra_nli.errors import InputError
from lyra_nli.ml_server.adapter_schemas import (
    AdapterItem,
    AdaptersResponse,
    LoadRequest,
    LoadResponse,
    StatusResponse,
    UnloadRequest,
)
from lyra_nli.ml_server.nli import NLIService
from lyra_nli.ml_server.schemas import (
    ErrorResponse,
    HealthResponse,
    MessageResponse,
    NLIPair,
    NLIRequest,
    NLIResponse,
    NLIResult,
    ReadyResponse,
    WarmupResponse,
)
from lyra_nli.ml_server.wire import LyraRoute, OwnPagesRoute, PatientRoute, by_pair_id
from lyra_nli.records import Judgement

_ERRORS = {
    404: "no such version; the answer says what exists",
    409: "the registry refuses",
    413: "the request is larger than 64 MB",
    429: "too many pairs wait already; Retry-After says when to come back",
    422: "the request or the adapter is not valid; every problem is listed",
    504: "not judged before the deadline",
    503: "the model is loading or can't be had, or the database can't be used",
}


def create_router(
    service: NLIService, *, max_pairs: int = 1000, calibrated: bool = False
) -> APIRouter:
    """All endpoints of the ML server.

    The application that mounts it starts and closes the service, see ``main.running``.

    Args:
        service: answers the requests.
        max_pairs: pairs one request may hold.
        calibrated: answer the calibrated confidence in `confidence`.
    """
    router = APIRouter(route_class=LyraRoute)
    router.include_router(_judging(service, max_pairs, calibrated))
    router.include_router(_adapters(service))
    router.include_router(_health(service))
    return router


def _judging(service: NLIService, max_pairs: int, calibrated: bool) -> APIRouter:
    router = APIRouter(route_class=PatientRoute, tags=["judging"])

    @router.post("/nli", responses=_errors(404, 409, 413, 422, 429, 503, 504))
    async def nli(request: NLIRequest) -> NLIResponse:
        """Judge whether each premise supports or refutes its hypothesis, or neither."""
        _check(request.pairs, max_pairs)
        try:
            answer = await service.judge(
                [pair.texts for pair in request.pairs],
                use_slow=bool(request.use_slow),
                adapters=[pair.adapter or request.adapter or "" for pair in request.pairs],
                sources=[pair.source_url for pair in request.pairs],
                slow_below=request.slow_below,
                windows=request.windows,
                deadline_seconds=request.deadline_seconds,
                pair_ids=[pair.pair_id for pair in request.pairs],
                key=request.key or "",
            )
        except InputError as error:
            raise by_pair_id(error, request.pairs) from error
        said = zip(answer.judgements, answer.model_versions, answer.base_models, strict=True)
        results = [
            _result(pair.pair_id, *each, calibrated=calibrated)
            for pair, each in zip(request.pairs, said, strict=True)
        ]
        return NLIResponse(results=results)

    return router


def _result(
    pair_id: str, judgement: Judgement, model_version: str, base_model: str, *, calibrated: bool
) -> NLIResult:
    shown = judgement.calibrated_confidence if calibrated else None
    return NLIResult(
        pair_id=pair_id,
        label=judgement.label,
        confidence=judgement.confidence if shown is None else shown,
        raw_label=judgement.raw_label,
        probabilities=dict(judgement.probabilities),
        truncated=judgement.truncated,
        windows=judgement.windows,
        evidence=judgement.evidence,
        adapter=judgement.adapter,
        base_model=base_model,
        model_version=model_version,
        calibrated_confidence=judgement.calibrated_confidence,
        calibration=judgement.calibration,
        raw_confidence=None if shown is None else judgement.confidence,
    )


def _adapters(service: NLIService) -> APIRouter:
    router = APIRouter(route_class=OwnPagesRoute, prefix="/nli", tags=["adapters"])

    @router.post("/adapter/load", responses=_errors(404, 409, 422, 503))
    async def load(request: LoadRequest | None = None) -> LoadResponse:
        """Make a registered version active, for every server of this registry."""
        request = request or LoadRequest()
        change = await service.load(request.adapter_path, reason=request.reason or "")
        return LoadResponse(adapter_path=change.adapter_path, message=change.message)

    @router.post("/adapter/unload", responses=_errors(503))
    async def unload(request: UnloadRequest | None = None) -> MessageResponse:
        """Serve the untouched base again, on every server of this registry."""
        change = await service.unload(reason=(request.reason if request else None) or "")
        return MessageResponse(message=change.message)

    @router.get("/adapter/status")
    async def status() -> StatusResponse:
        """Tell what is served right now."""
        return StatusResponse.model_validate(service.status())

    @router.get("/adapters", responses=_errors(503))
    async def adapters() -> AdaptersResponse:
        """List every version in the registry."""
        now = service.status()
        resident = {(item["version"], item["base_model"]) for item in now["resident"]}
        items = [
            AdapterItem(
                name=version.name,
                base_model=version.base_model,
                path=str(version.path),
                digest=version.digest,
                status=version.status,
                domain=version.domain,
                aliases=list(version.aliases),
                samples_used=version.samples_used,
                created_at=version.created_at,
                resident=(version.name, version.base_model) in resident,
            )
            for version in await service.versions()
        ]
        missing = "" if now["database_found"] else f"there is no database at {now['database']}"
        return AdaptersResponse(adapters=items, message=missing)

    return router


def _health(service: NLIService) -> APIRouter:
    router = APIRouter(route_class=LyraRoute, tags=["health"])

    @router.get("/health")
    async def health() -> HealthResponse:
        """Lyra's health check: always 200; `status` and `models_loaded` tell the rest."""
        status = "error" if service.startup_error else "ok" if service.ready else "loading"
        return HealthResponse(
            status=status, models_loaded=service.models_loaded, error=service.startup_error
        )

    @router.post("/warmup", responses=_errors(503))
    async def warmup() -> WarmupResponse:
        """Load the fast model if need be, and judge one pair."""
        await service.start()
        return WarmupResponse(
            message="the fast model is ready; the slow one loads at its first use",
            models_loaded=service.models_loaded,
        )

    @router.get("/livez")
    async def livez() -> MessageResponse:
        """Answer, which shows that the process is alive."""
        return MessageResponse(message="alive")

    @router.get("/readyz", responses={503: {"model": ReadyResponse}})
    async def readyz(response: Response) -> ReadyResponse:
        """200 once a pair has really been judged, 503 before."""
        response.status_code = 200 if service.ready else 503
        return ReadyResponse(ready=service.ready, error=service.startup_error)

    return router


def _errors(*statuses: int) -> dict[int | str, dict[str, object]]:
    return {code: {"model": ErrorResponse, "description": _ERRORS[code]} for code in statuses}


def _check(pairs: list[NLIPair], max_pairs: int) -> None:
    """Check what only the whole request shows: its size, and ids that stand twice.

    Raises:
        InputError: naming them.
    """
    if len(pairs) > max_pairs:
        raise InputError(
            f"{len(pairs)} pairs in one request, at most {max_pairs} are taken",
            hint="Send them in several requests, or raise ml_server.max_pairs.",
        )
    counts = Counter(pair.pair_id for pair in pairs)
    repeated = [f"pair {name!r}: stands {n} times" for name, n in counts.items() if n > 1]
    if repeated:
        raise InputError("every pair_id must be unique in its request", problems=repeated)
