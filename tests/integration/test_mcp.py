"""The MCP server through the SDK's own client: a real subprocess over stdio, and real HTTP."""

from __future__ import annotations

import json
import re
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import anyio
import httpx
import jsonschema
import pytest
import uvicorn
from lyra_databases import NEWER, OLDER, LyraDatabase, Shape, fetch, populate
from mcp import Client, MCPError, StdioServerParameters
from mcp_types import CallToolResult, Tool

from lyra_nli.feedback.actions import ACTIONS
from lyra_nli.feedback.queue import next_items
from lyra_nli.mcp_server.run import create_http_app
from lyra_nli.mcp_server.tools import TOOLS, Desk
from lyra_nli.settings import Settings
from lyra_nli.storage.engine import open_database
from lyra_nli.storage.upgrade import init_database, upgrade

pytestmark = pytest.mark.integration

TRANSPORTS = ("stdio", "http")
# "legacy" is the handshake of earlier protocols; "auto" finds out that none is needed.
EVERYTHING = [
    (OLDER, "stdio", "auto"),
    (OLDER, "http", "legacy"),
    (NEWER, "stdio", "legacy"),
    (NEWER, "http", "auto"),
]
ERROR_FIELDS = {
    "ok",
    "code",
    "parameter",
    "expected",
    "message",
    "problems",
    "hint",
    "details",
}
Talk = Callable[[Client], Awaitable[None]]


# --- a server and a client ----------------------------------------------------------------


def command(database: Path, *more: str) -> list[str]:
    return [sys.executable, "-m", "lyra_nli.cli.main", "mcp", "--db", str(database), *more]


@contextmanager
def http_server(database: Path, **options: Any) -> Iterator[str]:
    """A real server on a free port; gives the URL of the protocol's endpoint."""
    engine = open_database(str(database), **options)
    app = create_http_app(Desk(engine, Settings(), "ann"))
    server = uvicorn.Server(uvicorn.Config(app, log_config=None))
    listener = socket.create_server(("127.0.0.1", 0))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}/mcp"
    finally:
        server.should_exit = True
        thread.join(10)
        listener.close()
        engine.dispose()


@asynccontextmanager
async def connected(transport: str, database: Path, mode: str = "auto") -> AsyncIterator[Client]:
    if transport == "stdio":
        program, *arguments = command(database, "--who", "ann")
        server = StdioServerParameters(command=program, args=arguments)
        async with Client(server, mode=mode) as client:
            yield client
    else:
        with http_server(database) as url:
            async with Client(url, mode=mode) as client:
                yield client


def talk(transport: str, database: Path, say: Talk, mode: str = "auto") -> None:
    async def run() -> None:
        with anyio.fail_after(60):
            async with connected(transport, database, mode) as client:
                await say(client)

    anyio.run(run)


async def ask(client: Client, tool: str, **arguments: Any) -> dict[str, Any]:
    """Call a tool that must succeed; its text and its structure must say the same."""
    result = await client.call_tool(tool, arguments)
    facts = result.structured_content
    assert not result.is_error, facts
    assert json.loads(result.content[0].text) == facts
    assert facts["ok"] is True
    return facts


async def fail(client: Client, tool: str, **arguments: Any) -> dict[str, Any]:
    """Call a tool that must refuse."""
    result: CallToolResult = await client.call_tool(tool, arguments)
    assert result.is_error, result.structured_content
    facts = result.structured_content
    assert set(facts) == ERROR_FIELDS
    assert facts["ok"] is False
    assert facts["message"] in result.content[0].text
    assert "Traceback" not in result.content[0].text
    return facts


@pytest.fixture
def lyra(tmp_path: Path) -> LyraDatabase:
    return upgraded(tmp_path, NEWER)


def upgraded(folder: Path, shape: Shape) -> LyraDatabase:
    database = LyraDatabase(folder / "lyra.db", shape)
    populate(database)
    engine = database.open()
    upgrade(engine, backup=False)
    engine.dispose()
    return database


# --- every tool, over both transports, on both generations --------------------------------


@pytest.mark.parametrize(("shape", "transport", "mode"), EVERYTHING)
def test_an_assistant_says_everything(
    tmp_path: Path, shape: Shape, transport: str, mode: str
) -> None:
    lyra = upgraded(tmp_path, shape)
    lyra.add_edge("e7", "neutral", 0.55)

    async def say(client: Client) -> None:
        assert client.server_info.name == "lyra-nli"
        queue = await ask(client, "review_queue", order="uncertain", limit=5)
        waiting = {item["edge_id"]: item for item in queue["items"]}
        assert set(waiting) == {"e4", "e7"}
        assert waiting["e4"]["premise"] == "Premise of e4."
        seen = {name: waiting["e4"][name] for name in ("edge_version", "lease")}
        answer = await ask(
            client,
            "feedback",
            action="edge_correct",
            edge_id="e4",
            correct_relation="refutes",
            **seen,
        )
        assert (answer["previous_relation"], answer["new_relation"]) == ("supports", "refutes")
        nested = {"edge_id": "e7", "correct_relation": "neutral", "reason": "as it says"}
        agreed = await ask(client, "feedback", task_id="t1", action="edge_correct", args=nested)
        assert agreed["new_relation"] == "neutral"
        assert (agreed["sample_id"] is None) == (shape is NEWER)
        undone = await ask(client, "review_undo", review_id=answer["review_id"], reason="slip")
        assert undone["restored_relation"] == "supports"

        claim = {"claim_id": "c-e1"}
        await ask(client, "feedback", action="claim_reject", args={**claim, "reason": "vague"})
        rejected = "SELECT claim_adoption_status, claim_rejection_reason FROM claims WHERE id = ?"
        assert fetch(lyra.path, rejected, "c-e1") == [("not_adopted", "vague")]
        await ask(client, "feedback", action="claim_restore", **claim)
        assert fetch(lyra.path, rejected, "c-e1") == [("adopted", None)]

        for action in ("domain_block", "domain_unblock", "domain_clear_override"):
            rule = {"domain_pattern": "*.Example.com", "reason": "quality"}
            answer = await ask(client, "feedback", action=action, **rule)
            assert answer["domain_pattern"] == "*.example.com"

        stats = await ask(client, "calibration_metrics", action="get_stats")
        assert stats["samples"] >= 3
        done = await ask(client, "calibration_metrics", action="evaluate", min_samples=2)
        listed = await ask(client, "calibration_metrics", action="get_evaluations", limit=5)
        assert [each["evaluation_id"] for each in listed["evaluations"]] == [done["evaluation_id"]]
        diagram = await ask(client, "calibration_metrics", action="get_diagram_data")
        assert sum(bar["n"] for bar in diagram["bins"]) == done["samples"]

    talk(transport, lyra.path, say, mode)
    assert fetch(lyra.path, "SELECT relation, edge_human_corrected FROM edges WHERE id = 'e4'") == [
        ("supports", 0)
    ]
    reviews = "SELECT edge_id, reviewer, undone_at IS NULL FROM nli_reviews ORDER BY edge_id"
    assert fetch(lyra.path, reviews) == [("e4", "ann", 0), ("e7", "ann", 1)]
    assert fetch(lyra.path, "SELECT action FROM domain_override_events ORDER BY created_at") == [
        ("domain_block",),
        ("domain_unblock",),
        ("domain_clear_override",),
    ]


def test_a_calibration_is_rolled_back(lyra: LyraDatabase) -> None:
    for i in range(60):  # says 0.9, and is wrong half of the time
        edge, at = lyra.add_edge(f"m{i}", "supports", 0.9 - i % 2 / 50), f"2026-02-01T10:00:{i:02}Z"
        lyra.correct(edge, "neutral", at) if i % 2 else lyra.agree(edge, at)
    with lyra.connect() as connection:  # the same, drawn at random and judged by the base
        connection.execute(
            "INSERT INTO nli_reviews (id, edge_id, pair_key, premise, hypothesis, predicted_label,"
            " predicted_confidence, predicted_by, correct_label, sampling, reviewed_at)"
            " SELECT 'nlr_' || id, id, id, 'About ' || id, 'Claim of ' || id, 'supports',"
            " CASE relation WHEN 'supports' THEN 0.9 ELSE 0.88 END, 'base', relation, 'random',"
            " '2026-02-01T10:00:00+00:00' FROM edges WHERE id LIKE 'm%'"
        )

    async def say(client: Client) -> None:
        measured = await ask(client, "calibration_metrics", action="evaluate")
        assert (measured["source"], measured["accepted"]) == ("nli", False)
        done = await ask(client, "calibration_metrics", action="evaluate", source="base")
        assert (done["calibration_version"], done["accepted"]) == (1, True)
        stats = await ask(client, "calibration_metrics", action="get_stats")
        assert stats["current"]["version"] == 1
        assert stats["latest_evaluation"]["evaluation_id"] == done["evaluation_id"]
        args = {"action": "get_diagram_data", "source": "base"}
        diagram = await ask(client, "calibration_metrics", **args)
        assert sum(bar["calibrated"]["n"] for bar in diagram["bins"]) == 60
        missing = await fail(client, "calibration_rollback")
        assert (missing["code"], missing["parameter"]) == ("missing", "reason")
        back = await ask(client, "calibration_rollback", reason="worse in practice")
        assert (back["source"], back["from_version"], back["to_version"]) == ("base", 1, None)
        conflict = await fail(client, "calibration_rollback", reason="again", version=0)
        assert conflict["code"] == "conflict"

    talk("stdio", lyra.path, say)
    assert fetch(lyra.path, "SELECT who, action FROM nli_calibration_events ORDER BY id") == [
        ("ann", "fit"),
        ("ann", "rollback"),
    ]


# --- what a client reads about the tools --------------------------------------------------


def test_tools_describe_themselves(lyra: LyraDatabase) -> None:
    tools: dict[str, Tool] = {}

    async def say(client: Client) -> None:
        tools.update({tool.name: tool for tool in (await client.list_tools()).tools})

    talk("http", lyra.path, say)
    hints = {
        name: (tool.annotations.read_only_hint, tool.annotations.destructive_hint)
        for name, tool in tools.items()
    }
    assert hints == {
        "feedback": (False, True),
        "calibration_metrics": (False, False),
        "calibration_rollback": (False, True),
        "review_queue": (False, False),
        "review_undo": (False, True),
    }
    for tool in tools.values():
        assert tool.title
        for schema in (tool.input_schema, tool.output_schema):
            jsonschema.Draft202012Validator.check_schema(schema)
            assert schema["type"] == "object"
            assert not {"oneOf", "anyOf", "allOf"} & set(schema)  # some models' interfaces refuse
        assert tool.input_schema["additionalProperties"] is False
        assert "ok" in tool.output_schema["required"]
    feedback = tools["feedback"]
    for action in feedback.input_schema["properties"]["action"]["enum"]:
        assert f"- {action}(" in feedback.description
    accepts = jsonschema.Draft202012Validator(feedback.input_schema).is_valid
    args = {"edge_id": "e4", "correct_relation": "neutral"}
    assert accepts({"action": "edge_correct", **args})
    assert accepts({"action": "edge_correct", "task_id": "t1", "args": args})
    assert not accepts(args)
    assert not accepts({"action": "edge_correct", "args": {**args, "correct_relation": "maybe"}})


def test_the_manual_names_every_tool_action_and_code() -> None:
    manual = (Path(__file__).parents[2] / "docs/mcp.md").read_text("utf-8")
    for block in re.findall(r"```json\n(.*?)```", manual, re.S):
        for value in block.split("\n{") if block.count("\n{") else [block]:
            json.loads(value if value.startswith("{") else "{" + value)
    named = set(re.findall(r"`([a-z_]+)`", manual))
    assert named >= {*TOOLS, *ACTIONS, *(code for _, _, code, _ in BAD_CALLS)}


# --- what goes wrong ----------------------------------------------------------------------

BAD_CALLS: list[tuple[str, dict[str, Any], str, str]] = [
    ("feedback", {}, "missing", "action"),
    ("feedback", {"action": 7}, "wrong_type", "action"),
    ("feedback", {"action": "edge_delete"}, "unknown_action", "action"),
    ("feedback", {"action": "claim_restore"}, "missing", "claim_id"),
    ("feedback", {"action": "claim_restore", "args": []}, "wrong_type", "args"),
    ("feedback", {"action": "claim_restore", "claim_id": "no"}, "unknown_claim", "claim_id"),
    ("feedback", {"action": "claim_restore", "claim": "c"}, "unknown_parameter", "claim"),
    (
        "feedback",
        {"action": "edge_correct", "edge_id": "e4", "correct_relation": "maybe"},
        "wrong_value",
        "correct_relation",
    ),
    (
        "feedback",
        {"action": "edge_correct", "edge_id": "' OR 1=1 --", "correct_relation": "neutral"},
        "unknown_edge",
        "edge_id",
    ),
    (
        "feedback",
        {"action": "edge_correct", "edge_id": "e5", "correct_relation": "neutral"},
        "not_nli",
        "edge_id",
    ),
    (
        "feedback",
        {
            "action": "edge_correct",
            "args": {"edge_id": "e4", "correct_relation": "neutral", "sampling": "random"},
        },
        "wrong_value",
        "sampling",
    ),
    (
        "feedback",
        {"action": "domain_block", "domain_pattern": "*.co.jp", "reason": "x"},
        "public_suffix",
        "domain_pattern",
    ),
    (
        "feedback",
        {"action": "claim_reject", "claim_id": "c-e1", "reason": "x" * 1_000_000},
        "too_long",
        "reason",
    ),
    ("calibration_metrics", {}, "missing", "action"),
    ("calibration_metrics", {"action": ["get_stats"]}, "wrong_type", "action"),
    ("calibration_metrics", {"action": "delete"}, "wrong_value", "action"),
    ("calibration_metrics", {"action": "get_stats", "limit": 3}, "unknown_parameter", "limit"),
    ("calibration_metrics", {"action": "get_evaluations", "limit": 0}, "wrong_value", "limit"),
    ("calibration_metrics", {"action": "get_evaluations", "limit": True}, "wrong_type", "limit"),
    (
        "calibration_metrics",
        {"action": "get_diagram_data", "evaluation_id": "x"},
        "unknown_evaluation",
        "evaluation_id",
    ),
    ("calibration_metrics", {"action": "evaluate"}, "too_few_reviews", "min_samples"),
    ("calibration_rollback", {"reason": "x", "version": 9}, "unknown_version", "version"),
    ("calibration_rollback", {"reason": "x", "version": "9"}, "wrong_type", "version"),
    ("review_queue", {"order": "best"}, "wrong_value", "order"),
    ("review_queue", {"limit": 21}, "wrong_value", "limit"),
    ("review_undo", {"review_id": "nlr_none"}, "unknown_review", "review_id"),
]


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_bad_calls_are_errors_that_name_the_parameter(lyra: LyraDatabase, transport: str) -> None:
    before = lyra.dump()

    async def say(client: Client) -> None:
        for tool, arguments, code, parameter in BAD_CALLS:
            facts = await fail(client, tool, **arguments)
            assert (facts["code"], facts["parameter"]) == (code, parameter), facts
            assert facts["expected"]
            assert len(json.dumps(facts)) < 10_000  # what was sent does not come back whole
        several = await fail(client, "review_queue", order="best", limit=0, edge="e1")
        assert [each["code"] for each in several["details"]] == [
            "unknown_parameter",
            "wrong_value",
            "wrong_value",
        ]
        assert len(several["problems"]) == 3
        with pytest.raises(MCPError, match="there is no tool 'edge_delete'"):
            await client.call_tool("edge_delete", {})
        assert lyra.dump() == before
        await ask(client, "review_queue")  # and the server goes on

    talk(transport, lyra.path, say)


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_texts_pass_through_unharmed(lyra: LyraDatabase, transport: str) -> None:
    text = "<script>alert(1)</script> '; DROP TABLE edges; -- 日本 \u2028 \U0001f600 \\n\n{}"

    async def say(client: Client) -> None:
        args = {"edge_id": "e4", "correct_relation": "neutral", "reason": text}
        await ask(client, "feedback", action="edge_correct", **args)
        facts = await fail(client, "feedback", action=text)
        assert facts["code"] == "unknown_action"

    talk(transport, lyra.path, say)
    assert fetch(lyra.path, "SELECT reason FROM nli_reviews") == [(text,)]


def test_a_repeated_key_is_one_review(lyra: LyraDatabase) -> None:
    args = {"action": "edge_correct", "edge_id": "e4", "correct_relation": "neutral"}

    async def say(client: Client) -> None:
        first = await ask(client, "feedback", **args, idempotency_key="k1")
        assert await ask(client, "feedback", **args, idempotency_key="k1") == first
        other = {**args, "correct_relation": "refutes"}
        facts = await fail(client, "feedback", **other, idempotency_key="k1")
        assert facts["code"] == "idempotency_key_reused"
        assert (await fail(client, "feedback", **args, idempotency_key=5))["code"] == "wrong_type"

    talk("http", lyra.path, say)
    assert fetch(lyra.path, "SELECT count(*) FROM nli_reviews") == [(1,)]


def test_calls_at_once_are_all_recorded(lyra: LyraDatabase) -> None:
    edges = [lyra.add_edge(f"n{i}") for i in range(20)]

    async def say(client: Client) -> None:
        async with anyio.create_task_group() as group:
            for edge in edges:
                args = {"action": "edge_correct", "edge_id": edge, "correct_relation": "neutral"}
                group.start_soon(lambda args=args: ask(client, "feedback", **args))

    talk("http", lyra.path, say)
    assert fetch(lyra.path, "SELECT count(*), count(DISTINCT edge_id) FROM nli_reviews") == [
        (20, 20)
    ]


def test_two_assistants_never_get_the_same_edge_and_the_server_knows_how_it_was_drawn(
    lyra: LyraDatabase,
) -> None:
    for i in range(8):
        lyra.add_edge(f"n{i}", "supports", 0.5)
    said: list[str] = []

    async def say(client: Client) -> None:
        answers = [
            await ask(client, "review_queue", order=order, limit=4)
            for order in ("random", "uncertain")
        ]
        drawn, chosen = ([item["edge_id"] for item in answer["items"]] for answer in answers)
        assert len({*drawn, *chosen}) == 8
        for answer in answers:
            item = answer["items"][0]
            said.append(item["sampling"])
            args = {name: item[name] for name in ("edge_id", "edge_version", "lease")}
            await ask(client, "feedback", action="edge_correct", correct_relation="neutral", **args)

    talk("http", lyra.path, say)
    leases = "SELECT count(*) FROM nli_leases WHERE reviewer = 'ann' AND expires_at > '2'"
    assert fetch(lyra.path, leases) == [(6,)]
    samplings = fetch(lyra.path, "SELECT sampling FROM nli_reviews ORDER BY reviewed_at")
    assert samplings == [(each,) for each in said]
    assert said[0] == "random"


def test_a_stale_verdict_is_a_conflict(lyra: LyraDatabase) -> None:
    engine = lyra.open()
    [item] = next_items(engine, lease=False, random_share=0.0)
    engine.dispose()

    async def say(client: Client) -> None:
        args = {"action": "edge_correct", "edge_id": "e4", "correct_relation": "refutes"}
        await ask(client, "feedback", **args, edge_version=item.edge_version)
        facts = await fail(client, "feedback", **args, edge_version=item.edge_version)
        assert facts["code"] == "conflict"
        assert "ann" in facts["message"]

    talk("http", lyra.path, say)


# --- databases that can't be written ------------------------------------------------------


def test_a_database_without_our_tables_is_read_and_says_what_to_do(tmp_path: Path) -> None:
    lyra = LyraDatabase(tmp_path / "lyra.db", OLDER)
    populate(lyra)
    before = lyra.dump()

    async def say(client: Client) -> None:
        stats = await ask(client, "calibration_metrics", action="get_stats")
        assert (stats["samples"], stats["current"]) == (3, None)
        args = {"edge_id": "e4", "correct_relation": "neutral"}
        facts = await fail(client, "feedback", action="edge_correct", **args)
        assert facts["code"] == "storage_error"
        assert "lyra-nli db upgrade" in facts["hint"]

    talk("http", lyra.path, say)
    assert lyra.dump() == before


def test_evaluations_that_lyra_made_are_read_as_they_are(tmp_path: Path) -> None:
    lyra = LyraDatabase(tmp_path / "lyra.db", NEWER)
    bins = [{"range": [0.0, 0.1], "count": 3}]
    with lyra.connect() as connection:
        connection.execute(
            "INSERT INTO calibration_evaluations VALUES"
            " ('ce1', 'nli_judge', 0.2, NULL, NULL, NULL, 30, ?, 4, '2026-01-01 10:00:00')",
            (json.dumps(bins),),
        )

    async def say(client: Client) -> None:
        [facts] = (await ask(client, "calibration_metrics", action="get_evaluations"))[
            "evaluations"
        ]
        assert (facts["source"], facts["samples"], facts["calibration_version"]) == (
            "nli_judge",
            30,
            4,
        )
        args = {"action": "get_diagram_data", "evaluation_id": "ce1"}
        assert (await ask(client, "calibration_metrics", **args))["bins"] == bins

    talk("http", lyra.path, say)


def test_a_read_only_database_is_an_error_of_the_tool(lyra: LyraDatabase) -> None:
    async def run() -> None:
        with http_server(lyra.path, read_only=True) as url:
            async with Client(url) as client:
                await ask(client, "calibration_metrics", action="get_stats")
                args = {"edge_id": "e4", "correct_relation": "neutral"}
                for refused in (
                    await fail(client, "feedback", action="edge_correct", **args),
                    await fail(client, "review_queue"),
                ):
                    assert refused["code"] == "storage_error"
                    assert "can be written" in refused["hint"]

    anyio.run(run)


def test_our_own_empty_database_has_nothing_to_review(tmp_path: Path) -> None:
    init_database(str(tmp_path / "lyra.db"))

    async def say(client: Client) -> None:
        answer = await ask(client, "review_queue", limit=5)
        assert (answer["items"], answer["message"]) == ([], "Nothing is left to review.")

    talk("http", tmp_path / "lyra.db", say)


# --- the process --------------------------------------------------------------------------


@contextmanager
def process(*words: str) -> Iterator[subprocess.Popen[str]]:
    """The command itself; one that hangs is killed, and the test fails."""
    pipe = subprocess.PIPE
    with subprocess.Popen(words, stdin=pipe, stdout=pipe, stderr=pipe, text=True) as program:
        watchdog = threading.Timer(60, program.kill)
        watchdog.start()
        try:
            yield program
        finally:
            watchdog.cancel()
            program.kill()


def request(number: int, method: str, **params: Any) -> str:
    return json.dumps({"jsonrpc": "2.0", "id": number, "method": method, "params": params})


def test_standard_output_is_nothing_but_the_protocol(lyra: LyraDatabase) -> None:
    hello = {
        "protocolVersion": "2025-06-18",
        "capabilities": {},
        "clientInfo": {"name": "test", "version": "1"},
    }
    lines = [
        request(1, "initialize", **hello),
        json.dumps({"jsonrpc": "2.0", "method": "notifications/initialized"}),
        "this is no JSON",
        request(2, "tools/call", name="feedback", arguments={"action": "x"}),
        request(3, "tools/call", name="none", arguments={}),
        request(4, "tools/call", name="feedback", arguments="no object"),
        request(5, "tools/call", name="review_queue", arguments={}),
    ]
    with process(*command(lyra.path)) as server:
        assert server.stdin
        assert server.stdout
        server.stdin.write("\n".join([*lines, ""]))
        server.stdin.flush()
        answers: dict[int, dict[str, Any]] = {}
        while len(answers) < 5:
            message = json.loads(server.stdout.readline())
            assert message["jsonrpc"] == "2.0"
            if "id" in message:
                answers[message["id"]] = message
        server.stdin.close()
        assert server.stdout.read() == ""
        assert server.wait(10) == 0
    assert "Traceback" not in json.dumps(answers)
    assert answers[2]["result"]["isError"]
    assert answers[3]["error"]["message"] == "there is no tool 'none'"
    assert "error" in answers[4]
    assert answers[5]["result"]["structuredContent"]["ok"]


def test_a_page_in_a_browser_can_not_reach_the_server(lyra: LyraDatabase) -> None:
    with http_server(lyra.path) as url, httpx.Client(trust_env=False) as client:
        json_body = {"Accept": "application/json, text/event-stream"}
        body = json.loads(request(1, "tools/list"))
        for header in ({"Host": "evil.example:80"}, {"Origin": "https://evil.example"}):
            answer = client.post(url, json=body, headers={**json_body, **header})
            assert answer.status_code in (403, 421)


def test_the_command_serves_http_until_it_is_told_to_stop(lyra: LyraDatabase) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        words = command(lyra.path, "--http", "--port", port)
        refused = subprocess.run(words, capture_output=True, text=True, timeout=60)
    assert refused.returncode == 2
    assert f"can't listen on 127.0.0.1 port {port}" in refused.stderr
    assert "Traceback" not in refused.stderr
    with process(*command(lyra.path, "--http", "--port", port)) as server:
        assert server.stdout
        assert server.stderr
        assert f"MCP at http://127.0.0.1:{port}/mcp" in server.stderr.readline()

        async def run() -> None:
            async with Client(f"http://127.0.0.1:{port}/mcp") as client:
                assert (await ask(client, "review_queue"))["items"]

        anyio.run(run)
        server.send_signal(signal.SIGINT)
        assert server.wait(15) == 0
        assert server.stdout.read() == ""


def test_without_the_sdk_the_command_says_what_to_install(lyra: LyraDatabase) -> None:
    code = "import sys; sys.modules['mcp'] = sys.modules['mcp_types'] = None\n"
    code += "from lyra_nli.cli.main import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", code, "mcp", "--db", str(lyra.path)],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 2
    assert "pip install 'lyra-nli[mcp]'" in done.stderr
    assert "Traceback" not in done.stderr


def test_the_server_needs_no_libraries_of_training() -> None:
    code = "import sys; import lyra_nli.mcp_server.run, lyra_nli.workspace\n"
    code += "print({'torch', 'scipy', 'transformers', 'sklearn', 'fastapi'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout == "set()\n", done.stderr


def test_a_missing_database_is_said_at_once(tmp_path: Path) -> None:
    done = subprocess.run(
        command(tmp_path / "none.db"), capture_output=True, text=True, input="", timeout=60
    )
    assert done.returncode == 3
    assert "there is no database" in done.stderr
    assert done.stdout == ""
