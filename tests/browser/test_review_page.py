"""A person reviews by keyboard: the real page, the real server, a real browser."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from chromium import Line, chromium
from lyra_databases import fetch
from serving_world import live_server, make_world
from sqlalchemy import insert, update

from lyra_nli.feedback.actions import perform
from lyra_nli.records import Pair
from lyra_nli.settings import Settings
from lyra_nli.storage import tables
from lyra_nli.storage.engine import open_database, write

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

pytestmark = [pytest.mark.integration, pytest.mark.browser]

EVIL = '<img src=x onerror="window.pwned=1"><script>window.pwned=1</script><b>bold</b>'
LABELS = ("supports", "refutes", "neutral")
EDGES = 26


class Site:
    """A served project, and a look into its database that goes past all of our code."""

    def __init__(self, url: str, path: str) -> None:
        self.url = url
        self.path = Path(path)

    def fetch(self, sql: str, *values: object) -> list[tuple[object, ...]]:
        return fetch(self.path, sql, *values)

    def correct(self, edge: str, label: str, reviewer: str) -> None:
        engine = open_database(str(self.path))
        args = {"edge_id": edge, "correct_relation": label, "reviewer": reviewer}
        perform(engine, "edge_correct", args)
        engine.dispose()


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as browser:
        yield browser


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return make_world(tmp_path_factory.mktemp("models"))


@pytest.fixture
def serve(tmp_path: Path, models: Any) -> Iterator[Any]:
    """Serve `EDGES` edges, least certain first: e00, e01, ...; the first one is hostile."""
    world = make_world(tmp_path, like=models)
    fill(world.database, world.fast)
    opened = []

    def start(**review: float) -> Site:
        values = {"random_share": 0.0, "second_share": 0.0, **review}
        changed = {**world.settings.model_dump(), "review": values}
        server = live_server(Settings.model_validate(changed))
        opened.append(server)
        return Site(server.__enter__(), world.database)

    yield start
    for server in opened:
        server.__exit__(None, None, None)


def fill(location: str, base: Any) -> None:
    """Edges with the judgement that the served model gives, so that its version is known."""
    from lyra_nli.models.judge import Judge

    texts = [Pair(EVIL, "Claim with " + EVIL)]
    texts += [Pair(f"The drug lowers the risk {n}.", f"The risk is {n}.") for n in range(1, EDGES)]
    judged = sorted(
        zip(Judge(base).judge(texts), texts, strict=True),
        key=lambda both: (both[1] != texts[0], both[0].confidence),
    )
    rows: dict[Any, list[dict[str, Any]]] = {tables.fragments: [], tables.claims: []}
    rows[tables.edges] = []
    for n, (judgement, pair) in enumerate(judged):
        rows[tables.fragments].append(
            {"id": f"f{n:02}", "page_id": "p", "text_content": pair.premise}
        )
        rows[tables.claims].append({"id": f"c{n:02}", "claim_text": pair.hypothesis})
        rows[tables.edges].append(
            {
                "id": f"e{n:02}",
                "source_type": "fragment",
                "source_id": f"f{n:02}",
                "target_type": "claim",
                "target_id": f"c{n:02}",
                "relation": judgement.label,
                "nli_label": judgement.label,
                "nli_confidence": 0.01 if n == 0 else judgement.confidence,
            }
        )
    engine = open_database(location)
    with write(engine) as connection:
        page = {"id": "p", "url": "javascript:window.pwned=1", "domain": "x", "title": EVIL}
        connection.execute(insert(tables.pages).values(page))
        for table, values in rows.items():
            connection.execute(insert(table), values)
    engine.dispose()


def visit(
    browser: Browser, site: Site, name: str = "ada", line: Line | None = None, **context: Any
) -> Page:
    """Open the page for the first time and say who one is, by keyboard."""
    page = browser.new_context(**context).new_page()
    page.set_default_timeout(10_000)
    page.errors = []  # type: ignore[attr-defined]
    page.on("pageerror", lambda error: page.errors.append(str(error)))  # type: ignore[attr-defined]
    page.on("console", lambda said: said.type == "error" and page.errors.append(said.text))  # type: ignore[attr-defined]
    if line:
        line.lay(page)
    page.goto(f"{site.url}/review")
    page.keyboard.type(name)
    page.keyboard.press("Enter")
    judged(page)
    return page


def judged(page: Page) -> None:
    """Wait until a pair and the served model's answer are on the screen."""
    page.wait_for_selector("#work:not([aria-busy]) .verdict .chance:not(:empty)")


def shown(page: Page) -> str:
    return page.inner_text("#premise")


def press(page: Page, key: str) -> None:
    """Press a key, and wait for another pair."""
    before = shown(page)
    page.keyboard.press(key)
    page.wait_for_function(
        "before => document.querySelector('#premise').textContent !== before", arg=before
    )
    judged(page)


def says(page: Page, place: str, words: str) -> None:
    """Wait until a text is somewhere."""
    page.locator(place, has_text=words).wait_for(state="attached")


def standing(page: Page) -> str:
    return str(page.get_attribute(".verdict.stands", "data-label"))


def test_twenty_edges_by_keyboard_and_one_undone(browser: Browser, serve: Any) -> None:
    site = serve()
    page = visit(browser, site)
    expected = []
    for number in range(20):
        if number % 4 == 3:
            expected.append(standing(page))
            press(page, "Enter")
        elif number == 8:
            page.keyboard.press("r")
            page.keyboard.type("1 2 3 because <b>s u</b>")
            page.keyboard.press("Escape")
            expected.append("refutes")
            press(page, "2")
        else:
            expected.append(LABELS[number % 3])
            press(page, str(number % 3 + 1))
    says(page, "#today", "20 today")
    rows = site.fetch("SELECT edge_id, correct_label, reason FROM nli_reviews ORDER BY reviewed_at")
    assert rows == [
        (f"e{number:02}", label, "1 2 3 because <b>s u</b>" if number == 8 else "")
        for number, label in enumerate(expected)
    ]
    edges = site.fetch("SELECT relation FROM edges WHERE edge_human_corrected = 1 ORDER BY id")
    assert edges == [(label,) for label in expected]
    # The model that serves gave the stored answer, so it is known who predicted; the first
    # edge's stored confidence is another one.
    by = site.fetch("SELECT predicted_by FROM nli_reviews ORDER BY reviewed_at")
    assert by == [(None,)] + [("base",)] * 19
    assert site.fetch("SELECT DISTINCT reviewer, sampling FROM nli_reviews") == [("ada", "queue")]

    before = site.fetch("SELECT nli_label, nli_confidence FROM edges WHERE id = 'e20'")
    text = shown(page)
    press(page, "1")
    press(page, "u")
    assert shown(page) == text
    assert page.inner_text("#tag") == "Undone: judge it again"
    assert site.fetch("SELECT edge_human_corrected FROM edges WHERE id = 'e20'") == [(0,)]
    assert site.fetch("SELECT nli_label, nli_confidence FROM edges WHERE id = 'e20'") == before
    undone = "SELECT edge_id FROM nli_reviews WHERE undone_at IS NOT NULL"
    assert site.fetch(undone) == [("e20",)]
    assert site.fetch("SELECT action, who FROM nli_review_events") == [("undo", "ada")]
    press(page, "3")
    assert site.fetch("SELECT relation FROM edges WHERE id = 'e20'") == [("neutral",)]
    assert site.fetch("SELECT count(*) FROM nli_reviews") == [(22,)]
    assert page.errors == []  # type: ignore[attr-defined]


def ask(page: Page, key: str) -> None:
    """Open a dialog by its key."""
    page.keyboard.press(key)
    page.wait_for_selector("dialog[open]")


def answer(page: Page, words: str = "") -> None:
    """Write into the field that has the focus, send it, and wait until the dialog is gone."""
    page.keyboard.type(words)
    page.keyboard.press("Enter")
    page.wait_for_selector("dialog[open]", state="detached")


def test_a_claim_and_a_site_by_keyboard(browser: Browser, serve: Any) -> None:
    site = serve()
    engine = open_database(str(site.path))
    with write(engine) as connection:
        connection.execute(update(tables.pages).values(url="https://News.Example.org/a?b#c"))
    engine.dispose()
    page = visit(browser, site)
    assert page.locator(".note:visible").count() == 0

    ask(page, "c")
    page.keyboard.press("Enter")  # without a reason
    says(page, "#claim-reason-fault", "Please fill this in.")
    claim = "SELECT claim_adoption_status, claim_rejection_reason FROM claims WHERE id = 'c00'"
    assert site.fetch(claim) == [("adopted", None)]
    answer(page, "no claim, <b>1 2 3</b>")
    assert site.fetch(claim) == [("not_adopted", "no claim, <b>1 2 3</b>")]
    assert page.inner_text("#claim-note") == "Rejected: no claim, <b>1 2 3</b>"
    says(page, "#status", "Claim rejected. C, or")

    ask(page, "d")
    assert page.input_value("[name=domain_pattern]") == "news.example.org"
    page.keyboard.type("spam")
    page.keyboard.press("Shift+Tab")
    page.keyboard.type("*.co.jp")
    page.keyboard.press("Enter")
    says(page, "#domain-pattern-fault", "co.jp is a public suffix")
    assert page.get_attribute("[name=domain_pattern]", "aria-invalid") == "true"
    assert site.fetch("SELECT count(*) FROM domain_override_rules") == [(0,)]
    page.keyboard.press("ControlOrMeta+a")
    answer(page, "*.Example.org")
    rules = "SELECT domain_pattern, decision, reason, is_active, created_by"
    rules += " FROM domain_override_rules"
    assert site.fetch(rules) == [("*.example.org", "block", "spam", 1, "ada")]
    assert page.inner_text("#domain-note") == "news.example.org is blocked: spam"
    says(page, "#status", "*.example.org is blocked. D, or")

    # The pair is still there to be judged, and what was said is known when it comes back.
    page.reload()
    judged(page)
    assert page.inner_text("#domain-note") == "news.example.org is blocked: spam"
    while shown(page) != EVIL:
        press(page, "s")
    assert page.inner_text("#claim-note") == "Rejected: no claim, <b>1 2 3</b>"

    ask(page, "c")
    page.keyboard.press("Escape")
    page.wait_for_selector("dialog[open]", state="detached")
    assert site.fetch("SELECT count(*) FROM claims WHERE claim_adoption_status <> 'adopted'") == [
        (1,)
    ]
    ask(page, "c")
    answer(page)
    assert site.fetch(claim) == [("adopted", None)]
    assert page.locator("#claim-note").is_hidden()

    ask(page, "d")
    page.keyboard.type("not all of it")
    page.keyboard.press("Tab")
    page.keyboard.press("Tab")
    answer(page)  # on the button "Let through"
    assert page.inner_text("#domain-note") == "news.example.org is let through: not all of it"
    ask(page, "d")
    answer(page, "enough")
    assert page.locator("#domain-note").is_hidden()
    assert [rule[3] for rule in site.fetch(rules)] == [0]
    events = "SELECT action, domain_pattern, reason, created_by FROM domain_override_events"
    assert site.fetch(events + " ORDER BY created_at") == [
        ("domain_block", "*.example.org", "spam", "ada"),
        ("domain_unblock", "*.example.org", "not all of it", "ada"),
        ("domain_clear_override", "*.example.org", "enough", "ada"),
    ]
    assert site.fetch("SELECT count(*) FROM nli_reviews") == [(0,)]
    press(page, "1")
    assert site.fetch("SELECT edge_id, reviewer FROM nli_reviews") == [("e00", "ada")]
    assert page.evaluate("window.pwned === undefined")


def test_texts_are_never_read_as_html(browser: Browser, serve: Any) -> None:
    page = visit(browser, serve())
    assert shown(page) == EVIL
    assert page.inner_text("#claim") == "Claim with " + EVIL
    assert page.locator("#pair b, #pair img, #pair script").count() == 0
    assert page.locator("#source").is_hidden()  # its address is a script
    # Nor could a mistake of ours make it so: the browser itself refuses.
    for attempt in (
        "document.body.innerHTML = '<b>x</b>'",
        "document.body.setAttribute('onclick', 'x')",
    ):
        with pytest.raises(Exception, match="requires 'Trusted"):
            page.evaluate(attempt)
    assert page.evaluate("window.pwned === undefined")


def test_the_second_reviewer_sees_the_conflict(browser: Browser, serve: Any) -> None:
    site = serve()
    page = visit(browser, site)
    site.correct("e00", "refutes", "bob")
    page.keyboard.press("3")
    page.wait_for_selector("#notice:not([hidden])")
    assert page.inner_text("#notice-title") == "Somebody was faster"
    assert "bob reviewed it as refutes" in page.inner_text("#notice-text").lower()
    rows = site.fetch("SELECT reviewer, correct_label FROM nli_reviews")
    assert rows == [("bob", "refutes")]
    page.keyboard.press("Enter")
    judged(page)
    assert shown(page) != EVIL


def test_two_reviewers_never_see_the_same_pair(browser: Browser, serve: Any) -> None:
    site = serve()
    ada, bob = visit(browser, site, "ada"), visit(browser, site, "bob")
    assert shown(ada) != shown(bob)
    for _ in range(3):
        press(ada, "s")
        press(bob, "s")
        assert shown(ada) != shown(bob)
    assert site.fetch("SELECT count(*) FROM nli_reviews") == [(0,)]
    held = "SELECT reviewer FROM nli_leases WHERE expires_at > '2'"
    ada.close()
    bob.wait_for_timeout(300)
    assert site.fetch(held) == [("bob",)]


def test_a_hasty_double_press_is_one_review(browser: Browser, serve: Any) -> None:
    site = serve()
    page = visit(browser, site)
    keys: list[str] = []
    page.on("request", lambda request: keys.append(request.headers.get("idempotency-key", "")))
    page.evaluate(
        """() => { for (let i = 0; i < 3; i++)
        document.dispatchEvent(new KeyboardEvent('keydown', {key: '2', bubbles: true})); }"""
    )
    says(page, "#today", "1 today")
    assert site.fetch("SELECT edge_id FROM nli_reviews") == [("e00",)]
    [key] = filter(None, keys)
    # The same request again, as after a lost answer: the same key makes it the same review.
    body = {"action": "edge_correct", "edge_id": "e00", "correct_relation": "refutes"}
    again = httpx.post(
        f"{site.url}/feedback", json=body, headers={"Idempotency-Key": key}, trust_env=False
    )
    assert again.json()["code"] == "idempotency_key_reused"
    assert site.fetch("SELECT count(*) FROM nli_reviews") == [(1,)]


def test_a_second_look_is_blind(browser: Browser, serve: Any) -> None:
    site = serve(second_share=1.0)
    site.correct("e05", "refutes", "bob")
    page = browser.new_context().new_page()
    answers: list[str] = []
    page.on("response", lambda answer: answers.append(answer.url))
    page.goto(f"{site.url}/review")
    page.keyboard.type("ada")
    page.keyboard.press("Enter")
    says(page, "#tag", "Second")
    assert page.locator(".verdict.stands, .verdict .chance:not(:empty)").count() == 0
    assert page.locator("#agree").is_hidden()
    page.keyboard.press("c")  # what people say of the claim would tell something too
    assert page.locator("dialog[open]").count() == 0
    page.keyboard.press("Enter")  # there is nothing to agree with
    page.keyboard.press("3")
    says(page, "#tag", "Least certain")
    seconds = site.fetch("SELECT edge_id, label, reviewer FROM nli_second_reviews")
    assert seconds == [("e05", "neutral", "ada")]
    assert site.fetch("SELECT relation FROM edges WHERE id = 'e05'") == [("refutes",)]
    assert not any(
        url.endswith("/nli") for url in answers[: answers.index(f"{site.url}/feedback/second")]
    )


def test_the_order_is_a_choice_and_the_share_is_told(browser: Browser, serve: Any) -> None:
    page = visit(browser, serve(random_share=0.25))
    page.select_option("#order", "random")
    says(page, "#tag", "Drawn at random")
    says(page, "#due", "corrections")  # comes by a request of its own
    assert page.inner_text("#honest").startswith("25% of the pairs are drawn at random")
    assert (
        json.loads(page.evaluate("JSON.stringify(localStorage.getItem('lyra-nli.order'))"))
        == "random"
    )


def test_light_and_dark_by_choice_or_by_the_system(browser: Browser, serve: Any) -> None:
    page = visit(browser, serve(), color_scheme="dark")
    colour = "getComputedStyle(document.body).backgroundColor"
    dark = page.evaluate(colour)
    page.click("#theme")
    assert page.get_attribute("#theme", "aria-label") == "Theme: light"
    assert page.evaluate(colour) != dark
    page.reload()
    judged(page)
    assert page.evaluate(colour) != dark
    page.click("#theme")
    page.emulate_media(color_scheme="light")
    assert page.evaluate(colour) == dark


def test_it_fits_a_phone_and_has_names_for_everything(browser: Browser, serve: Any) -> None:
    site = serve()
    phone = {"viewport": {"width": 320, "height": 640}, "is_mobile": True, "has_touch": True}
    page = visit(browser, site, **phone)
    assert page.evaluate("document.documentElement.scrollWidth") <= 320
    for name in ("supports", "refutes", "neutral"):
        box = page.locator(f".verdict[data-label={name}]").bounding_box()
        assert box is not None
        assert box["height"] >= 44  # a thumb's size
        assert box["y"] + box["height"] <= 640
    nameless = page.evaluate(
        """() => [...document.querySelectorAll('button, select, input, textarea')].filter(each =>
        !(each.ariaLabel || each.labels?.length || each.textContent.trim()
          || each.getAttribute('aria-labelledby'))).map(each => each.outerHTML)"""
    )
    assert nameless == []
    page.tap("#claim-button")
    box = page.locator("#claim-dialog").bounding_box()
    assert box is not None
    assert (box["x"] >= 0, box["x"] + box["width"] <= 320) == (True, True)
    page.fill("#claim-dialog [name=reason]", "no claim")
    page.tap("#claim-dialog .agree")
    says(page, "#claim-note", "Rejected: no claim")
    page.tap(".verdict[data-label=neutral]")
    says(page, "#today", "1 today")
    assert site.fetch("SELECT edge_id, correct_label FROM nli_reviews") == [("e00", "neutral")]


@pytest.mark.parametrize("key", ["Enter", "s"])
def test_a_verdict_is_saved_though_no_next_pair_comes(
    browser: Browser, serve: Any, key: str
) -> None:
    site = serve()
    line = Line("**/feedback/next*")
    page = visit(browser, site, line=line)
    line.is_cut = True
    page.keyboard.press("1")
    page.wait_for_selector("#notice:not([hidden])")
    assert page.inner_text("#notice-title") == "Saved, but the next pair could not be fetched"
    for nothing in ("1", "2", "c"):  # is there to be judged
        page.keyboard.press(nothing)
    assert page.locator("#status", has_text="Not saved").count() == 0
    reviews = "SELECT edge_id, correct_label FROM nli_reviews"
    assert site.fetch(reviews) == [("e00", "supports")]
    line.is_cut = False
    page.keyboard.press(key)
    judged(page)
    assert page.locator("#notice").is_hidden()
    assert shown(page) != EVIL
    assert site.fetch(reviews) == [("e00", "supports")]
    press(page, "3")
    assert site.fetch(reviews + " ORDER BY reviewed_at")[1:] == [("e01", "neutral")]


def test_nothing_left_and_a_server_that_is_gone(browser: Browser, serve: Any) -> None:
    site = serve()
    line = Line("**/feedback")
    page = visit(browser, site, line=line)
    line.is_cut = True
    page.keyboard.press("1")
    says(page, "#status", "Not saved")
    assert shown(page) == EVIL
    line.is_cut = False
    press(page, "1")
    assert site.fetch("SELECT count(*) FROM nli_reviews") == [(1,)]
    for number in range(EDGES):
        if number > 0 and not site.fetch(
            "SELECT 1 FROM edges WHERE id = ? AND edge_human_corrected = 1", f"e{number:02}"
        ):
            site.correct(f"e{number:02}", "neutral", "bob")
    page.keyboard.press("s")
    page.wait_for_selector("#notice:not([hidden])")
    assert page.inner_text("#notice-title") == "Nothing is left to review"
