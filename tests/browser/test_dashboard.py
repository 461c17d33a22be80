"""The dashboard over half a year of a project: the charts show what the database holds."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from chromium import Line, chromium
from lyra_databases import fetch
from serving_world import World, live_server, make_world
from watched_project import fill

from lyra_nli.settings import Settings
from lyra_nli.storage import tables
from lyra_nli.storage.engine import open_database, write

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

pytestmark = [pytest.mark.integration, pytest.mark.browser]

PAGES = ("overview", "versions", "quality", "calibration", "data", "shadow")
TOKEN = "a secret of this test alone"
EVIL = '<img src=x onerror="window.pwned=1"><script>window.pwned=1</script><b>bold</b>'
RANDOM = """
SELECT {what} FROM nli_reviews AS review JOIN nli_predictions AS answer
ON answer.pair_key = review.pair_key WHERE review.sampling = 'random'
"""


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as browser:
        browser.new_context()
        yield browser


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    world = make_world(tmp_path_factory.mktemp("watched"))
    empty = Path(world.folder) / "empty.db"
    empty.write_bytes(Path(world.database).read_bytes())
    fill(world)
    return world


@pytest.fixture(scope="module")
def site(world: World) -> Iterator[str]:
    with live_server(changed(world, ml_server={"admin_token": TOKEN})) as url:
        yield url


def changed(world: World, **sections: dict[str, Any]) -> Settings:
    """The settings of a world with some others, and one base for both questions."""
    values = world.settings.model_dump()
    values["nli"]["slow_model"] = values["nli"]["fast_model"]
    for section, more in sections.items():
        values[section] |= more
    return Settings.model_validate(values)


def visit(
    browser: Browser,
    site: str,
    path: str = "",
    *,
    expected: str = "",
    line: Line | None = None,
    **context: Any,
) -> Page:
    """Open a page of the dashboard, and watch what goes wrong there.

    `expected`: what may go wrong.
    """
    # One context for most tests: plotly is read and compiled once.
    page = (browser.new_context(**context) if context else browser.contexts[0]).new_page()
    page.set_default_timeout(30_000)
    page.errors = []  # type: ignore[attr-defined]

    def note(words: str, wrong: bool = True) -> None:
        if wrong and not (expected and re.search(expected, words)):
            page.errors.append(words)  # type: ignore[attr-defined]

    own = (site, "data:", "blob:")
    page.on("pageerror", lambda error: note(str(error)))
    page.on("console", lambda said: note(said.text, said.type in ("error", "warning")))
    page.on("request", lambda asked: note(asked.url, not asked.url.startswith(own)))
    if line:
        line.lay(page)
    page.goto(f"{site}/dashboard{path}")
    stands(page)
    return page


def stands(page: Page) -> None:
    """Wait until a page and its charts are on the screen."""
    page.wait_for_selector("main:not([aria-busy]) h1")
    page.wait_for_selector(".plot:not([data-drawn])", state="detached")


def walk(page: Page) -> Iterator[str]:
    """Go from page to page by the navigation."""
    for name in PAGES:
        page.locator("#pages a", has_text=name.capitalize()).click()
        page.wait_for_url(f"**/dashboard/{name}")
        page.locator("h1", has_text=name.capitalize()).wait_for()
        stands(page)
        yield name


def traces(page: Page, title: str) -> list[dict[str, Any]]:
    """What plotly draws under a heading."""
    figure = page.locator("figure", has=page.get_by_role("heading", name=title))
    drawn: list[dict[str, Any]] = figure.locator(".plot").evaluate(
        "place => place.data.map(({name, x, y, customdata}) => ({name, x, y, customdata}))"
    )
    return drawn


def cells(page: Page, caption: str) -> list[list[str]]:
    """The rows of a table, as they are read."""
    table = page.locator("table", has=page.locator("caption", has_text=caption))
    rows: list[list[str]] = table.evaluate(
        """table => [...table.tBodies[0].rows]
        .map(row => [...row.cells].map(cell => cell.textContent))"""
    )
    return rows


def sql(world: World, query: str) -> list[tuple[Any, ...]]:
    return fetch(Path(world.database), query)


# --- what is shown ---------------------------------------------------------------------------


def test_every_page_stands_and_each_chart_has_its_table(browser: Browser, site: str) -> None:
    page = visit(browser, site)
    for name in walk(page):
        assert page.title() == f"{name.capitalize()} · lyra-nli"
        assert page.locator("#pages [aria-current=page]").inner_text().lower() == name
        assert not re.search(r"undefined|NaN|\[object", page.inner_text("body"))
        for place in page.locator(".plot").all():
            assert place.get_attribute("data-drawn") == "yes"
            assert (place.get_attribute("aria-label") or "").endswith(".")
        count = page.locator("figure:has(.plot) details table").count()
        assert count == page.locator(".plot").count()
    assert page.errors == []  # type: ignore[attr-defined]


def test_the_overview_is_the_loop_with_the_figures_of_now(
    browser: Browser, site: str, world: World
) -> None:
    page = visit(browser, site)
    assert page.inner_text("h1") == "Overview"
    stations = page.locator(".station")
    assert stations.evaluate_all("all => all.map(each => each.dataset.station)") == [
        "answers", "reviews", "due", "training", "gate", "serving", "watch",
    ]  # fmt: skip
    [(alerts,)] = sql(world, "SELECT count(*) FROM nli_alerts WHERE resolved_at IS NULL")
    assert f"Watch: {alerts} open" in str(stations.last.get_attribute("aria-label"))
    assert "Serving: v3" in str(stations.nth(5).get_attribute("aria-label"))
    query = RANDOM.format(what="avg(predicted_label <> correct_label)")
    [(rate,)] = sql(world, query + " AND answer.version = 'lora-lyra-v3'")
    assert page.locator(".middle .big").text_content() == f"{100 * rate:.1f}%"
    [(reviews,)] = sql(world, "SELECT count(*) FROM nli_reviews")
    assert f"{reviews:,}" in str(page.text_content(".station[data-station=reviews]"))
    stations.nth(4).click()
    page.wait_for_url("**/dashboard/versions")


def test_quality_shows_what_people_said(browser: Browser, site: str, world: World) -> None:
    page = visit(browser, site, "/quality")
    query = RANDOM.format(what="version, avg(predicted_label <> correct_label), count(*)")
    expected = sql(world, query + " GROUP BY version ORDER BY version")
    [points] = traces(page, "Correction rate by version")
    assert [f"lora-lyra-{name}" if name != "base" else name for name in points["y"]] == [
        version for version, *_ in expected
    ]
    assert points["x"] == pytest.approx([rate for _, rate, _ in expected])
    weekly = traces(page, "Correction rate by week")
    assert [each["name"] for each in weekly] == ["base", "v1", "v3"]
    rows = cells(page, "Correction rate by week")
    assert len(rows) == sum(len(each["x"]) for each in weekly)
    assert sum(int(re.sub(r"\D", "", row[5])) for row in rows) == sum(n for *_, n in expected)
    marks = page.locator(".plot").first.evaluate("place => place.layout.shapes.map(({x0}) => x0)")
    events = sql(world, "SELECT at FROM nli_version_events ORDER BY id")
    assert marks == [at for (at,) in events]

    [matrix] = traces(page, "What it said, and what people said")
    labels = ("supports", "refutes", "neutral")
    query = RANDOM.format(what="predicted_label, correct_label, count(*)") + " GROUP BY 1, 2"
    counted = {(said, meant): n for said, meant, n in sql(world, query)}
    assert matrix["customdata"] == [[counted[a, b] for b in labels] for a in labels]
    answers = traces(page, "What it answers")
    query = "SELECT sum(n) FROM nli_prediction_counts WHERE kind = 'label' AND bucket = '{}'"
    for label, trace in zip(labels, answers, strict=True):
        assert (trace["name"], [(sum(trace["y"]),)]) == (label, sql(world, query.format(label)))

    page.select_option(".choice select", "accuracy")
    page.wait_for_url("**measure=accuracy")
    stands(page)
    accuracy = traces(page, "Accuracy by week")
    assert accuracy[2]["y"] == pytest.approx([1 - rate for rate in weekly[2]["y"]])
    page.go_back()
    stands(page)
    assert traces(page, "Correction rate by week") == weekly


def test_calibration_shows_each_bin_with_its_count(
    browser: Browser, site: str, world: World
) -> None:
    page = visit(browser, site, "/calibration")
    query = RANDOM.format(what="count(*), avg(predicted_label = correct_label)")
    [(n, right)] = sql(world, query + " AND answer.version = 'lora-lyra-v3'")
    for side in ("Before", "After"):
        _, points, bars = traces(page, side)
        held = [count for count in bars["y"] if count]
        assert sum(held) == n
        assert sum(a * b for a, b in zip(points["y"], held, strict=True)) / n == pytest.approx(
            right
        )
        assert [int(row[1].replace(",", "")) for row in cells(page, f"{side}:")] == held
    assert [row[0] for row in cells(page, "Measures")][1:] == ["Brier score", "Log loss (NLL)"]


def test_data_shows_the_reviews_of_each_day(browser: Browser, site: str, world: World) -> None:
    page = visit(browser, site, "/data")
    agreed, corrected = traces(page, "Reviews by day")
    days = {
        day: (same, n - same)
        for day, n, same in sql(
            world,
            "SELECT substr(reviewed_at, 1, 10), count(*), sum(predicted_label = correct_label)"
            " FROM nli_reviews GROUP BY 1",
        )
    }
    shown = zip(agreed["x"], agreed["y"], corrected["y"], strict=True)
    assert [(a, b) for _, a, b in shown] == [days.get(day, (0, 0)) for day in agreed["x"]]
    assert len(agreed["x"]) == 90
    reviewers = sql(world, "SELECT reviewer, count(*) FROM nli_reviews GROUP BY 1 ORDER BY 2 DESC")
    assert [(row[0], int(row[1])) for row in cells(page, "Reviewers")] == reviewers


def test_shadow_shows_how_often_two_disagree(browser: Browser, site: str, world: World) -> None:
    page = visit(browser, site, "/shadow")
    [points] = traces(page, "How often they disagree")
    rates = sql(
        world,
        "SELECT other, kind, 1.0 * sum(disagreed) / sum(compared) FROM nli_comparisons "
        "GROUP BY other, kind",
    )
    expected = {
        f"v3 \N{EN DASH} {other.removeprefix('lora-lyra-')}, {kind}": rate
        for other, kind, rate in rates
    }
    assert sorted(points["y"]) == sorted(expected)
    for name, rate in zip(points["y"], points["x"], strict=True):
        assert rate == pytest.approx(expected[name])
    assert traces(page, "Which labels change")[0]["customdata"][2] == [24, 15, 415]
    edges = sql(world, "SELECT count(*) FROM nli_queue_scores WHERE kind = 'disagree'")
    assert [(len(cells(page, "Pairs on which two")),)] == edges


def test_versions_their_gate_and_two_side_by_side(
    browser: Browser, site: str, world: World
) -> None:
    page = visit(browser, site, "/versions")
    names = [row[0] for row in cells(page, "Versions")]
    assert names == ["v4", "v3", "v2", "v1"]
    query = "SELECT sum(n) FROM nli_prediction_counts WHERE kind = 'label' AND version = '{}'"
    [(answers,)] = sql(world, query.format("lora-lyra-v3"))
    assert cells(page, "Versions")[1][6] == f"{answers:,}"
    page.get_by_role("link", name="lora-lyra-v3, passed, active").click()
    page.wait_for_selector("#detail-title")
    stands(page)
    assert page.inner_text("#detail-title") == "lora-lyra-v3"
    assert len(cells(page, "The gate's checks")) >= 4
    gate = traces(page, "Accuracy on rows it never saw")
    assert [each["name"] for each in gate] == ["base", "active", "candidate"]
    page.get_by_label("One", exact=True).select_option("lora-lyra-v1")
    page.wait_for_url("**one=lora-lyra-v1")
    stands(page)
    page.get_by_label("The other").select_option("lora-lyra-v3")
    page.wait_for_selector("caption:has-text('Figures of both')", state="attached")
    stands(page)
    assert "reviewed: accuracy" in [row[0] for row in cells(page, "Figures of both")]
    assert page.errors == []  # type: ignore[attr-defined]


# --- what can be taken along ----------------------------------------------------------------


def test_a_chart_as_a_picture_and_as_a_file(browser: Browser, site: str, world: World) -> None:
    page = visit(browser, site, "/data")
    with page.expect_download() as saved:
        page.get_by_role("button", name="Save “Reviews by day” as PNG").click()
    assert saved.value.suggested_filename == "lyra-nli-reviews-by-day.png"
    picture = Path(saved.value.path()).read_bytes()
    assert picture.startswith(b"\x89PNG")
    assert len(picture) > 10_000
    with page.expect_download() as saved:
        page.get_by_role("button", name="Save “Reviews by day” as CSV").click()
    rows = list(csv.DictReader(io.StringIO(Path(saved.value.path()).read_text("utf-8-sig"))))
    query = "SELECT count(*) FROM nli_reviews WHERE reviewed_at >= '{}'"
    expected = sql(world, query.format(rows[0]["day"]))
    assert [(sum(int(row["reviewed"]) for row in rows),)] == expected
    assert page.errors == []  # type: ignore[attr-defined]


def test_without_plotly_the_tables_still_stand(browser: Browser, site: str) -> None:
    page = visit(browser, site, expected="Failed to load resource")
    page.route("**/plotly.min.js", lambda route: route.fulfill(status=404))
    page.goto(f"{site}/dashboard/data")
    stands(page)
    assert "pip install plotly" in page.inner_text("figure")
    assert page.locator("figure details[open] table").is_visible()


# --- what can be done -----------------------------------------------------------------------


def ask(page: Page, button: str, **fields: str) -> None:
    """Open a dialog by its button, fill it in, and send it by keyboard."""
    page.get_by_role("button", name=button).first.click()
    page.wait_for_selector("dialog[open]")
    for name, value in fields.items():
        page.fill(f"dialog [name={name}]", value)
    page.keyboard.press("Enter")


def refused(page: Page, words: str) -> None:
    page.locator("#action-fault", has_text=words).wait_for()


def test_activating_and_going_back_need_a_reason_and_the_token(
    browser: Browser, site: str, world: World
) -> None:
    page = visit(browser, site, "/versions?version=v1", expected="401")
    active = "SELECT version FROM nli_aliases WHERE alias = 'active'"
    ask(page, "Activate v1")
    refused(page, "Please say why.")
    ask_again = {"reason": "v3 errs on trials <b>", "token": "not the token at all"}
    for name, value in ask_again.items():
        page.fill(f"dialog [name={name}]", value)
    page.keyboard.press("Enter")
    refused(page, "token")
    page.wait_for_selector("dialog [name=token][aria-invalid=true]")
    assert sql(world, active) == [("lora-lyra-v3",)]
    page.fill("dialog [name=token]", TOKEN)
    page.fill("dialog [name=name]", "Ada")
    page.keyboard.press("Enter")
    page.wait_for_selector("dialog[open]", state="detached")
    assert sql(world, active) == [("lora-lyra-v1",)]
    event = "SELECT action, to_version, reason, who FROM nli_version_events ORDER BY id DESC"
    action, to, reason, who = sql(world, event)[0]
    assert (action, to, reason) == ("activate", "lora-lyra-v1", "v3 errs on trials <b>")
    assert who.startswith("dashboard")
    assert "Ada" in who
    page.locator(".lede", has_text="lora-lyra-v1 serves").wait_for()
    assert page.evaluate("Object.values(localStorage).every(each => !each.includes('secret'))")

    ask(page, "Roll back", reason="it was no better")  # the token is known by now
    page.locator(".lede", has_text="lora-lyra-v3 serves").wait_for()
    assert sql(world, active) == [("lora-lyra-v3",)]
    assert page.errors == []  # type: ignore[attr-defined]


def test_without_a_token_of_the_server_nothing_is_done(browser: Browser, world: World) -> None:
    with live_server(changed(world)) as url:
        page = visit(browser, url)
        ask(page, "Roll back", reason="any", token="anything that is long")
        refused(page, "ml_server.admin_token")
        assert page.locator("#action-go").is_disabled()
        page.close()
    served = sql(world, "SELECT version FROM nli_aliases WHERE alias = 'active'")
    assert served == [("lora-lyra-v3",)]


# --- what is not there ----------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["empty", "none", "damaged"])
def test_without_data_every_page_says_what_is_missing(
    browser: Browser, world: World, tmp_path: Path, kind: str
) -> None:
    path = tmp_path / "lyra.db"
    if kind == "empty":
        path.write_bytes((world.folder / "empty.db").read_bytes())
    elif kind == "damaged":
        path.write_bytes(b"SQLite format 3\0" + b"damaged" * 1000)
    settings = changed(
        world, storage={"database_path": str(path)}, nli={"adapters_dir": str(tmp_path)}
    )
    with live_server(settings) as url:
        page = visit(browser, url)
        for _ in walk(page):
            assert page.locator(".missing li, .empty").count() > 0
            assert kind == "empty" or "database" in page.inner_text(".missing")
            assert not re.search(r"undefined|NaN|\[object", page.inner_text("body"))
        assert page.errors == []  # type: ignore[attr-defined]
        page.close()


def test_an_unknown_version_is_said_in_words(browser: Browser, site: str) -> None:
    page = visit(browser, site, "/versions?version=v9", expected="404")
    assert "v9" in page.inner_text("main [role=alert]")
    assert page.errors == []  # type: ignore[attr-defined]


def test_a_server_that_is_gone_is_said_and_asked_again(browser: Browser, site: str) -> None:
    line = Line("**/dashboard/api/data")
    page = visit(browser, site, expected="Failed to load resource", line=line)
    line.is_cut = True
    page.click("#pages a:has-text('Data')")
    page.locator("main [role=alert]", has_text="can't be reached").wait_for()
    line.is_cut = False
    page.get_by_role("button", name="Try again").click()
    page.locator("figure", has_text="Reviews by day").wait_for()
    assert page.errors == []  # type: ignore[attr-defined]


# --- who uses it ----------------------------------------------------------------------------


def test_by_keyboard_alone(browser: Browser, site: str) -> None:
    page = visit(browser, site)
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "To the page"
    for _ in range(3):
        page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Quality"
    page.keyboard.press("Enter")
    page.wait_for_url("**/dashboard/quality")
    stands(page)
    assert page.evaluate("document.activeElement.tagName") == "H1"
    page.locator("figure summary").first.focus()
    page.keyboard.press("Enter")
    assert page.locator("figure details[open] table").first.is_visible()
    page.goto(f"{site}/dashboard")
    stands(page)
    reached = set()
    for _ in range(22):
        page.keyboard.press("Tab")
        reached.add(page.evaluate("document.activeElement.dataset.station"))
    assert {"answers", "due", "watch"} <= reached
    train = page.get_by_role("button", name="Train now")
    train.focus()
    page.keyboard.press("Enter")
    page.wait_for_selector("dialog[open]")
    assert page.evaluate("document.activeElement.name") == "reason"
    page.keyboard.press("Escape")
    page.wait_for_selector("dialog[open]", state="detached")
    assert page.evaluate("document.activeElement.textContent") == "Train now"


def test_it_fits_a_phone_and_has_names_for_everything(browser: Browser, site: str) -> None:
    phone: dict[str, Any] = {
        "viewport": {"width": 320, "height": 640},
        "is_mobile": True,
        "has_touch": True,
    }
    page = visit(browser, site, **phone)
    for _ in walk(page):
        assert page.evaluate("document.documentElement.scrollWidth") <= 320
        nameless = page.evaluate(
            """() => [...document.querySelectorAll('button, select, input, a')].filter(each =>
            !(each.ariaLabel || each.labels?.length || each.textContent.trim()))
            .map(each => each.outerHTML)"""
        )
        assert nameless == []


def test_charts_follow_light_and_dark(browser: Browser, site: str) -> None:
    page = visit(browser, site, "/data", color_scheme="dark")
    paper = "place => place.layout.paper_bgcolor"
    dark = page.locator(".plot").evaluate(paper)
    page.click("#theme")
    page.wait_for_function(
        "dark => document.querySelector('.plot').layout.paper_bgcolor !== dark", arg=dark
    )
    page.reload()
    stands(page)
    assert page.locator(".plot").evaluate(paper) != dark
    assert page.errors == []  # type: ignore[attr-defined]


def test_texts_are_never_read_as_html(browser: Browser, world: World, tmp_path: Path) -> None:
    path = tmp_path / "evil.db"
    path.write_bytes(Path(world.database).read_bytes())
    engine = open_database(str(path))
    with write(engine) as connection:
        connection.execute(tables.nli_reviews.update().values(reviewer=EVIL))
        connection.execute(tables.nli_alerts.update().values(message=EVIL))
        connection.execute(tables.fragments.update().values(text_content=EVIL))
        connection.execute(tables.nli_version_events.update().values(reason=EVIL))
    engine.dispose()
    with live_server(changed(world, storage={"database_path": str(path)})) as url:
        page = visit(browser, url)
        assert EVIL in page.inner_text("main")
        for _ in walk(page):
            assert page.locator("main img, main script, td b:text('bold')").count() == 0
        for attempt in (
            "document.body.innerHTML = '<b>x</b>'",
            "document.body.setAttribute('onclick', 'x')",
        ):
            with pytest.raises(Exception, match="Trusted"):
                page.evaluate(attempt)
        assert page.evaluate("window.pwned === undefined")
        page.close()
