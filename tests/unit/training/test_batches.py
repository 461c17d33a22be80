"""Batches: every row where it belongs, as often as it should be."""

from __future__ import annotations

import random
from collections import Counter
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from lyra_nli.labels import LABELS
from lyra_nli.training.batches import epoch_rows, length_batches, runs

labels = st.lists(st.sampled_from(LABELS), max_size=60)
seeds = st.integers(0, 2**32)


@given(labels, seeds)
def test_natural_takes_every_row_once(labels, seed):
    rows = epoch_rows(labels, "natural", random.Random(seed))
    assert sorted(rows) == list(range(len(labels)))


@given(labels, seeds)
def test_balanced_makes_labels_equally_frequent(labels, seed):
    rows = epoch_rows(labels, "balanced", random.Random(seed))
    counts = Counter(labels[row] for row in rows)
    assert set(counts) == set(labels)
    assert set(counts.values()) <= {max(Counter(labels).values(), default=0)}


@given(labels, seeds)
def test_balanced_leaves_no_row_out_and_repeats_evenly(labels, seed):
    times = Counter(epoch_rows(labels, "balanced", random.Random(seed)))
    assert set(times) == set(range(len(labels)))
    for label in set(labels):
        of_label = [times[row] for row, own in enumerate(labels) if own == label]
        assert max(of_label) - min(of_label) <= 1


def test_every_epoch_has_another_order_and_a_seed_repeats_it():
    rng, same = random.Random(1), random.Random(1)
    first, second = (epoch_rows(["neutral"] * 30, "natural", rng) for _ in range(2))
    assert first != second
    assert epoch_rows(["neutral"] * 30, "natural", same) == first


@given(
    lengths=st.lists(st.integers(1, 512), max_size=300),
    batch_size=st.integers(1, 20),
    seed=seeds,
)
def test_every_row_is_in_exactly_one_batch(lengths, batch_size, seed):
    rng = random.Random(seed)
    rows = epoch_rows(["neutral"] * len(lengths), "natural", rng)
    batches = list(length_batches(rows, lengths, batch_size, rng))
    assert sorted(row for batch in batches for row in batch) == list(range(len(lengths)))
    assert len(batches) == -(-len(lengths) // batch_size)
    assert all(0 < len(batch) <= batch_size for batch in batches)


@given(st.lists(st.integers(0, 20), max_size=100), seeds)
def test_a_repeated_row_is_batched_as_often_as_it_was_drawn(rows, seed):
    batches = length_batches(rows, list(range(21)), 4, random.Random(seed))
    assert Counter(row for batch in batches for row in batch) == Counter(rows)


def test_batches_hold_rows_of_similar_length():
    rng = random.Random(0)
    lengths = [rng.randint(5, 200) for _ in range(640)]
    padded = {}
    for size in (1, 16):
        batches = length_batches(range(640), lengths, size, random.Random(1))
        padded[size] = sum(len(batch) * max(lengths[row] for row in batch) for batch in batches)
    assert padded[16] < 1.1 * padded[1]


def test_batches_come_in_random_order():
    lengths = list(range(1, 161))
    batches = list(length_batches(range(160), lengths, 10, random.Random(0)))
    firsts = [batch[0] for batch in batches]
    assert firsts != sorted(firsts)
    assert firsts != sorted(firsts, reverse=True)


@given(
    lengths=st.lists(st.integers(1, 512), max_size=300),
    batch_size=st.integers(1, 20),
    tokens=st.integers(0, 2000),
)
def test_runs_are_as_long_as_their_tokens_let_them(lengths, batch_size, tokens):
    batches = list(length_batches(range(len(lengths)), lengths, batch_size, random.Random(0)))
    found = list(runs(iter(batches), lengths, tokens))
    assert [batch for run in found for batch in run] == batches
    sizes = [[sum(lengths[row] for row in batch) for batch in run] for run in found]
    assert all(sum(run) <= tokens or len(run) == 1 for run in sizes)
    assert all(sum(run) + after[0] > tokens for run, after in pairwise(sizes))
