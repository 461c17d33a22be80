from __future__ import annotations

import importlib.util
import json
import re
from collections import Counter
from pathlib import Path

import pytest
import yaml

from lyra_nli.dataset.replay import load_replay, share_out
from lyra_nli.errors import InputError
from lyra_nli.labels import LABELS
from lyra_nli.records import Example, Pair

ROOT = Path(__file__).parents[3]
FILE = ROOT / "src/lyra_nli/dataset/replay.jsonl"


@pytest.fixture(scope="module")
def shipped() -> list[Example]:
    return load_replay()


def written(tmp_path: Path, *rows: object) -> Path:
    file = tmp_path / "own.jsonl"
    file.write_text(
        "\n".join(row if isinstance(row, str) else json.dumps(row) for row in rows), "utf-8"
    )
    return file


def row(**changes: object) -> dict[str, object]:
    return {"premise": "A dog runs.", "hypothesis": "A dog moves.", "label": "supports"} | changes


# --- the shipped set --------------------------------------------------------------------------


def test_the_file_is_what_the_script_writes() -> None:
    spec = importlib.util.spec_from_file_location("build_replay", ROOT / "scripts/build_replay.py")
    assert spec is not None
    assert spec.loader is not None
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    assert "".join(script.build()) == FILE.read_text("utf-8")


def test_size_balance_and_breadth(shipped: list[Example]) -> None:
    assert len(shipped) >= 1500
    counts = Counter(example.label for example in shipped)
    assert len(set(counts.values())) == 1
    groups = Counter(example.group for example in shipped)
    assert len(groups) >= 50
    assert len({group.split(":")[1] for group in groups}) >= 15
    assert max(groups.values()) < 0.1 * len(shipped)


def test_every_group_has_every_label(shipped: list[Example]) -> None:
    labels: dict[str, Counter[str]] = {}
    for example in shipped:
        labels.setdefault(example.group, Counter())[example.label] += 1
    assert all(set(counts) == set(LABELS) for counts in labels.values())


def test_ids_groups_and_source(shipped: list[Example]) -> None:
    assert [example.id for example in shipped] == [f"replay:{n + 1}" for n in range(len(shipped))]
    assert {example.source for example in shipped} == {"replay"}
    assert all(re.fullmatch(r"replay:[\w-]+:[\w-]+", example.group) for example in shipped)


def test_no_pair_twice_and_one_premise_in_one_group(shipped: list[Example]) -> None:
    assert len({example.pair.key for example in shipped}) == len(shipped)
    groups: dict[str, set[str]] = {}
    for example in shipped:
        groups.setdefault(example.pair.premise, set()).add(example.group)
    assert all(len(found) == 1 for found in groups.values())


@pytest.mark.parametrize("fault", [
    r"[\[\]{}<>|_]", r"\s{2}", r"\s[,.;:]", r"\b[Aa] [aeio][a-z]", r"\b[Aa]n [^aeiouh\W]",
    r"\bthe the\b", r"\.\.", r"^[a-z]", r"[^.]$", r"\bNone\b(?! of)", r"\bTrue\b",
])  # fmt: skip
def test_texts_are_well_formed(shipped: list[Example], fault: str) -> None:
    texts = {text for e in shipped for text in (e.pair.premise, e.pair.hypothesis)}
    allowed = {text for text in texts if re.search(r"\b[Aa] one-|\b[Aa] (uni|eu)", text)}
    assert sorted(text for text in texts - allowed if re.search(fault, text)) == []


def test_a_hypothesis_alone_does_not_give_the_label_away(shipped: list[Example]) -> None:
    """A negation in the hypothesis is found under every label."""
    negated = Counter(
        example.label
        for example in shipped
        if re.search(r"\b(not|no|nobody|never|none|nothing)\b|n't", example.pair.hypothesis)
    )
    assert negated["supports"] > 50
    assert negated["refutes"] > 50
    assert negated["neutral"] > 0


def test_frames_have_no_hole() -> None:
    """An unquoted comma in a YAML mapping makes a key without a value."""

    def holes(value: object) -> bool:
        if isinstance(value, dict):
            return any(not isinstance(k, str) or holes(v) for k, v in value.items())
        if isinstance(value, list):
            return any(holes(item) for item in value)
        return value is None or isinstance(value, bool)

    sources = sorted((ROOT / "scripts/replay").glob("*.yaml"))
    assert sources
    for source in sources:
        assert not holes(yaml.safe_load(source.read_text("utf-8"))), source


# --- a user's own -----------------------------------------------------------------------------


def test_own_file(tmp_path: Path) -> None:
    file = written(
        tmp_path,
        row(),
        "",
        row(hypothesis="A cat runs.", label="refutes"),
        row(premise="It rains.", id="a1", group="weather", label="neutral"),
        row(premise="It snows.", id="replay:a2", phenomenon="weather/cold"),
    )
    one, two, three, four = load_replay(file)
    assert [e.id for e in (one, two, three, four)] == [
        "replay:1", "replay:3", "replay:a1", "replay:a2"
    ]  # fmt: skip
    assert one.group == two.group != three.group
    assert (three.group, four.group) == ("replay:weather", "replay:weather:cold")
    assert (two.label, three.label) == ("refutes", "neutral")
    assert one.pair.premise == "A dog runs."


def test_every_problem_at_once(tmp_path: Path) -> None:
    file = written(
        tmp_path,
        row(),
        "{not json",
        [1, 2],
        row(label="entailment"),
        {"premise": " ", "label": "supports"},
        row(premise="x" * 1_000_001),
        row(id="same"),
        row(id="same", phenomenon=["list"]),
        row(id="same"),
    )
    with pytest.raises(InputError) as caught:
        load_replay(file)
    problems = caught.value.problems
    for expected in (
        "line 2: not JSON", "line 3: expected an object", "line 4: unknown label 'entailment'",
        "line 5: premise: empty", "line 5: hypothesis: expected text, got None",
        "line 6: premise: longer than", "line 8: phenomenon: expected text",
        "line 7: the id 'same' comes 2 times", "line 9: the id 'same' comes 2 times",
    ):  # fmt: skip
        assert any(problem.startswith(expected) for problem in problems), expected
    assert len(problems) == 9
    assert str(file) in caught.value.message


@pytest.mark.parametrize("content", [b"", b"\n \n"])
def test_empty(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "own.jsonl"
    file.write_bytes(content)
    with pytest.raises(InputError, match="no pairs"):
        load_replay(file)


def test_missing_file_and_folder(tmp_path: Path) -> None:
    for path in (tmp_path / "absent.jsonl", tmp_path):
        with pytest.raises(InputError, match="can't be read"):
            load_replay(path)


def test_not_utf8(tmp_path: Path) -> None:
    file = tmp_path / "own.jsonl"
    file.write_bytes(json.dumps(row(premise="Café."), ensure_ascii=False).encode("latin-1"))
    with pytest.raises(InputError, match="UTF-8"):
        load_replay(file)


def test_byte_order_mark_and_odd_separators(tmp_path: Path) -> None:
    """U+2028 inside a text is no end of a line."""
    file = tmp_path / "own.jsonl"
    text = json.dumps(row(premise="One.\u2028Two."), ensure_ascii=False)
    file.write_bytes(b"\xef\xbb\xbf" + text.encode() + b"\r\n")
    (example,) = load_replay(file)
    assert example.pair.premise == "One.\u2028Two."


class TestSharingOut:
    """Some of it is learned from, and of other groups some is kept for the forgetting check."""

    @staticmethod
    def rows(premises: int, groups: int, each: int = 2) -> list[Example]:
        return [
            Example(
                f"replay:{p}:{i}",
                Pair(f"premise {p}", f"{i}"),
                "neutral",
                "replay",
                f"g{p % groups}",
            )
            for p in range(premises)
            for i in range(each)
        ]

    @pytest.mark.parametrize(
        ("premises", "groups"), [(300, 50), (300, 1), (300, 2), (2, 1), (2, 2)]
    )
    def test_both_get_some_and_share_no_premise(self, premises: int, groups: int) -> None:
        learned, general = share_out(self.rows(premises, groups), 1000, seed=1)
        assert len(learned) + len(general) == 2 * premises
        assert 0 <= len(general) - max(2, 2 * premises // 3) <= 12  # groups are whole
        assert learned
        assert not {e.pair.premise for e in learned} & {e.pair.premise for e in general}

    def test_groups_stay_whole_where_there_are_enough(self) -> None:
        learned, general = share_out(self.rows(300, 50), 1000, seed=1)
        assert not {e.group for e in learned} & {e.group for e in general}

    def test_one_premise_is_refused(self) -> None:
        with pytest.raises(InputError, match="one and the same premise"):
            share_out(self.rows(1, 1, each=9), 1000, seed=1)

    def test_none_gives_none(self) -> None:
        assert share_out([], 1000, seed=1) == ([], [])


def test_rows_without_an_id_are_named_by_their_line(tmp_path: Path) -> None:
    file = written(tmp_path, row(id=None), row(id=None, premise="A cat runs."), row(premise="X."))
    assert [example.id for example in load_replay(file)] == ["replay:1", "replay:2", "replay:3"]
