"""A JSON list is read element by element, wherever the pieces of the file end."""

from __future__ import annotations

import json
import tracemalloc
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lyra_nli.errors import InputError
from lyra_nli.feedback import json_list
from lyra_nli.feedback.fields import BadRowError
from lyra_nli.feedback.json_list import read_list

VALUE = st.recursive(
    st.none() | st.booleans() | st.text(max_size=9) | st.floats(allow_nan=False),
    lambda each: st.lists(each, max_size=3) | st.dictionaries(st.text(max_size=3), each),
    max_leaves=8,
)


def found(folder: Path, content: str | bytes) -> list[object]:
    file = folder / "in.json"
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    numbered = list(read_list(file))
    assert [number for number, _ in numbered] == list(range(1, len(numbered) + 1))
    return [value for _, value in numbered]


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    elements=st.lists(st.dictionaries(st.text(max_size=5), VALUE), max_size=5),
    indent=st.none() | st.integers(0, 3),
    chunk=st.integers(1, 30),
)
def test_any_list_is_read_whatever_the_size_of_the_pieces(
    tmp_path: Path, elements: list[object], indent: int | None, chunk: int
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(json_list, "CHUNK_CHARS", chunk)
        text = json.dumps(elements, indent=indent, ensure_ascii=indent is None)
        assert found(tmp_path, text) == elements


@pytest.mark.parametrize(
    ("content", "good", "words"),
    [
        ('[{"a": 1}, {"a": 2', 1, "Expecting"),
        ('[{"a": 1}', 1, "the file ends"),
        ('[{"a": 1} {"a": 2}]', 1, "expected ',', found '{'"),
        ('[{"a": 1}, ]', 1, "Expecting value"),
        ('[{"a": 1}, {"a": nope}]', 1, "Expecting value"),
        ('[{"a": ' + "[" * 100_000, 0, "nested too deeply"),
        ('[{"a": ' + "9" * 5_000 + "}]", 0, "Exceeds the limit"),
        ('[{"a": "' + "x" * 300, 0, "Unterminated string"),
    ],
)
def test_where_it_is_broken_it_says_so_and_stops(
    tmp_path: Path, content: str, good: int, words: str
) -> None:
    *values, error = found(tmp_path, content)
    assert len(values) == good
    assert isinstance(error, BadRowError)
    assert "the JSON is broken here" in str(error)
    assert words in str(error)


def test_an_element_without_end_does_not_fill_the_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(json_list, "CHUNK_CHARS", 100)
    monkeypatch.setattr(json_list, "MAX_ELEMENT_CHARS", 1_000)
    (error,) = found(tmp_path, '[{"a": "' + "x" * 100_000)
    assert "no end within 1,000 characters" in str(error)


@pytest.mark.parametrize("content", ["", "{}", '"a"', "5", "\ufeff{}"])
def test_what_is_no_list_at_all(tmp_path: Path, content: str) -> None:
    with pytest.raises(InputError, match="holds no JSON list"):
        found(tmp_path, content)


def test_byte_order_mark_and_bytes_that_are_no_utf8(tmp_path: Path) -> None:
    assert found(tmp_path, b'\xef\xbb\xbf [ {"a": "\xff"} ] ') == [{"a": "\udcff"}]


def test_memory_does_not_grow_with_the_file(tmp_path: Path) -> None:
    file = tmp_path / "in.json"
    file.write_text("[" + ",".join(['{"a": "' + "x" * 1_000 + '"}'] * 20_000) + "]")
    tracemalloc.start()
    count = sum(1 for _ in read_list(file))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert count == 20_000
    assert peak < file.stat().st_size / 2
