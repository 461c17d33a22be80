"""The review page: a few static files that come with the package, and nothing from elsewhere."""

from __future__ import annotations

from pathlib import Path
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


def read_static() -> dict[str, bytes]:
    """Every file of the server's pages, by its path below ``static``."""
    root = Path(__file__).parent / "static"
    files = (file for file in root.rglob("*") if file.suffix[1:] in _TYPES)
    return {file.relative_to(root).as_posix(): file.read_bytes() for file in files}


def file_type(name: str) -> str:
    """The media type of a file of ours."""
    return _TYPES[name.rpartition(".")[2]]


def create_page_router() -> APIRouter:
    """``GET /review`` and its files."""
    router = APIRouter(route_class=LyraRoute, include_in_schema=False)
    files = read_static()

    def answer(name: str) -> Response:
        if name not in files:
            raise HTTPException(404, "there is no such file")
        return Response(files[name], headers=HEADERS, media_type=file_type(name))

    @router.get("/review")
    async def page() -> Response:
        return answer("review.html")

    @router.get("/review/static/{name}")
    async def static(name: str) -> Response:
        return answer(name)

    return router
