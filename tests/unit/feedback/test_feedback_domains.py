from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from lyra_databases import NEWER, OLDER, LyraDatabase, fetch
from sqlalchemy import Engine, text

from lyra_nli.errors import FeedbackError
from lyra_nli.feedback.actions import perform
from lyra_nli.feedback.domains import DomainDecision, Rule, explain, list_rules, normalise_pattern
from lyra_nli.hosts import site_of
from lyra_nli.storage.engine import read, write
from lyra_nli.storage.generation import inspect_database
from lyra_nli.storage.upgrade import upgrade


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ("example.com", "example.com"),
        ("  *.Example.COM ", "*.example.com"),
        ("news.example.co.jp", "news.example.co.jp"),
        ("*.bücher.example", "*.xn--bcher-kva.example"),
        ("日本語.jp", "xn--wgv71a119e.jp"),
        ("xn--bcher-kva.example", "xn--bcher-kva.example"),
        ("example.com.", "example.com"),
        ("www.ck", "www.ck"),
        ("someone.github.io", "someone.github.io"),
    ],
)
def test_a_pattern_is_kept_in_one_form(given: str, kept: str) -> None:
    assert normalise_pattern(given) == kept
    assert normalise_pattern(kept) == kept


@pytest.mark.parametrize(
    "pattern",
    [
        "*",
        "**",
        "*.*",
        ".",
        "*.",
        "com",
        "*.com",
        "co.jp",
        "*.co.jp",
        "*.CO.UK",
        "*.github.io",
        "localhost",
        "*.xn--p1ai",
        "*.рф",
        "*.sch.uk",
        "school.sch.uk",
        "*.anything-unknown",
    ],
)
def test_what_covers_a_public_suffix_is_refused(pattern: str) -> None:
    with pytest.raises(FeedbackError) as caught:
        normalise_pattern(pattern)
    assert (caught.value.code, caught.value.parameter) == ("public_suffix", "domain_pattern")


@pytest.mark.parametrize(
    "pattern",
    [
        *("", " ", "a b.com", "a\x00.com", "x" * 64 + ".com", ".".join(["abcdefgh"] * 40)),
        *("a..b", ".example.com", "ex*mple.com", "**.example.com", "*.*.example.com"),
        *("*example.com", "https://example.com", "example.com/path", "example.com:80"),
        *("-a.example.com", "xn--a.example.com", "xn--99999999.com", "a_b.example.com"),
        *("127.0.0.1", "[::1]", "::1"),
    ],
)
def test_what_is_no_pattern_is_refused(pattern: str) -> None:
    with pytest.raises(FeedbackError) as caught:
        normalise_pattern(pattern)
    assert caught.value.code == "bad_pattern"


@settings(deadline=None)  # the list of suffixes is read once
@given(st.text(max_size=40) | st.from_regex(r"(\*\.)?[a-z0-9.\-é。]{1,30}", fullmatch=True))
def test_any_text_is_a_stable_pattern_or_refused(text: str) -> None:
    try:
        kept = normalise_pattern(text)
    except FeedbackError:
        return
    assert normalise_pattern(kept) == kept
    assert kept.isascii()
    assert kept.removeprefix("*.").count(".") >= 1


class World:
    def __init__(self, database: LyraDatabase) -> None:
        self.path = database.path
        self.engine: Engine = database.open()
        upgrade(self.engine, backup=False)

    def do(self, action: str, pattern: str, reason: str = "r", who: str = "") -> dict[str, object]:
        given = {"domain_pattern": pattern, "reason": reason}
        return perform(self.engine, f"domain_{action}", given, who=who)

    def explain(self, url: str) -> DomainDecision:
        generation = inspect_database(self.engine)
        with read(self.engine) as connection:
            return explain(connection, generation, url)

    def rules(self, *, active_only: bool = True) -> list[Rule]:
        generation = inspect_database(self.engine)
        with read(self.engine) as connection:
            return list_rules(connection, generation, active_only=active_only)

    def events(self) -> list[tuple[object, ...]]:
        return fetch(
            self.path,
            "SELECT rule_id, action, domain_pattern, decision, reason, created_by"
            " FROM domain_override_events ORDER BY created_at",
        )


@pytest.fixture(params=[OLDER, NEWER], ids=["older", "newer"])
def world(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[World]:
    world = World(LyraDatabase(tmp_path / "lyra.db", request.param))
    yield world
    world.engine.dispose()


def test_a_pattern_has_one_rule_and_its_whole_history(world: World) -> None:
    first = world.do("block", "Spam.example.com", "made up", who="ann")
    assert str(first["rule_id"]).startswith("dor_")
    assert str(first["event_id"]).startswith("doe_")
    assert (first["decision"], first["previous_decision"]) == ("block", None)
    second = world.do("unblock", "spam.example.com", "mended")
    assert second["rule_id"] == first["rule_id"]
    assert (second["decision"], second["previous_decision"]) == ("unblock", "block")
    [rule] = world.rules()
    assert (rule.domain_pattern, rule.decision, rule.reason, rule.created_by) == (
        "spam.example.com",
        "unblock",
        "mended",
        "ann",
    )
    assert rule.updated_at > rule.created_at
    cleared = world.do("clear_override", "spam.example.com", "enough")
    assert cleared["cleared_rules"] == 1
    assert world.rules() == []
    assert [rule.is_active for rule in world.rules(active_only=False)] == [False]
    assert [event[1:] for event in world.events()] == [
        ("domain_block", "spam.example.com", "block", "made up", "ann"),
        ("domain_unblock", "spam.example.com", "unblock", "mended", "feedback"),
        ("domain_clear_override", "spam.example.com", "clear", "enough", "feedback"),
    ]
    again = world.do("block", "spam.example.com")
    assert again["rule_id"] != first["rule_id"]


def test_clearing_what_is_not_there_says_so(world: World) -> None:
    with pytest.raises(FeedbackError, match="no active rule") as caught:
        world.do("clear_override", "example.com")
    assert "domains list" in caught.value.hint
    assert world.events() == []


def test_a_rule_that_would_be_refused_today_can_be_cleared(world: World) -> None:
    with write(world.engine) as connection:
        for key in ("dor_1", "dor_2"):
            connection.execute(
                text(
                    "INSERT INTO domain_override_rules (id, domain_pattern, decision, reason,"
                    f" created_at, is_active)"
                    f" VALUES ('{key}', '*.Co.jp', 'block', 'old', '2026', 1)"
                )
            )
    assert world.explain("https://news.example.co.jp").decision == "block"
    assert world.do("clear_override", "*.co.jp")["cleared_rules"] == 2
    assert world.explain("https://news.example.co.jp").decision == "none"
    assert len(world.events()) == 2


def test_exact_beats_the_longest_suffix_which_beats_the_newest(world: World) -> None:
    world.do("block", "a.b.example.com")
    world.do("unblock", "*.b.example.com")
    world.do("block", "*.example.com")
    exact = world.explain("https://user:pw@A.b.example.com:8443/x?y#z")
    assert (exact.host, exact.decision) == ("a.b.example.com", "block")
    assert [rule.domain_pattern for rule in exact.losing] == ["*.b.example.com", "*.example.com"]
    assert "exact rule comes first" in exact.why
    longest = world.explain("c.b.example.com")
    assert longest.decision == "unblock"
    assert "longest" in longest.why
    assert world.explain("b.example.com").decision == "block"  # only *.example.com covers it
    assert world.explain("example.com").decision == "none"
    assert world.explain("notexample.com").decision == "none"
    assert world.explain("http://192.168.0.1/").decision == "none"


def test_of_two_rules_for_one_pattern_the_newest_wins(world: World) -> None:
    rows = [
        ("dor_b", "block", "2026-01-01 10:00:00", None),
        ("dor_a", "unblock", "2025-01-01T00:00:00+00:00", "2026-01-01T12:00:00+02:00"),
        ("dor_c", "unblock", "2026-01-01T09:59:00+00:00", None),
    ]
    with write(world.engine) as connection:
        for key, decision, created, updated in rows:
            connection.execute(
                text(
                    "INSERT INTO domain_override_rules (id, domain_pattern, decision, reason,"
                    " created_at, updated_at, is_active)"
                    " VALUES (:key, 'example.com', :decision, 'r', :created, :updated, 1)"
                ),
                {"key": key, "decision": decision, "created": created, "updated": updated},
            )
    decision = world.explain("example.com")
    assert decision.rule is not None
    assert decision.rule.id == "dor_b"  # the same moment as dor_a's, and the later id
    assert "newest" in decision.why
    assert world.do("unblock", "example.com")["rule_id"] == "dor_b"


def test_names_in_other_scripts_are_one_name(world: World) -> None:
    world.do("block", "*.bücher.example")
    assert world.explain("https://www.BÜCHER.example/").decision == "block"
    assert world.explain("https://www.xn--bcher-kva.example/").decision == "block"


@pytest.mark.parametrize(
    "url",
    [
        "example.com/?u=http://x.org",
        "example.com//x.org",
        "https://example.com/?u=http://x.org",
        " //example.com/a",
        "HTTP://EXAMPLE.com",
        "example.com:8080/https://x.org/",
    ],
)
def test_only_a_scheme_at_the_start_is_one(world: World, url: str) -> None:
    world.do("block", "example.com")
    found = world.explain(url)
    assert (found.host, found.decision) == ("example.com", "block")


@pytest.mark.parametrize("url", ["", "https://", "http://[::1", "/path", "https://:80/"])
def test_without_a_host_there_is_no_answer(world: World, url: str) -> None:
    with pytest.raises(FeedbackError, match="no host") as caught:
        world.explain(url)
    assert caught.value.parameter == "url"


def test_a_database_without_the_table_has_no_rules(tmp_path: Path) -> None:
    database = LyraDatabase(tmp_path / "lyra.db", OLDER)
    engine = database.open(read_only=True)
    generation = inspect_database(engine)
    with read(engine) as connection:
        assert list_rules(connection, generation) == []
        assert explain(connection, generation, "example.com").decision == "none"
    engine.dispose()


@pytest.mark.parametrize(
    ("url", "site"),
    [
        ("https://www.news.example.co.uk/a?b=c", "example.co.uk"),
        ("http://Example.ORG:8080/", "example.org"),
        ("https://müller.example.de/", "example.de"),
        ("https://somebody.github.io/page", "somebody.github.io"),
        ("http://192.168.0.1/x", "192.168.0.1"),
        ("http://localhost:8100", "localhost"),
        ("https://co.uk/", "co.uk"),
        ("", ""),
        ("https://", ""),
        ("http://[broken", ""),
    ],
)
def test_a_url_belongs_to_a_registrable_domain(url: str, site: str) -> None:
    assert site_of(url) == site
