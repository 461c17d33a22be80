"""A project for a benchmark: database, versions and caches in a folder, by the commands."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lyra_nli.models.base import Base
from lyra_nli.models.judge import Judge
from lyra_nli.records import Example

NOT_PASSED = 9
"""How `lyra-nli train` ends where the gate did not pass the candidate."""


class Project:
    """Reviews, and what `lyra-nli` makes of them.

    Args:
        folder: an empty one.
        settings: environment variables that override settings.
    """

    def __init__(self, folder: Path, settings: Mapping[str, str] | None = None) -> None:
        self.folder = folder
        self.environment = {
            **os.environ,
            "LYRA_STORAGE__DATABASE_PATH": str(folder / "lyra.db"),
            "LYRA_NLI__ADAPTERS_DIR": str(folder / "adapters"),
            "LYRA_NLI__FAST_MODEL": "starter",
            "LYRA_NLI_CACHE": str(folder / "cache"),
            **(settings or {}),
        }

    def review(self, base: Base, examples: Sequence[Example]) -> None:
        """Import labelled pairs as people's reviews of the base's own answers."""
        file = self.folder / "reviews.jsonl"
        said = Judge(base).judge([example.pair for example in examples])
        with file.open("w", encoding="utf-8") as lines:
            for example, answer in zip(examples, said, strict=True):
                row = {
                    "id": example.id,
                    "premise": example.pair.premise,
                    "hypothesis": example.pair.hypothesis,
                    "predicted_label": answer.label,
                    "predicted_confidence": round(answer.confidence, 6),
                    "correct_label": example.label,
                    "group": example.group,
                }
                lines.write(json.dumps(row) + "\n")
        self._run("db", "init")
        self._run("import", str(file))

    def train(self) -> dict[str, Any]:
        """What ``lyra-nli train --json`` tells, due or not."""
        words = ("train", "--force", "--reason", "benchmark", "--json")
        outcome: dict[str, Any] = json.loads(self._run(*words, accept=(0, NOT_PASSED)))
        return outcome

    def _run(self, *words: str, accept: Sequence[int] = (0,)) -> str:
        program = Path(sys.executable).parent / "lyra-nli"
        return command(str(program), *words, environment=self.environment, accept=accept)


def command(*words: str, environment: Mapping[str, str], accept: Sequence[int] = (0,)) -> str:
    """What a command prints."""
    result = subprocess.run(
        words, check=False, stdout=subprocess.PIPE, text=True, env=dict(environment)
    )
    if result.returncode not in accept:
        raise SystemExit(f"{' '.join(words)} ended with {result.returncode}")
    return result.stdout
