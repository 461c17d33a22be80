"""Take the pictures of the review page in docs/img: light, dark, and on a phone.

    python scripts/review_screenshots.py [--out docs/img] [--base starter]

They show the demo's project, judged by the real server, in Debian's Chromium. Needs the extras
`ml`, `server` and `starter`, and Playwright's Python package.
"""

from __future__ import annotations

import argparse
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml
from playwright.sync_api import Browser, Page, sync_playwright

from lyra_nli.client import MLClient
from lyra_nli.demo.project import Reviewer, record_judgements, write_project
from lyra_nli.demo.server import running_server
from lyra_nli.demo.world import World, build_world
from lyra_nli.feedback.actions import perform
from lyra_nli.feedback.queue import next_items
from lyra_nli.feedback.seconds import second_review
from lyra_nli.storage.engine import open_database
from lyra_nli.storage.upgrade import init_database

VIEWS: dict[str, dict[str, Any]] = {
    "light": {"viewport": {"width": 1280, "height": 800}, "color_scheme": "light"},
    "dark": {"viewport": {"width": 1280, "height": 800}, "color_scheme": "dark"},
    "phone": {
        "viewport": {"width": 390, "height": 844},
        "color_scheme": "light",
        "device_scale_factor": 2,
        "has_touch": True,
        "is_mobile": True,
    },
}
JUDGED, REVIEWED = 160, 64


def main() -> None:
    """Take them, or say where."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--out", type=Path, default=Path(__file__).parents[1] / "docs" / "img")
    parser.add_argument("--base", default="starter")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="lyra-nli-img-") as folder, chromium() as browser:
        project = Path(folder)
        write_settings(project, options.base)
        with running_server(project) as client:
            fill(project, client, build_world())
            for name, view in VIEWS.items():
                page = browser.new_context(**view).new_page()
                visit(page, str(client.url).rstrip("/"))
                page.screenshot(path=options.out / f"review-{name}.png")


def write_settings(folder: Path, base: str) -> None:
    """Make a database, and settings with which every picture shows a first look."""
    (folder / "config").mkdir()
    settings = {
        "nli": {"fast_model": base, "slow_model": base},
        "ml_server": {"threads": 1},
        "review": {"second_share": 0.0},
    }
    (folder / "config" / "settings.yaml").write_text(yaml.safe_dump(settings), "utf-8")
    init_database(str(folder / "data" / "lyra.db"))


def fill(folder: Path, client: MLClient, world: World) -> None:
    """Let the server judge a part of the project, and the simulated reviewer review some of it."""
    engine = open_database(str(folder / "data" / "lyra.db"))
    write_project(engine, world)
    texts = world.pairs()
    edges = [edge.id for edge in world.edges][:JUDGED]
    judged = client.judge([texts[edge] for edge in edges])
    record_judgements(engine, dict(zip(edges, judged, strict=True)))
    reviewer = Reviewer(world)
    for number in range(REVIEWED):
        [item] = next_items(engine, order="random", reviewer="Mika", second_share=0.0)
        edge, label = item.edge_id, reviewer.verdict(item.edge_id)
        args = {"edge_id": edge, "correct_relation": label, "reviewer": "Mika"}
        perform(engine, "edge_correct", {**args, "lease": item.lease})
        if number % 3 == 0:
            second_review(engine, edge, label if number % 9 else "neutral", reviewer="Ada")
    engine.dispose()


def visit(page: Page, url: str) -> None:
    """Open the page as a reviewer who has been here before, and wait for the first pair."""
    page.add_init_script("localStorage.setItem('lyra-nli.reviewer', 'Mika')")
    page.goto(f"{url}/review")
    page.wait_for_selector(".verdict.stands .chance:not(:empty)")
    page.wait_for_selector("#due li")
    page.wait_for_timeout(400)  # bars grow


@contextmanager
def chromium() -> Iterator[Browser]:
    """Debian's Chromium, or another one on the path."""
    names = ("chromium", "chromium-browser", "google-chrome")
    program = next(filter(None, map(shutil.which, names)), None)
    arguments = ["--no-sandbox"] if os.geteuid() == 0 else []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=arguments)
        yield browser
        browser.close()


if __name__ == "__main__":
    main()
