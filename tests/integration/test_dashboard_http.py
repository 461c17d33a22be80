"""The dashboard's data and actions over HTTP: a real server, a real registry, a real token."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx
import pytest
from serving_world import PAIRS, World, body, live_server, make_world, wait_until

from lyra_nli.ml_server.slot import Slot
from lyra_nli.settings import Settings
from lyra_nli.storage.upgrade import init_database

pytestmark = pytest.mark.integration

TOKEN = "correct-horse-battery-staple"
PAGES = ("overview", "versions", "quality", "calibration", "data", "shadow")


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> World:
    return make_world(tmp_path_factory.mktemp("dashboard"))


def with_token(settings: Settings, token: str | None = TOKEN) -> Settings:
    values = settings.model_dump()
    values["ml_server"]["admin_token"] = token
    return Settings.model_validate(values)


class Dashboard:
    def __init__(self, url: str, world: World) -> None:
        self.client = httpx.Client(base_url=url, trust_env=False, timeout=60)
        self.world = world

    def get(self, path: str) -> Any:
        return self.client.get(f"/dashboard/api/{path}").raise_for_status().json()

    def post(self, action: str, token: str | None = TOKEN, **values: Any) -> httpx.Response:
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        return self.client.post(f"/dashboard/api/{action}", json=values, headers=headers)

    def judged_by(self) -> str:
        said = self.client.post("/nli", json=body(PAIRS[:1])).raise_for_status().json()
        version: str = said["results"][0]["adapter"]
        return version

    def events(self) -> list[tuple[Any, ...]]:
        with closing(sqlite3.connect(self.world.database)) as connection:
            return connection.execute(
                "SELECT action, from_version, to_version, who, reason FROM nli_version_events"
            ).fetchall()


@pytest.fixture(scope="module")
def dashboard(first: World) -> Iterator[Dashboard]:
    first.publish(seed=1, files={"report.html": "<!doctype html><h1>Gate report</h1>"})
    first.publish(seed=2)
    first.publish(first.slow, seed=3)
    with live_server(with_token(first.settings)) as url:
        made = Dashboard(url, first)
        yield made
        made.client.close()


def test_every_page_answers(dashboard: Dashboard) -> None:
    for page in (*PAGES, "versions/v1", "versions/compare?one=v1&other=base", "training"):
        answer = dashboard.client.get(f"/dashboard/api/{page}")
        assert answer.status_code == 200, answer.text
        assert answer.json()["ok"] is True
        assert answer.headers["cache-control"] == "no-store"
    assert dashboard.get("overview")["actions"] == {"enabled": True, "hint": ""}


def test_the_slow_base_has_pages_of_its_own(dashboard: Dashboard) -> None:
    fast, slow = dashboard.get("versions"), dashboard.get("versions?base=slow")
    assert [each["name"] for each in fast["versions"]] == ["lora-lyra-v1", "lora-lyra-v2"]
    assert [each["name"] for each in slow["versions"]] == ["lora-lyra-v3"]
    assert slow["base_model"] == dashboard.world.slow.name
    assert dashboard.client.get("/dashboard/api/data?base=huge").status_code == 422


def test_a_report_is_a_page_that_runs_nothing(dashboard: Dashboard) -> None:
    assert dashboard.get("versions/v1")["report_page"] is True
    page = dashboard.client.get("/dashboard/api/versions/v1/report.html")
    assert page.status_code == 200
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    assert page.text == "<!doctype html><h1>Gate report</h1>"
    policy = page.headers["content-security-policy"]
    assert policy.startswith("default-src 'none'; style-src 'unsafe-inline';")
    assert "script" not in policy
    asked = {"sec-fetch-site": "cross-site"}
    foreign = dashboard.client.get("/dashboard/api/versions/v1/report.html", headers=asked)
    assert foreign.status_code == 403
    none = dashboard.client.get("/dashboard/api/versions/v2/report.html")
    assert none.status_code == 404
    assert "lora-lyra-v2 has no report" in none.json()["error"]


def test_unknown_names(dashboard: Dashboard) -> None:
    for path in ("versions/v9", "versions/compare?one=v9&other=v1", "calibration?version=v9"):
        answer = dashboard.client.get(f"/dashboard/api/{path}")
        assert answer.status_code == 404
        assert "'v9'" in answer.json()["error"]


def test_what_is_activated_serves_at_once(dashboard: Dashboard) -> None:
    for name in ("lora-lyra-v1", "lora-lyra-v2"):
        answer = dashboard.post("activate", version=name, reason=" it is better ", name="ann")
        assert answer.status_code == 200, answer.text
        assert answer.json()["serving"] == name
        assert dashboard.judged_by() == name
        assert dashboard.get("overview")["serving"]["version"] == name
    event = ("activate", "lora-lyra-v1", "lora-lyra-v2", "dashboard: ann", "it is better")
    assert dashboard.events()[-1] == event

    answer = dashboard.post("rollback", reason="it errs on dosages")
    assert answer.status_code == 200, answer.text
    assert answer.json()["serving"] == "lora-lyra-v1"
    assert dashboard.judged_by() == "lora-lyra-v1"
    event = ("rollback", "lora-lyra-v2", "lora-lyra-v1", "dashboard", "it errs on dosages")
    assert dashboard.events()[-1] == event


def test_a_rollback_to_what_can_not_be_served_says_so(
    first: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The registry is back, and the server is not: nobody may read that all is well."""
    world = make_world(tmp_path, like=first, database=False)
    init_database(world.database)
    for seed in (1, 2):
        world.activate(world.publish(seed=seed).name)
    with live_server(with_token(world.settings)) as url:
        own = Dashboard(url, world)
        assert own.judged_by() == "lora-lyra-v2"

        def build(*_: object) -> None:
            raise RuntimeError("no memory")

        monkeypatch.setattr(Slot, "build", build)
        answer = own.post("rollback", reason="it errs on dosages").json()
        assert (answer["ok"], answer["serving"]) == (False, "lora-lyra-v2")
        said = "Back from lora-lyra-v2 to lora-lyra-v1. But lora-lyra-v2 is still served"
        assert said in answer["message"]
        assert "no memory" in answer["message"]
        assert own.judged_by() == "lora-lyra-v2"
        own.client.close()


def test_a_damaged_version_changes_nothing(dashboard: Dashboard) -> None:
    version = dashboard.world.publish(seed=4)
    (version.path / "adapter_config.json").write_text("{}")
    before, judged = dashboard.events(), dashboard.judged_by()
    answer = dashboard.post("activate", version=version.name, reason="why not")
    assert answer.status_code == 422
    assert "adapter_config.json: changed" in answer.json()["problems"][0]
    assert (dashboard.events(), dashboard.judged_by()) == (before, judged)


def test_the_overview_tells_when_the_server_can_not_follow(first: World, tmp_path: Path) -> None:
    world = make_world(tmp_path, like=first)
    version = world.publish(seed=5)
    with live_server(world.settings) as url:
        shown = Dashboard(url, world)
        assert shown.get("overview")["serving"]["problem"] is None
        (version.path / "adapter_model.safetensors").write_bytes(b"")
        with closing(sqlite3.connect(world.database)) as connection, connection:
            # Past the registry, which would refuse it.
            row = (version.base_model, "active", version.name)
            connection.execute("INSERT INTO nli_aliases VALUES (?, ?, ?)", row)
        wait_until(lambda: shown.get("overview")["serving"]["problem"] is not None)
        assert version.name in shown.get("overview")["serving"]["problem"]
        shown.client.close()


@pytest.mark.parametrize("action", ["activate", "rollback", "train"])
@pytest.mark.parametrize("token", [None, "wrong", TOKEN[:-1], f"{TOKEN}x", "ä" * 16], ids=range(5))
def test_without_the_token_nothing_happens(
    dashboard: Dashboard, action: str, token: str | None
) -> None:
    before = dashboard.events()
    # As bytes: a header may hold what is no ASCII.
    headers = {b"Authorization": f"Bearer {token}".encode()} if token else {}
    values = {"reason": "because", **({"version": "v2"} if action == "activate" else {})}
    url = f"/dashboard/api/{action}"
    answer = dashboard.client.post(url, json=values, headers=headers)
    assert answer.status_code == 401
    assert "token" in answer.json()["error"]
    assert TOKEN not in answer.text
    assert answer.headers["www-authenticate"] == "Bearer"
    assert dashboard.events() == before
    assert dashboard.get("training")["training"]["running"] is False


@pytest.mark.parametrize(
    ("action", "values", "field"),
    [
        ("activate", {"version": "v1", "reason": "  "}, "reason"),
        ("activate", {"version": "v1"}, "reason"),
        ("activate", {"reason": "r"}, "version"),
        ("rollback", {"reason": "r", "base": "huge"}, "base"),
        ("rollback", {"reason": "a\x00b"}, "reason"),
        ("train", {"reason": "r", "layers": 3}, "layers"),
    ],
)
def test_what_is_asked_must_make_sense(
    dashboard: Dashboard, action: str, values: dict[str, Any], field: str
) -> None:
    before = dashboard.events()
    answer = dashboard.post(action, **values)
    assert answer.status_code == 422
    assert any(field in problem for problem in answer.json()["problems"])
    assert dashboard.events() == before


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"sec-fetch-site": "cross-site"}, 403),
        ({"host": "evil.example"}, 403),
        ({"content-type": "text/plain"}, 415),
    ],
    ids=["another site", "another name", "no JSON"],
)
def test_pages_of_others_can_do_nothing(
    dashboard: Dashboard, headers: dict[str, str], status: int
) -> None:
    given = {"authorization": f"Bearer {TOKEN}", "content-type": "application/json", **headers}
    content = b'{"reason": "r"}'
    url = "/dashboard/api/rollback"
    assert dashboard.client.post(url, content=content, headers=given).status_code == status


def test_a_training_runs_alone_and_can_be_followed(dashboard: Dashboard) -> None:
    answer = dashboard.post("train", reason="a try", name="ann")
    assert answer.status_code == 202, answer.text
    assert answer.json()["training"]["running"] is True
    again = dashboard.post("train", reason="another")
    assert again.status_code == 409
    assert "runs already" in again.json()["error"]
    wait_until(lambda: not dashboard.get("training")["training"]["running"])
    training = dashboard.get("versions")["training"]
    assert training["exit_code"] == 4  # DatasetError: nobody corrected anything yet
    assert training["reason"] == "dashboard: ann: a try"
    assert "not enough corrections" in " ".join(training["log"])
    [run] = dashboard.get("versions")["runs"]
    assert (run["status"], run["forced_reason"]) == ("failed", "dashboard: ann: a try")


def test_without_a_token_in_the_settings_it_only_shows(first: World, tmp_path: Path) -> None:
    world = make_world(tmp_path, like=first)
    with live_server(world.settings) as url:
        shown = Dashboard(url, world)
        actions = shown.get("overview")["actions"]
        assert actions["enabled"] is False
        assert "ml_server.admin_token" in actions["hint"]
        for token in (TOKEN, None, "None", ""):
            answer = shown.post("rollback", token=token, reason="r")
            assert answer.status_code == 403
            assert "ml_server.admin_token" in answer.json()["error"]
        shown.client.close()


def test_there_is_no_database(first: World, tmp_path: Path) -> None:
    world = make_world(tmp_path, like=first, database=False)
    with live_server(with_token(world.settings)) as url:
        shown = Dashboard(url, world)
        for page in PAGES:
            assert "There is no database" in shown.get(page)["missing"][0]
        assert shown.post("rollback", reason="r").status_code == 503
        shown.client.close()
