"""The dashboard's files: what may run on the page, and how plotly comes to it."""

from __future__ import annotations

import base64
import gzip
import hashlib
from pathlib import Path

import pytest
from fastapi import FastAPI
from starlette.testclient import TestClient

from lyra_nli.ml_server import dashboard_page
from lyra_nli.ml_server.dashboard_page import PAGES, create_dashboard_page_router


@pytest.fixture
def client() -> TestClient:
    app = FastAPI()
    app.include_router(create_dashboard_page_router())
    return TestClient(app)


@pytest.mark.parametrize("path", ["", *(f"/{name}" for name in PAGES)])
def test_every_address_gives_the_page_with_a_strict_policy(client: TestClient, path: str) -> None:
    answer = client.get(f"/dashboard{path}")
    assert answer.status_code == 200
    policy = answer.headers["content-security-policy"]
    assert "script-src 'self';" in policy
    assert "unsafe-eval" not in policy
    assert "require-trusted-types-for 'script'" in policy
    assert "style-src-attr 'unsafe-inline'" in policy
    assert policy.count("'unsafe-inline'") == 1
    # No inline script or style, and nothing from elsewhere.
    assert "<style" not in answer.text
    assert "style=" not in answer.text
    assert "http" not in answer.text
    assert answer.text.count("<script") == answer.text.count("<script type=")
    for mark in ('src="', 'href="'):
        for reference in answer.text.split(mark)[1:]:
            address = reference.split('"')[0]
            if "static" in address:
                found = client.get(str(answer.url.join(address)))
                assert found.status_code == 200, address


def test_an_unknown_page_is_none(client: TestClient) -> None:
    answer = client.get("/dashboard/nothing")
    assert answer.status_code == 404
    assert "overview" in answer.json()["error"]
    assert client.get("/dashboard/static/../main.py").status_code == 404
    assert client.get("/dashboard/static/%2e%2e/main.py").status_code == 404


def test_plotly_comes_compressed_and_once(client: TestClient) -> None:
    pytest.importorskip("plotly")
    answer = client.get("/dashboard/static/plotly.min.js", headers={"Accept-Encoding": "gzip"})
    assert answer.headers["content-encoding"] == "gzip"
    assert int(answer.headers["content-length"]) < 2_000_000
    assert "max-age=604800" in answer.headers["cache-control"]
    plain = client.get("/dashboard/static/plotly.min.js", headers={"Accept-Encoding": "identity"})
    assert plain.content == answer.content
    assert "content-encoding" not in plain.headers
    tag = {"If-None-Match": answer.headers["etag"]}
    again = client.get("/dashboard/static/plotly.min.js", headers=tag)
    assert (again.status_code, again.content) == (304, b"")


def test_the_styles_that_plotly_writes_are_allowed_by_their_hashes(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, client: TestClient
) -> None:
    file = tmp_path / "plotly.min.js"
    file.write_bytes(b"""x.textContent='.a{color:red}',y.textContent='.b{}'""")
    monkeypatch.setattr(dashboard_page, "_plotly_file", lambda: file)
    hashes = [
        base64.b64encode(hashlib.sha256(sheet).digest()).decode()
        for sheet in (b".a{color:red}", b".b{}")
    ]
    found = dashboard_page._styles_of_plotly.__wrapped__()
    assert found == "".join(f" 'sha256-{each}'" for each in hashes)
    content, _ = dashboard_page._compressed_plotly.__wrapped__()
    assert gzip.decompress(content) == file.read_bytes()


def test_without_plotly_its_address_says_so(
    monkeypatch: pytest.MonkeyPatch, client: TestClient
) -> None:
    monkeypatch.setattr(dashboard_page, "_plotly_file", lambda: None)
    answer = client.get("/dashboard/static/plotly.min.js")
    assert answer.status_code == 404
    assert "plotly is not installed" in answer.json()["error"]
    assert dashboard_page._styles_of_plotly.__wrapped__() == ""
