"""Who may be asked about which row."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from tiny_models import make_tiny_model

from lyra_nli.errors import DatasetError
from lyra_nli.models.base import load_base
from lyra_nli.models.judge import Judge, softmax
from lyra_nli.records import Example, Pair
from lyra_nli.registry.answers import read_answers, write_answers
from lyra_nli.training.folds import answer_rows
from lyra_nli.witnesses import Witness, gather, unseen_by, with_groups

STORED = [0.2, 0.3, 0.5]


@pytest.fixture(scope="module")
def judge(tmp_path_factory: pytest.TempPathFactory) -> Judge:
    return Judge(load_base(str(make_tiny_model(tmp_path_factory.mktemp("base")))))


def examples(*names: str) -> tuple[Example, ...]:
    return tuple(
        Example(name, Pair(f"drug {name}", f"risk {name}"), "neutral", "agreed", f"group of {name}")
        for name in names
    )


def own(judge: Judge, rows: tuple[Example, ...]) -> np.ndarray:
    return softmax(judge.logits([example.pair for example in rows]))


def test_what_is_stored_comes_first_and_what_was_learned_is_not_asked(judge: Judge) -> None:
    witness = Witness(judge, frozenset({"stored", "learned"}), {"stored": STORED})
    rows = examples("fresh", "stored", "learned", "other")
    said = witness.answers(rows)
    assert said[1].tolist() == STORED
    assert np.isnan(said[2]).all()
    np.testing.assert_allclose(said[[0, 3]], own(judge, rows)[[0, 3]], atol=1e-6)
    assert Witness(judge, frozenset({"a"})).answers(examples("a")).shape == (1, 3)
    assert witness.answers(()).shape == (0, 3)


def test_folds_judge_where_there_is_no_holdout(judge: Judge) -> None:
    rows, general = examples("a", "b"), examples("replay:1")
    witnesses = {
        "base": Witness(judge),
        "candidate": Witness(judge, unseen={"a": STORED, "b": STORED}),
        "active": Witness(judge, frozenset({"b", "replay:1"})),
    }
    proof = gather(witnesses, (), rows, general)
    assert proof.kind == "out of fold"
    assert proof.reviewed.answers["candidate"].tolist() == [STORED, STORED]
    assert np.isnan(proof.reviewed.answers["active"]).any(axis=1).tolist() == [False, True]
    assert np.isnan(proof.general.answers["active"]).all()
    assert proof.rows.count == 2
    # The adapter itself, on what it learned from: no evidence, only a check of the saved file.
    assert list(proof.refit.answers) == ["candidate"]
    np.testing.assert_allclose(proof.refit.answers["candidate"], own(judge, rows), atol=1e-6)


def test_a_holdout_is_answered_by_the_models(judge: Judge) -> None:
    held, folded = examples("held"), examples("a")
    witnesses = {"base": Witness(judge), "candidate": Witness(judge, unseen={"a": STORED})}
    proof = gather(witnesses, held, folded, ())
    assert (proof.kind, proof.refit) == ("holdout", None)
    assert proof.reviewed.examples == held
    np.testing.assert_allclose(proof.reviewed.answers["candidate"], own(judge, held), atol=1e-6)


def test_without_rows_nothing_is_judged(judge: Judge) -> None:
    with pytest.raises(DatasetError, match="no hold-out, and no folds"):
        gather({"base": Witness(judge), "candidate": Witness(judge)}, (), (), examples("replay:1"))


def test_what_was_said_is_kept_with_its_group(tmp_path: Path) -> None:
    rows, held = examples("a"), examples("h")
    told = [
        *answer_rows("fold", rows, np.array([STORED])),
        *answer_rows("holdout", held, np.array([[0.7, 0.2, 0.1]])),
    ]
    write_answers(tmp_path, with_groups(told, [*rows, *held]))
    found = read_answers(tmp_path)
    assert [row["group"] for row in found] == ["group of a", "group of h"]
    assert unseen_by(found) == {"a": pytest.approx(STORED)}
    assert read_answers(tmp_path / "nowhere") == []
