from __future__ import annotations

import shutil

import numpy as np
import pytest
import torch
from serving_world import PAIRS, Tensors, World

from lyra_nli.errors import AdapterInvalidError
from lyra_nli.ml_server.slot import Slot
from lyra_nli.models.encoding import encode


@pytest.fixture
def slot(world: World) -> Slot:
    return Slot(world.fast)


def logits(slot: Slot) -> np.ndarray:
    rows = encode(slot.base, PAIRS)
    return slot.engine.logits(rows, [slot.current.variant] * len(rows)).numpy()


def test_versions_and_back_leave_the_base_bit_identical(world: World, slot: Slot) -> None:
    before = logits(slot)
    weights = {name: value.clone() for name, value in slot.base.model.state_dict().items()}
    for seed in (1, 2):
        slot.flip(slot.build(world.publish(seed=seed)))
        assert not np.array_equal(logits(slot), before)
    slot.flip(slot.pristine)

    assert np.array_equal(logits(slot), before)
    assert all(torch.equal(v, weights[k]) for k, v in slot.base.model.state_dict().items())


def test_a_version_takes_its_low_rank_part_alone(world: World, slot: Slot) -> None:
    served = slot.build(world.publish())

    # Of each of two layers: A of query and value [2, 32], their B within the 96 outputs of query,
    # key and value, and the query's part of the position tables, 255 distances of 128 tokens.
    parts = 2 * (2 * 32 + 2 * 96) + 2 * (32 * 2 + 2 * 255)
    assert served.own_bytes == 2 * parts * 4
    assert slot.pristine.own_bytes > served.own_bytes


def test_model_version_names_base_and_adapter(world: World, slot: Slot) -> None:
    version = world.publish()
    served = slot.build(version)

    assert slot.pristine.model_version == f"{slot.base.name}@{slot.base.fingerprint[:12]}"
    assert served.model_version.startswith(slot.pristine.model_version)
    assert served.model_version.endswith(f"+lora-lyra-v1@{version.digest[:12]}")


def test_active_previous_and_routed_versions_stay_resident(world: World) -> None:
    slot = Slot(world.fast, residents=4)
    before, current, routed, *others = (slot.build(world.publish(seed=s)) for s in range(6))
    slot.flip(before)
    slot.flip(current)
    slot.keep(routed)
    slot.route({"example.org": routed, "example.net": slot.pristine})
    for served in others:
        slot.keep(served)

    assert [served.name for served in slot.all_resident()] == [
        "lora-lyra-v1",
        "lora-lyra-v2",
        "lora-lyra-v3",
        "lora-lyra-v6",
    ]
    assert [slot.pinned(served) for served in slot.all_resident()] == [
        ["previous"],
        ["active"],
        ["example.org"],
        [],
    ]
    slot.flip(slot.pristine)
    assert slot.pinned(current) == ["previous"]
    assert slot.pinned(before) == []


def test_a_source_chooses_by_its_site(world: World, slot: Slot) -> None:
    current, routed = (slot.build(world.publish(seed=seed)) for seed in (1, 2))
    slot.flip(current)
    urls = ["", "https://www.example.org/a", "http://EXAMPLE.org", "https://example.net", "no url"]
    assert {served.name for served in slot.choose(urls)} == {"lora-lyra-v1"}
    slot.keep(routed)
    slot.route({"example.org": routed, "example.net": slot.pristine})
    assert slot.choose(urls) == [current, routed, routed, slot.pristine, current]
    slot.route({})
    assert slot.choose(urls) == [current] * 5


def test_a_changed_registration_is_not_taken_for_the_resident_one(world: World, slot: Slot) -> None:
    version = world.publish()
    slot.keep(slot.build(version))
    other = world.publish(seed=2)

    assert slot.resident(version) is not None
    assert slot.resident(other) is None


def _nan(tensors: Tensors) -> None:
    next(iter(tensors.values()))[0, 0] = float("nan")


def _huge(tensors: Tensors) -> None:
    for value in tensors.values():
        value.fill_(1e19)


def _missing(tensors: Tensors) -> None:
    tensors.popitem()


def _extra(tensors: Tensors) -> None:
    tensors["base_model.model.classifier.weight"] = torch.zeros(3, 32)


def _wrong_shape(tensors: Tensors) -> None:
    key = next(iter(tensors))
    tensors[key] = torch.zeros(2, 31)


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (_nan, "NaN"),
        (_huge, "infinite"),
        (_missing, "missing"),
        (_extra, "not expected"),
        (_wrong_shape, "expected (2, 32)"),
    ],
)
def test_unfit_tensors_are_refused(world: World, slot: Slot, damage, said: str) -> None:
    version = world.publish(damage=damage)

    with pytest.raises(AdapterInvalidError) as error:
        slot.build(version)
    assert said in str(error.value)


def test_another_base_is_refused(world: World, slot: Slot) -> None:
    version = world.publish(base_fingerprint="0" * 64)

    with pytest.raises(AdapterInvalidError, match="trained for another"):
        slot.build(version)


def test_files_of_another_version_are_refused(world: World, slot: Slot) -> None:
    first, second = world.publish(seed=1), world.publish(seed=2)
    shutil.rmtree(first.path)
    shutil.copytree(second.path, first.path)

    with pytest.raises(AdapterInvalidError) as error:
        slot.build(first)
    assert len(error.value.problems) == 2  # digest and name


def test_a_pickle_is_refused(world: World, slot: Slot) -> None:
    version = world.publish()
    (version.path / "adapter_model.bin").write_bytes(b"\x80\x04.")

    with pytest.raises(AdapterInvalidError, match="pickle"):
        slot.build(version)
