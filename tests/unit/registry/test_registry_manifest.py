from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tiny_versions import BASE, FINGERPRINT, new_manifest

from lyra_nli.errors import AdapterInvalidError
from lyra_nli.registry.manifest import check_base, read_manifest


def write(folder: Path, **changes: Any) -> None:
    values = json.loads(new_manifest(name="lora-lyra-v1").to_json())
    (folder / "manifest.json").write_text(json.dumps({**values, **changes}))


def test_a_manifest_survives_the_file(tmp_path: Path) -> None:
    manifest = new_manifest(name="lora-lyra-v1", git_commit="0" * 40, metrics={"a": {"b": [1]}})
    (tmp_path / "manifest.json").write_text(manifest.to_json())
    assert read_manifest(tmp_path) == manifest


def test_what_was_learned_includes_what_the_start_had_learned() -> None:
    rows = {"train": ["a", "b"], "dev": ["c"], "holdout": ["d"], "general": ["e"]}
    plain = new_manifest(row_ids=rows)
    assert (plain.started_from, plain.learned) == ("", ["a", "b", "c"])
    start = {"version": "lora-lyra-v1", "digest": "x", "inherited": ["z"]}
    warm = new_manifest(row_ids=rows, metrics={"warm_start": start})
    assert (warm.started_from, warm.learned) == ("lora-lyra-v1", ["a", "b", "c", "z"])


def test_the_text_is_the_same_whatever_the_order() -> None:
    one = new_manifest(recipe={"a": 1, "b": 2}).to_json()
    other = new_manifest(recipe={"b": 2, "a": 1}).to_json()
    assert one == other
    assert list(json.loads(one)) == sorted(json.loads(one))


def test_a_metric_that_is_not_a_number_does_not_break_the_file() -> None:
    text = new_manifest(metrics={"ece": float("nan"), "nll": float("inf")}).to_json()
    assert json.loads(text, parse_constant=pytest.fail)["metrics"] == {"ece": None, "nll": None}


def test_every_wrong_field_is_told_at_once(tmp_path: Path) -> None:
    write(
        tmp_path,
        seed="many",
        row_ids={"train": "all"},
        files={"x": "short"},
        base_model="",
        surprise=1,
    )
    with pytest.raises(AdapterInvalidError) as caught:
        read_manifest(tmp_path)
    fields = {problem.split(": ")[1] for problem in caught.value.problems}
    assert fields == {"seed", "row_ids.train", "files.x", "base_model", "surprise"}


@pytest.mark.parametrize("version", [2, None, "1", 0])
def test_an_unknown_schema_is_named(tmp_path: Path, version: object) -> None:
    write(tmp_path, schema_version=version)
    with pytest.raises(AdapterInvalidError, match=f"schema_version is {version!r}, expected 1"):
        read_manifest(tmp_path)


@pytest.mark.parametrize(
    "text", [b"", b"{", b"[]", b"null", b"\xff\xfe", b"[" * 100_000, b'{"schema_version": 1}']
)
def test_a_file_that_is_no_manifest(tmp_path: Path, text: bytes) -> None:
    (tmp_path / "manifest.json").write_bytes(text)
    with pytest.raises(AdapterInvalidError) as caught:
        read_manifest(tmp_path)
    assert caught.value.problems


def test_a_link_is_not_followed(tmp_path: Path) -> None:
    write(tmp_path)
    (tmp_path / "manifest.json").rename(tmp_path / "other.json")
    (tmp_path / "manifest.json").symlink_to(tmp_path / "other.json")
    with pytest.raises(AdapterInvalidError):
        read_manifest(tmp_path)


def test_the_weights_decide_which_base_fits() -> None:
    check_base(new_manifest(), BASE, FINGERPRINT)
    check_base(new_manifest(), "./a/copy/of/it", FINGERPRINT)


def test_another_base_is_named() -> None:
    with pytest.raises(AdapterInvalidError, match="trained for starter, this is roberta"):
        check_base(new_manifest(), "roberta", "cd" * 32)


def test_the_same_name_with_other_weights_is_told_apart() -> None:
    with pytest.raises(AdapterInvalidError, match="weights under that name have changed"):
        check_base(new_manifest(), BASE, "cd" * 32)
