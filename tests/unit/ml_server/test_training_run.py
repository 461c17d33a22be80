"""The process that the dashboard trains in has the settings of the server that started it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from lyra_nli.ml_server.training_run import (
    LINES,
    LOG,
    AlreadyTrainingError,
    TrainingRun,
    environment,
)
from lyra_nli.settings import Settings, load_settings


@pytest.mark.parametrize(
    "sections",
    [
        {},
        {
            "storage": {"database_path": "postgresql://me:p%40ss@host/db"},
            "nli": {
                "fast_model": "starter",
                "fast_revision": None,
                "max_length": 128,
                "routes": {"example.org": "v3"},
            },
            "training": {"layers": "all", "target_modules": ("query", "value"), "threads": 1},
            "gate": {"auto_activate": False, "significance": 0.01},
            "dataset": {"replay_file": "my file.jsonl"},
        },
    ],
    ids=["defaults", "others"],
)
def test_it_has_the_same_settings(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, sections: dict[str, dict[str, Any]]
) -> None:
    settings = load_settings(None, sections)
    # What lies where it runs, and what its own variables say, must not count.
    file = tmp_path / "settings.yaml"
    file.write_text("training: {rank: 99}\nnli: {slow_model: other}\n")
    own = {"LYRA_TRAINING__EPOCHS": "77", "LYRA_NLI_CACHE": "/cache", "HOME": "/home/me"}
    given = environment(settings, own)
    assert given["LYRA_NLI_CACHE"] == "/cache"
    assert given["HOME"] == "/home/me"
    for key, value in given.items():
        monkeypatch.setenv(key, value)
    there = load_settings(file)
    assert there.model_dump(exclude={"ml_server"}) == settings.model_dump(exclude={"ml_server"})


def test_the_token_stays_with_the_server() -> None:
    secret = "a-very-long-secret"
    settings = Settings.model_validate({"ml_server": {"admin_token": secret}})
    assert secret not in str(environment(settings, {"LYRA_ML_SERVER__ADMIN_TOKEN": secret}))
    assert secret not in repr(settings)


def test_nothing_was_started(tmp_path: Path) -> None:
    run = TrainingRun(Settings.model_validate({"nli": {"adapters_dir": str(tmp_path)}}))
    status = run.status()
    assert (status["running"], status["exit_code"], status["log"]) == (False, None, [])
    run.close()


def test_a_server_that_ends_takes_its_training_along(tmp_path: Path) -> None:
    run = TrainingRun(Settings.model_validate({"nli": {"adapters_dir": str(tmp_path)}}))
    run.start("starter", "a try")
    assert run.status()["running"] is True
    with pytest.raises(AlreadyTrainingError, match="runs already"):
        run.start("starter", "another")
    run.close()
    ended = run.status()
    assert (ended["running"], ended["reason"]) == (False, "a try")
    assert ended["exit_code"] != 0
    assert ended["finished_at"] >= ended["started_at"]


def test_the_end_of_a_long_log(tmp_path: Path) -> None:
    run = TrainingRun(Settings.model_validate({"nli": {"adapters_dir": str(tmp_path)}}))
    log = tmp_path / "runs" / LOG
    log.parent.mkdir()
    log.write_bytes(b"\xff\n" + b"".join(b"line %d\n" % n for n in range(100_000)))
    tail = run.status()["log"]
    assert len(tail) == LINES
    assert tail[-1] == "line 99999"
