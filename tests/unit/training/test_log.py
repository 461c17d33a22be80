"""The training log: the bar of the whole training is true, whatever starts anew."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from lyra_nli.training.log import TrainingLog


def test_a_phase_that_starts_anew_counts_once(tmp_path: Path) -> None:
    with TrainingLog(tmp_path) as log:

        def run(steps: Iterable[int]) -> float:
            for step in steps:
                log.step(step, {"loss": 1.0})
            [whole] = [t for t in log._progress.tasks if t.description == "all of the training"]
            return whole.completed

        log.begin("frozen layers", 7)
        log.advance(7)
        log.expect(15)
        log.begin("fold 1 of 2", 5)
        assert run((1, 2, 3)) == 3
        log.begin("fold 1 of 2", 5)  # memory ran out
        assert run(range(1, 6)) == 5
        log.begin("fold 2 of 2", 5, done=4)  # goes on after a kill
        assert run([5]) == 10
        log.begin("final", 5)
        assert run(range(1, 6)) == 15
