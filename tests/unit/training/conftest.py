"""Keeps the many small trainings of these tests fast."""

from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest


@pytest.fixture(autouse=True, scope="package")
def _spare_what_was_imported() -> Iterator[None]:
    """Every training collects garbage; half a million imported objects need not be looked at."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()
