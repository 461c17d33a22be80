"""``GET /metrics``, as Prometheus reads it."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from prometheus_client.openmetrics.parser import (
    text_string_to_metric_families as read_openmetrics,
)
from prometheus_client.parser import text_string_to_metric_families as read_text
from serving_world import PAIRS, World, body, live_server, make_world, wait_until

from lyra_nli import __version__
from lyra_nli.ml_server import scrape
from lyra_nli.ml_server.main import create_app
from lyra_nli.ml_server.metrics import Metrics
from lyra_nli.storage.upgrade import init_database

GRAFANA = Path(__file__).parents[3] / "deploy" / "grafana-dashboard.json"
DOCS = Path(__file__).parents[3] / "docs" / "monitoring.md"

Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


@pytest.fixture(autouse=True)
def _fresh(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scrape, "FRESH_SECONDS", 0.0)


@pytest.fixture
def client(world: World) -> Iterator[httpx.Client]:
    with live_server(world.settings) as url, httpx.Client(base_url=url, trust_env=False) as client:
        yield client


def samples(client: httpx.Client) -> Samples:
    response = client.get("/metrics")
    assert response.status_code == 200, response.text
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in read_text(response.text)
        for sample in family.samples
    }


def value(found: Samples, name: str, **labels: str) -> float | None:
    return found.get((f"lyra_nli_{name}", frozenset(labels.items())))


def labels_of(found: Samples, name: str) -> list[dict[str, str]]:
    return [dict(labels) for (each, labels) in found if each == f"lyra_nli_{name}"]


def test_requests_are_counted_by_route_and_status(client: httpx.Client) -> None:
    client.post("/nli", json=body(PAIRS))
    client.post("/nli", json=body(PAIRS))
    client.post("/nli", json={"pairs": "none"})
    client.get("/a/path/of/somebodys/invention")
    client.request("BREW", "/nli")
    found = samples(client)

    assert value(found, "requests_total", method="POST", route="/nli", status="200") == 2
    assert value(found, "requests_total", method="POST", route="/nli", status="422") == 1
    assert value(found, "requests_total", method="GET", route="(none)", status="404") == 1
    assert {each["method"] for each in labels_of(found, "requests_total")} == {
        "GET",
        "POST",
        "other",
    }
    assert value(found, "request_seconds_count", route="/nli") == 4
    assert value(found, "request_seconds_bucket", route="/nli", le="+Inf") == 4


def test_pairs_are_counted_by_version_and_label(client: httpx.Client, world: World) -> None:
    base = world.settings.nli.fast_model
    results = client.post("/nli", json=body(PAIRS)).json()["results"]
    client.post("/nli", json=body(PAIRS[:1]))
    client.post("/nli", json={"pairs": []})
    found = samples(client)

    label = results[0]["label"]
    of_it = sum(result["label"] == label for result in results) + 1
    assert value(found, "judged_pairs_total", base_model=base, version="base", label=label) == of_it
    assert value(found, "request_pairs_sum") == 4
    assert value(found, "request_pairs_count") == 2
    assert value(found, "request_pairs_bucket", le="1.0") == 1
    assert value(found, "judge_seconds_count", base_model=base) == 2
    assert value(found, "wait_seconds_count") == 2


def test_the_active_version_is_told_and_changes(client: httpx.Client, world: World) -> None:
    version = world.publish()
    [before] = labels_of(samples(client), "active_version_info")
    client.post("/nli/adapter/load", json={"adapter_path": "v1"})
    found = samples(client)
    [after] = labels_of(found, "active_version_info")

    base = world.settings.nli.fast_model
    assert before == {
        "speed": "fast",
        "base_model": base,
        "version": "base",
        "digest": "",
        "calibration": "",
    }
    assert after == {**before, "version": "lora-lyra-v1", "digest": version.digest}
    loading = value(found, "adapter_load_seconds", base_model=base, version="lora-lyra-v1")
    assert loading is not None
    assert loading > 0


def test_state_and_log(client: httpx.Client) -> None:
    client.post("/nli", json=body(PAIRS))
    wait_until(lambda: value(samples(client), "predictions_logged_total") == 3)
    found = samples(client)

    assert value(found, "predictions_dropped_total") == 0
    assert value(found, "ready") == 1
    assert value(found, "following") == 1
    assert value(found, "queue_depth") == 0
    assert value(found, "build_info", version=__version__) == 1


def test_figures_of_the_database(client: httpx.Client) -> None:
    found = samples(client)
    assert value(found, "database_up") == 1
    assert value(found, "reviews", verdict="agreed") == 0
    assert value(found, "due_condition", condition="samples") == 0
    assert value(found, "due_threshold", condition="samples") == 100
    assert value(found, "due_value", condition="samples") == 0


def test_a_database_that_comes_and_goes_never_breaks_a_scrape(
    client: httpx.Client, world: World
) -> None:
    for file in world.folder.glob("lyra.db*"):
        file.unlink()
    gone = samples(client)
    (world.folder / "lyra.db").write_bytes(b"SQLite format 3\x00" + b"\xff" * 5000)
    broken = samples(client)
    (world.folder / "lyra.db").unlink()
    init_database(world.database)
    back = samples(client)

    assert [value(found, "database_up") for found in (gone, broken, back)] == [0, 0, 1]
    for found in (gone, broken):
        assert labels_of(found, "reviews") == []
        assert value(found, "ready") == 1
    assert value(back, "reviews", verdict="corrected") == 0


def test_the_database_is_read_once_for_scrapes_in_a_row(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scrape, "FRESH_SECONDS", 60.0)
    with live_server(world.settings) as url, httpx.Client(base_url=url, trust_env=False) as client:
        assert value(samples(client), "database_up") == 1
        for file in world.folder.glob("lyra.db*"):
            file.unlink()
        assert value(samples(client), "database_up") == 1


def test_it_speaks_openmetrics_when_asked(client: httpx.Client) -> None:
    kind = "application/openmetrics-text; version=1.0.0"
    response = client.get("/metrics", headers={"Accept": kind})
    families = read_openmetrics(response.text)  # type: ignore[no-untyped-call]
    names = {family.name for family in families}

    assert response.headers["content-type"].startswith("application/openmetrics-text")
    assert {"lyra_nli_requests", "lyra_nli_ready"} <= names


def test_the_queue_is_as_deep_as_what_waits() -> None:
    metrics = Metrics()

    def depth() -> float | None:
        return metrics.registry.get_sample_value("lyra_nli_queue_depth")

    inside, leave = threading.Barrier(3), threading.Event()

    def ask() -> None:
        with metrics.queue_depth.track_inprogress():
            inside.wait(10)
            leave.wait(10)

    threads = [threading.Thread(target=ask) for _ in range(2)]
    for thread in threads:
        thread.start()
    inside.wait(10)
    deep = depth()
    leave.set()
    for thread in threads:
        thread.join()
    assert (deep, depth()) == (2, 0)


def test_two_applications_count_apart(tmp_path: Path, template: World) -> None:
    apps = [create_app(make_world(tmp_path, like=template).settings) for _ in range(2)]
    assert len(apps) == 2  # one registry for both would refuse the same names twice


# --- the Grafana dashboard ----------------------------------------------------------------


def _expressions(node: Any) -> Iterator[str]:
    if isinstance(node, dict):
        for key, inner in node.items():
            if key in ("expr", "query") and isinstance(inner, str):
                yield inner
            else:
                yield from _expressions(inner)
    elif isinstance(node, list):
        for inner in node:
            yield from _expressions(inner)


def test_grafana_asks_only_for_what_there_is(client: httpx.Client, world: World) -> None:
    world.publish()
    client.post("/nli/adapter/load", json={"adapter_path": "v1"})
    client.post("/nli", json=body(PAIRS))
    found = samples(client)
    expressions = list(_expressions(json.loads(GRAFANA.read_text("utf-8"))))
    # Without an open alert there is no sample of it, only the family's name.
    names = {name for name, _ in found} | {"lyra_nli_open_alerts"}
    asked = {name for expression in expressions for name in re.findall(r"lyra_nli_\w+", expression)}

    assert len(expressions) > 20
    assert asked - names == set()


def test_the_documentation_names_every_metric_with_its_labels(
    client: httpx.Client, world: World
) -> None:
    world.publish()
    client.post("/nli/adapter/load", json={"adapter_path": "v1"})
    client.post("/nli", json=body(PAIRS))
    found: dict[str, set[str]] = {  # no alert is open, nothing is on trial
        "open_alerts": {"rule"},
        "trial_pairs_total": {"kind", "base_model", "version", "outcome"},
    }
    for name, labels in samples(client):
        family = re.sub(r"_(bucket|sum|count)$", "", name.removeprefix("lyra_nli_"))
        if not family.endswith("_created"):
            found.setdefault(family, set()).update({label for label, _ in labels} - {"le"})
    _, _, table = DOCS.read_text("utf-8").partition("| metric (`lyra_nli_…`)")
    documented = {}
    for line in table.partition("\n\n")[0].splitlines()[2:]:
        _, names, labels_text, *_ = line.split("|")
        for name in re.findall(r"`(\w+)`", names):
            documented[name] = set(re.findall(r"\w+", labels_text))

    assert documented == found


def test_grafana_groups_and_selects_by_labels_that_exist(
    client: httpx.Client, world: World
) -> None:
    world.publish()
    client.post("/nli/adapter/load", json={"adapter_path": "v1"})
    client.post("/nli", json=body(PAIRS))
    known = {label for _, labels in samples(client) for label, _ in labels}
    known |= {"job", "rule"}  # Prometheus adds the job; no alert is open
    for expression in _expressions(json.loads(GRAFANA.read_text("utf-8"))):
        grouped = re.findall(r"by \(([^)]*)\)", expression)
        selected = re.findall(r"(\w+)\s*=~?\s*\"", expression)
        used = {label.strip() for group in grouped for label in group.split(",")} | {*selected}
        assert used <= known, expression
