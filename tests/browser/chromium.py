"""A headless Chromium for tests: Debian's, or another one on the path."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page, Route

PROGRAMS = ("chromium", "chromium-browser", "google-chrome")


@contextmanager
def chromium() -> Iterator[Browser]:
    """Start it; skip where there is none, or fail where `LYRA_REQUIRE_BROWSER=1` asks for one."""
    program = next(filter(None, map(shutil.which, PROGRAMS)), None)
    if program is None:
        _missing(f"no Chromium here: none of {', '.join(PROGRAMS)} is installed")
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        _missing("Playwright's Python package is not installed")
    arguments = ["--no-sandbox"] if os.geteuid() == 0 else []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=arguments)
        yield browser
        browser.close()


class Line:
    """Requests of a page to some addresses, which can be cut off from the server.

    It is laid before the page opens: Chromium may let the first requests pass that come just
    after an open page is told to intercept them.
    """

    def __init__(self, addresses: str) -> None:
        self.addresses, self.is_cut = addresses, False

    def lay(self, page: Page) -> None:
        """Let the page's requests run through here."""
        page.route(self.addresses, self._carry)

    def _carry(self, route: Route) -> None:
        if self.is_cut:
            route.abort()
        else:
            route.continue_()


def _missing(why: str) -> None:
    if os.environ.get("LYRA_REQUIRE_BROWSER") == "1":
        pytest.fail(why)
    pytest.skip(why)
