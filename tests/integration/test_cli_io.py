"""`import` and `export` as a user types them."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from lyra_databases import NEWER, OLDER, LyraDatabase, populate

from lyra_nli.cli.main import cli
from lyra_nli.cli.reviews_io import _FORMATS
from lyra_nli.errors import InputError, StorageError
from lyra_nli.feedback.formats import FORMATS
from lyra_nli.storage.upgrade import init_database

pytestmark = pytest.mark.integration


def call(*words: str) -> Result:
    return CliRunner().invoke(cli, words, catch_exceptions=False)


def lines(file: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in file.read_text("utf-8").splitlines()]


@pytest.mark.parametrize("shape", [OLDER, NEWER])
@pytest.mark.parametrize("kind", FORMATS)
def test_a_lyra_database_as_it_is_moves_into_one_of_ours(
    kind: str, shape: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    lyra = LyraDatabase(tmp_path / "lyra.db", shape)  # type: ignore[arg-type]
    populate(lyra)
    before = lyra.path.read_bytes()
    init_database("ours.db")
    file = {"parquet": "out.parquet", "jsonl": "out.jsonl", "csv": "out.csv"}.get(kind, "out.json")
    options = [] if file != "out.json" else ["--format", kind]
    out = call("export", file, *options, "--db", "lyra.db")
    assert out.output == "4 reviews exported, 0 left out\n"
    assert lyra.path.read_bytes() == before
    back = call("import", file, "--db", "ours.db")
    assert back.output == "4 reviews imported, 0 known already, 0 bad rows skipped\n"
    call("export", "a.jsonl", "--db", "lyra.db")
    call("export", "b.jsonl", "--db", "ours.db")
    assert sorted(map(str, lines(Path("a.jsonl")))) == sorted(map(str, lines(Path("b.jsonl"))))
    assert (
        "1 reviews exported"
        in call("export", "c.csv", "--only", "agreed", "--db", "ours.db").output
    )
    with pytest.raises(InputError, match="exists"):
        call("export", file, *options, "--db", "ours.db")
    assert (
        "4 reviews exported" in call("export", file, *options, "--db", "ours.db", "--force").output
    )


def test_what_is_left_out_is_said(tmp_path: Path) -> None:
    lyra = LyraDatabase(tmp_path / "lyra.db")
    populate(lyra)
    with lyra.connect() as connection:
        connection.execute("UPDATE nli_corrections SET premise = '' WHERE id = 'nlc_e1'")
    result = call("export", str(tmp_path / "out.csv"), "--db", str(lyra.path))
    assert "left out: nli_corrections:nlc_e1: premise: is empty\n" in result.output
    assert "3 reviews exported, 1 left out" in result.output


def test_the_formats_of_the_options_are_those_that_there_are() -> None:
    assert _FORMATS == FORMATS


def test_errors_are_sentences_with_an_exit_code(tmp_path: Path) -> None:
    init_database(str(tmp_path / "lyra.db"))
    (tmp_path / "in.json").write_text('[{"data": {"premise": "P."}, "annotations": [5]}]')
    words = ["import", str(tmp_path / "in.json"), "--db", str(tmp_path / "lyra.db")]
    result = subprocess.run(
        [sys.executable, "-m", "lyra_nli.cli.main", *words], capture_output=True, text=True
    )
    assert result.returncode == 2
    assert "1 bad row(s)" in result.stderr
    assert "  - task 1: annotations: expected a list of objects" in result.stderr
    assert "Traceback" not in result.stderr
    with pytest.raises(StorageError, match="no database at"):
        call("export", str(tmp_path / "out.csv"), "--db", str(tmp_path / "none.db"))
    assert not (tmp_path / "out.csv").exists()
