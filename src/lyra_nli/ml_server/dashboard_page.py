"""The dashboard's files, and plotly.js for its charts; its figures come from elsewhere."""

from __future__ import annotations

import gzip
import hashlib
import re
from base64 import b64encode
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Final

from fastapi import APIRouter, Header, Response
from starlette.exceptions import HTTPException

from lyra_nli.ml_server.review_page import HEADERS, file_type, read_static
from lyra_nli.ml_server.wire import LyraRoute

PAGES: Final = ("overview", "versions", "quality", "calibration", "data", "shadow")

# Plotly sets style attributes and draws a chart to be saved as an image of its own. The one
# Trusted Types policy is that of charts.js: it lets plotly decode entities, and nothing else.
_POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'{styles}; "
    "style-src-attr 'unsafe-inline'; img-src 'self' blob: data:; connect-src 'self'; "
    "form-action 'none'; base-uri 'none'; frame-ancestors 'none'; "
    "require-trusted-types-for 'script'; trusted-types default"
)
_STYLE: Final = re.compile(rb"\.textContent='([^'\\]+)'")


def create_dashboard_page_router() -> APIRouter:
    """``GET /dashboard``, one address for each page below it, and their files."""
    router = APIRouter(route_class=LyraRoute, prefix="/dashboard", include_in_schema=False)
    files = read_static()
    inside = files["dashboard/index.html"]
    # Addresses in the page are relative, so that the server may be mounted anywhere.
    above = inside.replace(b'"static/', b'"dashboard/static/').replace(b'"../', b'"')

    def page(content: bytes) -> Response:
        policy = {"Content-Security-Policy": _POLICY.format(styles=_styles_of_plotly())}
        return Response(content, headers=HEADERS | policy, media_type=file_type("index.html"))

    @router.get("")
    def entrance() -> Response:
        return page(above)

    @router.get("/static/plotly.min.js")
    def plotly(
        accept_encoding: Annotated[str, Header()] = "",
        if_none_match: Annotated[str, Header()] = "",
    ) -> Response:
        return _plotly(accept_encoding, if_none_match)

    @router.get("/static/{name:path}")
    def static(name: str) -> Response:
        if name not in files:
            raise HTTPException(404, "there is no such file")
        return Response(files[name], headers=HEADERS, media_type=file_type(name))

    @router.get("/{name}")
    def below(name: str) -> Response:
        if name not in PAGES:
            raise HTTPException(404, f"there is no such page; there are {', '.join(PAGES)}")
        return page(inside)

    return router


def _plotly(accept_encoding: str, if_none_match: str) -> Response:
    """The charts' library as its Python package brings it; a browser asks for it once a week."""
    if _plotly_file() is None:
        raise HTTPException(404, "the Python package plotly is not installed")
    content, tag = _compressed_plotly()
    headers = {
        **HEADERS,
        "Cache-Control": "public, max-age=604800",
        "ETag": tag,
        "Vary": "Accept-Encoding",
    }
    if if_none_match == tag:
        return Response(status_code=304, headers=headers)
    if "gzip" in accept_encoding:
        headers["Content-Encoding"] = "gzip"
    else:
        content = gzip.decompress(content)
    return Response(content, headers=headers, media_type=file_type("plotly.min.js"))


@cache
def _plotly_file() -> Path | None:
    """Where plotly.js lies; looked up without importing the package."""
    spec = find_spec("plotly")
    if spec is None or spec.origin is None:
        return None
    file = Path(spec.origin).parent / "package_data" / "plotly.min.js"
    return file if file.is_file() else None


@cache
def _compressed_plotly() -> tuple[bytes, str]:
    file = _plotly_file()
    assert file is not None
    content = gzip.compress(file.read_bytes(), compresslevel=6, mtime=0)
    return content, f'"{hashlib.sha256(content).hexdigest()[:32]}"'


@cache
def _styles_of_plotly() -> str:
    """The style sheets that plotly.js writes into a page when it starts, as sources for the CSP.

    One that is overlooked here is refused by the browser; the charts do without.
    """
    file = _plotly_file()
    sheets = _STYLE.findall(file.read_bytes()) if file else []
    hashes = [b64encode(hashlib.sha256(sheet).digest()).decode() for sheet in sheets]
    return "".join(f" 'sha256-{each}'" for each in hashes)
