"""The peers: transformers' Trainer, with PEFT as the proposal has it, or on every weight."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, TaskType, get_peft_model
from transformers import Trainer, TrainerCallback, TrainingArguments

from lyra_nli.labels import INDEX
from lyra_nli.models.base import Base
from lyra_nli.models.encoding import collate, encode
from lyra_nli.records import Example

PROPOSAL = {"per_device_train_batch_size": 8, "learning_rate": 2e-4, "warmup_steps": 100}
"""The proposal's section 7.3, with `with_lora`."""

FULL = {"per_device_train_batch_size": 16, "learning_rate": 3e-5, "warmup_steps": 20}
"""Full fine-tuning."""


@dataclass(frozen=True)
class Fitted:
    """What a fit took; `first_step`: seconds until an optimizer step was done."""

    seconds: float
    first_step: float
    megabytes: float


def with_lora(base: Base) -> Any:
    """The base in PEFT's wrapper, as the proposal has it, with module names that exist."""
    config = LoraConfig(
        task_type=TaskType.SEQ_CLS,
        r=8,
        lora_alpha=32,
        lora_dropout=0.1,
        target_modules=["query_proj", "value_proj"],
    )
    return get_peft_model(base.model, config)


def fit(
    base: Base,
    model: Any,
    examples: Sequence[Example],
    recipe: Mapping[str, float],
    *,
    epochs: int = 3,
    seed: int = 42,
) -> Fitted:
    """Train `model` in place by the Trainer.

    Args:
        recipe: arguments of the Trainer, `PROPOSAL` or `FULL`.
    """
    started = time.monotonic()
    order = base.labels.order
    encoded = encode(base, [example.pair for example in examples])
    data = [
        {"row": row, "label": order[INDEX[example.label]]}
        for row, example in zip(encoded, examples, strict=True)
    ]
    done: list[float] = []

    class Clock(TrainerCallback):  # type: ignore[misc]
        def on_step_end(self, *_: object, **__: object) -> None:
            done.append(time.monotonic() - started)

    def batch(items: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
        labels = torch.tensor([item["label"] for item in items])
        return {**collate(base, [item["row"] for item in items]), "labels": labels}

    with tempfile.TemporaryDirectory() as folder:
        arguments = TrainingArguments(
            output_dir=folder,
            num_train_epochs=epochs,
            logging_strategy="no",  # its log would stand among the tables
            save_strategy="no",
            report_to=[],
            disable_tqdm=True,
            remove_unused_columns=False,
            seed=seed,
            use_cpu=not torch.cuda.is_available(),
            **recipe,
        )
        trainer = Trainer(model=model, args=arguments, train_dataset=data, data_collator=batch)
        trainer.add_callback(Clock())
        trainer.train()
        seconds = time.monotonic() - started
        model.save_pretrained(folder)
        size = sum(file.stat().st_size for file in Path(folder).glob("*model.safetensors"))
    return Fitted(seconds, done[0], size / 2**20)
