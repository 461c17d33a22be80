"""Cases: who was fixed, who was broken, and which labels look wrong."""

from __future__ import annotations

import numpy as np
import pytest

from lyra_nli.evaluation.cases import SHOWN, Said, cases
from lyra_nli.evaluation.gate import Evidence
from lyra_nli.records import Example, Pair

NAN = [np.nan] * 3
RIGHT, SURE, UNSURE, WRONG = [0.6, 0.3, 0.1], [0.9, 0.05, 0.05], [0.3, 0.4, 0.3], [0.1, 0.8, 0.1]


def evidence(before: list[list[float]], after: list[list[float]]) -> Evidence:
    """Rows whose label is always `supports`."""
    rows = tuple(
        Example(str(n), Pair("p", "h"), "supports", "agreed", "g") for n in range(len(before))
    )
    return Evidence(rows, {"base": np.array(before), "candidate": np.array(after)})


def ids(of: object) -> str:
    return "".join(case.example.id for case in of)


def test_the_largest_changes_come_first() -> None:
    found = cases(
        evidence(
            [WRONG, UNSURE, WRONG, RIGHT, SURE, RIGHT, WRONG],
            [RIGHT, RIGHT, SURE, UNSURE, WRONG, SURE, UNSURE],
        )
    )
    assert ids(found.fixed) == "201"
    assert ids(found.broken) == "43"
    assert ids(found.suspects) == "436"  # the least for what people said
    assert found.counts == {"fixed": 3, "broken": 2, "suspects": 3}
    assert found.broken[0].before == Said("supports", 0.9)
    assert found.broken[0].after == Said("refutes", 0.8)


def test_rows_that_were_not_asked_about_are_no_cases() -> None:
    found = cases(evidence([WRONG, NAN, RIGHT], [NAN, WRONG, WRONG]))
    assert found.counts == {"fixed": 0, "broken": 1, "suspects": 1}


@pytest.mark.parametrize("count", [SHOWN, SHOWN + 5])
def test_only_so_many_are_shown(count: int) -> None:
    found = cases(evidence([WRONG] * count, [RIGHT] * count))
    assert len(found.fixed) == SHOWN
    assert found.counts["fixed"] == count
