"""What a version keeps of the rows that it was judged on."""

from __future__ import annotations

from pathlib import Path

import pytest

from lyra_nli.errors import AdapterInvalidError
from lyra_nli.registry.answers import ANSWERS, read_answers, write_answers

ROWS = [
    {
        "id": f"r{n}",
        "part": "fold",
        "probabilities": {"supports": 0.25, "refutes": 0.5, "neutral": 0.25},
        "suspicion": None,
    }
    for n in range(3)
]


def test_what_was_written_is_read(tmp_path: Path) -> None:
    write_answers(tmp_path, iter(ROWS))
    assert read_answers(tmp_path) == ROWS
    assert read_answers(tmp_path / "kept none") == []


@pytest.mark.parametrize(
    "line",
    [
        b'{"id": "r3", "pa',
        b"[]",
        b"7",
        b'{"id": "r3", "part": "fold"}',
        b'{"id": "r3", "part": "fold", "probabilities": {"supports": 1.0}}',
        b'{"id": "r3", "part": "fold", "probabilities": null}',
        b'{"id": "r3\xff", "part": "fold"}',
    ],
)
def test_a_damaged_line_is_named(tmp_path: Path, line: bytes) -> None:
    write_answers(tmp_path, ROWS)
    with (tmp_path / ANSWERS).open("ab") as file:
        file.write(line)
    with pytest.raises(AdapterInvalidError, match="line 4") as error:
        read_answers(tmp_path)
    assert error.value.hint
