"""The six actions behind one door, on databases of every generation."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from lyra_databases import NEWER, SHAPES, LyraDatabase, fetch
from sqlalchemy import Engine, text

from lyra_nli.errors import ConflictError, FeedbackError, StorageError
from lyra_nli.feedback.actions import ACTIONS, perform, unwrap
from lyra_nli.feedback.edges import edge_version
from lyra_nli.storage.engine import open_database, read, write
from lyra_nli.storage.generation import inspect_database
from lyra_nli.storage.upgrade import init_database, upgrade
from lyra_nli.storage.verdicts import Verdicts

MEGABYTE = "x" * 1_000_000
NASTY = "'); DROP TABLE edges; --\n<script>alert(1)</script> مرحبا 🙂"

ARGUMENTS: dict[str, dict[str, str]] = {
    "domain_block": {"domain_pattern": "spam.example.com", "reason": "made up"},
    "domain_unblock": {"domain_pattern": "*.example.com", "reason": "good"},
    "domain_clear_override": {"domain_pattern": "old.example.com", "reason": "no more"},
    "claim_reject": {"claim_id": "c-e1", "reason": "not ours"},
    "claim_restore": {"claim_id": "c-e1"},
    "edge_correct": {"edge_id": "e1", "correct_relation": "refutes", "reason": "look"},
}


class World:
    def __init__(self, database: LyraDatabase) -> None:
        self.database = database
        database.add_edge("e1", "supports", 0.9)
        database.add_edge("e2", "neutral", 0.6)
        database.add_edge("o", relation="origin")
        self.engine: Engine = database.open()
        upgrade(self.engine, backup=False)

    def fetch(self, sql: str, *parameters: object) -> list[tuple[Any, ...]]:
        return fetch(self.database.path, sql, *parameters)

    def do(self, action: str, **changes: object) -> dict[str, Any]:
        return perform(self.engine, action, {**ARGUMENTS[action], **changes}, who="ann")

    def version(self, key: str) -> str:
        tables = Verdicts(inspect_database(self.engine))
        with read(self.engine) as connection:
            return edge_version(
                connection.execute(tables.edge_texts().where(tables.edge.c.id == key)).one()
            )

    def lease(self, edge: str, token: str, **changes: str) -> None:
        row = {"purpose": "first", "sampling": "random", **changes}
        with write(self.engine) as connection:
            connection.execute(
                text(
                    "INSERT INTO nli_leases (edge_id, token, reviewer, purpose, sampling,"
                    " expires_at) VALUES (:edge, :token, 'ann', :purpose, :sampling, '2026')"
                ),
                {"edge": edge, "token": token, **row},
            )


@pytest.fixture(params=SHAPES)
def world(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[World]:
    world = World(LyraDatabase(tmp_path / "lyra.db", SHAPES[request.param]))
    yield world
    world.engine.dispose()


@pytest.fixture
def newer(tmp_path: Path) -> Iterator[World]:
    world = World(LyraDatabase(tmp_path / "lyra.db", NEWER))
    yield world
    world.engine.dispose()


def test_every_action_answers_in_plain_json(world: World) -> None:
    world.do("domain_block", domain_pattern="old.example.com")
    for name in ACTIONS:
        answer = world.do(name)
        assert (answer["ok"], answer["action"]) == (True, name)
        assert answer["message"]
        assert json.loads(json.dumps(answer)) == answer
    assert world.fetch("PRAGMA foreign_key_check") == []


def test_every_action_works_in_our_own_database(tmp_path: Path) -> None:
    init_database(str(tmp_path / "own.db"))
    engine = open_database(str(tmp_path / "own.db"))
    with write(engine) as connection:
        for sql in (
            "INSERT INTO pages (id, url, domain) VALUES ('p', 'https://a.example', 'a.example')",
            "INSERT INTO fragments VALUES ('f', 'p', 'P.')",
            "INSERT INTO claims (id, claim_text) VALUES ('c-e1', 'H.')",
            "INSERT INTO edges (id, source_type, source_id, target_type, target_id, relation,"
            " nli_label) VALUES ('e1', 'fragment', 'f', 'claim', 'c-e1', 'supports', 'supports')",
        ):
            connection.execute(text(sql))
    perform(engine, "domain_block", {"domain_pattern": "old.example.com", "reason": "r"})
    for name in ACTIONS:
        assert perform(engine, name, ARGUMENTS[name])["ok"]
    engine.dispose()


# --- edges --------------------------------------------------------------------------------


def test_edge_correct_names_the_person_and_the_review(world: World) -> None:
    answer = world.do("edge_correct")
    assert (answer["previous_relation"], answer["new_relation"]) == ("supports", "refutes")
    assert world.fetch("SELECT id, reviewer, sampling FROM nli_reviews") == [
        (answer["review_id"], "ann", "unknown")
    ]
    world.do("edge_correct", reviewer="bob", correct_relation="refutes")
    assert world.fetch("SELECT reviewer FROM nli_reviews ORDER BY reviewed_at") == [
        ("ann",),
        ("bob",),
    ]


def test_a_version_of_the_edge_that_is_past_is_a_conflict_that_says_who_and_what(
    world: World,
) -> None:
    seen = world.version("e1")
    assert world.do("edge_correct", edge_version=seen)["ok"]
    rows = world.fetch("SELECT count(*) FROM nli_reviews")
    with pytest.raises(ConflictError) as caught:
        world.do("edge_correct", edge_version=seen, correct_relation="neutral")
    assert "ann reviewed it as refutes on 20" in caught.value.message
    assert (caught.value.code, caught.value.http_status) == ("conflict", 409)
    assert caught.value.parameter == "edge_version"
    assert world.fetch("SELECT count(*) FROM nli_reviews") == rows
    assert world.do("edge_correct", edge_version=world.version("e1"))["ok"]


def test_a_reason_alone_is_a_new_version(newer: World) -> None:
    newer.do("edge_correct", correct_relation="supports")
    seen = newer.version("e1")
    newer.do("edge_correct", correct_relation="supports", reason="another")
    assert newer.version("e1") != seen


def test_a_conflict_with_lyras_own_correction_says_so(newer: World) -> None:
    seen = newer.version("e1")
    newer.database.correct("e1", "neutral", "2026-01-05T10:00:00")
    with pytest.raises(ConflictError, match=r"somebody reviewed it as neutral on 2026-01-05"):
        newer.do("edge_correct", edge_version=seen)


def test_the_lease_knows_how_the_edge_was_drawn(newer: World) -> None:
    newer.lease("e1", "token-1")
    newer.do("edge_correct", lease="token-1", sampling="queue")
    assert newer.fetch("SELECT sampling FROM nli_reviews") == [("random",)]
    assert newer.fetch("SELECT count(*) FROM nli_leases") == [(0,)]


def test_a_lease_that_was_lost_does_not_lose_the_work(newer: World) -> None:
    newer.lease("e1", "another-one")
    newer.do("edge_correct", lease="gone", sampling="queue")
    assert newer.fetch("SELECT sampling FROM nli_reviews") == [("unknown",)]
    assert newer.fetch("SELECT token FROM nli_leases") == [("another-one",)]


@pytest.mark.parametrize("changes", [{"edge_id": "e2"}, {"edge_id": "e1", "purpose": "second"}])
def test_a_lease_for_something_else_is_refused(newer: World, changes: dict[str, str]) -> None:
    newer.lease(changes.pop("edge_id"), "token-1", **changes)
    with pytest.raises(FeedbackError, match="lease: it is for a") as caught:
        newer.do("edge_correct", lease="token-1")
    assert (caught.value.code, caught.value.parameter) == ("wrong_value", "lease")
    assert newer.fetch("SELECT count(*) FROM nli_leases") == [(1,)]


def test_a_reviewed_edge_is_no_longer_suspect(newer: World) -> None:
    with write(newer.engine) as connection:
        for edge in ("e1", "e2"):
            connection.execute(
                text(
                    "INSERT INTO nli_queue_scores (kind, edge_id, score, at)"
                    " VALUES ('suspect', :edge, 1.0, '2026')"
                ),
                {"edge": edge},
            )
    newer.do("edge_correct")
    assert newer.fetch("SELECT edge_id FROM nli_queue_scores") == [("e2",)]


# --- claims -------------------------------------------------------------------------------


def test_a_claim_is_rejected_and_restored(world: World) -> None:
    columns = "claim_adoption_status, claim_rejection_reason, claim_rejected_at"
    sql = f"SELECT {columns} FROM claims WHERE id = 'c-e1'"
    answer = world.do("claim_reject", reason=NASTY)
    assert (answer["previous_status"], answer["new_status"]) == ("adopted", "not_adopted")
    [(status, reason, at)] = world.fetch(sql)
    assert (status, reason) == ("not_adopted", NASTY)
    assert str(at).startswith("20")
    assert "already" in world.do("claim_reject", reason="again")["message"]
    assert world.fetch(sql)[0][1] == "again"
    answer = world.do("claim_restore")
    assert (answer["previous_status"], answer["new_status"]) == ("not_adopted", "adopted")
    assert world.fetch(sql) == [("adopted", None, None)]
    assert world.do("claim_restore")["message"] == "Claim was not rejected."
    assert world.fetch("SELECT count(*) FROM claims WHERE claim_adoption_status = 'adopted'") == [
        (3,)
    ]


# --- what is refused ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("action", "changes", "code", "parameter"),
    [
        ("edge_correct", {"edge_id": "nowhere"}, "unknown_edge", "edge_id"),
        ("edge_correct", {"edge_id": "o"}, "not_nli", "edge_id"),
        ("edge_correct", {"edge_id": None}, "missing", "edge_id"),
        ("edge_correct", {"edge_id": 7}, "wrong_type", "edge_id"),
        ("edge_correct", {"edge_id": ["e1"]}, "wrong_type", "edge_id"),
        ("edge_correct", {"edge_id": MEGABYTE}, "too_long", "edge_id"),
        ("edge_correct", {"correct_relation": "entailment"}, "wrong_value", "correct_relation"),
        ("edge_correct", {"correct_relation": None}, "missing", "correct_relation"),
        ("edge_correct", {"correct_relation": ""}, "wrong_value", "correct_relation"),
        ("edge_correct", {"reason": MEGABYTE}, "too_long", "reason"),
        ("edge_correct", {"reason": "a\x00b"}, "wrong_value", "reason"),
        ("edge_correct", {"reason": "\ud800"}, "wrong_value", "reason"),
        ("edge_correct", {"sampling": "guess"}, "wrong_value", "sampling"),
        ("edge_correct", {"sampling": "random"}, "wrong_value", "sampling"),
        ("edge_correct", {"sampling": "random", "lease": "made up"}, "wrong_value", "sampling"),
        ("edge_correct", {"relation": "refutes"}, "unknown_parameter", "relation"),
        ("claim_reject", {"claim_id": "nowhere"}, "unknown_claim", "claim_id"),
        ("claim_reject", {"reason": None}, "missing", "reason"),
        ("claim_reject", {"reason": "  "}, "missing", "reason"),
        ("claim_restore", {"reason": "why"}, "unknown_parameter", "reason"),
        ("domain_block", {"reason": ""}, "missing", "reason"),
        ("domain_block", {"domain_pattern": ""}, "missing", "domain_pattern"),
        ("domain_block", {"domain_pattern": "*.co.jp"}, "public_suffix", "domain_pattern"),
        ("domain_block", {"domain_pattern": "a..b"}, "bad_pattern", "domain_pattern"),
        ("domain_block", {"domain_pattern": MEGABYTE}, "too_long", "domain_pattern"),
        ("domain_unblock", {"domain_pattern": "*"}, "public_suffix", "domain_pattern"),
        ("domain_clear_override", {}, "wrong_value", "domain_pattern"),
    ],
)
def test_what_is_wrong_has_a_code_and_changes_nothing(
    newer: World, action: str, changes: dict[str, object], code: str, parameter: str
) -> None:
    before = newer.database.dump()
    with pytest.raises(FeedbackError) as caught:
        newer.do(action, **changes)
    error = caught.value
    assert (error.code, error.parameter) == (code, parameter)
    assert error.expected
    assert error.details[0]["code"] == code
    assert len(str(error)) < 2_000
    assert newer.database.dump() == before


def test_everything_wrong_is_named_at_once(newer: World) -> None:
    with pytest.raises(FeedbackError) as caught:
        newer.do(
            "edge_correct", edge_id=None, correct_relation="yes", reason=1, edgeid="e1", sampling=""
        )
    error = caught.value
    assert error.message == "4 arguments are wrong"
    assert [(d["code"], d["parameter"]) for d in error.details] == [
        ("unknown_parameter", "edgeid"),
        ("missing", "edge_id"),
        ("wrong_value", "correct_relation"),
        ("wrong_type", "reason"),
    ]
    assert error.problems == tuple(d["message"] for d in error.details)
    assert "did you mean edge_id?" in error.problems[0]


@pytest.mark.parametrize("action", ["", "edge_delete", "__class__", NASTY])
def test_an_unknown_action_is_refused_with_those_there_are(newer: World, action: str) -> None:
    with pytest.raises(FeedbackError, match="there is no action") as caught:
        perform(newer.engine, action, {})
    assert caught.value.code == "unknown_action"
    assert "edge_correct" in caught.value.expected


@pytest.mark.parametrize("action", ARGUMENTS)
def test_sql_in_every_field_is_text(newer: World, action: str) -> None:
    tables = newer.fetch("SELECT name FROM sqlite_master ORDER BY name")
    for name in ARGUMENTS[action]:
        for text_ in ("' OR 1=1 --", "'); DROP TABLE edges; --", "%", "\\", '"'):
            with suppress(FeedbackError):
                newer.do(action, **{name: text_})
    assert newer.fetch("SELECT name FROM sqlite_master ORDER BY name") == tables
    assert newer.fetch("SELECT count(*) FROM edges") == [(3,)]
    assert newer.fetch("SELECT relation FROM edges WHERE id = 'e2'") == [("neutral",)]


def test_a_read_only_database_is_said_to_be_one(newer: World) -> None:
    newer.do("domain_block", domain_pattern="old.example.com")
    engine = newer.database.open(read_only=True)
    for action, arguments in ARGUMENTS.items():
        with pytest.raises(StorageError, match="can be written"):
            perform(engine, action, arguments)
    engine.dispose()


def test_a_database_that_was_not_upgraded_is_sent_there(tmp_path: Path) -> None:
    database = LyraDatabase(tmp_path / "lyra.db")
    database.add_edge("e1")
    engine = database.open()
    for action, arguments in ARGUMENTS.items():
        with pytest.raises(StorageError, match="lyra-nli db upgrade"):
            perform(engine, action, arguments)
    engine.dispose()


# --- the same request twice ---------------------------------------------------------------


@pytest.mark.parametrize("action", ["edge_correct", "domain_block", "claim_reject"])
def test_a_key_makes_two_requests_one(newer: World, action: str) -> None:
    answers = [
        perform(newer.engine, action, ARGUMENTS[action], who="ann", idempotency_key="k")
        for _ in range(2)
    ]
    assert answers[0] == answers[1]
    counts = {"edge_correct": "nli_reviews", "domain_block": "domain_override_events"}
    if action in counts:
        assert newer.fetch(f"SELECT count(*) FROM {counts[action]}") == [(1,)]
    assert newer.fetch("SELECT key FROM nli_idempotency") == [("k",)]


@pytest.mark.parametrize(
    ("changes", "who"), [({"reason": "other"}, "ann"), ({"edge_id": "e2"}, "ann"), ({}, "bob")]
)
def test_a_key_is_for_one_request(newer: World, changes: dict[str, str], who: str) -> None:
    given = ARGUMENTS["edge_correct"]
    perform(newer.engine, "edge_correct", given, who="ann", idempotency_key="k")
    with pytest.raises(FeedbackError) as caught:
        perform(newer.engine, "edge_correct", {**given, **changes}, who=who, idempotency_key="k")
    assert caught.value.code == "idempotency_key_reused"
    assert newer.fetch("SELECT count(*) FROM nli_reviews") == [(1,)]


def test_a_refused_request_leaves_its_key_free(newer: World) -> None:
    with pytest.raises(FeedbackError):
        perform(
            newer.engine,
            "edge_correct",
            {"edge_id": "nowhere", "correct_relation": "refutes"},
            idempotency_key="k",
        )
    assert perform(newer.engine, "edge_correct", ARGUMENTS["edge_correct"], idempotency_key="k")


@pytest.mark.parametrize("key", ["", "x" * 201, "a\x00"])
def test_a_key_that_is_none_is_refused(newer: World, key: str) -> None:
    with pytest.raises(FeedbackError, match="idempotency_key") as caught:
        perform(newer.engine, "edge_correct", ARGUMENTS["edge_correct"], idempotency_key=key)
    assert caught.value.parameter == "idempotency_key"
    assert newer.fetch("SELECT count(*) FROM nli_reviews") == [(0,)]


def test_answers_are_forgotten_after_a_week(newer: World) -> None:
    with write(newer.engine) as connection:
        connection.execute(
            text("INSERT INTO nli_idempotency VALUES ('old', 'h', '{}', '2020-01-01T00:00:00')")
        )
    perform(newer.engine, "edge_correct", ARGUMENTS["edge_correct"], idempotency_key="k")
    assert newer.fetch("SELECT key FROM nli_idempotency") == [("k",)]


def test_a_double_submit_at_the_same_moment_is_one_review(newer: World) -> None:
    answers: list[dict[str, object]] = []

    def submit() -> None:
        answers.append(
            perform(newer.engine, "edge_correct", ARGUMENTS["edge_correct"], idempotency_key="k")
        )

    threads = [threading.Thread(target=submit) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(answers) == 8
    assert len({str(answer["review_id"]) for answer in answers}) == 1
    assert newer.fetch("SELECT count(*) FROM nli_reviews") == [(1,)]


# --- both calling shapes ------------------------------------------------------------------


@pytest.mark.parametrize(
    "arguments",
    [
        {"action": "claim_restore", "claim_id": "c"},
        {"action": "claim_restore", "args": {"claim_id": "c"}},
        {"action": "claim_restore", "args": {"claim_id": "c"}, "task_id": "t"},
        {"action": "claim_restore", "claim_id": "c", "task_id": "t", "args": None},
    ],
)
def test_both_shapes_are_read(arguments: dict[str, object]) -> None:
    assert unwrap(arguments) == ("claim_restore", {"claim_id": "c"})


@pytest.mark.parametrize(
    ("arguments", "code", "parameter"),
    [
        ({}, "missing", "action"),
        ({"args": {"action": "claim_restore"}}, "missing", "action"),
        ({"action": 3}, "wrong_type", "action"),
        ({"action": "claim_restore", "args": "c"}, "wrong_type", "args"),
        (
            {"action": "claim_restore", "args": {}, "claim_id": "c"},
            "unknown_parameter",
            "claim_id",
        ),
    ],
)
def test_a_mixture_of_shapes_is_refused(
    arguments: dict[str, object], code: str, parameter: str
) -> None:
    with pytest.raises(FeedbackError) as caught:
        unwrap(arguments)
    assert (caught.value.code, caught.value.parameter) == (code, parameter)
