"""The environment that native libraries read once, before anything is computed."""

from __future__ import annotations

import os
from typing import Final

TUNED: Final = {
    # Threads that wait for each other spin for a moment, as small products follow each other
    # closely, but not for long: on a machine that does other things as well, a spinning thread
    # keeps the one it waits for from running.
    "GOMP_SPINCOUNT": "20000",
    # Compiled kernels, one a shape. All shapes that were ever seen would be hundreds of
    # megabytes.
    "LRU_CACHE_CAPACITY": "512",
    "ONEDNN_PRIMITIVE_CACHE_CAPACITY": "512",
}


def tune() -> None:
    """Set what the user has not set."""
    for name, value in TUNED.items():
        os.environ.setdefault(name, value)
