"""The demo on a user's own reviewed pairs: every step, with a tiny base."""

from __future__ import annotations

from pathlib import Path

import pytest
from tiny_domain import reviewed_pairs, tiny_settings, write_reviews

from lyra_nli.demo.own_data import world_of_reviews
from lyra_nli.demo.run import prepare, run
from lyra_nli.errors import InputError
from lyra_nli.registry.versions import Registry
from lyra_nli.storage.engine import open_database

pytestmark = pytest.mark.integration


def test_the_demo_plays_the_loop_on_own_pairs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LYRA_TRAINING__FOLDS", "2")  # three trainings instead of six
    settings = tiny_settings(tmp_path)
    file = write_reviews(settings, tmp_path, reviewed_pairs(300))
    folder = tmp_path / "demo"
    steps: list[str] = []

    result = run(
        world_of_reviews(file),
        folder,
        base=settings.nli.fast_model,
        slip_rate=0.0,
        seed=7,
        say=steps.append,
    )

    assert result.pairs == 300
    assert result.corrected + result.agreed + result.before.n == 300
    assert result.restored
    assert result.follow_seconds < 2
    assert result.rollback_seconds < 2
    assert list(result.seconds) == steps
    assert sum(1 for step in steps if step.startswith("judge")) == 3
    registry = Registry(open_database(str(folder / "data" / "lyra.db")), folder / "adapters")
    actions = [event.action for event in registry.events()]
    assert actions == ["activate", "rollback"]


def test_a_folder_that_is_no_demo_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(InputError, match="not empty and not a demo"):
        prepare(tmp_path, "starter")
    assert (tmp_path / "thesis.tex").read_text() == "years of work"
    with pytest.raises(InputError, match="is a file"):
        prepare(tmp_path / "thesis.tex", "starter")


def test_bad_rows_and_a_single_topic_are_said(tmp_path: Path) -> None:
    file = tmp_path / "own.jsonl"
    file.write_text('{"premise": "a"}\n')
    with pytest.raises(InputError, match="problem"):
        world_of_reviews(file)
