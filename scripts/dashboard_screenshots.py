"""Take the pictures of the dashboard in docs/img: every page, light, dark, and on a phone.

    python scripts/dashboard_screenshots.py [--out docs/img]

They show half a year of a simulated project (tests/watched_project.py), served by the real server,
in Debian's Chromium, with a tiny base model. Needs the extras `ml`, `server` and `dev`.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

from playwright.sync_api import Browser, Page
from review_screenshots import VIEWS, chromium

from lyra_nli.settings import Settings

ROOT = Path(__file__).parents[1]
SHOTS = {
    "overview": ("light", "dark", "phone"),
    "versions": ("light",),
    "quality": ("light", "dark", "phone"),
    "calibration": ("light", "dark"),
    "data": ("light",),
    "shadow": ("light",),
}
QUERIES = {"versions": "?version=v3&one=v1&other=v3"}


def main() -> None:
    """Take them, or say where."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "img")
    out: Path = parser.parse_args().out
    out.mkdir(parents=True, exist_ok=True)
    sys.path.insert(0, str(ROOT / "tests"))
    from serving_world import live_server, make_world
    from watched_project import fill

    with tempfile.TemporaryDirectory(prefix="lyra-nli-img-") as folder, chromium() as browser:
        world = make_world(Path(folder))
        fill(world)
        with live_server(one_base(world.settings)) as url:
            for name, views in SHOTS.items():
                for view in views:
                    page = visit(browser, f"{url}/dashboard/{name}{QUERIES.get(name, '')}", view)
                    file = out / f"dashboard-{name}-{view}.png"
                    page.screenshot(path=file, full_page=view != "phone")
                    page.context.close()


def one_base(settings: Settings) -> Settings:
    """The same base for both questions, so that there is nothing to choose."""
    values = settings.model_dump()
    values["nli"]["slow_model"] = values["nli"]["fast_model"]
    return Settings.model_validate(values)


def visit(browser: Browser, url: str, view: str) -> Page:
    """Open a page, and wait until its charts are drawn."""
    page = browser.new_context(**VIEWS[view]).new_page()
    page.goto(url)
    page.wait_for_selector("main:not([aria-busy]) h1")
    page.wait_for_selector(".plot:not([data-drawn])", state="detached")
    page.wait_for_timeout(300)
    return page


if __name__ == "__main__":
    main()
