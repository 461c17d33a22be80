"""The frozen prefix: the same logits and gradients with the lower layers run once a pair."""

from __future__ import annotations

import random
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from tiny_adapters import trained
from tiny_models import make_tiny_model
from torch import nn
from torch.nn import functional
from transformers import DebertaV2Config, DebertaV2ForSequenceClassification

from lyra_nli.models.base import Base, load_base
from lyra_nli.models.encoding import EncodedPair, encode
from lyra_nli.models.lora import low_rank_layers
from lyra_nli.models.prefix import Prefix, Reader, Whole, reader_of
from lyra_nli.records import Pair
from lyra_nli.settings import TrainingSettings

LAYERS = 4
PLENTY = 2**24
CPU = torch.device("cpu")
TYPES = [torch.float32, torch.bfloat16]


def make_deep(folder: Path, seed: int = 0) -> Base:
    """A tiny DeBERTa of four layers."""
    make_tiny_model(folder)
    config = DebertaV2Config.from_pretrained(folder, num_hidden_layers=LAYERS)
    torch.manual_seed(seed)
    DebertaV2ForSequenceClassification(config).save_pretrained(folder)
    return load_base(str(folder))


@pytest.fixture(scope="module")
def deep(tmp_path_factory) -> Base:
    return make_deep(tmp_path_factory.mktemp("deep"))


@pytest.fixture(scope="module")
def rows(deep) -> list[EncodedPair]:
    """Pairs of every length class, in random order: 7 to 128 tokens."""
    rng = random.Random(0)
    words = ["drug", "trial", "risk", "stroke", "man", "dog"]
    pairs = [
        Pair(" ".join(rng.choices(words, k=count)), f"it lowers the {rng.choice(words)}")
        for count in [1, 1, 2, 3, 8, 9, 10, 10, 17, 24, 25, 26, 40, 57, 70, 89, 105, 118, 119, 130]
    ]
    rng.shuffle(pairs)
    found = encode(deep, pairs)
    assert {min(map(len, found)), max(map(len, found))} == {8, 128}
    return found


def upper(base: Base, layers: int | str, dtype: torch.dtype = torch.float32) -> nn.Module:
    """The base with trained adapters on its upper layers."""
    recipe = TrainingSettings(rank=3, alpha=3, dropout=0.0, target_modules=("all",), layers=layers)
    return trained(base, recipe, dtype)


def prefix(base: Base, model: nn.Module, cache: Path, limit: int = PLENTY) -> Prefix:
    reader = reader_of(base, model, CPU, cache, limit)
    assert isinstance(reader, Prefix)
    return reader


def fill(reader: Reader, rows: Sequence[EncodedPair]) -> list[int]:
    """Fill; give what progress was told."""
    told: list[int] = []
    reader.fill(rows, told.append)
    return told


def answers(
    model: nn.Module, reader: Reader, rows: Sequence[EncodedPair]
) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """Logits of one batch, and what a loss on them says to each A and B."""
    model.zero_grad()
    logits = reader(rows)
    targets = torch.arange(len(rows)) % 3
    functional.cross_entropy(logits, targets).backward()
    gradients = {
        f"{name} {side}": getattr(layer, f"lora_{side}").grad.clone()
        for name, layer in low_rank_layers(model)
        for side in "AB"
    }
    return logits.detach(), gradients


def states(reader: Prefix, rows: Sequence[EncodedPair]) -> list[torch.Tensor]:
    return [state.clone() for state in reader._states(rows)]


def same_bits(one: Sequence[torch.Tensor], other: Sequence[torch.Tensor]) -> bool:
    return all(a.dtype == b.dtype and torch.equal(a, b) for a, b in zip(one, other, strict=True))


@contextmanager
def counted(model: nn.Module) -> Iterator[list[int]]:
    """How many pairs ran through the lowest layer."""
    seen: list[int] = []
    lowest = model.deberta.encoder.layer[0].output
    hook = lowest.register_forward_hook(lambda _module, _inputs, output: seen.append(len(output)))
    yield seen
    hook.remove()


class TestExactness:
    @pytest.mark.parametrize("first", range(1, LAYERS))
    def test_logits_and_gradients_are_those_of_the_whole(self, deep, rows, tmp_path, first):
        model = upper(deep, LAYERS - first)
        cached, whole = prefix(deep, model, tmp_path), Whole(deep, model, CPU)
        fill(cached, rows)
        for batch in (rows, rows[:3], rows[5:6]):
            own, gradients = answers(model, cached, batch)
            expected, theirs = answers(model, whole, batch)
            torch.testing.assert_close(own, expected, rtol=0, atol=2e-5)
            assert gradients.keys() == theirs.keys()
            for name, gradient in theirs.items():
                assert gradient.abs().max() > 1e-5, name
                torch.testing.assert_close(
                    gradients[name], gradient, rtol=1e-3, atol=1e-5, msg=name
                )

    @pytest.mark.parametrize("first", range(1, LAYERS))
    def test_in_bfloat16_they_are_as_close_as_it_is_to_float32(self, deep, rows, tmp_path, first):
        narrow, wide = (upper(deep, LAYERS - first, dtype) for dtype in reversed(TYPES))
        cached, whole = prefix(deep, narrow, tmp_path), Whole(deep, narrow, CPU)
        fill(cached, rows)
        (own, gradients), (expected, theirs) = (
            answers(narrow, way, rows) for way in (cached, whole)
        )
        exact, exact_gradients = answers(wide, Whole(deep, wide, CPU), rows)
        assert own.dtype == torch.float32
        assert (own - expected).norm() < 1.5 * (expected - exact).norm() < 0.1 * exact.norm()
        flat = [
            torch.cat([found[name].flatten() for name in theirs])
            for found in (gradients, theirs, exact_gradients)
        ]
        assert functional.cosine_similarity(flat[0], flat[1], dim=0) > 0.99
        assert functional.cosine_similarity(flat[0], flat[2], dim=0) > 0.98

    @pytest.mark.parametrize("dtype", TYPES, ids=str)
    def test_filled_before_or_on_the_way_the_bits_are_the_same(self, deep, rows, tmp_path, dtype):
        model = upper(deep, 2, dtype)
        filled = prefix(deep, model, tmp_path / "filled")
        fill(filled, rows)
        reopened = prefix(deep, model, tmp_path / "filled")
        found = [
            answers(model, reader, rows)
            for reader in (
                filled,
                reopened,
                prefix(deep, model, tmp_path / "empty"),
                prefix(deep, model, tmp_path / "none", limit=0),
                prefix(deep, model, tmp_path / "small", limit=20_000),
            )
        ]
        for logits, gradients in found[1:]:
            assert torch.equal(logits, found[0][0])
            assert same_bits(list(gradients.values()), list(found[0][1].values()))

    def test_the_frozen_layers_run_once_a_pair(self, deep, rows, tmp_path):
        model = upper(deep, 2)
        with counted(model) as runs:
            reader = prefix(deep, model, tmp_path)
            assert not runs
            reader(rows)
            assert runs
            runs.clear()
            reader(rows[::-1])
            reader(rows[:1])
            fill(reader, rows)
            fill(prefix(deep, model, tmp_path), rows)
            assert not runs

    def test_gradients_stay_out_of_the_frozen_layers(self, deep, rows, tmp_path):
        reader = prefix(deep, upper(deep, 1), tmp_path)
        assert not any(state.requires_grad for state in reader._states(rows))


class TestIndependence:
    """A pair's states are its own: not of the batch, not of the training, not of the order."""

    @pytest.fixture(params=TYPES, ids=str)
    def model(self, deep, request) -> nn.Module:
        return upper(deep, 1, request.param)

    def test_whoever_else_is_in_the_batch(self, deep, rows, tmp_path, model):
        alone = [
            states(prefix(deep, model, tmp_path / f"alone {i}"), [row])[0]
            for i, row in enumerate(rows)
        ]
        assert [len(state) for state in alone] == [len(row) for row in rows]
        together = states(prefix(deep, model, tmp_path / "together"), rows)
        assert same_bits(alone, together)
        for seed in range(3):
            mixed = random.Random(seed).sample(rows, k=13)
            found = states(prefix(deep, model, tmp_path / f"mixed {seed}"), mixed)
            assert same_bits(found, [together[rows.index(row)] for row in mixed])

    def test_products_of_one_length_have_one_shape(self, deep, rows, tmp_path, model):
        """Wide products round otherwise in another shape; those of a tiny model need not."""
        shapes: set[tuple[int, ...]] = set()
        below = model.deberta.embeddings
        below.register_forward_hook(lambda _module, _inputs, output: shapes.add(output.shape))
        for i, part in enumerate((rows, rows[:1], rows[4:9], rows[::3])):
            states(prefix(deep, model, tmp_path / str(i)), part)
        by_length = dict.fromkeys(shape[1] for shape in shapes)
        assert len(by_length) == len(shapes) > 3

    def test_whichever_training_filled_the_cache(self, deep, rows, tmp_path, model):
        expected = states(prefix(deep, model, tmp_path / "own"), rows)
        fill(prefix(deep, model, tmp_path / "shared"), rows[3:9][::-1])
        fill(prefix(deep, model, tmp_path / "shared"), rows[::2])
        reader = prefix(deep, model, tmp_path / "shared")
        assert same_bits(states(reader, rows), expected)

    def test_whatever_the_adapters_above_have_learned(self, deep, rows, tmp_path, model):
        expected = states(prefix(deep, model, tmp_path / "one"), rows)
        with torch.no_grad():
            for _, layer in low_rank_layers(model):
                layer.lora_A.normal_()
                layer.train()
        assert same_bits(states(prefix(deep, model, tmp_path / "two"), rows), expected)

    @pytest.mark.parametrize("limit", [0, 1, 3_000, 20_000])
    def test_however_little_room_there_is(self, deep, rows, tmp_path, model, limit):
        expected = states(prefix(deep, model, tmp_path / "plenty"), rows)
        reader = prefix(deep, model, tmp_path / "little", limit)
        fill(reader, rows)
        for _ in range(2):
            assert same_bits(states(reader, rows), expected)
        kept = [file.stat().st_size for file in (tmp_path / "little").glob("*/*.bin")]
        assert sum(kept) <= limit

    def test_rows_without_room_are_read_together_once(self, deep, rows, tmp_path, model):
        expected = states(prefix(deep, model, tmp_path / "plenty"), rows)
        reader = prefix(deep, model, tmp_path / "none", limit=0)
        with counted(model) as runs:
            reader.ahead(rows)
            together = len(runs)
            for row, state in zip(rows, expected, strict=True):
                assert same_bits(states(reader, [row]), [state])
            assert len(runs) == together < len(rows)
            reader.ahead([])
            states(reader, rows[:1])
            assert len(runs) > together

    @pytest.mark.parametrize("damage", ["deleted", "emptied", "cut", "index lost", "no folder"])
    def test_whatever_happens_to_the_folder_meanwhile(self, deep, rows, tmp_path, model, damage):
        folder = tmp_path / "cache"
        reader = prefix(deep, model, folder)
        fill(reader, rows)
        expected = states(reader, rows)
        (segment,) = folder.glob("*/*.bin")
        if damage == "deleted":
            shutil.rmtree(folder)
        elif damage == "emptied":
            segment.unlink()
        elif damage == "cut":
            segment.write_bytes(segment.read_bytes()[: segment.stat().st_size // 2])
        elif damage == "index lost":
            segment.with_suffix(".json").write_text("{")
        else:
            shutil.rmtree(folder)
            folder.write_text("a file where the folder was")
        for _ in range(2):
            assert same_bits(states(reader, rows), expected)
        fill(reader, rows)
        assert same_bits(states(reader, rows), expected)
        if damage != "no folder":
            assert same_bits(states(prefix(deep, model, folder), rows), expected)


class TestSharing:
    """Entries are shared by what makes them equal, and by nothing less."""

    def runs(self, base: Base, model: nn.Module, rows: Sequence[EncodedPair], cache: Path) -> int:
        """Pairs that a training had to compute, once the right answer is seen to be given."""
        expected = Whole(base, model, CPU)(rows)
        reader = prefix(base, model, cache)
        with counted(model) as seen, torch.no_grad():
            found = reader(rows)
        tolerance = (
            2e-5 if model.deberta.encoder.layer[0].output.dense.weight.itemsize == 4 else 0.5
        )
        torch.testing.assert_close(found, expected, rtol=0, atol=tolerance)
        reader.shelf.flush()
        return len(seen)

    def test_trainings_of_one_base_share(self, deep, rows, tmp_path):
        assert self.runs(deep, upper(deep, 2), rows, tmp_path) > 0
        assert self.runs(deep, upper(deep, 2), rows, tmp_path) == 0
        again = load_base(deep.name)
        assert self.runs(again, upper(again, 2), rows, tmp_path) == 0

    def test_another_base_does_not(self, deep, rows, tmp_path):
        other = make_deep(tmp_path / "other", seed=1)
        assert self.runs(deep, upper(deep, 2), rows, tmp_path / "cache") > 0
        assert self.runs(other, upper(other, 2), rows, tmp_path / "cache") > 0
        assert self.runs(deep, upper(deep, 2), rows, tmp_path / "cache") == 0
        assert self.runs(other, upper(other, 2), rows, tmp_path / "cache") == 0

    def test_another_layer_does_not(self, deep, rows, tmp_path):
        for layers in (1, 2, 3):
            assert self.runs(deep, upper(deep, layers), rows, tmp_path) > 0

    def test_another_float_type_does_not(self, deep, rows, tmp_path):
        for dtype in (*TYPES, *TYPES):
            made = list(tmp_path.glob("*/*.bin"))
            assert (self.runs(deep, upper(deep, 2, dtype), rows, tmp_path) == 0) is (len(made) > 1)

    def test_another_rounding_does_not(self, deep, rows, tmp_path):
        """Other threads or releases: the version could not be made again from such states."""
        model = upper(deep, 2)
        for rounding, computed in (("a", True), ("b", True), ("a", False)):
            reader = reader_of(deep, model, CPU, tmp_path, 2**30, rounding)
            with counted(model) as seen, torch.no_grad():
                reader(rows)
            reader.shelf.flush()
            assert bool(seen) is computed

    def test_pairs_that_are_read_alike_share(self, deep, tmp_path):
        one, same, longer = encode(
            deep,
            [
                Pair("the drug works", "it lowers risk"),
                Pair("The  DRUG works", "It lowers  risk"),
                Pair("the drug works", "it lowers risk."),
            ],
        )
        reader = prefix(deep, upper(deep, 2), tmp_path)
        assert fill(reader, [one, same, longer]) == [0, 2]
        assert fill(reader, [longer, one]) == [2]

    def test_segments_tell_pairs_apart(self, deep, tmp_path):
        """The same tokens, of which another part is the hypothesis."""
        one = EncodedPair((1, 7, 8, 2, 9, 2), (0, 0, 0, 0, 1, 1), truncated=False)
        other = EncodedPair((1, 7, 8, 2, 9, 2), (0, 0, 1, 1, 1, 1), truncated=False)
        reader = prefix(deep, upper(deep, 2), tmp_path)
        fill(reader, [one])
        assert fill(reader, [one, other]) == [1, 1]


class TestProgress:
    def test_it_counts_every_pair_once(self, deep, rows, tmp_path):
        reader = prefix(deep, upper(deep, 2), tmp_path)
        told = fill(reader, [*rows[:12], *rows[:4]])
        assert told[0] == 0
        assert sum(told) == len(set(rows[:12]))
        assert fill(reader, rows[:12]) == [sum(told)]
        assert sum(fill(reader, rows)) == len(set(rows))


class TestChoice:
    def test_adapters_in_the_lowest_layer_leave_nothing_to_keep(self, deep, rows, tmp_path):
        for layers in ("all", LAYERS, 99):
            model = upper(deep, layers)
            reader = reader_of(deep, model, CPU, tmp_path / "cache", PLENTY)
            assert type(reader) is Whole
            assert fill(reader, rows) == []
            assert reader(rows).shape == (len(rows), 3)
        assert not (tmp_path / "cache").exists()

    def test_without_a_folder_nothing_is_kept(self, deep, rows):
        assert type(reader_of(deep, upper(deep, 1), CPU, None, PLENTY)) is Whole

    @pytest.mark.parametrize("architecture", ["bert", "roberta"])
    @pytest.mark.parametrize("dtype", TYPES, ids=str)
    def test_other_architectures_run_whole(self, bases, tmp_path, architecture, dtype):
        base = bases[architecture]
        model = upper(base, 1, dtype)
        reader = reader_of(base, model, CPU, tmp_path / "cache", PLENTY)
        assert type(reader) is Whole
        pairs = encode(base, [Pair("the drug works", "it does"), Pair("a man", "eats " * 9)])
        logits, gradients = answers(model, reader, pairs)
        assert logits.dtype == torch.float32
        assert all(gradient.abs().max() > 0 for gradient in gradients.values())
        assert not (tmp_path / "cache").exists()
