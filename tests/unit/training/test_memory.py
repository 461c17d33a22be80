"""Memory: what is predicted for a pass is never less than what autograd keeps."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest
import torch
from tiny_models import make_tiny_model
from tiny_training import examples, log_rows, make_trainer, train
from torch import nn
from torch.autograd.graph import saved_tensors_hooks
from transformers import DebertaV2Config, DebertaV2ForSequenceClassification

from lyra_nli.models.base import Base, load_base
from lyra_nli.models.encoding import EncodedPair, padded_length
from lyra_nli.training.fit import Fit
from lyra_nli.training.log import TrainingLog
from lyra_nli.training.memory import (
    MOST_TOKENS,
    bytes_per_token,
    free_memory,
    machine_memory,
    pass_tokens,
)


def kept_bytes(model: nn.Module, forward: Callable[[], torch.Tensor]) -> int:
    """What autograd saves for the backward pass of a forward pass, but for the model's own."""
    known = {tensor.untyped_storage().data_ptr() for tensor in model.state_dict().values()}
    kept: dict[int, torch.UntypedStorage] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in known:
            kept[storage.data_ptr()] = storage  # held: an address is not given out again
        return tensor

    with saved_tensors_hooks(keep, lambda tensor: tensor):
        result = forward()
    assert result.requires_grad
    return sum(storage.nbytes() for storage in kept.values())


def rows_of(tokens: int, count: int) -> list[EncodedPair]:
    """Pairs of so many tokens."""
    return [
        EncodedPair(tuple(5 + (i + j) % 30 for j in range(tokens)), (0,) * tokens, truncated=False)
        for i in range(count)
    ]


def make_base(folder: Path, hidden: int, heads: int, intermediate: int) -> Base:
    """A DeBERTa of eight layers: enough that the last one, read at one token, weighs little."""
    make_tiny_model(folder)
    config = DebertaV2Config.from_pretrained(
        folder,
        num_hidden_layers=8,
        hidden_size=hidden,
        pooler_hidden_size=hidden,
        num_attention_heads=heads,
        intermediate_size=intermediate,
    )
    DebertaV2ForSequenceClassification(config).save_pretrained(folder)
    return load_base(str(folder))


class TestBytesPerToken:
    @pytest.fixture(scope="class")
    @classmethod
    def shapes(cls, bases, tmp_path_factory) -> dict[str, Base]:
        folder = tmp_path_factory.mktemp("shapes")
        return {
            **bases,
            "tiny": make_base(folder / "tiny", 32, 2, 64),
            "starter's": make_base(folder / "starter", 384, 6, 1536),
        }

    def kept_and_predicted(
        self, base: Base, folder: Path, tokens: int, **options: object
    ) -> tuple[float, int]:
        with TrainingLog(folder) as log:
            student = make_trainer(base, log, cache=folder / "cache", **options).student
        rows = rows_of(tokens, 512 // tokens)
        student.read(rows)  # tables that are kept for good are none of a pass's
        student.study()
        kept = kept_bytes(student.model, lambda: student.read(rows)) / (len(rows) * tokens)
        predicted = bytes_per_token(
            student.model,
            student.learning_layers,
            tokens,
            student.dtype,
            dropout=options["dropout"] > 0,
        )
        return kept, predicted

    @pytest.mark.parametrize("tokens", [24, 128])
    @pytest.mark.parametrize("layers", ["all", 2])
    @pytest.mark.parametrize("precision", ["fp32", "bf16"])
    @pytest.mark.parametrize("dropout", [0.0, 0.1])
    @pytest.mark.parametrize("shape", ["tiny", "starter's", "bert", "roberta"])
    def test_it_is_an_upper_bound_of_what_autograd_keeps(
        self, shapes, tmp_path, shape, tokens, layers, precision, dropout
    ):
        options = {"layers": layers, "precision": precision, "dropout": dropout}
        kept, predicted = self.kept_and_predicted(shapes[shape], tmp_path, tokens, **options)
        assert 0 < kept <= predicted

    @pytest.mark.parametrize("shape", ["tiny", "starter's"])
    def test_fewer_modules_keep_less(self, shapes, tmp_path, shape):
        options = {"target_modules": ("query", "value"), "dropout": 0.1}
        some, predicted = self.kept_and_predicted(shapes[shape], tmp_path / "some", 128, **options)
        every, _ = self.kept_and_predicted(shapes[shape], tmp_path / "all", 128, dropout=0.1)
        assert some < every
        assert some <= predicted

    @pytest.mark.parametrize("shape", ["tiny", "starter's"])
    def test_it_is_no_guess(self, shapes, tmp_path, shape):
        kept, predicted = self.kept_and_predicted(shapes[shape], tmp_path, 128, dropout=0.1)
        assert predicted < 3 * kept

    def test_by_hand(self, deberta):
        """Hidden 32, intermediate 64, two heads."""
        one = bytes_per_token(deberta.model, 1, 10, torch.float32, dropout=False)
        assert one == (14 * 32 + 3 * 64 + 5 * 2 * 10) * 4
        assert bytes_per_token(deberta.model, 3, 10, torch.float32, dropout=False) == 3 * one
        assert bytes_per_token(deberta.model, 1, 10, torch.bfloat16, dropout=False) == one / 2
        dropping = bytes_per_token(deberta.model, 1, 10, torch.float32, dropout=True)
        assert dropping == (20 * 32 + 5 * 64 + 5 * 2 * 10) * 4


class TestPassTokens:
    @pytest.mark.parametrize(
        ("per_token", "memory", "expected"),
        [
            (1000, 2_000_000, 200),  # a tenth
            (1000, 10**12, MOST_TOKENS),
            (1000, 10 * 1000 * MOST_TOKENS, MOST_TOKENS),
            (1000, 10 * 1000 * MOST_TOKENS - 10, MOST_TOKENS - 1),
            (1000, 0, 64),
            (10**12, 10**9, 64),
        ],
    )
    def test_a_tenth_of_the_memory_within_bounds(self, per_token, memory, expected):
        assert pass_tokens(per_token, memory) == expected

    def test_the_machine_is_asked(self, monkeypatch):
        monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(total=3_000_000))
        assert pass_tokens(1000) == 300

    @pytest.mark.parametrize(
        ("group", "file", "content", "expected"),
        [
            ("0::/", "memory.max", "2000000", 2_000_000),
            ("0::/", "memory.max", "max", 3_000_000),
            ("0::/", "memory.max", "9000000", 3_000_000),
            ("0::/a/b", "a/memory.max", "2000000", 2_000_000),
            ("4:memory:/a", "memory/a/memory.limit_in_bytes", "2000000", 2_000_000),
            ("4:cpu:/a", "a/memory.max", "2000000", 3_000_000),
        ],
    )
    def test_a_container_has_less(self, monkeypatch, tmp_path, group, file, content, expected):
        monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(total=3_000_000))
        monkeypatch.setattr("lyra_nli.training.memory.CGROUPS", tmp_path)
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).write_text(content)
        (tmp_path / "groups").write_text(f"2:freezer:/\n{group}\n")
        monkeypatch.setattr("lyra_nli.training.memory.GROUPS_OF_THIS", tmp_path / "groups")
        assert machine_memory() == expected
        monkeypatch.setattr("lyra_nli.training.memory.GROUPS_OF_THIS", tmp_path / "none")
        assert machine_memory() == 3_000_000


@pytest.mark.parametrize(("allowed", "expected"), [(1_300, 300), (900, 0), (9_000, 500)])
def test_what_is_free_in_a_container(monkeypatch, allowed, expected):
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=500))
    monkeypatch.setattr(psutil.Process, "memory_info", lambda _: SimpleNamespace(rss=1_000))
    monkeypatch.setattr("lyra_nli.training.memory.machine_memory", lambda: allowed)
    assert free_memory() == expected


def test_a_pass_never_holds_more_tokens_than_fit(deberta, tmp_path, monkeypatch):
    """Whatever the batch: long pairs go in smaller passes, and nothing is left out."""
    passes: list[list[int]] = []
    loss = Fit._loss

    def seen(self, part):
        passes.append(part)
        return loss(self, part)

    monkeypatch.setattr(Fit, "_loss", seen)
    monkeypatch.setattr("lyra_nli.training.fit.pass_tokens", lambda _: 70)
    with TrainingLog(tmp_path) as log:
        trainer = make_trainer(deberta, log, epochs=1)
        lessons = trainer.lessons(examples(40))
        fitted = trainer.fit(lessons, range(40))
    assert sorted(row for part in passes for row in part) == list(range(40))
    for part in passes:
        longest = max(lessons.lengths[row] for row in part)
        assert len(part) * longest <= 70 or len(part) == 1
    assert len(passes) > fitted.steps == 3


class TestReadAhead:
    """States that are held because there is no room for them on disk count, others don't."""

    def expected(self, base: Base, folder: Path, **options: object) -> tuple[int, int]:
        with TrainingLog(folder) as log:
            trainer = make_trainer(base, log, cache=folder / "cache", **options)
            lessons = trainer.lessons(examples(40))
            make = partial(Fit, micro_batch=16, name="final", checkpoints=None)
            fit = make(trainer.student, lessons, range(20), [], trainer.recipe, log)
            activations = fit._bytes_per_token() * fit.pass_tokens
            learned = 16 * sum(p.numel() for p in trainer.student.parameters)
            return fit.expected_memory - activations - learned, sum(lessons.lengths[:20])

    @pytest.fixture(autouse=True)
    def _no_other_memory(self, monkeypatch):
        taken = SimpleNamespace(rss=1_000)
        monkeypatch.setattr(psutil.Process, "memory_info", lambda _: taken)

    def test_where_nothing_is_kept(self, deberta, tmp_path, monkeypatch):
        bound = {"layers": 1, "precision": "fp32"}
        monkeypatch.setattr("lyra_nli.models.shelf.Shelf._make_room", lambda *_: False)
        held, tokens = self.expected(deberta, tmp_path, **bound)
        assert held == 1_000 + tokens * 32 * 4
        monkeypatch.setattr("lyra_nli.training.fit.AHEAD_TOKENS", 50)
        assert self.expected(deberta, tmp_path / "two", **bound)[0] == 1_000 + 50 * 32 * 4

    def test_where_all_are_kept_or_none_is_frozen(self, deberta, tmp_path):
        assert self.expected(deberta, tmp_path / "kept", layers=1)[0] == 1_000
        assert self.expected(deberta, tmp_path / "all", layers="all")[0] == 1_000


class TestPrediction:
    def test_a_row_longer_than_a_pass_counts_in_full(self, deberta, tmp_path):
        """Such a row is a pass of its own."""
        with TrainingLog(tmp_path) as log:
            trainer = make_trainer(deberta, log)
            lessons = trainer.lessons(examples(40))
            make = partial(Fit, trainer.student, lessons, range(40), [], trainer.recipe, log)
            fit = make(name="final", micro_batch=16, tokens=4, checkpoints=None)
            learned = 16 * sum(p.numel() for p in trainer.student.parameters)
            longest = padded_length(max(lessons.lengths), 128)
        assert fit.pass_tokens == 4
        assert fit.needed_memory == learned + fit._bytes_per_token() * longest

    def test_it_warns_once_before_more_is_taken_than_there_is(
        self, deberta, tmp_path, monkeypatch, capsys
    ):
        own = psutil.virtual_memory()
        scarce = SimpleNamespace(total=own.total, available=1)
        monkeypatch.setattr(psutil, "virtual_memory", lambda: scarce)
        train(deberta, tmp_path, examples(40), epochs=1, folds=2)
        [warning] = log_rows(tmp_path, "warning")
        assert "0 MB are free" in warning["text"]
        assert "training.layers" in warning["text"]
        assert capsys.readouterr().err.count("This training will take about") == 1

    def test_where_there_is_enough_it_says_nothing(self, deberta, tmp_path):
        train(deberta, tmp_path, examples(40), epochs=1)
        assert not log_rows(tmp_path, "warning")
