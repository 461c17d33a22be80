"""What was computed from the same rows is not computed again, and nobody waits for long."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from lyra_nli.dashboard.memory import Memory

LONG = 60.0


@pytest.fixture
def memory() -> Iterator[Memory]:
    made = Memory()
    yield made
    made.close()


def test_the_same_rows_are_counted_once(memory: Memory) -> None:
    asked = []

    def compute() -> int:
        asked.append("x")
        return len(asked)

    assert memory.recall("key", 1, compute, LONG) == (1, True)
    assert memory.recall("key", 1, compute, LONG) == (1, True)
    assert memory.recall("other", 1, compute, LONG) == (2, True)
    assert memory.recall("key", 2, compute, LONG) == (3, True)
    assert len(asked) == 3


def test_who_has_no_time_gets_the_value_before(memory: Memory) -> None:
    go = threading.Event()

    def slow() -> str:
        assert go.wait(LONG)
        return "new"

    assert memory.recall("key", 1, lambda: "old", 0) == ("old", True)
    assert memory.recall("key", 2, slow, 0) == ("old", False)
    assert memory.recall("key", 2, slow, 0) == ("old", False)  # nobody starts it again
    go.set()
    assert memory.recall("key", 2, slow, LONG) == ("new", True)


def test_what_came_meanwhile_is_not_called_fresh(memory: Memory) -> None:
    go, begun = threading.Event(), threading.Event()

    def slow() -> str:
        begun.set()
        assert go.wait(LONG)
        return "of 1"

    first = threading.Thread(target=memory.recall, args=("key", 1, slow, LONG))
    first.start()
    assert begun.wait(LONG)
    threading.Timer(0.1, go.set).start()
    second = memory.recall("key", 2, lambda: "of 2", LONG)
    assert second in {("of 1", False), ("of 2", True)}  # the former, unless we came too late
    first.join(LONG)
    assert memory.recall("key", 2, lambda: "of 2", LONG) == ("of 2", True)


def test_a_failure_is_told_and_tried_again(memory: Memory) -> None:
    def fail() -> str:
        raise ValueError("torn")

    with pytest.raises(ValueError, match="torn"):
        memory.recall("key", 1, fail, LONG)
    assert memory.recall("key", 1, lambda: "whole", LONG) == ("whole", True)
