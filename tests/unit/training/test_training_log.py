"""The training log: JSON lines, TensorBoard events, and a bar on a terminal."""

from __future__ import annotations

import io
import json

import pytest
from rich.console import Console
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from lyra_nli.training.log import TrainingLog


@pytest.fixture
def folder(tmp_path):
    """A log of two epochs of two steps."""
    folder = tmp_path / "runs" / "run_1"
    with TrainingLog(folder, Console(file=io.StringIO())) as log:
        log.expect(4)
        for step in range(1, 5):
            log.step(step, {"loss": 1.0 / step, "lr": 1e-3})
            if step % 2 == 0:
                log.epoch(step // 2, {"dev_loss": 0.5, "dev_accuracy": 0.75})
    return folder


def test_every_step_and_epoch_is_a_line_of_json(folder):
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert [(row["kind"], row[row["kind"]]) for row in rows] == [
        ("step", 1), ("step", 2), ("epoch", 1), ("step", 3), ("step", 4), ("epoch", 2),
    ]  # fmt: skip
    assert rows[0]["loss"] == 1.0
    assert rows[2]["dev_accuracy"] == 0.75
    seconds = [row["seconds"] for row in rows]
    assert seconds == sorted(seconds)


def test_tensorboard_reads_the_same_figures(folder):
    events = EventAccumulator(str(folder)).Reload()
    assert set(events.Tags()["scalars"]) == {
        "step/loss",
        "step/lr",
        "epoch/dev_loss",
        "epoch/dev_accuracy",
    }
    loss = [(event.step, event.value) for event in events.Scalars("step/loss")]
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


@pytest.mark.parametrize("terminal", [True, False])
def test_the_bar_is_drawn_on_a_terminal_only(tmp_path, terminal):
    screen = io.StringIO()
    console = Console(file=screen, force_terminal=terminal, width=120)
    with TrainingLog(tmp_path, console) as log:
        log.expect(7)
        log.step(3, {"loss": 0.125})
        log._progress.refresh()
    drawn = screen.getvalue()
    assert ("loss 0.125" in drawn and "3/7" in drawn) is terminal
    assert bool(drawn.strip()) is terminal
