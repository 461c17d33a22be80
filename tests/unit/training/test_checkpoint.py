"""Checkpoints: a training that was killed goes on, and ends as one that never was."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from tiny_training import Run, examples, log_rows, train

from lyra_nli.training.checkpoint import Checkpoints
from lyra_nli.training.fit import Fit
from lyra_nli.training.log import TrainingLog

OPTIONS = {"epochs": 3, "folds": 2, "kl_weight": 0.5, "layers": 1, "strengths": (0.5, 1.0)}
ROWS = [
    *examples(24),
    *examples(12, seed=1, source="agreed"),
    *examples(6, seed=2, source="replay"),
]
STATE = {"epochs": 1, "weights": [torch.arange(4.0)]}
IDENTITY = {"base": "b", "dataset": "d", "recipe": {"rank": 4}}


class KilledError(BaseException):
    """Nothing in the training catches it, as nothing catches a kill."""


def killer(phase: str, kind: str, number: int) -> type[TrainingLog]:
    """A log whose training ends at this step or epoch of this phase."""

    class Killer(TrainingLog):
        def step(self, step, values):
            super().step(step, values)
            self.kill("step", step)

        def epoch(self, epoch, values):
            super().epoch(epoch, values)
            self.kill("epoch", epoch)

        def kill(self, *now):
            if (self._phase, *now) == (phase, kind, number):
                raise KilledError

    return Killer


@pytest.fixture(scope="module")
def never(deberta, tmp_path_factory) -> Run:
    """A training that was never interrupted, nor kept."""
    return train(deberta, tmp_path_factory.mktemp("never"), ROWS, **OPTIONS)


@pytest.fixture
def killed(deberta, tmp_path) -> Callable[..., Checkpoints]:
    """Starts the training and kills it; gives the checkpoints as the next start finds them."""

    def kill(*where: object, **changes: object) -> Checkpoints:
        folder, options = tmp_path / "killed", {**OPTIONS, **changes}
        with pytest.raises(KilledError):
            train(deberta, folder, ROWS, log=killer(*where), checkpoints=at(tmp_path), **options)
        return at(tmp_path)

    return kill


def at(folder: Path, **changes: object) -> Checkpoints:
    return Checkpoints(folder / "unfinished", {**IDENTITY, **changes})


def steps(folder: Path) -> list[tuple[str, int]]:
    return [(row["phase"], row["step"]) for row in log_rows(folder, "step")]


def same(one: Run, other: Run) -> bool:
    """The same adapter, chosen by the same answers."""
    unseen = [run.trained.out_of_fold for run in (one, other)]
    return (
        one.adapter == other.adapter
        and one.trained.history == other.trained.history
        and one.trained.strength == other.trained.strength
        and one.trained.fitted.averaged == other.trained.fitted.averaged == 5
        and all(torch.equal(unseen[0].logits[s], unseen[1].logits[s]) for s in (0.5, 1.0))
    )


class TestResuming:
    @pytest.mark.parametrize(
        ("where", "first"),
        [
            (("fold 1 of 2", "step", 1), ("fold 1 of 2", 1)),
            (("fold 1 of 2", "epoch", 1), ("fold 1 of 2", 1)),  # killed before it was kept
            (("fold 1 of 2", "step", 4), ("fold 1 of 2", 3)),
            (("fold 1 of 2", "epoch", 3), ("fold 1 of 2", 5)),
            (("fold 2 of 2", "step", 1), ("fold 2 of 2", 1)),
            (("fold 2 of 2", "step", 6), ("fold 2 of 2", 5)),
            (("final", "step", 1), ("final", 1)),
            (("final", "step", 4), ("final", 4)),
            (("final", "step", 5), ("final", 4)),  # the first of the five that are averaged
            (("final", "step", 8), ("final", 7)),  # the mean of two of them was kept
        ],
        ids=str,
    )
    def test_the_bytes_are_those_of_a_training_never_killed(
        self, deberta, tmp_path, never, killed, where, first
    ):
        checkpoints = killed(*where)
        resumed = train(deberta, tmp_path, ROWS, checkpoints=checkpoints, **OPTIONS)
        assert same(resumed, never)
        # Two steps an epoch in a fold, three in the end; none before the kill is repeated.
        begun = steps(tmp_path)
        assert begun[0] == first
        assert len(begun) == len(set(begun))
        phases = ["fold 1 of 2", "fold 2 of 2", "final"]
        own = phases.index(first[0])
        assert {phase for phase, _ in begun} == set(phases[own:])

    def test_kept_or_not_the_bytes_are_the_same(self, deberta, tmp_path, never):
        assert same(train(deberta, tmp_path, ROWS, checkpoints=at(tmp_path), **OPTIONS), never)

    def test_the_time_before_the_kill_counts(self, deberta, tmp_path, killed):
        checkpoints = killed("final", "step", 4)
        checkpoints.save("final", {**checkpoints.load("final"), "seconds": 1000.0})
        resumed = train(deberta, tmp_path, ROWS, checkpoints=checkpoints, **OPTIONS)
        assert resumed.trained.fitted.seconds > 1000
        assert resumed.trained.fitted.first_step < 1000

    def test_killed_again_and_again(self, deberta, tmp_path, never, killed):
        for where in (("fold 1 of 2", "step", 3), ("fold 1 of 2", "step", 5), ("final", "step", 2)):
            killed(*where)
        assert same(train(deberta, tmp_path, ROWS, checkpoints=at(tmp_path), **OPTIONS), never)

    def test_a_finished_training_is_not_done_again(self, deberta, tmp_path, never):
        for name in ("one", "two"):
            run = train(deberta, tmp_path / name, ROWS, checkpoints=at(tmp_path), **OPTIONS)
            assert same(run, never)
        assert steps(tmp_path / "two") == []

    def test_a_choice_by_dev_rows_resumes_too(self, deberta, tmp_path):
        options = {**OPTIONS, "folds": 0}
        dev = examples(10, seed=9)
        whole = train(deberta, tmp_path / "whole", ROWS, dev, **options)
        log = killer("final", "step", 8)
        with pytest.raises(KilledError):
            train(deberta, tmp_path, ROWS, dev, log=log, checkpoints=at(tmp_path), **options)
        resumed = train(
            deberta, tmp_path / "resumed", ROWS, dev, checkpoints=at(tmp_path), **options
        )
        assert resumed.adapter == whole.adapter
        assert resumed.trained.history == whole.trained.history
        assert steps(tmp_path / "resumed")[0] == ("final", 7)

    def test_another_number_of_threads_starts_anew(self, deberta, tmp_path, killed):
        """Sums of other threads round otherwise; nobody could make the version again."""
        checkpoints = killed("fold 1 of 2", "step", 6)
        state = checkpoints.load("fold 1 of 2")
        checkpoints.save("fold 1 of 2", {**state, "threads": state["threads"] + 1})
        train(deberta, tmp_path, ROWS, checkpoints=checkpoints, **OPTIONS)
        assert steps(tmp_path)[0] == ("fold 1 of 2", 1)

    @pytest.mark.parametrize("other", [{"pass_tokens": 2**30}, {"identity": "another"}], ids=str)
    def test_larger_passes_or_other_rows_start_anew(self, deberta, tmp_path, killed, other):
        """A student must never judge what it learned from, nor go on in another float type."""
        checkpoints = killed("fold 1 of 2", "step", 6)
        state = checkpoints.load("fold 1 of 2")
        checkpoints.save("fold 1 of 2", {**state, **other})
        train(deberta, tmp_path, ROWS, checkpoints=checkpoints, **OPTIONS)
        assert steps(tmp_path)[0] == ("fold 1 of 2", 1)

    def test_the_identity_tells_rows_and_float_types_apart(self, deberta, tmp_path):
        runs = [(ROWS, {}), (ROWS[1:], {}), (ROWS, {"precision": "bf16"}), (ROWS, {"layers": 1})]
        found = [
            train(deberta, tmp_path / str(i), rows, epochs=1, **changes).trained.fitted.identity
            for i, (rows, changes) in enumerate(runs)
        ]
        assert len(set(found)) == 3
        assert found[0] == found[3]

    def test_the_identity_tells_processors_apart(self, deberta, tmp_path, monkeypatch):
        """What one began, another would round otherwise."""
        found = set()
        for name in ("one", "two"):
            monkeypatch.setattr("lyra_nli.training.student.rounding", lambda _, name=name: name)
            run = train(deberta, tmp_path / name, ROWS, epochs=1)
            found.add(run.trained.fitted.identity)
        assert len(found) == 2

    def test_a_full_disk_ends_no_training(self, deberta, tmp_path, monkeypatch, never):
        def full(*_: object) -> None:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(Checkpoints, "save", full)
        run = train(deberta, tmp_path, ROWS, checkpoints=at(tmp_path), **OPTIONS)
        assert same(run, never)
        [warning] = log_rows(tmp_path, "warning")
        assert "No space left on device" in warning["text"]

    def test_another_micro_batch_starts_anew(self, deberta, tmp_path, killed):
        checkpoints = killed("fold 1 of 2", "step", 6)
        small = {**OPTIONS, "micro_batch": 5}
        resumed = train(deberta, tmp_path, ROWS, checkpoints=checkpoints, **small)
        assert steps(tmp_path)[0] == ("fold 1 of 2", 1)
        assert resumed.trained.fitted.micro_batch == 5
        assert same(resumed, train(deberta, tmp_path / "alone", ROWS, **small))

    def test_what_memory_made_smaller_stays_so(self, deberta, tmp_path, monkeypatch):
        """There may be memory again after the kill; the bytes hang on the size of a pass."""
        loss, little = Fit._loss, {"rows": 5}

        def limited(self, part):
            if len(part) > little["rows"]:
                raise MemoryError
            return loss(self, part)

        monkeypatch.setattr(Fit, "_loss", limited)
        never = train(deberta, tmp_path / "never", ROWS, **OPTIONS)
        assert never.trained.fitted.micro_batch == 4
        log = killer("fold 2 of 2", "step", 4)
        with pytest.raises(KilledError):
            train(deberta, tmp_path, ROWS, log=log, checkpoints=at(tmp_path), **OPTIONS)
        little["rows"] = 1000
        resumed = train(deberta, tmp_path / "on", ROWS, checkpoints=at(tmp_path), **OPTIONS)
        assert steps(tmp_path / "on")[0] == ("fold 2 of 2", 3)
        assert resumed.trained.fitted.micro_batch == 4
        assert same(resumed, never)

    @pytest.mark.parametrize("damage", ["empty", "half", "zeros", "text"])
    def test_a_damaged_one_is_as_none(self, deberta, tmp_path, never, killed, damage):
        checkpoints = killed("fold 2 of 2", "step", 4)
        file = checkpoints.folder / "fold 2 of 2.pt"
        whole = file.read_bytes()
        half, zeros = whole[: len(whole) // 2], bytes(len(whole))
        found = {"empty": b"", "half": half, "zeros": zeros, "text": b"damaged"}
        file.write_bytes(found[damage])
        resumed = train(deberta, tmp_path, ROWS, checkpoints=checkpoints, **OPTIONS)
        assert same(resumed, never)
        assert steps(tmp_path)[0] == ("fold 2 of 2", 1)


class TestStates:
    def test_a_state_comes_back(self, tmp_path):
        state = {"epochs": 2, "weights": [torch.ones(2)], "seconds": 0.5}
        at(tmp_path).save("fold 1 of 5", state)
        found = at(tmp_path).load("fold 1 of 5")
        assert torch.equal(found.pop("weights")[0], torch.ones(2))
        assert found == {"epochs": 2, "seconds": 0.5}
        assert at(tmp_path).load("fold 2 of 5") is None

    @pytest.mark.parametrize(
        "changes", [{"base": "c"}, {"dataset": "e"}, {"recipe": {"rank": 5}}, {"more": 1}], ids=str
    )
    def test_another_training_does_not_see_it(self, tmp_path, changes):
        at(tmp_path).save("final", {"epochs": 2})
        assert at(tmp_path, **changes).load("final") is None
        at(tmp_path, **changes).clear()
        assert at(tmp_path).load("final") == {"epochs": 2}

    def test_the_order_of_the_identity_does_not_matter(self, tmp_path):
        at(tmp_path).save("final", {"epochs": 2})
        turned = dict(reversed(json.loads(json.dumps(IDENTITY)).items()))
        assert Checkpoints(tmp_path / "unfinished", turned).load("final") == {"epochs": 2}

    def test_a_new_state_replaces_the_old_one_at_once(self, tmp_path):
        checkpoints = at(tmp_path)
        checkpoints.save("final", {"epochs": 1})

        class UnwritableError(Exception):
            def __reduce__(self):
                raise self

        with pytest.raises(UnwritableError):
            checkpoints.save("final", {"epochs": 2, "more": UnwritableError()})
        assert checkpoints.load("final") == {"epochs": 1}
        checkpoints.save("final", {"epochs": 2})
        assert checkpoints.load("final") == {"epochs": 2}
        assert [file.name for file in checkpoints.folder.iterdir()] == ["final.pt"]

    def test_on_a_full_disk_nothing_half_is_left(self, tmp_path, monkeypatch):
        checkpoints = at(tmp_path)
        checkpoints.save("final", {"epochs": 1})

        def half(self, content):
            with self.open("wb") as file:
                file.write(content[:9])
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(Path, "write_bytes", half)
        with pytest.raises(OSError, match="No space"):
            checkpoints.save("final", {"epochs": 2})
        assert checkpoints.load("final") == {"epochs": 1}
        assert [file.name for file in checkpoints.folder.iterdir()] == ["final.pt"]

    def test_cleared_it_is_gone(self, tmp_path):
        at(tmp_path).save("final", {"epochs": 1})
        at(tmp_path).clear()
        assert at(tmp_path).load("final") is None
        assert not at(tmp_path).folder.exists()
        at(tmp_path).clear()

    def test_no_code_is_run_from_a_file(self, tmp_path):
        touched = tmp_path / "touched"

        class Evil:
            def __reduce__(self):
                return Path.touch, (touched,)

        at(tmp_path).save("final", {"evil": Evil()})
        assert at(tmp_path).load("final") is None
        assert not touched.exists()

    @pytest.fixture
    def whole(self, tmp_path) -> bytes:
        """A file as it should be."""
        at(tmp_path).save("final", STATE)
        return (at(tmp_path).folder / "final.pt").read_bytes()

    def test_cut_anywhere_it_is_none(self, tmp_path, whole):
        for size in range(0, len(whole), 23):
            (at(tmp_path).folder / "final.pt").write_bytes(whole[:size])
            assert at(tmp_path).load("final") is None

    def test_with_bytes_turned_anywhere_it_is_whole_or_none(self, tmp_path, whole):
        rng = random.Random(0)
        for _ in range(300):
            damaged = bytearray(whole)
            damaged[rng.randrange(len(whole))] ^= rng.randrange(1, 256)
            (at(tmp_path).folder / "final.pt").write_bytes(damaged)
            assert repr(at(tmp_path).load("final")) in (repr(None), repr(STATE))
