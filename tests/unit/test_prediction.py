"""A file is judged by the rule of the server: whom a row names, its site's version, the active."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from serving_world import PAIRS, World, make_world

from lyra_nli.errors import AdapterNotFoundError, InputError
from lyra_nli.prediction import Judges, predict_file, predict_one, read_pairs
from lyra_nli.workspace import Workspace

ROWS: list[dict[str, Any]] = [
    {"source_url": "https://www.trials.org/a"},
    {"source_url": "https://elsewhere.net"},
    {"source_url": "https://www.trials.org/a", "adapter": "base"},
    {"source_url": "https://foreign.org/", "adapter": None},
]


@pytest.fixture
def world(tmp_path: Path) -> World:
    world = make_world(tmp_path, routes={"trials.org": "v2", "foreign.org": "v3"})
    world.publish(seed=1), world.publish(seed=2), world.publish(world.slow)
    world.activate("v1")
    return world


def write(folder: Path, rows: list[dict[str, Any]]) -> Path:
    file = folder / "pairs.jsonl"
    lines = [
        {"pair_id": str(i), "premise": PAIRS[0].premise, "hypothesis": PAIRS[0].hypothesis, **row}
        for i, row in enumerate(rows)
    ]
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return file


def predict(world: World, rows: list[dict[str, Any]], adapter: str = "") -> list[dict[str, Any]]:
    out = world.folder / "out.jsonl"
    judges = Judges(world.settings, None, adapter)
    names = predict_file(judges, read_pairs(write(world.folder, rows)), out)
    answers = [json.loads(line) for line in out.read_text().splitlines()]
    assert [answer["pair_id"] for answer in answers] == [str(i) for i in range(len(rows))]
    assert set(names) == {answer["adapter"] for answer in answers}
    return answers


def test_rows_choose_their_judges(world: World) -> None:
    answers = predict(world, ROWS)
    # What is routed to a version of the other base is judged by the active one of this base.
    names = [answer["adapter"].removeprefix("lora-lyra-") for answer in answers]
    assert names == ["v2", "v1", "base", "v1"]
    for answer, name in zip(answers, names, strict=True):
        alone = predict_one(
            Judges(world.settings, None, name).default, PAIRS[0].premise, PAIRS[0].hypothesis
        )
        assert answer["probabilities"] == pytest.approx(alone["probabilities"], abs=1e-6)


def test_a_route_is_looked_up_once(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many rows are of its site, whichever base it is a version of."""
    opened: list[object] = []
    real = Workspace.open
    monkeypatch.setattr(Workspace, "open", lambda *a, **k: opened.append(a) or real(*a, **k))
    predict(world, ROWS)
    once = len(opened)
    predict(world, ROWS * 5)
    assert len(opened) == 2 * once


def test_an_option_stands_above_the_routes(world: World) -> None:
    answers = predict(world, ROWS, "v1")
    assert [answer["adapter"] for answer in answers] == [
        "lora-lyra-v1", "lora-lyra-v1", "base", "lora-lyra-v1",
    ]  # fmt: skip


def test_nothing_is_written_when_somebody_is_unknown(world: World) -> None:
    with pytest.raises(AdapterNotFoundError, match="v9"):
        predict(world, [*ROWS, {"adapter": "v9"}])
    assert not (world.folder / "out.jsonl").exists()
    with pytest.raises(InputError) as error:
        read_pairs(write(world.folder, [{"adapter": 3}, {"source_url": ["x"]}]))
    assert error.value.problems == ("line 1: adapter is no text", "line 2: source_url is no text")


def test_ids_are_texts_or_whole_numbers(world: World) -> None:
    rows = read_pairs(write(world.folder, [{"pair_id": 0}, {"pair_id": 7}, {"pair_id": "é"}]))
    assert [row.pair_id for row in rows] == ["0", "7", "é"]
    wrong = [None, " ", True, 1.5, ["x"], "\ud83d", "a\x00b"]
    with pytest.raises(InputError) as error:
        read_pairs(write(world.folder, [{"pair_id": each} for each in wrong]))
    assert error.value.problems == (
        "line 1: pair_id is missing",
        "line 2: pair_id is missing",
        *(f"line {n}: pair_id is neither text nor a whole number" for n in (3, 4, 5)),
        "line 6: pair_id is not valid Unicode (at character 0)",
        "line 7: pair_id holds a NUL character (at 1)",
    )


def test_a_line_of_brackets_is_no_json(world: World) -> None:
    file = world.folder / "deep.jsonl"
    file.write_text("[" * 100_000 + "\n")
    with pytest.raises(InputError) as error:
        read_pairs(file)
    assert error.value.problems[0].startswith("line 1: not JSON")
