"""The edge of HTTP: work ends when nobody waits for it."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from fastapi import APIRouter, FastAPI

from lyra_nli.ml_server.wire import GAVE_UP, LyraRoute, PatientRoute

GONE = {"type": "http.disconnect"}
BODY = {"type": "http.request", "body": b"{}", "more_body": False}
HALF = {"type": "http.request", "body": b"{", "more_body": True}


async def asked(route: type[LyraRoute], *messages: dict[str, Any]) -> tuple[int, list[str]]:
    """Send these, and nothing more; gives the status and how the work ended."""
    ends: list[str] = []
    router = APIRouter(route_class=route)

    @router.post("/work")
    async def work(request: dict[str, Any]) -> str:
        try:
            await asyncio.sleep(0.2)
        except asyncio.CancelledError:
            ends.append("given up")
            raise
        ends.append("done")
        return "done"

    app = FastAPI()
    app.include_router(router)
    coming, sent = list(messages), []

    async def receive() -> dict[str, Any]:
        if not coming:
            await asyncio.sleep(60)
        return coming.pop(0)

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    scope = {
        "type": "http", "method": "POST", "path": "/work", "raw_path": b"/work", "root_path": "",
        "query_string": b"", "headers": [(b"content-type", b"application/json")],
        "scheme": "http", "server": ("localhost", 80), "client": ("localhost", 1),
        "http_version": "1.1", "asgi": {"version": "3.0"},
    }  # fmt: skip
    await asyncio.wait_for(app(scope, receive, send), 10)
    return sent[0]["status"], ends


@pytest.mark.parametrize(
    ("route", "messages", "expected"),
    [
        (PatientRoute, [BODY], (200, ["done"])),
        (PatientRoute, [BODY, GONE], (GAVE_UP, ["given up"])),
        (LyraRoute, [BODY, GONE], (200, ["done"])),  # what is written is written whole
        (PatientRoute, [HALF, GONE], (GAVE_UP, [])),
        (LyraRoute, [HALF, GONE], (GAVE_UP, [])),
    ],
)
def test_who_has_gone_gets_no_more_work(
    route: type[LyraRoute], messages: list[dict[str, Any]], expected: tuple[int, list[str]]
) -> None:
    assert asyncio.run(asked(route, *messages)) == expected
