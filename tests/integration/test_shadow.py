"""Shadow on live traffic: over real HTTP, into a real database, and from there to people."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
from click.testing import CliRunner, Result
from lyra_databases import fetch
from prometheus_client.parser import text_string_to_metric_families as read_metrics
from serving_world import PAIRS, World, body, live_server, make_world, wait_until
from sqlalchemy import insert

from lyra_nli.cli.main import cli
from lyra_nli.client import MLClient
from lyra_nli.errors import LyraNliError
from lyra_nli.feedback.queue import next_items
from lyra_nli.labels import LABELS
from lyra_nli.ml_server import shadowing
from lyra_nli.monitoring import shadow_log
from lyra_nli.records import Pair
from lyra_nli.registry.trials import Trial, Trials
from lyra_nli.settings import Settings
from lyra_nli.storage import tables
from lyra_nli.storage.engine import open_database, write

pytestmark = pytest.mark.integration

V1, V2 = "lora-lyra-v1", "lora-lyra-v2"
MANY = [
    Pair(f"Study {n} found {word} in {n % 7} of {n} arms.", f"The {noun} {word}.")
    for n, (word, noun) in enumerate(
        [(w, m) for w in ("rises", "falls", "heals", "fails", "grows") for m in "ABCDEFGH"], 1
    )
]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> World:
    return make_world(tmp_path_factory.mktemp("models"))


@pytest.fixture
def world(models: World, tmp_path: Path) -> World:
    """v1 serves; v2 is another, and its answers are far from v1's."""
    world = make_world(tmp_path, like=models)
    world.publish(seed=1)
    world.publish(seed=2, alpha=300.0)
    world.activate("v1")
    return world


def with_server(settings: Settings, **server: Any) -> Settings:
    changed = settings.ml_server.model_copy(update=server)
    return settings.model_copy(update={"ml_server": changed})


@pytest.fixture
def url(world: World, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.setattr(shadow_log, "LOOK_SECONDS", 0.5)
    with live_server(with_server(world.settings, shadow_cpu=1.0)) as url:
        yield url


@pytest.fixture
def call(world: World, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Result]:
    """Run a command on the world's database."""
    monkeypatch.setenv("LYRA_NLI__FAST_MODEL", world.settings.nli.fast_model)
    monkeypatch.setenv("LYRA_NLI__ADAPTERS_DIR", world.settings.nli.adapters_dir)

    def run(words: str) -> Result:
        result = CliRunner().invoke(cli, [*words.split(), "--db", world.database])
        known = isinstance(result.exception, (SystemExit, LyraNliError, type(None)))
        assert known, result.exc_info
        return result

    return run


def start(world: World, name: str = "v2", share: float = 1.0) -> Trial:
    with world.registry() as registry:
        return Trials(registry).start("shadow", name, share=share, who="test")


def status(url: str) -> dict[str, Any]:
    answer: dict[str, Any] = httpx.get(f"{url}/nli/adapter/status", trust_env=False).json()
    return answer


def running(url: str) -> list[tuple[str, str]]:
    return [(trial["kind"], trial["version"]) for trial in status(url)["trials"]]


def judged(url: str) -> int:
    return sum(trial["judged"] for trial in status(url)["trials"])


def add_edges(world: World, pairs: dict[str, Pair]) -> None:
    """Unreviewed edges of these ids and texts."""
    engine = open_database(world.database)
    with write(engine) as connection:
        connection.execute(insert(tables.pages).values(id="p", url="https://a.org", domain="a.org"))
        for name, pair in pairs.items():
            for table, row in (
                (tables.fragments, {"page_id": "p", "text_content": pair.premise}),
                (tables.claims, {"claim_text": pair.hypothesis}),
            ):
                connection.execute(insert(table).values(id=name, **row))
            connection.execute(
                insert(tables.edges).values(
                    id=name, source_type="fragment", source_id=name, target_type="claim",
                    target_id=name, relation="supports", nli_label="supports", nli_confidence=0.6,
                )
            )  # fmt: skip
    engine.dispose()


def test_it_judges_what_was_answered_and_people_are_shown_where_they_part(
    world: World, url: str, call: Callable[[str], Result], tmp_path: Path,
) -> None:  # fmt: skip
    with MLClient(url) as client:
        one, other = (client.judge(MANY, adapter=name) for name in ("v1", "v2"))
    parted = {pair for pair, a, b in zip(MANY, one, other, strict=True) if a.label != b.label}
    assert 1 < len(parted) < len(MANY)
    edges = {f"e{n}": pair for n, pair in enumerate(MANY)}
    add_edges(world, edges)
    call("shadow start v2 --share 1.0 --reason try")
    wait_until(lambda: running(url) == [("shadow", V2)])
    assert [v["pinned"] for v in status(url)["resident"] if v["version"] == V2] == [["shadow"]]

    sent = body(MANY)  # half of them under the edge's id, the others are found by their texts
    for n in range(0, len(MANY), 2):
        sent["pairs"][n]["pair_id"] = f"e{n}"
    sent["pairs"][1]["pair_id"] = "e7"  # an edge's id, but not with these texts
    results = httpx.post(f"{url}/nli", json=sent, trust_env=False).json()["results"]
    assert {result["adapter"] for result in results} == {V1}
    wait_until(lambda: judged(url) == len(MANY))
    [trial] = status(url)["trials"]
    assert (trial["disagreed"], trial["skipped"], trial["failed"]) == (len(parted), 0, 0)
    counted_there = {
        (sample.labels["version"], sample.labels["outcome"]): sample.value
        for family in read_metrics(httpx.get(f"{url}/metrics", trust_env=False).text)
        for sample in family.samples
        if sample.name == "lyra_nli_trial_pairs_total"
    }
    assert counted_there == {
        (V2, outcome): trial[outcome] for outcome in ("judged", "disagreed", "skipped", "failed")
    }

    database = Path(world.database)
    in_queue = "SELECT edge_id FROM nli_queue_scores WHERE kind = 'disagree' AND source = 'shadow'"
    expected = {name for name, pair in edges.items() if pair in parted}
    wait_until(lambda: {edge for (edge,) in fetch(database, in_queue)} == expected)
    counted = "SELECT compared FROM nli_comparisons"
    wait_until(lambda: fetch(database, counted) == [(len(MANY),)])
    [row] = fetch(
        database, "SELECT kind, one, other, compared, disagreed, details_json FROM nli_comparisons"
    )
    assert row[:5] == ("shadow", V1, V2, len(MANY), len(parted))
    matrix = [[0] * 3 for _ in LABELS]
    for a, b in zip(one, other, strict=True):
        matrix[LABELS.index(a.label)][LABELS.index(b.label)] += 1
    details = json.loads(row[5])
    assert details["labels"] == matrix
    shift = sum(b.confidence - a.confidence for a, b in zip(one, other, strict=True)) / len(MANY)
    assert details["confidence_shift"] == pytest.approx(shift, abs=1e-4)

    engine = open_database(world.database)
    [item] = next_items(
        engine, order="disagree", limit=1, lease=False, random_share=0, second_share=0
    )
    engine.dispose()
    assert set(item.detail) == {V1, V2}
    assert Pair(item.premise, item.hypothesis) in parted

    report = call("shadow report")
    assert f"{V1} and {V2} disagree on" in report.output
    assert f"{V2} says" in report.output
    file = tmp_path / "disputes.jsonl"
    facts = json.loads(call(f"shadow report --json --export {file}").stdout)
    assert facts["agreement"]["disagreed"]["k"] == len(parted)
    assert facts["agreement"]["labels"] == matrix
    scores = [each["score"] for each in facts["disagreements"]]
    assert scores == sorted(scores, reverse=True)
    assert len(scores) == min(5, len(parted))
    rows = [json.loads(line) for line in file.read_text("utf-8").splitlines()]
    assert {Pair(row["premise"], row["hypothesis"]) for row in rows} == parted
    unjudged = call(f"import {file}")
    assert unjudged.exit_code != 0
    file.write_text("".join(json.dumps({**row, "correct_label": "neutral"}) + "\n" for row in rows))
    assert call(f"import {file}").exit_code == 0

    assert f"shadow {V2}" in call("shadow status").output
    call("shadow stop --reason enough")
    wait_until(lambda: running(url) == [])
    assert "no shadow runs" in call("shadow status").output
    assert "enough" in call("shadow report").output
    history = call("adapters history").output.splitlines()
    assert [line.split("  ")[1:3] for line in history] == [
        ["activate", f"base -> {V1}"],
        ["shadow start", V2],
        ["shadow end", V2],
    ]


def test_only_what_the_active_version_answered(world: World, url: str) -> None:
    start(world)
    wait_until(lambda: running(url) == [("shadow", V2)])
    with MLClient(url) as client:
        client.judge(PAIRS, adapter="base")
        client.judge(PAIRS, adapter="v2")
        client.judge(PAIRS, adapter="v1")
        client.judge(PAIRS, use_slow=True)
        client.judge(PAIRS[:2], adapter="active")
        client.judge(PAIRS[:1])
    wait_until(lambda: judged(url) == 3)
    time.sleep(0.2)
    assert judged(url) == 3


def test_no_more_than_the_budget_and_the_rest_is_skipped(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shadowing, "MAX_WAITING", 10)
    with live_server(with_server(world.settings, shadow_cpu=0.01)) as url, MLClient(url) as client:
        start(world)
        wait_until(lambda: running(url) == [("shadow", V2)])
        client.judge(MANY)
        [trial] = status(url)["trials"]
        assert trial["skipped"] == len(MANY) - 10
        assert trial["judged"] < 10, "after each pair it rests a hundred times as long"
    engine_rows = fetch(Path(world.database), "SELECT details_json FROM nli_comparisons")
    assert sum(json.loads(row)["skipped"] for (row,) in engine_rows) == len(MANY) - 10


def test_a_server_that_never_rests_judges_a_shadow_too(world: World) -> None:
    asking, answered = threading.Event(), []
    asking.set()
    with live_server(with_server(world.settings, shadow_cpu=0.2)) as url, MLClient(url) as client:
        start(world)
        wait_until(lambda: running(url) == [("shadow", V2)])

        def caller() -> None:
            while asking.is_set():
                answered.append(client.judge(MANY[:2]))

        with ThreadPoolExecutor(4) as callers:
            running_callers = [callers.submit(caller) for _ in range(4)]
            try:
                wait_until(lambda: judged(url) >= 10)
            finally:
                asking.clear()
            for each in running_callers:
                each.result()
        [trial] = status(url)["trials"]
    assert trial["judged"] < len(answered), "the callers, of whom each asks two, come first"


def test_a_share_is_drawn(world: World, url: str) -> None:
    start(world, share=0.25)
    wait_until(lambda: running(url) == [("shadow", V2)])
    with MLClient(url) as client:
        for _ in range(10):
            client.judge(MANY)
    wait_until(lambda: judged(url) > 0)
    seen = -1
    while seen != (seen := judged(url)):
        time.sleep(0.3)
    [trial] = status(url)["trials"]
    drawn = trial["judged"] + trial["skipped"]
    assert 0.12 < drawn / (10 * len(MANY)) < 0.4


def test_one_that_can_not_be_loaded_harms_nobody(world: World, url: str) -> None:
    start(world)
    wait_until(lambda: running(url) == [("shadow", V2)])
    with world.registry() as registry:
        Trials(registry).end("shadow", world.fast.name, who="test")
    broken = world.publish(seed=3)
    start(world, "v3")
    (broken.path / "adapter_model.safetensors").unlink()
    wait_until(lambda: "lora-lyra-v3 does not run" in (status(url)["follow_error"] or ""), 30)
    assert running(url) == []
    with MLClient(url) as client:
        assert {answer.adapter for answer in client.judge(PAIRS)} == {V1}


def test_a_shadow_that_becomes_active_is_over(world: World, url: str) -> None:
    start(world)
    wait_until(lambda: running(url) == [("shadow", V2)])
    world.activate("v2")
    wait_until(lambda: running(url) == [] and status(url)["version"] == V2)
    with world.registry() as registry:
        trial = Trials(registry).last("shadow", world.fast.name)
    assert trial is not None
    assert trial.end_reason == "it became active: activate"
