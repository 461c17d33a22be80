"""What README and docs show is run, on a tiny base; every command and endpoint is documented."""

from __future__ import annotations

import json
import os
import re
import shlex
import socket
import subprocess
import sys
from pathlib import Path

import click
import pytest
from tiny_domain import reviewed_pairs, tiny_settings, write_reviews

from lyra_nli.cli.main import cli
from lyra_nli.demo.server import running_server, wait_for_version
from lyra_nli.feedback.importing import read_rows
from lyra_nli.ml_server.main import create_app
from lyra_nli.models.adapter import read_adapter
from lyra_nli.models.base import load_base
from lyra_nli.models.judge import Judge

pytestmark = pytest.mark.integration

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text("utf-8")
HTTP = (ROOT / "docs" / "http.md").read_text("utf-8")
COMMANDS = (ROOT / "docs" / "commands.md").read_text("utf-8")

BESIDE = (
    "lyra-nli export reviews.parquet",
    "lyra-nli dataset show",
    "lyra-nli monitor check",
    "lyra-nli reviews list",
    "lyra-nli reviews suspects",
    "lyra-nli domains list",
)
"""Of docs/commands.md, what needs nothing but a project that has trained."""


def blocks(language: str, document: str = README) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", document, flags=re.DOTALL)


def commands() -> list[str]:
    """The lines of "With your own data" that call lyra-nli, without their comments."""
    block = next(block for block in blocks("sh") if "lyra-nli db init" in block)
    lines = [line.split("  #")[0].strip() for line in block.splitlines()]
    return [line for line in lines if line.startswith("lyra-nli")]


def run(command: str, folder: Path, environment: dict[str, str]) -> subprocess.CompletedProcess:
    words = [sys.executable, "-m", "lyra_nli.cli.main", *shlex.split(command)[1:]]
    return subprocess.run(
        words, cwd=folder, env=environment, capture_output=True, text=True, timeout=120
    )


def test_the_commands_work_in_their_order(tmp_path: Path) -> None:
    settings = tiny_settings(tmp_path)
    write_reviews(settings, tmp_path, reviewed_pairs(240))
    # A base that trains in seconds; all else is as a user has it.
    sections = ("nli", "training", "gate", "dataset")
    values = {section: getattr(settings, section).model_dump(mode="json") for section in sections}
    (tmp_path / "config").mkdir()
    (tmp_path / "config" / "settings.yaml").write_text(json.dumps(values))
    environment = dict(os.environ)
    outputs = {}
    for command in commands():
        if command == "lyra-nli serve":
            with running_server(tmp_path) as client:
                wait_for_version(client, "lora-lyra-v1")
                asked = next(block for block in blocks("python") if "MLClient" in block)
                assert ask(asked, client.url, tmp_path).split()[-1] == "lora-lyra-v1"
                said = ask(blocks("python", HTTP)[0], client.url, tmp_path)
                assert said.count("lora-lyra-v1") == 2
            for other in ("lyra-nli enqueue asked.jsonl", *BESIDE):
                result = run(other, tmp_path, environment)
                assert result.returncode == 0, f"{other}: {result.stdout}{result.stderr}"
                outputs[other] = result.stdout
            continue
        result = run(command, tmp_path, environment)
        assert result.returncode == 0, f"{command}: {result.stdout}{result.stderr}"
        outputs[command] = result.stdout
    assert (tmp_path / "data" / "lyra.db").is_file()
    assert "240 reviews imported" in outputs["lyra-nli import reviews.jsonl"]
    assert "training is due" in outputs["lyra-nli due"]
    assert "2 pairs put into the review queue" in outputs["lyra-nli enqueue asked.jsonl"]
    assert_merged_alike(tmp_path, settings.nli.fast_model)
    reproduced = run("lyra-nli train --reproduce v1", tmp_path, environment)
    assert "the same bytes" in reproduced.stdout, reproduced.stderr


def assert_merged_alike(folder: Path, base: str) -> None:
    """Without the server: what PEFT merges answers as the version does."""
    [code] = [block for block in blocks("python", HTTP) if "PeftModel" in block]
    assert "cross-encoder/nli-deberta-v3-xsmall" in code
    ask(code.replace("cross-encoder/nli-deberta-v3-xsmall", base), "", folder)
    pairs = [row.pair for row in read_rows(folder / "reviews.jsonl")[0]][:40]
    merged = Judge(load_base(str(folder / "merged"))).judge(pairs)
    plain = Judge(load_base(base))
    adapter = read_adapter(plain.base, folder / "adapters" / "lora-lyra-v1")
    for one, other in zip(merged, plain.adapted(adapter, "v1").judge(pairs), strict=True):
        assert one.probabilities == pytest.approx(other.probabilities, abs=1e-5)
    assert [each.label for each in plain.judge(pairs)] != [each.label for each in merged]


def ask(code: str, url: str, folder: Path) -> str:
    environment = {**os.environ, "no_proxy": "127.0.0.1"}
    result = subprocess.run(
        [sys.executable, "-c", code.replace("http://127.0.0.1:8100", url)],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert result.returncode == 0, result.stderr
    return result.stdout


def test_the_row_it_shows_can_be_imported(tmp_path: Path) -> None:
    file = tmp_path / "row.jsonl"
    file.write_text(blocks("json")[0])
    rows, problems = read_rows(file)
    assert problems == []
    assert [row.correct_label for row in rows] == ["refutes"]


@pytest.mark.parametrize("name", sorted(cli.commands))
def test_every_command_is_documented(name: str) -> None:
    command = cli.commands[name]
    assert command.help
    assert f"lyra-nli {name}" in COMMANDS
    if isinstance(command, click.Group):
        for child in command.commands:
            assert re.search(rf"lyra-nli\s{name}[^.]*?\b{child}\b", COMMANDS)


def test_every_endpoint_is_documented(tmp_path: Path) -> None:
    described = create_app(tiny_settings(tmp_path)).openapi()["paths"]
    mine = {path for path in described if not path.startswith("/dashboard")}
    assert mine == set(re.findall(r"`(?:GET|POST) (/[a-z/]*)`", HTTP)) - {"/dashboard", "/review"}


def test_help_is_quick_and_loads_nothing_heavy() -> None:
    code = (
        "import sys; sys.argv = ['lyra-nli', '--help']\n"
        "from lyra_nli.cli.main import main\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "heavy = {'torch', 'transformers', 'peft', 'fastapi', 'sqlalchemy', 'sklearn', 'rich'}\n"
        "sys.exit(f'loaded: {heavy & set(sys.modules)}' if heavy & set(sys.modules) else 0)\n"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert "Commands" in result.stdout


def test_a_port_in_use_is_said_before_any_model_is_loaded(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        result = run(f"lyra-nli serve --port {port}", tmp_path, dict(os.environ))
    assert result.returncode == 2
    assert f"port {port}" in result.stderr
    assert "Traceback" not in result.stderr
