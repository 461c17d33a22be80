"""The training loop: it learns, repeats itself exactly, stops in time, and fits into memory."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from lyra_nli.errors import DatasetError, TrainingError
from lyra_nli.labels import INDEX, LABELS
from lyra_nli.models.base import fingerprint
from lyra_nli.models.judge import Judge, softmax
from lyra_nli.models.lora import attach, save_adapter
from lyra_nli.records import Example, Pair
from lyra_nli.settings import TrainingSettings
from lyra_nli.training.fit import Fitted, _Run, deterministic, fit
from lyra_nli.training.log import TrainingLog
from lyra_nli.training.precision import compute_dtype

RECIPE = TrainingSettings(
    rank=4,
    alpha=16,
    dropout=0.1,
    target_modules=("all",),
    epochs=3,
    learning_rate=2e-2,
    batch_size=16,
    kl_weight=0.0,
    precision="fp32",
    threads=1,
)
SAYS = {"supports": "lowers the risk", "refutes": "does not raise it", "neutral": "eating food"}

TURNED = {"supports": "refutes", "refutes": "neutral", "neutral": "supports"}


def examples(count: int, seed: int = 0, *, source: str = "correction", **values) -> list[Example]:
    """Rows whose premise tells the label, by a phrase that a tiny model can learn."""
    rng = random.Random(seed)
    rows = []
    for index in range(count):
        label = rng.choice(LABELS)
        filler = " ".join(rng.choices(["drug", "trial", "adults", "stroke"], k=rng.randint(1, 9)))
        pair = Pair(f"{filler} {SAYS[label]}", f"{rng.choice(['man', 'dog', 'table'])} {index}")
        rows.append(Example(f"r:{index}", pair, label, source, group=f"g{index}", **values))
    return rows


def train(
    base,
    folder: Path,
    rows: Sequence[Example],
    dev: Sequence[Example] = (),
    **changes: object,
) -> Fitted:
    recipe = RECIPE.model_copy(update=changes)
    with TrainingLog(folder / "log") as log:
        return fit(
            base,
            lambda: attach(base, recipe, compute_dtype(recipe.precision)),
            rows,
            dev,
            recipe,
            log,
        )


def adapter_bytes(fitted: Fitted, folder: Path) -> bytes:
    folder.mkdir(exist_ok=True)
    save_adapter(fitted.model, folder)
    return (folder / "adapter_model.safetensors").read_bytes()


def log_p(base, model, rows: Sequence[Example]) -> np.ndarray:
    return np.log(softmax(Judge(base, model).logits([row.pair for row in rows])))


def nll(base, model, rows: Sequence[Example]) -> float:
    columns = [INDEX[row.label] for row in rows]
    return float(-log_p(base, model, rows)[np.arange(len(rows)), columns].mean())


class TestLearning:
    def test_the_loss_falls_on_rows_never_seen(self, deberta, tmp_path):
        dev = examples(60, seed=1)
        fitted = train(deberta, tmp_path, examples(200), dev, epochs=4)
        before, after = nll(deberta, deberta.model, dev), nll(deberta, fitted.model, dev)
        assert after < 0.5 * before
        assert fitted.history[fitted.best_epoch - 1]["dev_accuracy"] > 0.8
        losses = [row["loss"] for row in log_rows(tmp_path) if row["kind"] == "step"]
        assert np.mean(losses[-5:]) < 0.5 * np.mean(losses[:5])

    def test_bert_and_roberta_learn_too(self, bases, tmp_path):
        dev = examples(40, seed=1)
        for name in ("bert", "roberta"):
            fitted = train(bases[name], tmp_path, examples(120), dev)
            assert nll(bases[name], fitted.model, dev) < nll(bases[name], None, dev) - 0.2

    def test_the_base_is_not_changed(self, deberta, tmp_path):
        train(deberta, tmp_path, examples(32), examples(8), epochs=1, kl_weight=1.0)
        assert fingerprint(deberta.model) == deberta.fingerprint
        assert not any(module.training for module in deberta.model.modules())
        assert not any(parameter.requires_grad for parameter in deberta.model.parameters())

    def test_the_model_comes_back_ready_to_judge(self, deberta, tmp_path):
        fitted = train(deberta, tmp_path, examples(32), epochs=1)
        assert not any(module.training for module in fitted.model.modules())

    def test_a_row_of_no_weight_teaches_nothing(self, deberta, tmp_path):
        rows = examples(40)
        wrong = [replace(row, label="neutral", weight=0.0) for row in rows[:10]]
        muted = [replace(row, weight=0.0) for row in rows[:10]]
        one, other = (
            adapter_bytes(train(deberta, tmp_path, [*some, *rows[10:]], epochs=1), tmp_path)
            for some in (wrong, muted)
        )
        assert one == other
        loud = train(deberta, tmp_path, rows, epochs=1)
        assert adapter_bytes(loud, tmp_path) != one

    def test_balanced_sampling_lengthens_the_epoch(self, deberta, tmp_path):
        rows = [replace(row, label="neutral") for row in examples(30)]
        rows += [replace(row, id=f"s:{row.id}", label="supports") for row in examples(5, seed=2)]
        steps = [
            train(deberta, tmp_path, rows, epochs=2, sampling=sampling, batch_size=10).steps
            for sampling in ("natural", "balanced")
        ]
        assert steps == [2 * 4, 2 * 6]

    def test_bfloat16_gives_a_float32_adapter_that_learned(self, deberta, tmp_path):
        dev = examples(40, seed=1)
        fitted = train(deberta, tmp_path, examples(120), precision="bf16")
        adapters = [p for n, p in fitted.model.named_parameters() if "lora_" in n]
        assert {parameter.dtype for parameter in adapters} == {torch.float32}
        with torch.autocast("cpu", dtype=torch.bfloat16):
            assert nll(deberta, fitted.model, dev) < nll(deberta, None, dev) - 0.2
        assert fingerprint(deberta.model) == deberta.fingerprint


class TestRepeating:
    def test_the_same_seed_gives_the_same_bytes(self, deberta, tmp_path):
        rows, dev = examples(48, source="agreed"), examples(12, seed=1)
        found = []
        for state in (1, 2):  # whatever random numbers were drawn before
            torch.manual_seed(state)
            random.seed(state)
            fitted = train(deberta, tmp_path, rows, dev, epochs=2, kl_weight=1.0)
            found.append(adapter_bytes(fitted, tmp_path))
        assert found[0] == found[1]

    def test_another_seed_gives_other_bytes(self, deberta, tmp_path):
        one, other = (
            adapter_bytes(train(deberta, tmp_path, examples(32), epochs=1, seed=seed), tmp_path)
            for seed in (1, 2)
        )
        assert one != other

    def test_everything_is_put_back_afterwards(self):
        threads, state = torch.get_num_threads(), torch.random.get_rng_state()

        def fail() -> None:
            with deterministic(3, threads + 1):
                assert torch.get_num_threads() == threads + 1
                assert torch.are_deterministic_algorithms_enabled()
                torch.rand(5)
                raise KeyError

        with pytest.raises(KeyError):
            fail()
        assert torch.get_num_threads() == threads
        assert not torch.are_deterministic_algorithms_enabled()
        assert torch.equal(torch.random.get_rng_state(), state)


class TestEarlyStopping:
    def test_the_best_epoch_is_brought_back(self, deberta, tmp_path):
        # What training teaches, the dev rows contradict: every epoch makes them worse.
        dev = [replace(row, label=TURNED[row.label]) for row in examples(40, seed=1)]
        fitted = train(deberta, tmp_path, examples(160), dev, epochs=9, patience=2)

        losses = [metrics["dev_loss"] for metrics in fitted.history]
        bound = min(losses) + fitted.history[losses.index(min(losses))]["dev_loss_error"]
        assert fitted.epochs == len(losses) == fitted.best_epoch + 2 < 9
        assert fitted.dev_loss == losses[fitted.best_epoch - 1] <= bound
        assert all(loss > bound for loss in losses[fitted.best_epoch :])
        assert nll(deberta, fitted.model, dev) == pytest.approx(fitted.dev_loss, abs=1e-4)

    def test_patience_is_the_number_of_epochs_without_a_better_one(self, deberta, tmp_path):
        dev = [replace(row, label=TURNED[row.label]) for row in examples(40, seed=1)]
        short, long = (
            train(deberta, tmp_path, examples(160), dev, epochs=9, patience=patience)
            for patience in (1, 3)
        )
        assert short.epochs - short.best_epoch == 1
        assert long.epochs - long.best_epoch == 3
        assert short.best_epoch == long.best_epoch

    def test_without_dev_rows_the_last_epoch_stands(self, deberta, tmp_path):
        fitted = train(deberta, tmp_path, examples(20), epochs=3, patience=1)
        assert (fitted.epochs, fitted.best_epoch, fitted.dev_loss) == (3, 3, None)
        losses = [row["loss"] for row in log_rows(tmp_path) if row["kind"] == "step"]
        assert nll(deberta, fitted.model, examples(20)) < losses[0]


class TestMemory:
    """The micro-batch shrinks until it fits; what is learned stays the same."""

    @pytest.fixture
    def small_memory(self, monkeypatch):
        parts: list[int] = []
        loss = _Run._loss

        def limited(self, rows, part):
            parts.append(len(part))
            if len(part) > 4:
                raise RuntimeError("DefaultCPUAllocator: can't allocate memory")
            return loss(self, rows, part)

        monkeypatch.setattr(_Run, "_loss", limited)
        return parts

    def test_the_micro_batch_is_halved_until_it_fits(self, deberta, tmp_path, small_memory):
        fitted = train(deberta, tmp_path, examples(40), epochs=1, batch_size=16)
        assert fitted.micro_batch == 4
        assert small_memory[:3] == [16, 8, 4]
        assert max(small_memory[2:]) == 4
        assert fitted.steps == 3

    def test_an_odd_batch_is_halved_downwards(self, deberta, tmp_path, small_memory):
        fitted = train(deberta, tmp_path, examples(26), epochs=1, batch_size=13)
        assert fitted.micro_batch == 3

    def test_smaller_passes_learn_the_same(self, deberta, tmp_path, request):
        rows = examples(40, source="agreed")
        changes = {"epochs": 1, "dropout": 0.0, "kl_weight": 0.5}
        whole = train(deberta, tmp_path, rows, **changes)
        parts = request.getfixturevalue("small_memory")
        pieces = train(deberta, tmp_path, rows, **changes)
        assert (whole.micro_batch, pieces.micro_batch) == (16, 4)
        assert parts
        losses = [row["loss"] for row in log_rows(tmp_path) if row["kind"] == "step"]
        assert losses[3:] == pytest.approx(losses[:3], rel=1e-2)
        np.testing.assert_allclose(
            log_p(deberta, pieces.model, rows), log_p(deberta, whole.model, rows), atol=5e-3
        )
        moved = np.abs(log_p(deberta, whole.model, rows) - log_p(deberta, None, rows)).max()
        assert moved > 0.3

    def test_memory_for_not_even_one_row_is_an_error(self, deberta, tmp_path, monkeypatch):
        def never(self, rows, part):
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory")

        monkeypatch.setattr(_Run, "_loss", never)
        with pytest.raises(RuntimeError, match="reached zero"):
            train(deberta, tmp_path, examples(8), epochs=1)

    def test_other_errors_are_not_taken_for_memory(self, deberta, tmp_path, monkeypatch):
        def broken(self, rows, part):
            raise RuntimeError("something else")

        monkeypatch.setattr(_Run, "_loss", broken)
        with pytest.raises(RuntimeError, match="something else"):
            train(deberta, tmp_path, examples(8), epochs=1)


@pytest.fixture(scope="module")
def known(deberta) -> list[Example]:
    """Rows with the base's own answer as label."""
    rows = examples(40, seed=4, source="agreed")
    answers = Judge(deberta).judge([row.pair for row in rows])
    return [replace(row, label=a.label) for row, a in zip(rows, answers, strict=True)]


class TestPull:
    """The Kullback-Leibler term: towards the base where it was right, and nowhere else."""

    def test_agreed_rows_stay_closer_to_the_base(self, deberta, tmp_path, known):
        rows = [*examples(60), *known]
        told = log_p(deberta, None, known)
        distance = {}
        for weight in (0.0, 5.0):
            fitted = train(deberta, tmp_path, rows, kl_weight=weight)
            told_now = log_p(deberta, fitted.model, known)
            distance[weight] = float((np.exp(told) * (told - told_now)).sum(axis=1).mean())
        assert distance[5.0] < 0.5 * distance[0.0]

    @pytest.mark.parametrize("case", ["corrected", "base was wrong"])
    def test_no_pull_where_the_base_was_wrong(self, deberta, tmp_path, known, case):
        if case == "corrected":
            rows = [replace(row, source="correction") for row in known]
        else:
            rows = [replace(row, label=TURNED[row.label]) for row in known]
        one, other = (
            adapter_bytes(train(deberta, tmp_path, rows, epochs=1, kl_weight=w), tmp_path)
            for w in (0.0, 5.0)
        )
        assert one == other

    def test_replayed_rows_are_pulled_as_agreed_ones_are(self, deberta, tmp_path, known):
        bytes_of = {}
        for source in ("agreed", "replay", "correction"):
            rows = [replace(row, source=source) for row in known]
            fitted = train(deberta, tmp_path, rows, epochs=1, kl_weight=5.0)
            bytes_of[source] = adapter_bytes(fitted, tmp_path)
        assert bytes_of["agreed"] == bytes_of["replay"] != bytes_of["correction"]


class TestErrors:
    def test_no_rows(self, deberta, tmp_path):
        with pytest.raises(DatasetError, match="no rows"):
            train(deberta, tmp_path, [])

    def test_a_loss_that_is_no_number(self, deberta, tmp_path):
        with pytest.raises(TrainingError, match="the loss became") as caught:
            train(deberta, tmp_path, examples(16, weight=float("inf")))
        assert "training.learning_rate" in caught.value.hint


def test_figures_are_json_and_add_up(deberta, tmp_path):
    fitted = train(deberta, tmp_path, examples(40), examples(8, seed=1), epochs=2)
    figures = json.loads(json.dumps(fitted.figures()))
    assert "model" not in figures
    assert figures["steps"] == 2 * 3
    assert figures["trainable"] == sum(
        p.numel() for n, p in fitted.model.named_parameters() if "lora_" in n
    )
    assert figures["total"] - figures["trainable"] == sum(
        p.numel() for p in deberta.model.parameters()
    )
    assert figures["peak_memory"] > 10_000_000
    assert figures["seconds"] > 0
    assert figures["threads"] == 1
    assert len(figures["history"]) == 2


def log_rows(folder: Path) -> list[dict]:
    lines = (folder / "log" / "metrics.jsonl").read_text("utf-8").splitlines()
    return [json.loads(line) for line in lines]


def test_the_log_follows_the_run(deberta, tmp_path):
    fitted = train(deberta, tmp_path, examples(40), examples(8, seed=1), epochs=2)
    rows = log_rows(tmp_path)
    assert [row["step"] for row in rows if row["kind"] == "step"] == list(range(1, 7))
    epochs = [row for row in rows if row["kind"] == "epoch"]
    assert [row["epoch"] for row in epochs] == [1, 2]
    assert [{k: row[k] for k in fitted.history[0]} for row in epochs] == fitted.history
    rates = [row["lr"] for row in rows if row["kind"] == "step"]
    assert rates[-1] == 0
    assert max(rates) <= RECIPE.learning_rate
