"""A domain that a tiny random model gets wrong and a tiny adapter can learn."""

from __future__ import annotations

import json
import random
from pathlib import Path

from tiny_models import make_tiny_model

from lyra_nli.feedback.importing import import_file
from lyra_nli.loop import load_base_for
from lyra_nli.models.judge import Judge
from lyra_nli.records import Pair
from lyra_nli.settings import Settings, load_settings
from lyra_nli.workspace import Workspace

DRUGS = ["statin", "insulin", "opioid", "vaccine", "steroid", "heparin", "aspirin", "ozone"]
ENDS = {"supports": "lowers risk", "refutes": "does not lower it", "neutral": "was given in may"}


def reviewed_pairs(count: int, seed: int = 0) -> list[tuple[Pair, str]]:
    """A rule that a random model gets wrong and a tiny adapter can learn."""
    rng = random.Random(seed)
    rows = []
    for index in range(count):
        label = rng.choice(list(ENDS))
        drug = f"{rng.choice(DRUGS)} {index}"
        premise = f"in trial {index} the {drug} {ENDS[label]}"
        rows.append((Pair(premise, f"it {ENDS[label]} {index}"), label))
    return rows


def tiny_settings(folder: Path) -> Settings:
    """A tiny base, a recipe that can teach it, everything in one folder."""
    base = str(make_tiny_model(folder / "base"))
    return load_settings(
        None,
        {
            "nli": {"fast_model": base, "adapters_dir": str(folder / "adapters")},
            "storage": {"database_path": str(folder / "data" / "lyra.db")},
            "dataset": {"replay_rows": 40, "replay_share": 0.0},
            "training": {
                "target_modules": ["all"],
                "layers": "all",
                "learning_rate": 0.01,
                "epochs": 6,
                "kl_weight": 0.0,
                "replay_kl_weight": 0.0,
                "folds": 0,  # five more trainings a test, but where folds are what is tested
                "threads": 1,
                "precision": "fp32",
            },
            # A random base knows no general NLI that could be forgotten.
            "gate": {"max_general_drop": 1.0},
        },
    )


def add_reviews(
    workspace: Workspace, folder: Path, rows: list[tuple[Pair, str]], groups: int = 0
) -> None:
    """Import reviews of what the base really says about these pairs."""
    import_file(workspace.engine, write_reviews(workspace.settings, folder, rows, groups))


def write_reviews(
    settings: Settings, folder: Path, rows: list[tuple[Pair, str]], groups: int = 0
) -> Path:
    """Write ``reviews.jsonl``, as a user would have it; in so many groups, or one for each row."""
    base = load_base_for(settings, settings.nli.fast_model)
    said = Judge(base).judge([pair for pair, _ in rows])
    file = folder / "reviews.jsonl"
    with file.open("w") as stream:
        for (pair, label), answer in zip(rows, said, strict=True):
            row = {
                "premise": pair.premise,
                "hypothesis": pair.hypothesis,
                "predicted_label": answer.label,
                "predicted_confidence": answer.confidence,
                "correct_label": label,
                "group": str(int(pair.premise.split()[2]) % groups)
                if groups
                else pair.premise.split()[2],
            }
            stream.write(json.dumps(row) + "\n")
    return file
