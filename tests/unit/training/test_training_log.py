"""The training log: JSON lines, TensorBoard events, and a bar on a terminal."""

from __future__ import annotations

import io
import json
from collections.abc import Callable

import pytest
from rich.console import Console
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from lyra_nli.training.log import TrainingLog


@pytest.fixture
def folder(tmp_path):
    """A log of two phases: two epochs of two steps, then one step."""
    folder = tmp_path / "runs" / "run_1"
    with TrainingLog(folder, Console(file=io.StringIO())) as log:
        log.begin("fold 1 of 2", 4)
        for step in range(1, 5):
            log.step(step, {"loss": 1.0 / step, "lr": 1e-3})
            if step % 2 == 0:
                log.epoch(step // 2, {"watched_nll": 0.5, "watched_accuracy": 0.75})
        log.begin("final", 1)
        log.plan({"expected_mb": 300.0})
        log.step(1, {"loss": 0.125})
    return folder


def test_a_search_names_its_phases_and_keeps_its_trials(tmp_path):
    with TrainingLog(tmp_path, Console(file=io.StringIO())) as log:
        with log.within("trial 3"):
            log.begin("fold 1 of 2", 1)
            log.step(1, {"loss": 0.5})
        log.trial(3, {"state": "pruned", "changes": {"rank": 16}})
        log.begin("final", 1)
        log.step(1, {"loss": 0.25})
    rows = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [row.get("phase") for row in rows] == ["trial 3, fold 1 of 2", None, "final"]
    assert rows[1] == {"kind": "trial", "trial": 3, "state": "pruned", "changes": {"rank": 16}}


def test_every_step_and_epoch_is_a_line_of_json(folder):
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    fold = "fold 1 of 2"
    assert [(row["phase"], row["kind"], row[row["kind"]]) for row in rows] == [
        (fold, "step", 1), (fold, "step", 2), (fold, "epoch", 1),
        (fold, "step", 3), (fold, "step", 4), (fold, "epoch", 2),
        ("final", "plan", 0), ("final", "step", 1),
    ]  # fmt: skip
    assert rows[0]["loss"] == 1.0
    assert rows[2]["watched_accuracy"] == 0.75
    assert rows[6]["expected_mb"] == 300.0
    seconds = [row["seconds"] for row in rows]
    assert seconds == sorted(seconds)


def test_tensorboard_reads_the_same_figures(folder):
    """Phases apart."""
    events = EventAccumulator(str(folder)).Reload()
    assert set(events.Tags()["scalars"]) == {
        "fold 1 of 2/step/loss",
        "fold 1 of 2/step/lr",
        "fold 1 of 2/epoch/watched_nll",
        "fold 1 of 2/epoch/watched_accuracy",
        "final/plan/expected_mb",
        "final/step/loss",
    }
    loss = [(event.step, event.value) for event in events.Scalars("fold 1 of 2/step/loss")]
    assert loss == [(step, pytest.approx(1 / step)) for step in range(1, 5)]


def test_lines_are_there_before_the_end(tmp_path):
    """Whoever watches a run, or finds one that was killed, sees what it did."""
    with TrainingLog(tmp_path, Console(file=io.StringIO())) as log:
        log.step(1, {"loss": 0.25})
        assert json.loads((tmp_path / "metrics.jsonl").read_text())["loss"] == 0.25


def test_an_interrupted_run_closes_its_files(tmp_path):
    log = TrainingLog(tmp_path, Console(file=io.StringIO()))

    def interrupt() -> None:
        with log:
            log.step(1, {"loss": 0.25})
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupt()
    with pytest.raises(ValueError, match="closed file"):
        log.step(2, {"loss": 0.25})


def screen(tmp_path, play: Callable[[TrainingLog], None], *, terminal: bool = True) -> str:
    """What is drawn last."""
    drawn = io.StringIO()
    console = Console(file=drawn, force_terminal=terminal, width=160)
    with TrainingLog(tmp_path, console) as log:
        play(log)
        drawn.truncate(drawn.seek(0))
        log._progress.refresh()
        return drawn.getvalue()


@pytest.mark.parametrize("terminal", [True, False])
def test_the_bar_is_drawn_on_a_terminal_only(tmp_path, terminal):
    def play(log):
        log.begin("fold 2 of 5", 7)
        log.step(3, {"loss": 0.125})

    drawn = screen(tmp_path, play, terminal=terminal)
    for text in ("fold 2 of 5", "loss 0.125", "3/7"):
        assert (text in drawn) is terminal
    assert bool(drawn.strip()) is terminal


def test_the_bar_counts_what_was_done_before_a_restart(tmp_path):
    assert "4/9" in screen(tmp_path, lambda log: log.begin("final", 9, done=4))


def test_the_bar_counts_what_is_not_written_down(tmp_path):
    def play(log):
        log.begin("frozen layers", 9)
        log.advance(2)
        log.advance(3)

    drawn = screen(tmp_path, play)
    assert "frozen layers" in drawn
    assert "5/9" in drawn
    assert not (tmp_path / "metrics.jsonl").read_text()


def test_a_new_phase_begins_at_nothing(tmp_path):
    def play(log):
        log.begin("fold 1 of 5", 7)
        log.step(3, {"loss": 0.125})
        log.epoch(1, {"watched_nll": 0.5, "watched_accuracy": 0.75})
        log.begin("fold 2 of 5", 8)

    drawn = screen(tmp_path, play)
    assert "0/8" in drawn
    for text in ("fold 1 of 5", "loss", "0.750"):
        assert text not in drawn


def test_a_second_bar_counts_all_phases(tmp_path):
    """What an earlier start had done of them, too."""

    def play(log):
        log.begin("frozen layers", 9)
        log.advance(9)
        log.expect(30)
        log.begin("fold 1 of 2", 10, done=10)
        log.begin("fold 2 of 2", 10, done=4)
        log.step(5, {"loss": 0.5})
        log.step(6, {"loss": 0.5})

    drawn = screen(tmp_path, play)
    assert "6/10" in drawn
    [whole] = [line for line in drawn.splitlines() if "all of the training" in line]
    assert "16/30" in whole


def test_the_bar_tells_how_unseen_rows_fare(tmp_path):
    def play(log):
        log.begin("fold 1 of 5", 7)
        log.epoch(1, {"watched_nll": 0.5, "watched_accuracy": 0.75})
        log.step(4, {"loss": 0.125})

    drawn = screen(tmp_path, play)
    for text in ("loss 0.125", "nll 0.500", "accuracy 0.750"):
        assert text in drawn


def test_an_interrupt_waits_for_no_writer(tmp_path, monkeypatch):
    """Cut short inside its own queue, TensorBoard's would wait for ever."""

    def locked() -> None:
        raise AssertionError("waited for the writer")

    def interrupted() -> None:
        with TrainingLog(tmp_path) as log:
            log.begin("final", 1)
            log.step(1, {"loss": 0.5})
            monkeypatch.setattr(log._board, "close", locked)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert '"loss": 0.5' in (tmp_path / "metrics.jsonl").read_text()
