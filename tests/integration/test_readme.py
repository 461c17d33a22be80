"""What the README shows is run, in its order, on a tiny base; every command is documented."""

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

pytestmark = pytest.mark.integration

README = (Path(__file__).parents[2] / "README.md").read_text("utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, flags=re.DOTALL)


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
                ask_as_the_readme_does(client.url)
            continue
        result = run(command, tmp_path, environment)
        assert result.returncode == 0, f"{command}: {result.stdout}{result.stderr}"
        outputs[command] = result.stdout
    assert (tmp_path / "data" / "lyra.db").is_file()
    assert "240 reviews imported" in outputs["lyra-nli import reviews.jsonl"]
    assert "training is due" in outputs["lyra-nli due"]
    reproduced = run("lyra-nli train --reproduce v1", tmp_path, environment)
    assert "the same bytes" in reproduced.stdout, reproduced.stderr


def ask_as_the_readme_does(url: str) -> None:
    code = next(block for block in blocks("python") if "MLClient" in block)
    environment = {**os.environ, "no_proxy": "127.0.0.1"}
    result = subprocess.run(
        [sys.executable, "-c", code.replace("http://127.0.0.1:8100", url)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert result.stdout.split()[-1] == "lora-lyra-v1", result.stderr


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
    assert f"lyra-nli {name}" in README
    if isinstance(command, click.Group):
        for child in command.commands:
            assert re.search(rf"lyra-nli\s{name}[^.]*?\b{child}\b", README)


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
