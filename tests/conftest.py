"""Shared by all tests. This file also puts the folder `tests` on the import path."""

from __future__ import annotations

import os

# Read when huggingface_hub is imported: no test may reach the Hub.
os.environ["HF_HUB_OFFLINE"] = "1"
