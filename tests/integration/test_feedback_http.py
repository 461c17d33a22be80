"""Feedback over HTTP, without a model: the routes of the review page."""

from __future__ import annotations

import re
import socket
import threading
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn
from fastapi import FastAPI
from lyra_databases import NEWER, OLDER, LyraDatabase, fetch
from starlette.testclient import TestClient

from lyra_nli.ml_server.feedback_routes import create_feedback_router
from lyra_nli.ml_server.review_page import create_page_router
from lyra_nli.settings import Settings
from lyra_nli.storage.engine import now
from lyra_nli.storage.upgrade import upgrade

pytestmark = pytest.mark.integration


class World:
    def __init__(self, folder: Path, database: LyraDatabase, **review: Any) -> None:
        self.database = database
        values = {
            "storage": {"database_path": str(database.path), "busy_timeout_seconds": 1},
            "review": {"random_share": 0.0, "second_share": 0.0, **review},
        }
        app = FastAPI()
        settings = Settings.model_validate(values)
        app.include_router(create_feedback_router(settings))
        app.include_router(create_page_router())
        self.client = TestClient(app)

    def post(self, path: str = "", key: str = "", **body: Any) -> Any:
        headers = {"Idempotency-Key": key} if key else {}
        return self.client.post(f"/feedback{path}", json=body, headers=headers)

    def next(self, **query: Any) -> dict[str, Any]:
        item: dict[str, Any] = self.client.get("/feedback/next", params=query).json()["item"]
        return item

    def fetch(self, sql: str) -> list[tuple[object, ...]]:
        return fetch(self.database.path, sql)


def make(folder: Path, shape: Any = NEWER, **review: Any) -> World:
    database = LyraDatabase(folder / "lyra.db", shape)
    for number in range(4):
        database.add_edge(f"e{number}", "supports", 0.5 + number / 10)
    engine = database.open()
    upgrade(engine, backup=False)
    engine.dispose()
    return World(folder, database, **review)


@pytest.fixture(params=[NEWER, OLDER], ids=["newer", "older"])
def world(request: pytest.FixtureRequest, tmp_path: Path) -> World:
    return make(tmp_path, request.param)


@pytest.fixture
def newer(tmp_path: Path) -> World:
    return make(tmp_path)


def refused(response: Any, status: int, code: str, parameter: str) -> dict[str, Any]:
    said: dict[str, Any] = response.json()
    assert response.status_code == status, said
    assert (said["ok"], said["code"], said["parameter"]) == (False, code, parameter)
    assert said["error"] == said["message"] != ""
    assert said["expected"]
    assert "Traceback" not in response.text
    return said


def test_both_shapes_do_the_same(world: World) -> None:
    flat = world.post(action="edge_correct", edge_id="e0", correct_relation="refutes")
    nested = world.post(
        task_id="t1", action="edge_correct", args={"edge_id": "e1", "correct_relation": "refutes"}
    )
    for answer, edge in ((flat, "e0"), (nested, "e1")):
        said = answer.json()
        assert answer.status_code == 200, said
        assert (said["ok"], said["action"], said["edge_id"]) == (True, "edge_correct", edge)
        assert (said["previous_relation"], said["new_relation"]) == ("supports", "refutes")
    assert world.fetch("SELECT id, relation FROM edges ORDER BY id")[:2] == [
        ("e0", "refutes"),
        ("e1", "refutes"),
    ]


def test_sent_twice_is_one_review(world: World) -> None:
    body = {"action": "edge_correct", "edge_id": "e0", "correct_relation": "neutral"}
    first, second = (world.post(key="k1", **body) for _ in range(2))
    assert first.json() == second.json()
    assert world.fetch("SELECT count(*) FROM nli_reviews") == [(1,)]
    other = world.post(key="k1", **{**body, "edge_id": "e1"})
    refused(other, 422, "idempotency_key_reused", "idempotency_key")


def test_the_second_reviewer_is_told_of_the_first(world: World) -> None:
    item = world.next(reviewer="ada")
    seen = {"edge_id": item["edge_id"], "edge_version": item["edge_version"]}
    by_bob = world.post(action="edge_correct", correct_relation="refutes", reviewer="bob", **seen)
    assert by_bob.status_code == 200
    late = world.post(action="edge_correct", correct_relation="supports", reviewer="ada", **seen)
    said = refused(late, 409, "conflict", "edge_version")
    assert "bob reviewed it as refutes" in said["message"]
    assert world.fetch("SELECT reviewer FROM nli_reviews") == [("bob",)]


@pytest.mark.parametrize(
    ("body", "code", "parameter"),
    [
        ({}, "missing", "action"),
        ({"action": "edge_delete"}, "unknown_action", "action"),
        ({"action": "edge_correct", "correct_relation": "neutral"}, "missing", "edge_id"),
        ({"action": "edge_correct", "edge_id": "e0", "correct_relation": "no"}, "wrong_value",
         "correct_relation"),
        ({"action": "edge_correct", "edge_id": "e9", "correct_relation": "neutral"},
         "unknown_edge", "edge_id"),
        ({"action": "edge_correct", "edge_id": "'; DROP TABLE edges; --",
          "correct_relation": "neutral"}, "unknown_edge", "edge_id"),
        ({"action": "edge_correct", "edge_id": 7, "correct_relation": "neutral"}, "wrong_type",
         "edge_id"),
        ({"action": "edge_correct", "edge_id": "e0", "correct_relation": "neutral",
          "reason": "x" * 1_000_000}, "too_long", "reason"),
        ({"action": "edge_correct", "edge_id": "e0", "correct_relation": "neutral", "foo": "1"},
         "unknown_parameter", "foo"),
    ],
)  # fmt: skip
def test_bad_input_is_named(newer: World, body: dict[str, Any], code: str, parameter: str) -> None:
    refused(newer.post(**body), 422, code, parameter)
    assert newer.fetch("SELECT count(*) FROM nli_reviews") == [(0,)]


def test_everything_wrong_is_told_at_once(newer: World) -> None:
    said = newer.post(action="edge_correct", correct_relation="no", reason=3).json()
    assert {each["parameter"] for each in said["details"]} == {
        "edge_id",
        "correct_relation",
        "reason",
    }
    assert len(said["problems"]) == 3


def test_only_json_and_only_our_own_pages(newer: World) -> None:
    body = b'{"action": "edge_correct", "edge_id": "e0", "correct_relation": "neutral"}'
    for kind in ("text/plain", "application/x-www-form-urlencoded", ""):
        response = newer.client.post("/feedback", content=body, headers={"Content-Type": kind})
        assert response.status_code == 415
    headers = {"Content-Type": "application/json", "Sec-Fetch-Site": "cross-site"}
    assert newer.client.post("/feedback", content=body, headers=headers).status_code == 403
    assert newer.client.get("/feedback/next", headers=headers).status_code == 403
    assert newer.fetch("SELECT count(*) FROM nli_reviews") == [(0,)]
    assert newer.fetch("SELECT count(*) FROM nli_leases") == [(0,)]


def test_a_foreign_name_for_this_machine_is_refused(newer: World) -> None:
    """Over a real connection: its address decides whether the name matters."""
    server = uvicorn.Server(uvicorn.Config(newer.client.app, log_config=None))
    listener = socket.create_server(("127.0.0.1", 0))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    port = listener.getsockname()[1]
    body = {"action": "edge_correct", "edge_id": "e0", "correct_relation": "neutral"}
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", trust_env=False) as client:
            for host in ("evil.example", f"evil.example:{port}", "localhost.evil.example", "[::2]"):
                headers = {"Host": host}
                response = client.post("/feedback", json=body, headers=headers)
                assert (response.status_code, response.json()["ok"]) == (403, False)
                assert client.get("/feedback/next", headers=headers).status_code == 403
            assert newer.fetch("SELECT count(*) FROM nli_reviews") == [(0,)]
            assert newer.fetch("SELECT count(*) FROM nli_leases") == [(0,)]
            for host in (f"127.0.0.1:{port}", "LOCALHOST", "localhost:1", f"[::1]:{port}"):
                response = client.get("/feedback/progress", headers={"Host": host})
                assert response.status_code == 200, host
    finally:
        server.should_exit = True
        thread.join(10)
        listener.close()
    # A server that is reached at another address may have any name.
    assert newer.client.get("/feedback/next").status_code == 200


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b'"x"', b"null", b'{"action": "\\ud800"}'])
def test_what_is_no_object_is_refused(newer: World, body: bytes) -> None:
    headers = {"Content-Type": "application/json"}
    response = newer.client.post("/feedback", content=body, headers=headers)
    assert response.status_code == 422
    assert response.json()["ok"] is False


def test_next_undo_and_release(world: World) -> None:
    item = world.next(reviewer="ada")
    assert item["edge_id"] == "e0"
    assert world.next(reviewer="bob", skip=["e1"])["edge_id"] == "e2"
    done = world.post(
        action="edge_correct",
        edge_id="e0",
        correct_relation="refutes",
        reviewer="ada",
        lease=item["lease"],
        edge_version=item["edge_version"],
    ).json()
    undone = world.post("/undo", review_id=done["review_id"], reviewer="ada").json()
    assert undone["restored_relation"] == "supports"
    assert undone["item"]["edge_version"] == item["edge_version"]
    again = world.post("/undo", review_id=done["review_id"], reviewer="ada")
    refused(again, 409, "conflict", "review_id")
    refused(
        world.post("/undo", review_id="nlr_x", reviewer="a"), 422, "unknown_review", "review_id"
    )
    released = world.post("/release", lease=undone["item"]["lease"])
    assert released.json() == {"ok": True, "released": True}
    assert world.next(reviewer="eve")["edge_id"] == "e0"


def test_nothing_left_is_no_error(newer: World) -> None:
    for _ in range(4):
        newer.next(reviewer="ada")
    response = newer.client.get("/feedback/next")
    assert response.json() == {"ok": True, "item": None}
    assert response.headers["Cache-Control"] == "no-store"


def test_what_people_said_of_claim_and_site_comes_along(world: World) -> None:
    before = world.next()
    assert (before["claim_id"], before["claim_adoption_status"]) == ("c-e0", "adopted")
    assert (before["site"]["host"], before["site"]["decision"]) == ("example.org", "none")
    world.post("/release", lease=before["lease"])
    world.post(action="claim_reject", claim_id="c-e0", reason="no claim")
    body = {"action": "domain_block", "domain_pattern": "example.org", "reason": "spam"}
    params = {"reviewer": "Zo\u00eb"}
    assert world.client.post("/feedback", json=body, params=params).status_code == 200
    assert world.fetch("SELECT created_by FROM domain_override_rules") == [("Zo\u00eb",)]
    after = world.next()
    said = (after["claim_adoption_status"], after["claim_rejection_reason"])
    assert (after["edge_id"], *said) == (before["edge_id"], "not_adopted", "no claim")
    rule = {"decision": "block", "pattern": "example.org", "reason": "spam"}
    assert after["site"] == {**before["site"], **rule, "why": after["site"]["why"]}
    again = world.client.get("/feedback/site", params={"url": after["source_url"]})
    assert again.json() == {"ok": True, "site": after["site"]}


@pytest.mark.parametrize("url", ["", "javascript:x", "https://", "http://[", "example.org"])
def test_what_has_no_address_has_no_site(newer: World, url: str) -> None:
    response = newer.client.get("/feedback/site", params={"url": url})
    assert (response.status_code, response.json()["site"]) == (200, None)


def test_a_second_look(tmp_path: Path) -> None:
    world = make(tmp_path, second_share=1.0)
    world.post(action="edge_correct", edge_id="e2", correct_relation="refutes", reviewer="ada")
    item = world.next(reviewer="bob")
    assert (item["edge_id"], item["purpose"], item["relation"]) == ("e2", "second", None)
    assert (item["claim_adoption_status"], item["site"]) == ("adopted", None)
    body = {"edge_id": "e2", "label": "neutral", "reviewer": "bob", "lease": item["lease"]}
    said = world.post("/second", key="k", **body).json()
    assert (said["agrees"], said["first_label"]) == (False, "refutes")
    assert world.post("/second", key="k", **body).json() == said
    assert world.fetch("SELECT relation FROM edges WHERE id = 'e2'") == [("refutes",)]
    assert world.next(order="suspect", reviewer="eve")["edge_id"] == "e2"
    refused(world.post("/second", **{**body, "label": "x"}), 422, "wrong_value", "label")


def test_progress_counts(world: World) -> None:
    start = now()
    item = world.next(order="random", reviewer="ada")
    args = {"edge_id": item["edge_id"], "lease": item["lease"], "reviewer": "ada"}
    world.post(action="edge_correct", correct_relation="refutes", **args)
    world.post(action="edge_correct", correct_relation="supports", edge_id="e1" if
               item["edge_id"] != "e1" else "e2", reviewer="ada")  # fmt: skip
    query = {"reviewer": "ada", "day_start": start}
    said = world.client.get("/feedback/progress", params=query).json()
    assert said["today"] == {"reviewed": 2, "corrected": 1, "agreed": 1, "undone": 0}
    assert said["sampling"]["random"] == said["sampling"]["random_corrected"] == 1
    conditions = {each["name"]: each for each in said["due"]["conditions"]}
    assert conditions["samples"]["value"] == 1
    assert conditions["days since training"]["value"] is None
    assert said["due"]["due"] is False
    query["reviewer"] = "bob"
    said = world.client.get("/feedback/progress", params=query).json()
    assert said["today"]["reviewed"] == 0


def test_a_database_that_is_missing_or_not_ours_says_so(tmp_path: Path) -> None:
    database = LyraDatabase(tmp_path / "lyra.db")
    database.add_edge("e0")
    world = World(tmp_path, database)
    response = world.client.get("/feedback/next")
    assert (response.status_code, "db upgrade" in response.json()["hint"]) == (503, True)
    database.path.unlink()
    response = world.post(action="edge_correct", edge_id="e0", correct_relation="neutral")
    assert (response.status_code, "no database" in response.json()["message"]) == (503, True)


def test_a_database_that_is_replaced_is_noticed(newer: World, tmp_path: Path) -> None:
    assert newer.next(reviewer="ada")["edge_id"] == "e0"
    other = make(tmp_path / "other").database
    other.add_edge("new", "neutral", 0.1)
    for suffix in ("-wal", "-shm"):
        newer.database.path.with_name(newer.database.path.name + suffix).unlink(missing_ok=True)
    other.path.replace(newer.database.path)
    assert newer.next(reviewer="ada")["edge_id"] == "new"


@pytest.fixture
def page(newer: World) -> str:
    response = newer.client.get("/review")
    assert response.headers["content-type"].startswith("text/html")
    return response.text


def test_the_page_brings_everything_and_nothing_inline(newer: World, page: str) -> None:
    assert not re.search(r"<script(?![^>]* src=)", page)
    assert "<style" not in page
    assert not re.search(r"\s(style|on\w+)=", page)
    assert "http://" not in page.replace("http://www.w3.org", "")
    assert "https://" not in page
    links = re.findall(r'(?:src|href)="(review/[^"]+)"', page)
    assert len(set(links)) == 4
    for name in ("api", "http", "view", "preferences", "evidence"):
        links.append(f"review/static/{name}.js")
    for link in links:
        response = newer.client.get(f"/{link}")
        assert response.status_code == 200
        assert "https://" not in response.text
        policy = response.headers["Content-Security-Policy"]
        assert "default-src 'none'" in policy
        assert "frame-ancestors 'none'" in policy
        assert "unsafe" not in policy
        assert response.headers["X-Content-Type-Options"] == "nosniff"
        assert response.headers["Referrer-Policy"] == "no-referrer"


@pytest.mark.parametrize("name", ["none.js", "..%2fmain.py", "%2e%2e%2fmain.py", "review_page.py"])
def test_there_are_no_other_files(newer: World, name: str) -> None:
    assert newer.client.get(f"/review/static/{name}").status_code == 404
