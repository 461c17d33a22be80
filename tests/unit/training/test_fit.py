"""The training loop: it learns, repeats itself exactly, averages, and fits into memory."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import psutil
import pytest
import torch
from tiny_training import (
    RECIPE,
    TURNED,
    adapter_bytes,
    examples,
    figures,
    log_p,
    log_rows,
    losses,
    make_trainer,
    nll,
    train,
)
from torch.nn import functional

from lyra_nli.errors import DatasetError, TrainingError
from lyra_nli.labels import INDEX
from lyra_nli.models.adapter import merged_model, read_adapter, save_adapter
from lyra_nli.models.base import fingerprint
from lyra_nli.models.judge import Judge
from lyra_nli.models.prefix import reader_of
from lyra_nli.records import Example
from lyra_nli.training.checkpoint import Checkpoints
from lyra_nli.training.fit import Fit
from lyra_nli.training.log import TrainingLog
from lyra_nli.training.repeating import deterministic


class TestLearning:
    def test_the_loss_falls_on_rows_never_seen(self, deberta, tmp_path):
        dev = examples(60, seed=1)
        run = train(deberta, tmp_path, examples(200), dev, epochs=4)
        assert nll(deberta, run.model, dev) < 0.5 * nll(deberta, None, dev)
        assert run.trained.history[-1]["accuracy"] > 0.8
        assert np.mean(losses(tmp_path)[-5:]) < 0.5 * np.mean(losses(tmp_path)[:5])

    def test_the_upper_layer_alone_learns_from_cached_states(self, deberta, tmp_path):
        dev = examples(60, seed=1)
        options = {"epochs": 4, "layers": 1, "cache": tmp_path / "cache"}
        run = train(deberta, tmp_path, examples(200), dev, **options)
        assert list((tmp_path / "cache").glob("*/*.bin"))
        assert nll(deberta, run.model, dev) < 0.6 * nll(deberta, None, dev)

    def test_bert_and_roberta_learn_too(self, bases, tmp_path):
        dev = examples(40, seed=1)
        for name in ("bert", "roberta"):
            run = train(bases[name], tmp_path, examples(120), dev, cache=tmp_path / "cache")
            assert nll(bases[name], run.model, dev) < nll(bases[name], None, dev) - 0.2

    @pytest.mark.parametrize("layers", ["all", 1])
    def test_the_base_is_not_changed(self, deberta, tmp_path, layers):
        options = {"epochs": 1, "kl_weight": 1.0, "layers": layers, "cache": tmp_path / "cache"}
        train(deberta, tmp_path, examples(32), examples(8, seed=1), **options)
        assert fingerprint(deberta.model) == deberta.fingerprint
        assert not any(module.training for module in deberta.model.modules())
        assert not any(parameter.requires_grad for parameter in deberta.model.parameters())

    @pytest.mark.parametrize("dev", [0, 8])
    def test_the_model_comes_back_ready_to_judge(self, deberta, tmp_path, dev):
        run = train(deberta, tmp_path, examples(32), examples(dev, seed=1), epochs=1)
        assert not any(module.training for module in run.model.modules())

    def test_a_row_of_no_weight_teaches_nothing(self, deberta, tmp_path):
        rows = examples(40)
        wrong = [replace(row, label="neutral", weight=0.0) for row in rows[:10]]
        muted = [replace(row, weight=0.0) for row in rows[:10]]
        one, other = (
            train(deberta, tmp_path, [*some, *rows[10:]], epochs=1).adapter
            for some in (wrong, muted)
        )
        assert one == other
        assert train(deberta, tmp_path, rows, epochs=1).adapter != one

    @pytest.mark.parametrize(("source", "same"), [("agreed", True), ("foreign", False)])
    def test_a_reviewed_row_of_no_weight_does_not_pull_either(
        self, deberta, tmp_path, source, same
    ):
        """A foreign pair pulls in full, whatever its label counts for."""
        rows = examples(16, weight=1.0)
        muted = examples(16, seed=1, source=source, weight=0.0)
        # Which label the base gave decides whether a row pulls at all.
        one, other = (
            train(
                deberta,
                tmp_path,
                [*rows, *(replace(row, label=label) for row in muted)],
                kl_weight=1.0,
                epochs=1,
            ).adapter
            for label in ("neutral", "supports")
        )
        assert (one == other) == same

    def test_balanced_sampling_lengthens_the_epoch(self, deberta, tmp_path):
        rows = [replace(row, label="neutral") for row in examples(30)]
        rows += [replace(row, label="supports") for row in examples(5, seed=2)]
        steps = [
            train(deberta, tmp_path, rows, epochs=2, sampling=sampling, batch_size=10).trained
            for sampling in ("natural", "balanced")
        ]
        assert [trained.fitted.steps for trained in steps] == [2 * 4, 2 * 6]

    def test_dropout_works_in_the_adapters_alone(self, deberta, tmp_path):
        with TrainingLog(tmp_path) as log:
            student = make_trainer(deberta, log).student
        student.study()
        at_work = {name for name, module in student.model.named_modules() if module.training}
        assert at_work == {
            name for name, module in student.model.named_modules() if hasattr(module, "lora_A")
        }
        assert len(at_work) == 12

    @pytest.mark.parametrize("layers", ["all", 1])
    def test_bfloat16_gives_a_float32_adapter_that_learned(self, deberta, tmp_path, layers):
        dev = examples(40, seed=1)
        options = {"precision": "bf16", "layers": layers, "cache": tmp_path / "cache"}
        run = train(deberta, tmp_path, examples(120), dev, **options)
        assert {parameter.dtype for parameter in run.trainer.student.parameters} == {torch.float32}
        assert run.trained.history[-1]["nll"] < nll(deberta, None, dev) - 0.2
        assert fingerprint(deberta.model) == deberta.fingerprint


class TestRepeating:
    def test_the_same_seed_gives_the_same_bytes(self, deberta, tmp_path):
        rows, dev = examples(48, source="agreed"), examples(12, seed=1)
        found = set()
        for state in (1, 2):  # whatever random numbers were drawn before
            torch.manual_seed(state)
            random.seed(state)
            found.add(train(deberta, tmp_path, rows, dev, epochs=2, kl_weight=1.0).adapter)
        assert len(found) == 1

    def test_another_seed_gives_other_bytes(self, deberta, tmp_path):
        found = {train(deberta, tmp_path, examples(32), epochs=1, seed=s).adapter for s in (1, 2)}
        assert len(found) == 2

    @pytest.mark.parametrize("folds", [0, 2])
    def test_a_version_can_be_made_again_without_what_led_there(self, deberta, tmp_path, folds):
        rows, dev = examples(30, source="agreed"), examples(12, seed=1)
        options = {"folds": folds, "kl_weight": 0.5, "epochs": 2, "foreign_share": 0.5}
        options |= {"strengths": (0.5,), "label_smoothing": 0.1}
        run = train(deberta, tmp_path, rows, dev, **options)
        told = run.trained.figures()
        with TrainingLog(tmp_path / "again") as log:
            again = make_trainer(deberta, log, micro_batch=told["micro_batch"], **options)
            again.repeat(rows, dev, told["strength"], dev_learned=told["dev_learned"])
        assert told["dev_learned"] is (folds > 0)
        assert adapter_bytes(again) == run.adapter
        assert again.student.strength == run.trainer.student.strength == 0.5

    def test_a_fit_leaves_no_trace_in_the_next_one(self, deberta, tmp_path):
        with TrainingLog(tmp_path) as log:
            trainer = make_trainer(deberta, log, epochs=1)
            lessons = trainer.lessons(examples(40))
            found = []
            for taught in (range(20), range(20, 40), range(20)):
                trainer.fit(lessons, taught, watched=range(20, 30))
                found.append(adapter_bytes(trainer))
        assert found[0] == found[2] != found[1]

    def test_what_is_watched_changes_nothing(self, deberta, tmp_path):
        with TrainingLog(tmp_path) as log:
            trainer = make_trainer(deberta, log, epochs=2)
            lessons = trainer.lessons(examples(40))
            found = set()
            for watched in ((), range(20, 25), range(40)):
                fitted = trainer.fit(lessons, range(20), watched=watched)
                assert [len(logits) for logits in fitted.watched] == [len(watched)] * (
                    2 if watched else 0
                )
                found.add(adapter_bytes(trainer))
        assert len(found) == 1


UPPER = {"layers": 1, "epochs": 2, "kl_weight": 0.5}


class TestCache:
    """Whatever the cache holds, the adapter's bytes are the same."""

    @pytest.fixture(scope="class", params=["fp32", "bf16"])
    @classmethod
    def precision(cls, request) -> str:
        return request.param

    @pytest.fixture(scope="class")
    @classmethod
    def rows(cls) -> list[Example]:
        return examples(48, source="agreed")

    @pytest.fixture(scope="class")
    @classmethod
    def expected(cls, deberta, tmp_path_factory, rows, precision) -> bytes:
        """From an empty cache."""
        folder = tmp_path_factory.mktemp("alone")
        options = {**UPPER, "precision": precision, "cache": folder / "cache"}
        return train(deberta, folder, rows, **options).adapter

    def test_filled_by_other_trainings(self, deberta, tmp_path, rows, expected, precision):
        options = {**UPPER, "precision": precision, "cache": tmp_path / "cache"}
        other = [*examples(20, seed=7), *rows[5:30][::-1]]
        train(deberta, tmp_path, other, rows[40:43], **{**options, "seed": 5, "epochs": 1})
        made = set((tmp_path / "cache").glob("*/*.bin"))
        assert made
        assert train(deberta, tmp_path, rows, **options).adapter == expected
        assert set((tmp_path / "cache").glob("*/*.bin")) > made
        assert train(deberta, tmp_path, rows, **options).adapter == expected

    @pytest.mark.parametrize("limit", [0, 10_000, 60_000])
    def test_too_small_for_the_data(self, deberta, tmp_path, rows, expected, precision, limit):
        cache = tmp_path / "cache"
        with TrainingLog(tmp_path / "log") as log:
            trainer = make_trainer(deberta, log, **UPPER, precision=precision)
            student = trainer.student
            student.read = reader_of(deberta, student.model, student.device, cache, limit)
            trainer.train(rows, [])
        assert adapter_bytes(trainer) == expected
        kept = sum(segment.stat().st_size for segment in cache.glob("*/*.bin"))
        assert kept <= limit < sum(trainer.lessons(rows).lengths) * 32 * 4
        assert bool(kept) is bool(limit)

    @pytest.mark.parametrize("when", ["step", "epoch"])
    def test_deleted_in_the_middle(self, deberta, tmp_path, rows, expected, precision, when):
        cache = tmp_path / "cache"

        class Deleting(TrainingLog):
            def step(self, step, values):
                super().step(step, values)
                self.delete("step", step)

            def epoch(self, epoch, values):
                super().epoch(epoch, values)
                self.delete("epoch", epoch)

            def delete(self, kind, number):
                if kind == when and number == 1:
                    segments = list(cache.glob("*/*.bin"))
                    assert segments
                    for segment in segments:
                        segment.unlink()

        options = {**UPPER, "precision": precision, "cache": cache}
        assert train(deberta, tmp_path, rows, log=Deleting, **options).adapter == expected


class TestStrength:
    def test_dev_rows_that_contradict_ask_for_little(self, deberta, tmp_path):
        dev = [replace(row, label=TURNED[row.label]) for row in examples(40, seed=1)]
        run = train(deberta, tmp_path, examples(160), dev, epochs=5, strengths=(0.1, 0.5, 1.0))
        assert run.trained.strength == run.trainer.student.strength == 0.1
        assert run.trained.out_of_fold is None

    def test_dev_rows_that_agree_ask_for_all(self, deberta, tmp_path):
        dev = examples(40, seed=1)
        run = train(deberta, tmp_path, examples(160), dev, epochs=5, strengths=(0.1, 0.5, 1.0))
        assert run.trained.strength == 1.0

    def test_without_dev_rows_all_of_it_counts(self, deberta, tmp_path):
        run = train(deberta, tmp_path, examples(20), strengths=(0.5, 0.7))
        assert run.trained.strength == run.trainer.student.strength == 1.0
        assert run.trained.history == []
        assert nll(deberta, run.model, examples(20)) < losses(tmp_path)[0]

    def test_it_is_a_factor_of_what_the_adapter_adds(self, deberta, tmp_path):
        student = train(deberta, tmp_path, examples(20)).trainer.student
        assert student.strength == 1.0
        products = []
        for strength in (1.0, 0.5):
            student.strength = strength
            layer = next(module for module in student.model.modules() if hasattr(module, "lora_A"))
            products.append(layer.low_rank(torch.ones(1, layer.weight.shape[1])))
        assert torch.allclose(products[1], products[0] / 2)
        assert products[0].abs().max() > 0

    def test_what_is_saved_answers_as_the_student_did(self, deberta, tmp_path):
        dev = [replace(row, label=TURNED[row.label]) for row in examples(20, seed=1)]
        run = train(deberta, tmp_path, examples(60), dev, strengths=(0.5, 1.0))
        save_adapter(deberta, run.model, run.trainer.recipe, tmp_path, run.trained.strength)
        saved = log_p(deberta, merged_model(deberta, read_adapter(deberta, tmp_path)), dev)
        np.testing.assert_allclose(saved, log_p(deberta, run.model, dev), atol=1e-5)
        run.trainer.student.strength = 1.0
        assert np.abs(saved - log_p(deberta, run.model, dev)).max() > 0.1

    def test_it_is_no_part_of_the_next_fit(self, deberta, tmp_path):
        with TrainingLog(tmp_path) as log:
            trainer = make_trainer(deberta, log, epochs=1)
            lessons = trainer.lessons(examples(20))
            trainer.fit(lessons, range(20))
            first = adapter_bytes(trainer)
            trainer.student.strength = 0.5
            trainer.fit(lessons, range(20))
        assert trainer.student.strength == 1.0
        assert adapter_bytes(trainer) == first


class TestAveraging:
    @pytest.mark.parametrize(("rows", "epochs"), [(40, 2), (33, 1), (16, 1)])
    def test_the_mean_over_the_second_half_of_the_steps(self, deberta, tmp_path, rows, epochs):
        with TrainingLog(tmp_path) as log:
            trainer = make_trainer(deberta, log, epochs=epochs)
            seen = []
            log.step = lambda *_: seen.append(trainer.student.weights())
            fitted = trainer.fit(trainer.lessons(examples(rows)), range(rows))
        steps = -(-rows // 16) * epochs
        assert len(seen) == fitted.steps == steps
        late = seen[steps // 2 :]
        assert fitted.averaged == len(late)
        for mean, *weights in zip(fitted.average, *late, strict=True):
            assert torch.allclose(mean, torch.stack(weights).mean(dim=0), atol=1e-6)
        for last, mean, own in zip(
            fitted.weights, fitted.average, trainer.student.weights(), strict=True
        ):
            assert torch.equal(own, mean)
            assert torch.equal(last, mean) is (len(late) == 1)

    def test_the_watched_rows_are_judged_after_each_epoch_as_it_is(self, deberta, tmp_path):
        with TrainingLog(tmp_path) as log:
            trainer = make_trainer(deberta, log, epochs=2)
            lessons, watched = trainer.lessons(examples(40)), range(30, 40)
            fitted = trainer.fit(lessons, range(30), watched=watched)
            with deterministic(trainer.recipe.seed, trainer.recipe.threads):
                averaged = trainer.student.logits(lessons, watched)
                trainer.student.take(fitted.weights)
                last = trainer.student.logits(lessons, watched)
        assert torch.equal(fitted.watched[1], last)
        assert not torch.allclose(averaged, last, atol=1e-2)

    def test_the_rate_rises_and_falls_to_nothing(self, deberta, tmp_path):
        train(deberta, tmp_path, examples(40), epochs=4, warmup_fraction=0.25)
        found = figures(log_rows(tmp_path, "step"), "lr")
        # After each of twelve steps: up to the third, and down over the other nine.
        shares = [1 / 3, 2 / 3, 1, *(n / 9 for n in range(8, -1, -1))]
        assert found == pytest.approx([RECIPE.learning_rate * share for share in shares])


class TestSmoothing:
    def test_targets_by_hand(self, deberta, tmp_path):
        rows = [*examples(2, source="correction"), *examples(2, seed=1, source="agreed")]
        rows += [*examples(2, seed=2, source="replay"), *examples(2, seed=3, source="foreign")]
        with TrainingLog(tmp_path) as log:
            lessons = make_trainer(deberta, log, label_smoothing=0.3).lessons(rows)
        certain = functional.one_hot(lessons.labels, 3).float()
        assert torch.allclose(lessons.targets[:4], 0.7 * certain[:4] + 0.1)
        assert torch.equal(lessons.targets[4:], certain[4:])

    def test_what_several_people_said_is_doubted_less(self, deberta, tmp_path):
        rows = [replace(row, people=i) for i, row in enumerate(examples(3), 1)]
        with TrainingLog(tmp_path) as log:
            lessons = make_trainer(deberta, log, label_smoothing=0.3).lessons(rows)
        own = lessons.targets[range(3), lessons.labels]
        assert own.tolist() == pytest.approx([1 - 0.2, 1 - 0.2 / 2, 1 - 0.2 / 3])

    @pytest.mark.parametrize(("source", "learned"), [("correction", 0.3), ("replay", 0.0)])
    def test_the_loss_is_that_of_the_targets(self, deberta, tmp_path, source, learned):
        rows = examples(1, source=source)
        train(deberta, tmp_path, rows, epochs=1, label_smoothing=0.3)
        told = torch.from_numpy(log_p(deberta, None, rows))  # as the student before its first step
        label = torch.tensor([INDEX[rows[0].label]])
        expected = functional.cross_entropy(told, label, label_smoothing=learned)
        assert losses(tmp_path) == pytest.approx([expected.item()], abs=1e-5)

    def test_it_keeps_confidence_down(self, deberta, tmp_path):
        rows, confidence = examples(60), {}
        for smoothing in (0.0, 0.5):
            run = train(deberta, tmp_path, rows, epochs=8, label_smoothing=smoothing)
            confidence[smoothing] = np.exp(log_p(deberta, run.model, rows)).max(axis=1).mean()
        assert confidence[0.5] < confidence[0.0] - 0.1


def too_much() -> None:
    raise RuntimeError("DefaultCPUAllocator: can't allocate memory")


@pytest.fixture
def memory(monkeypatch) -> Callable[..., list[int]]:
    """A machine whose memory holds only so many rows a pass, for so many passes or for ever."""
    loss = Fit._loss
    parts: list[int] = []

    def limit(rows: int, *, after: int = 0) -> list[int]:
        def limited(self, part):
            parts.append(len(part))
            if len(part) > rows and len(parts) > after:
                too_much()
            return loss(self, part)

        monkeypatch.setattr(Fit, "_loss", limited)
        return parts

    return limit


class TestMemory:
    """The micro-batch shrinks until it fits; what is learned stays the same."""

    def test_the_micro_batch_is_halved_until_it_fits(self, deberta, tmp_path, memory):
        parts = memory(4)
        fitted = train(deberta, tmp_path, examples(40), epochs=1, batch_size=16).trained.fitted
        assert fitted.micro_batch == 4
        assert parts[:3] == [16, 8, 4]
        assert max(parts[2:]) == 4
        assert fitted.steps == 3

    def test_the_tokens_of_a_pass_are_halved_too(self, deberta, tmp_path, memory, monkeypatch):
        """Long rows are few a pass whatever the micro-batch: halving that alone does nothing."""
        monkeypatch.setattr("lyra_nli.training.fit.pass_tokens", lambda _: 128)
        parts = memory(1)
        fitted = train(deberta, tmp_path, examples(20), epochs=1, batch_size=16).trained.fitted
        assert fitted.micro_batch > 1
        assert fitted.pass_tokens < 128
        assert parts[1] < parts[0] < 16

    def test_numpys_memory_errors_count_too(self, deberta, tmp_path, monkeypatch):
        loss = Fit._loss

        def limited(self, part):
            if len(part) > 8:
                raise MemoryError
            return loss(self, part)

        monkeypatch.setattr(Fit, "_loss", limited)
        fitted = train(deberta, tmp_path, examples(40), epochs=1, batch_size=16).trained.fitted
        assert fitted.micro_batch == 8

    def test_an_odd_batch_is_halved_downwards(self, deberta, tmp_path, memory):
        memory(2)
        run = train(deberta, tmp_path, examples(26), epochs=1, batch_size=13)
        assert run.trained.fitted.micro_batch == 3

    def test_the_next_fold_begins_with_what_fitted(self, deberta, tmp_path, memory):
        parts = memory(4)
        run = train(deberta, tmp_path, examples(40), epochs=1, folds=2)
        assert [size for size in parts if size > 4] == [16, 8]
        assert run.trained.fitted.micro_batch == 4

    def test_a_size_that_fitted_once_is_halved_from_there(self, deberta, tmp_path, memory):
        parts = memory(2)
        train(deberta, tmp_path, examples(20), epochs=1, micro_batch=4)
        assert parts[:2] == [4, 2]
        assert max(parts[1:]) == 2

    def test_smaller_passes_learn_the_same(self, deberta, tmp_path, memory):
        rows = examples(40, source="agreed")
        changes = {"epochs": 1, "dropout": 0.0, "kl_weight": 0.5}
        whole = train(deberta, tmp_path, rows, **changes)
        parts = memory(4)
        pieces = train(deberta, tmp_path, rows, **changes)
        assert [run.trained.fitted.micro_batch for run in (whole, pieces)] == [16, 4]
        assert parts
        assert losses(tmp_path)[3:] == pytest.approx(losses(tmp_path)[:3], rel=1e-2)
        np.testing.assert_allclose(
            log_p(deberta, pieces.model, rows), log_p(deberta, whole.model, rows), atol=5e-3
        )
        moved = np.abs(log_p(deberta, whole.model, rows) - log_p(deberta, None, rows)).max()
        assert moved > 0.3

    @pytest.mark.parametrize("kept", [True, False])
    def test_memory_that_runs_out_late_gives_the_bytes_of_the_small_size(
        self, deberta, tmp_path, memory, kept
    ):
        """Or nobody could make the version again: its manifest names one size."""
        rows = examples(40)
        small = train(deberta, tmp_path, rows, micro_batch=8)
        memory(8, after=4)  # in the second epoch
        checkpoints = Checkpoints(tmp_path / "unfinished", {}) if kept else None
        late = train(deberta, tmp_path, rows, checkpoints=checkpoints)
        assert late.trained.fitted.micro_batch == 8
        assert late.adapter == small.adapter

    def test_the_memory_that_happens_to_be_free_does_not_change_the_bytes(
        self, deberta, tmp_path, monkeypatch
    ):
        rows = examples(40)
        plenty = train(deberta, tmp_path, rows, epochs=1)
        told = plenty.trained.figures()
        told_by_the_machine = SimpleNamespace(available=2**20, total=psutil.virtual_memory().total)
        monkeypatch.setattr(psutil, "virtual_memory", lambda: told_by_the_machine)
        with TrainingLog(tmp_path / "again") as log:
            again = make_trainer(deberta, log, micro_batch=told["micro_batch"], epochs=1)
            again.repeat(rows, [], told["strength"], dev_learned=told["dev_learned"])
        assert adapter_bytes(again) == plenty.adapter

    def test_memory_for_not_even_one_row_is_an_error(self, deberta, tmp_path, memory):
        memory(0)
        with pytest.raises(RuntimeError, match="reached zero"):
            train(deberta, tmp_path, examples(8), epochs=1)

    def test_other_errors_are_not_taken_for_memory(self, deberta, tmp_path, monkeypatch):
        def broken(self, part):
            raise RuntimeError("something else")

        monkeypatch.setattr(Fit, "_loss", broken)
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
        for weight in (0.0, 20.0):
            told_now = log_p(deberta, train(deberta, tmp_path, rows, kl_weight=weight).model, known)
            distance[weight] = float((np.exp(told) * (told - told_now)).sum(axis=1).mean())
        assert distance[20.0] < 0.5 * distance[0.0]

    def test_the_teacher_is_the_base_itself(self, deberta, tmp_path, known):
        rows = [*known[:12], *examples(6)]
        for options in ({}, {"layers": 1, "cache": tmp_path / "cache"}):
            with TrainingLog(tmp_path / "log") as log:
                trainer = make_trainer(deberta, log, epochs=1, kl_weight=1.0, **options)
                trainer.fit(trainer.lessons(rows), range(18))
                learned = adapter_bytes(trainer)
                lessons = trainer.lessons(rows)  # whatever the student knows by now
                assert adapter_bytes(trainer) == learned  # and goes on knowing
            order = list(deberta.labels.order)
            np.testing.assert_allclose(
                lessons.teacher[:12, order], log_p(deberta, None, known[:12]), atol=1e-4
            )
            assert lessons.teacher[12:].isnan().all()

    @pytest.mark.parametrize("case", ["corrected", "base was wrong"])
    def test_no_pull_where_the_base_was_wrong(self, deberta, tmp_path, known, case):
        if case == "corrected":
            rows = [replace(row, source="correction") for row in known]
        else:
            rows = [replace(row, label=TURNED[row.label]) for row in known]
        found = {train(deberta, tmp_path, rows, epochs=1, kl_weight=w).adapter for w in (0.0, 5.0)}
        assert len(found) == 1

    def test_replayed_rows_are_pulled_as_agreed_ones_are(self, deberta, tmp_path, known):
        bytes_of = {}
        for source in ("agreed", "replay", "correction"):
            rows = [replace(row, source=source) for row in known]
            options = {"kl_weight": 5.0, "replay_kl_weight": 5.0}
            bytes_of[source] = train(deberta, tmp_path, rows, epochs=1, **options).adapter
        assert bytes_of["agreed"] == bytes_of["replay"] != bytes_of["correction"]

    def test_replayed_rows_have_a_pull_of_their_own(self, deberta, tmp_path, known):
        def adapter(source: str, **options: float) -> bytes:
            rows = [replace(row, source=source) for row in known]
            return train(deberta, tmp_path, rows, epochs=1, **options).adapter

        for source in ("agreed", "foreign"):
            assert adapter(source, replay_kl_weight=5.0) == adapter(source)
            assert adapter(source, kl_weight=5.0) != adapter(source)
        assert adapter("replay", kl_weight=5.0) == adapter("replay")
        assert adapter("replay", replay_kl_weight=5.0) == adapter("agreed", kl_weight=5.0)


class TestErrors:
    @pytest.mark.parametrize("folds", [0, 5])
    def test_no_rows(self, deberta, tmp_path, folds):
        with pytest.raises(DatasetError, match="no rows"):
            train(deberta, tmp_path, [], folds=folds)

    def test_a_loss_that_is_no_number(self, deberta, tmp_path):
        with pytest.raises(TrainingError, match="the loss became") as caught:
            train(deberta, tmp_path, examples(16, weight=float("inf")))
        assert "training.learning_rate" in caught.value.hint


@pytest.mark.parametrize("folds", [0, 3])
def test_figures_are_json_and_add_up(deberta, tmp_path, folds):
    rows, dev = examples(40), examples(8, seed=1)
    run = train(deberta, tmp_path, rows, dev, epochs=2, folds=folds)
    found = json.loads(json.dumps(run.trained.figures()))
    # 40 rows are 3 steps an epoch, and so are all 48, which are learned from after the folds.
    assert (found["steps"], found["strength"]) == (3 * 2, 1.0)
    assert (found["folds"], found["epochs"], found["dev_learned"]) == (folds, 2, folds > 0)
    assert found["trainable"] == sum(p.numel() for p in run.trainer.student.parameters)
    assert found["total"] - found["trainable"] == sum(p.numel() for p in deberta.model.parameters())
    assert found["peak_memory"] > 10_000_000
    assert 0 < found["first_step_seconds"] < found["final_seconds"] <= found["seconds"]
    assert found["threads"] == 1
    assert found["micro_batch"] == 16
    assert found["pass_tokens"] == 2048
    assert found["learning_layers"] == 2
    assert found["history"] == run.trained.history
    assert len(found["history"]) == 2


def test_the_log_follows_the_run(deberta, tmp_path):
    run = train(deberta, tmp_path, examples(40), examples(8, seed=1), epochs=2)
    steps, epochs = (log_rows(tmp_path, kind) for kind in ("step", "epoch"))
    assert [row["step"] for row in steps] == list(range(1, 7))
    assert [row["epoch"] for row in epochs] == [1, 2]
    assert {row["phase"] for row in (*steps, *epochs)} == {"final"}
    for name in ("nll", "accuracy"):
        assert figures(epochs, f"watched_{name}") == pytest.approx(
            figures(run.trained.history, name)
        )
    assert all(row["cpu_percent"] >= 0 for row in epochs)
    assert all(10 < row["rss_mb"] < 100_000 for row in steps)
    assert steps[-1]["lr"] == 0
    assert max(figures(steps, "lr")) <= RECIPE.learning_rate


def test_the_log_tells_the_folds_apart(deberta, tmp_path):
    train(deberta, tmp_path, examples(40), epochs=2, folds=2)
    phases = [row["phase"] for row in log_rows(tmp_path, "epoch")]
    folds = ["fold 1 of 2", "fold 1 of 2", "fold 2 of 2", "fold 2 of 2"]
    assert phases == [*folds, "final", "final"]
