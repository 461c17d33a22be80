"""Foreign pairs: texts of different groups, taken for neutral."""

from __future__ import annotations

from dataclasses import replace

from tiny_training import examples, make_trainer

from lyra_nli.records import Pair
from lyra_nli.training.folds import cut
from lyra_nli.training.foreign import foreign_pairs, without_texts
from lyra_nli.training.log import TrainingLog


def test_they_join_texts_of_different_groups():
    rows = [replace(row, group=f"g{i % 4}") for i, row in enumerate(examples(40))]
    replayed = examples(10, seed=2, source="replay")
    found = foreign_pairs([*rows, *replayed], 0.5, seed=1)
    assert 10 < len(found) <= 20
    group = {e.pair.premise: e.group for e in rows} | {e.pair.hypothesis: e.group for e in rows}
    for row in found:
        assert group[row.pair.premise] == row.group != group[row.pair.hypothesis]
        assert (row.label, row.source) == ("neutral", "foreign")
    assert len({row.id for row in found}) == len(found)
    assert foreign_pairs([*rows, *replayed], 0.5, seed=1) == found
    assert foreign_pairs([*rows, *replayed], 0.5, seed=2) != found


def test_one_group_or_no_share_gives_none():
    rows = [replace(row, group="g") for row in examples(20)]
    assert foreign_pairs(rows, 1.0, seed=0) == []
    assert foreign_pairs(examples(20), 0.0, seed=0) == []


def test_what_people_have_judged_is_not_taken_for_neutral():
    four = [replace(row, group=f"g{i}") for i, row in enumerate(examples(4))]
    judged = [
        replace(one, id=f"judged {i}", pair=Pair(one.pair.premise, four[i - 1].pair.hypothesis))
        for i, one in enumerate(four)
    ]
    keys = {row.pair.key for row in judged}
    assert keys & {row.pair.key for row in foreign_pairs(four, 20.0, seed=0)}
    assert not keys & {row.pair.key for row in foreign_pairs([*four, *judged], 20.0, seed=0)}


def test_pairs_made_of_held_texts_are_left_out():
    rows = examples(4)
    made = foreign_pairs(rows, 20.0, seed=0)
    assert len(made) == 12  # every premise with the hypotheses of the three others
    kept = without_texts([*rows, *made], rows[:2])
    assert {made[position - 4].id for position in kept} == {
        f"foreign:{one.id}:{other.id}" for one, other in ((rows[2], rows[3]), (rows[3], rows[2]))
    }


def test_no_student_learns_from_texts_that_it_judges(deberta, tmp_path, monkeypatch):
    taught: list[set[str]] = []
    with TrainingLog(tmp_path) as log:
        trainer = make_trainer(deberta, log, epochs=1, folds=3, foreign_share=2.0)
        fit = trainer.fit

        def watching(lessons, rows, **options):
            pairs = [lessons.examples[row].pair for row in rows]
            taught.append({text for pair in pairs for text in (pair.premise, pair.hypothesis)})
            return fit(lessons, rows, **options)

        monkeypatch.setattr(trainer, "fit", watching)
        rows = examples(24)
        trainer.train(rows, [])
        parts = cut(trainer.lessons(rows), range(24), 3, trainer.recipe.seed)
    assert len(taught) == 4
    for part, texts in zip(parts, taught, strict=False):
        judged = {rows[row].pair.hypothesis for row in part}
        assert len(judged) == len(part)
        assert not judged & texts
    assert len(taught[-1]) == len({t for e in rows for t in (e.pair.premise, e.pair.hypothesis)})
