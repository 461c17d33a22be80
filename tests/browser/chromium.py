"""A headless Chromium for tests: Debian's, or another one on the path."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from playwright.sync_api import Browser

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


def _missing(why: str) -> None:
    if os.environ.get("LYRA_REQUIRE_BROWSER") == "1":
        pytest.fail(why)
    pytest.skip(why)
