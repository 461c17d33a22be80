"""Shared by all tests. This file also puts the folder `tests` on the import path."""

from __future__ import annotations

import gc
import os

# Read when huggingface_hub is imported: no test may reach the Hub.
os.environ["HF_HUB_OFFLINE"] = "1"

if "PYTEST_XDIST_WORKER" in os.environ:
    # Read when torch is imported, here and in the programs that a test starts.
    os.environ.setdefault("OMP_NUM_THREADS", "1")


def pytest_collection_finish() -> None:
    """Every training collects garbage; half a million imported objects need not be looked at."""
    gc.collect()
    gc.freeze()
