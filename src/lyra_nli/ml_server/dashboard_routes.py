"""The dashboard's data and actions over HTTP; the pages themselves are `dashboard_page`.

Reading needs what feedback needs: a page of this server. Acting needs the admin token besides.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated, Final

from fastapi import APIRouter, Depends, FastAPI, Header, Query
from fastapi.responses import HTMLResponse
from starlette.exceptions import HTTPException

from lyra_nli.dashboard import (
    calibration,
    comparing,
    data,
    one_version,
    overview,
    quality,
    shadow,
    versions,
)
from lyra_nli.dashboard.memory import Memory
from lyra_nli.dashboard.view import Fields, View, open_view
from lyra_nli.ml_server.dashboard_schemas import (
    ActivateRequest,
    BaseRole,
    RollbackRequest,
    TrainRequest,
)
from lyra_nli.ml_server.database import Database
from lyra_nli.ml_server.feedback_routes import FeedbackRoute
from lyra_nli.ml_server.nli import NLIService
from lyra_nli.ml_server.review_page import HEADERS
from lyra_nli.ml_server.source import RegistrySource
from lyra_nli.ml_server.training_run import TrainingRun
from lyra_nli.records import BASE
from lyra_nli.registry.versions import Event
from lyra_nli.settings import NliSettings, Settings

SWITCHED_OFF: Final = (
    "acting from the dashboard is switched off: choose a long secret, set it as "
    "ml_server.admin_token (or LYRA_ML_SERVER__ADMIN_TOKEN) and restart the server"
)

_REPORT_POLICY: Final = {
    "Content-Security-Policy": (
        "default-src 'none'; style-src 'unsafe-inline'; form-action 'none'; base-uri 'none'; "
        "frame-ancestors 'none'"
    )
}

BaseQuery = Annotated[BaseRole, Query(description="whose figures")]


def create_dashboard_router(settings: Settings, service: NLIService) -> APIRouter:
    """All endpoints under ``/dashboard/api``.

    Args:
        service: the one that answers ``/nli``: what is activated here is served at once.
    """
    training = TrainingRun(settings)
    pages = Pages(settings)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        await asyncio.to_thread(training.close)
        await asyncio.to_thread(pages.close)

    router = APIRouter(
        route_class=FeedbackRoute,
        prefix="/dashboard/api",
        tags=["dashboard"],
        lifespan=lifespan,
    )
    _reading(router, pages, service, training)
    _acting(router, settings, service, training)
    return router


class Pages:
    """Answers each page with what the database has at that moment."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._database = Database(settings.storage, read_only=True)
        self._memory = Memory()
        enabled = settings.ml_server.admin_token is not None
        self._actions = {"enabled": enabled, "hint": "" if enabled else f"{SWITCHED_OFF}."}

    def show(self, base: BaseRole, page: Callable[[View], Fields]) -> Fields:
        """Look, and let the page say what it sees."""
        view = self.view(base)
        return view.answer({"actions": self._actions, **page(view)})

    def view(self, base: BaseRole) -> View:
        """Look at the database."""
        base_model = _model(self._settings.nli, base)
        return open_view(self._settings, base_model, self._database.engine, self._memory)

    def close(self) -> None:
        """Finish what is being counted."""
        self._memory.close()


def _reading(router: APIRouter, pages: Pages, service: NLIService, training: TrainingRun) -> None:
    # Plain functions: FastAPI runs each in a thread, so a busy database blocks nobody else.

    def add(name: str, page: Callable[[View], Fields]) -> None:
        @router.get(f"/{name}", name=f"dashboard {name}", description=page.__doc__)
        def answer(base: BaseQuery = "fast") -> Fields:
            return pages.show(base, page)

    add("quality", quality.quality)
    add("data", data.data)
    add("shadow", shadow.shadow)

    @router.get("/overview")
    def _overview(base: BaseQuery = "fast") -> Fields:
        """Everything a person needs to know today."""
        answer = pages.show(base, overview.overview)
        answer["serving"]["problem"] = service.status()["follow_error"]
        return answer

    @router.get("/versions")
    def _versions(base: BaseQuery = "fast") -> Fields:
        """All versions of a base, its history, and its trainings."""
        return pages.show(base, versions.versions) | {"training": training.status()}

    @router.get("/versions/compare")
    def _compare(one: str, other: str, base: BaseQuery = "fast") -> Fields:
        """Two versions side by side, or one beside the base."""
        return pages.show(base, lambda view: comparing.compare(view, one, other))

    @router.get("/versions/{name}")
    def _version(name: str, base: BaseQuery = "fast") -> Fields:
        """One version, with its gate and its report."""
        return pages.show(base, lambda view: one_version.version(view, name))

    @router.get("/versions/{name}/report.html", response_class=HTMLResponse)
    def _report(name: str, base: BaseQuery = "fast") -> HTMLResponse:
        """The gate's report on one version, as a page to read and print."""
        return HTMLResponse(
            one_version.report_page(pages.view(base), name), headers=HEADERS | _REPORT_POLICY
        )

    @router.get("/calibration")
    def _calibration(version: str = "active", base: BaseQuery = "fast") -> Fields:
        """Whether the confidence of a version is to be believed."""
        return pages.show(base, lambda view: calibration.calibration(view, version))

    @router.get("/training")
    def _training() -> Fields:
        """The training that was started here, with the end of its log."""
        return {"ok": True, "training": training.status()}


def _acting(
    router: APIRouter, settings: Settings, service: NLIService, training: TrainingRun
) -> None:
    source = RegistrySource(settings)
    admin = [Depends(_bearer_of(settings))]

    def roll_back(request: RollbackRequest) -> Event:
        base_model = _model(settings.nli, request.base)
        with source.open(read_only=False) as registry:
            return registry.rollback(base_model, who=request.who, reason=request.reason)

    @router.post("/activate", dependencies=admin)
    async def activate(request: ActivateRequest) -> Fields:
        """Let a version serve its base, at once."""
        change = await service.load(request.version, who=request.who, reason=request.reason)
        serving = Path(change.adapter_path or BASE).name
        return {"ok": True, "message": f"{change.message}.", "serving": serving}

    @router.post("/rollback", dependencies=admin)
    async def rollback(request: RollbackRequest) -> Fields:
        """Serve what served before, at once."""
        event = await asyncio.to_thread(roll_back, request)
        await service.follow()
        before, after = event.from_version or BASE, event.to_version or BASE
        status = service.status()
        own = status if request.base == "fast" else status["slow"]
        serving = (own["version"] or BASE) if own["base_loaded"] else after
        message = f"Back from {before} to {after}."
        if serving != after:
            message += f" But {serving} is still served: {status['follow_error']}"
        return {"ok": serving == after, "message": message, "serving": serving}

    @router.post("/train", status_code=202, dependencies=admin)
    def train(request: TrainRequest) -> Fields:
        """Start a training in a process of its own."""
        base_model = _model(settings.nli, request.base)
        training.start(base_model, f"{request.who}: {request.reason}")
        message = f"A training of {base_model} was started."
        return {"ok": True, "message": message, "training": training.status()}


def _bearer_of(settings: Settings) -> Callable[[str], None]:
    """Make what refuses everybody who does not show the admin token."""
    token = settings.ml_server.admin_token

    def check(authorization: Annotated[str, Header()] = "") -> None:
        if token is None:
            raise HTTPException(403, SWITCHED_OFF)
        kind, _, given = authorization.partition(" ")
        # The bytes as they were sent, and in a time that does not tell how many are right.
        sent = given.strip().encode("latin-1")
        known = secrets.compare_digest(sent, token.get_secret_value().encode())
        if kind.lower() != "bearer" or not known:
            challenge = {"WWW-Authenticate": "Bearer"}
            raise HTTPException(401, "the admin token is missing or wrong", challenge)

    return check


def _model(nli: NliSettings, base: BaseRole) -> str:
    return nli.slow_model if base == "slow" else nli.fast_model
