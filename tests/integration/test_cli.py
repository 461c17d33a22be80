"""The command line on a real database with a real (tiny) version; exit codes and messages."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from lyra_databases import NEWER, OLDER, LyraDatabase
from tiny_domain import add_reviews, reviewed_pairs, tiny_settings

from lyra_nli import loop
from lyra_nli.cli.main import cli
from lyra_nli.errors import AdapterError, DatasetError, InputError, LyraNliError, StorageError
from lyra_nli.storage.upgrade import init_database
from lyra_nli.workspace import Workspace

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with 240 reviews and one version that passed the gate, active."""
    folder = tmp_path_factory.mktemp("cli")
    settings = tiny_settings(folder)
    init_database(settings.storage.database_path)
    workspace = Workspace.open(settings)
    add_reviews(workspace, folder, reviewed_pairs(240))
    outcome = loop.train(workspace, settings.nli.fast_model, who="test", forced_reason="test")
    assert outcome.activated
    sections = ("nli", "training", "gate", "dataset")
    values = {section: getattr(settings, section).model_dump(mode="json") for section in sections}
    (folder / "config").mkdir()
    (folder / "config" / "settings.yaml").write_text(json.dumps(values))
    return folder


@pytest.fixture
def project(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of it, as the working directory."""
    folder = tmp_path / "project"
    shutil.copytree(made, folder)
    monkeypatch.chdir(folder)
    monkeypatch.setenv("LYRA_NLI__ADAPTERS_DIR", str(folder / "adapters"))
    return folder


def call(command: str, *more: str, answer: str | None = None) -> Result:
    """Run a command; an expected error is raised, a bug fails the test."""
    result = CliRunner().invoke(cli, [*command.split(), *more], input=answer)
    if isinstance(result.exception, LyraNliError):
        raise result.exception
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exc_info
    return result


def test_adapters_from_list_to_remove(project: Path) -> None:
    assert "passed" in call("adapters list").output
    [facts] = json.loads(call("adapters list --json").stdout)
    assert facts["name"] == "lora-lyra-v1"
    assert facts["aliases"] == ["active"]
    assert "# Gate report" in call("adapters show v1").output
    assert "files match" in call("adapters verify").output
    exported = call("adapters export v1", str(project / "copy.zip")).stdout.strip()
    assert Path(exported).stat().st_size > 1000
    assert "lora-lyra-v1 -> base" in call("adapters rollback --reason try").output
    assert "base -> lora-lyra-v1" in call("adapters activate v1").output
    with pytest.raises(AdapterError, match="already active"):
        call("adapters activate v1")
    with pytest.raises(AdapterError, match="can't be removed"):
        call("adapters remove v1")
    actions = [event["action"] for event in json.loads(call("adapters history --json").stdout)]
    assert actions == ["activate", "rollback", "activate"]


def test_a_damaged_version_is_named_and_does_not_serve(project: Path) -> None:
    weights = project / "adapters" / "lora-lyra-v1" / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\x01")
    with pytest.raises(AdapterError, match="changed since it was sealed"):
        call("adapters verify v1")
    with pytest.raises(AdapterError, match="adapter_model"):
        call("predict --premise a --hypothesis b")


def test_an_edited_manifest_is_found(project: Path) -> None:
    manifest = project / "adapters" / "lora-lyra-v1" / "manifest.json"
    manifest.write_text(manifest.read_text().replace('"seed": 13', '"seed": 14'))
    with pytest.raises(AdapterError, match="does not hold what was registered"):
        call("adapters verify v1")


def test_a_broken_database_is_never_taken_for_none(project: Path) -> None:
    Path("junk.db").write_bytes(b"no database at all" * 100)
    with pytest.raises(StorageError, match="not a SQLite database"):
        call("predict --premise a --hypothesis b --db junk.db")
    answer = json.loads(call("predict --premise a --hypothesis b --db none.db").stdout)
    assert answer["adapter"] == "base"


def test_status_due_and_dataset(project: Path) -> None:
    status = json.loads(call("status --json").stdout)
    assert status["active"] == "lora-lyra-v1"
    assert status["reviewed"] == 240
    assert status["corrected_unused"] == 0
    due = call("due")
    assert due.exit_code == 1
    assert "0 corrections not yet trained on (>= 100)" in due.output
    shown = call("dataset show").output
    assert "leakage          NONE" in shown
    facts = json.loads(call("dataset show --json").stdout)
    rows = sum(split["rows"] for name, split in facts["splits"].items() if name != "general")
    assert rows == 240 + 40  # reviews, and the replay that the settings ask for


def test_train_asks_whether_it_is_due(project: Path) -> None:
    plain = call("train")
    assert plain.exit_code == 1
    assert "training is not due" in plain.output
    assert call("train --if-due").exit_code == 0
    with pytest.raises(InputError, match="need --reason"):
        call("train --force")
    assert len(json.loads(call("adapters list --json").stdout)) == 1


def test_whoever_promotes_anyway_wants_it_active(project: Path) -> None:
    with pytest.raises(InputError, match="contradict each other"):
        call("train --force --promote-anyway --no-activate --reason both")


def test_promote_anyway_is_recorded(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LYRA_TRAINING__LEARNING_RATE", "1e-9")
    kept = call("train --force --reason try")
    assert kept.exit_code == 9
    assert "not active" in kept.output
    promoted = call("train --force --promote-anyway --reason trust-me --json")
    assert promoted.exit_code == 0
    assert json.loads(promoted.stdout[promoted.stdout.index("{") :])["activated"]
    assert json.loads(call("adapters history --json").stdout)[-1]["reason"] == "trust-me"


def test_predict_one_and_a_file(project: Path) -> None:
    one = json.loads(call("predict --premise abc --hypothesis def --adapter base").stdout)
    assert one["adapter"] == "base"
    assert sum(one["probabilities"].values()) == pytest.approx(1.0)
    rows = [
        {"pair_id": f"p{i}", "premise": pair.premise, "hypothesis": pair.hypothesis}
        for i, (pair, _) in enumerate(reviewed_pairs(20, seed=3))
    ]
    Path("in.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    call("predict --file in.jsonl --out out.jsonl")
    answers = [json.loads(line) for line in Path("out.jsonl").read_text().splitlines()]
    assert [answer["pair_id"] for answer in answers] == [row["pair_id"] for row in rows]
    assert {answer["adapter"] for answer in answers} == {"lora-lyra-v1"}


def test_predict_reports_every_bad_line_and_writes_nothing(project: Path) -> None:
    Path("in.jsonl").write_text(
        '{"pair_id": "a", "premise": "x", "hypothesis": "y"}\n'
        "not json\n"
        '{"pair_id": "a", "premise": "", "hypothesis": "y"}\n'
        '{"premise": "x", "nli_hypothesis": "y"}\n'
    )
    with pytest.raises(InputError) as caught:
        call("predict --file in.jsonl --out out.jsonl")
    text = str(caught.value)
    assert "line 2: not JSON" in text
    assert "line 3: premise is missing or empty" in text
    assert "line 3: pair_id 'a' stands on line 1 already" in text
    assert "line 4: pair_id is missing" in text
    long = "word " * 600
    Path("in.jsonl").write_text(
        '{"pair_id": "a", "premise": "x", "hypothesis": "y\u2028z"}\n\n'
        + json.dumps({"pair_id": "b", "premise": "x", "hypothesis": long})
    )
    with pytest.raises(InputError, match=r"line 3: the hypothesis has \d+ tokens"):
        call("predict --file in.jsonl --out out.jsonl")
    assert not Path("out.jsonl").exists()
    with pytest.raises(InputError, match="either --premise"):
        call("predict --premise a")


@pytest.mark.parametrize("shape", [OLDER, NEWER])
def test_a_lyra_database_is_read_as_it_is_and_upgraded_when_told(
    shape: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    lyra = LyraDatabase(tmp_path / "lyra.db", shape)  # type: ignore[arg-type]
    db = str(lyra.path)
    before = lyra.path.read_bytes()
    assert call("due --db", db).exit_code == 1
    assert "active      the base itself" in call("status --db", db).output
    assert lyra.path.read_bytes() == before
    with pytest.raises(StorageError, match="upgrade"):
        call("train --force --reason try --db", db)

    declined = call("db upgrade --db", db, answer="n\n")
    assert "+ " in declined.output
    assert lyra.path.read_bytes() == before
    assert "Backup:" in call("db upgrade --yes --db", db).output
    assert "nothing to do" in call("db upgrade --db", db).output
    with pytest.raises(DatasetError, match="so far, at least 100"):
        call("train --force --reason try --db", db)


def test_a_missing_database_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="lyra-nli db init"):
        call("status --db", str(tmp_path / "no.db"))


def test_every_damaged_version_is_named_at_once(project: Path) -> None:
    call("train --force --reason again")
    for name in ("v1", "v2"):
        weights = project / "adapters" / f"lora-lyra-{name}" / "adapter_model.safetensors"
        weights.write_bytes(weights.read_bytes()[:-1] + b"\x01")
    with pytest.raises(AdapterError, match="2 of 2 versions are damaged") as caught:
        call("adapters verify")
    told = "\n".join(caught.value.problems)
    assert "lora-lyra-v1" in told
    assert "lora-lyra-v2" in told
