"""The review page: a few static files that come with the package, and nothing from elsewhere."""

from __future__ import annotations

from importlib import resources
from typing import Final

from fastapi import APIRouter, Response
from starlette.exceptions import HTTPException

from lyra_nli.ml_server.wire import LyraRoute

_TYPES: Final = {
    "html": "text/html; charset=utf-8",
    "css": "text/css; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
    "svg": "image/svg+xml",
}

HEADERS: Final = {
    # No script and no style but our own files: what a fragment or claim says is only text.
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
        "connect-src 'self'; form-action 'none'; base-uri 'none'; frame-ancestors 'none'; "
        "require-trusted-types-for 'script'; trusted-types 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-cache",
}


def create_page_router() -> APIRouter:
    """``GET /review`` and its files."""
    router = APIRouter(route_class=LyraRoute, include_in_schema=False)
    files = {
        file.name: file.read_bytes()
        for file in (resources.files("lyra_nli.ml_server") / "static").iterdir()
        if file.name.rpartition(".")[2] in _TYPES
    }

    def answer(name: str) -> Response:
        if name not in files:
            raise HTTPException(404, "there is no such file")
        kind = _TYPES[name.rpartition(".")[2]]
        return Response(files[name], headers=HEADERS, media_type=kind)

    @router.get("/review")
    async def page() -> Response:
        return answer("review.html")

    @router.get("/review/static/{name}")
    async def static(name: str) -> Response:
        return answer(name)

    return router
