"""The application and the process: ``lyra-nli serve``."""

from __future__ import annotations

import asyncio
import copy
import errno
import logging
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from functools import partial
from typing import Any

import uvicorn
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException
from uvicorn.config import LOGGING_CONFIG

from lyra_nli import __version__
from lyra_nli.errors import InputError
from lyra_nli.ml_server.dashboard_page import create_dashboard_page_router
from lyra_nli.ml_server.dashboard_routes import create_dashboard_router
from lyra_nli.ml_server.feedback_routes import create_feedback_router
from lyra_nli.ml_server.follow import keep_following
from lyra_nli.ml_server.nli import NLIService
from lyra_nli.ml_server.observer import Observed
from lyra_nli.ml_server.review_page import create_page_router
from lyra_nli.ml_server.routes import create_router
from lyra_nli.ml_server.scrape import create_metrics_router
from lyra_nli.ml_server.watching import watching
from lyra_nli.ml_server.wire import error_response
from lyra_nli.settings import Settings

logger = logging.getLogger(__name__)

GRACE_SECONDS = 60
"""For requests in flight when the server is told to stop; systemd kills after 90."""


@asynccontextmanager
async def running(
    service: NLIService,
    *,
    follow_seconds: float,
    on_failure: Callable[[BaseException], None] | None = None,
) -> AsyncIterator[None]:
    """Start the service in the background, follow the registry, and clean up at the end.

    For the lifespan of an application that mounts ``create_router``.

    Args:
        service: the one behind the router.
        follow_seconds: how often to look which version is active.
        on_failure: called when the base can't be loaded. Without it the application goes on
            and answers 503.
    """
    start = asyncio.create_task(service.start(), name="loading the base model")
    start.add_done_callback(partial(_report, then=on_failure))
    look = keep_following(service.follow, follow_seconds)
    follow = asyncio.create_task(look, name="following the registry")
    follow.add_done_callback(partial(_report, then=service.following_ended))
    tasks = [start, follow]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await service.close()


def _report(task: asyncio.Task[None], *, then: Callable[[BaseException], None] | None) -> None:
    error = None if task.cancelled() else task.exception()
    if error is not None:
        logger.error("%s failed: %s", task.get_name(), error, exc_info=error)
        if then is not None:
            then(error)


def create_app(
    settings: Settings, *, on_failure: Callable[[BaseException], None] | None = None
) -> FastAPI:
    """Make the ML server, an ASGI application. Nothing is loaded before it starts."""
    service = NLIService(settings)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        seconds = settings.ml_server.follow_seconds
        follow = running(service, follow_seconds=seconds, on_failure=on_failure)
        async with follow, watching(service.watcher):
            yield

    app = FastAPI(
        title="lyra-nli ML server",
        version=__version__,
        description="Judges premise-hypothesis pairs with a base model or a LoRA version of it.",
        lifespan=lifespan,
    )
    app.include_router(
        create_router(
            service,
            max_pairs=settings.ml_server.max_pairs,
            calibrated=settings.monitoring.calibrated_confidence,
        )
    )
    app.include_router(create_metrics_router(service, settings))
    app.add_middleware(Observed, observer=service.observer)
    app.include_router(create_feedback_router(settings))
    app.include_router(create_page_router())
    app.include_router(create_dashboard_router(settings, service))
    app.include_router(create_dashboard_page_router())

    @app.exception_handler(HTTPException)
    async def _http_error(_: Request, error: HTTPException) -> JSONResponse:
        return error_response(error.status_code, str(error.detail))

    # The one place that catches everything: a bug must not end the server or show its inside.
    # Starlette logs the traceback and passes it on to uvicorn's log.
    @app.exception_handler(Exception)
    async def _bug(request: Request, _: Exception) -> JSONResponse:
        return error_response(
            500, "an internal error; the server's log has the details", hint=request.url.path
        )

    return app


def serve(settings: Settings) -> None:
    """Run the ML server until it is told to stop.

    Raises:
        InputError: the port can't be had; found before any model is loaded.
        ModelError: the base model can't be loaded.
    """
    failures: list[BaseException] = []

    def give_up(error: BaseException) -> None:
        failures.append(error)
        server.should_exit = True

    with _listen(settings.ml_server.host, settings.ml_server.port) as listener:
        app = create_app(settings, on_failure=give_up)
        config = uvicorn.Config(
            app,
            log_config=_log_config(),
            access_log=False,
            timeout_graceful_shutdown=GRACE_SECONDS,
        )
        server = uvicorn.Server(config)
        logger.info("review page: http://%s:%d/review", *listener.getsockname()[:2])
        logger.info("dashboard: http://%s:%d/dashboard", *listener.getsockname()[:2])
        with suppress(KeyboardInterrupt):  # uvicorn has ended in order by then
            server.run(sockets=[listener])
    if failures:
        raise failures[0]


def _listen(host: str, port: int) -> socket.socket:
    """Take the port at once, so that nobody else can have it meanwhile."""
    try:
        family, *_, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listener = socket.create_server(address[:2], family=family, backlog=2048)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            other = port + 1 if port < 65535 else port - 1
            raise InputError(
                f"port {port} on {host} is in use by another program",
                hint="Stop that one (is an ML server running already?), or choose another port: "
                f"--port {other} or LYRA_ML_SERVER__PORT={other}.",
            ) from error
        raise InputError(
            f"can't listen on {host} port {port}: {error.strerror or error}",
            hint="Set ml_server.host to an address of this machine, and ml_server.port to a "
            "port above 1023.",
        ) from error
    # Connections inherit it. asyncio sets it only on sockets that name their protocol, which
    # this one does not; without it every answer on a kept connection waits 40 ms.
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return listener


def _log_config() -> dict[str, Any]:
    """Uvicorn's logging, with our own messages beside its."""
    config = copy.deepcopy(LOGGING_CONFIG)
    config["loggers"]["lyra_nli"] = {"handlers": ["default"], "level": "INFO", "propagate": False}
    return config
