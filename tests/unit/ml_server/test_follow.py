from __future__ import annotations

import logging
import shutil

import pytest
from serving_world import World

from lyra_nli.errors import StorageError
from lyra_nli.ml_server import follow
from lyra_nli.ml_server.follow import Follower
from lyra_nli.ml_server.slot import Slot
from lyra_nli.ml_server.source import RegistrySource
from lyra_nli.registry.trials import KINDS, Trials
from lyra_nli.storage.upgrade import init_database


@pytest.fixture
def slot(world: World) -> Slot:
    return Slot(world.fast)


@pytest.fixture
def follower(world: World) -> Follower:
    return Follower(RegistrySource(world.settings), world.settings.nli)


def test_it_serves_what_is_active_and_goes_back(
    world: World, slot: Slot, follower: Follower
) -> None:
    world.publish(seed=1), world.publish(seed=2)
    seen = []
    for act in ("v1", "v2", None):
        with world.registry() as registry:
            if act:
                registry.activate(act, who="test")
            else:
                registry.deactivate(slot.base.name, who="test")
        follower.look([slot])
        seen.append(slot.current.name)

    assert seen == ["lora-lyra-v1", "lora-lyra-v2", "base"]
    assert follower.error is None


def test_versions_of_another_base_do_not_concern_it(
    world: World, slot: Slot, follower: Follower
) -> None:
    world.publish(world.slow)
    world.activate("v1")
    follower.look([slot])

    assert slot.current is slot.pristine


def test_a_resident_version_is_flipped_to_without_its_files(
    world: World, slot: Slot, follower: Follower
) -> None:
    version = world.publish()
    world.activate("v1")
    slot.keep(slot.build(version))
    shutil.rmtree(version.path)
    follower.look([slot])

    assert slot.current.name == "lora-lyra-v1"


def test_a_version_that_can_not_be_loaded_leaves_the_old_one_serving(
    world: World, slot: Slot, follower: Follower, caplog: pytest.LogCaptureFixture
) -> None:
    world.publish(seed=1)
    world.activate("v1")
    follower.look([slot])
    broken = world.publish(seed=2)
    world.activate("v2")
    (broken.path / "adapter_model.safetensors").unlink()
    with caplog.at_level(logging.WARNING):
        follower.look([slot])
        follower.look([slot])

    assert slot.current.name == "lora-lyra-v1"
    assert follower.error is not None
    assert "lora-lyra-v2 is active but lora-lyra-v1 is still served" in follower.error
    assert "adapter_model.safetensors: missing" in follower.error
    assert len(caplog.records) == 1, "the same failure is logged once"


def test_a_repaired_version_is_tried_again_later_or_when_someone_acts(
    world: World, slot: Slot, follower: Follower, monkeypatch: pytest.MonkeyPatch
) -> None:
    version = world.publish()
    world.activate("v1")
    file = version.path / "adapter_model.safetensors"
    hidden = file.rename(world.folder / "hidden")
    follower.look([slot])
    hidden.rename(file)
    follower.look([slot])
    assert slot.current.name == "base", "not tried again at once"

    follower.forget()
    follower.look([slot])
    assert slot.current.name == "lora-lyra-v1"
    assert follower.error is None

    file.rename(hidden)
    slot.flip(slot.pristine)
    slot._resident.clear()
    monkeypatch.setattr(follow, "RETRY_SECONDS", 0.0)
    follower.look([slot])
    hidden.rename(file)
    follower.look([slot])
    assert slot.current.name == "lora-lyra-v1"


def test_a_missing_database_is_told_and_a_new_one_is_found(
    world: World, slot: Slot, follower: Follower
) -> None:
    for file in world.folder.glob("lyra.db*"):
        file.unlink()
    follower.look([slot])
    assert follower.error is not None
    assert "there is no database" in follower.error
    assert "db init" in follower.error

    init_database(world.database)
    world.publish()
    world.activate("v1")
    follower.look([slot])
    assert follower.error is None
    assert slot.current.name == "lora-lyra-v1"


def test_a_replaced_database_is_read_anew(world: World, slot: Slot, follower: Follower) -> None:
    world.publish()
    world.activate("v1")
    follower.look([slot])
    for file in world.folder.glob("lyra.db*"):
        file.unlink()
    init_database(world.database)
    follower.look([slot])

    assert slot.current is slot.pristine


def test_a_foreign_file_is_told(world: World, slot: Slot, follower: Follower) -> None:
    for file in world.folder.glob("lyra.db*"):
        file.unlink()
    (world.folder / "lyra.db").write_text("not a database at all")
    follower.look([slot])

    assert follower.error is not None
    assert "not a SQLite database" in follower.error


def test_trials_are_followed_and_their_versions_stay_in_memory(
    world: World, slot: Slot, follower: Follower
) -> None:
    world.publish(seed=1), world.publish(seed=2)
    world.activate("v1")
    with world.registry() as registry:
        trials = Trials(registry)
        for kind in KINDS:
            trials.start(kind, "v2", share=0.5, who="test")
        follower.look([slot])
        assert {kind: on.served.name for kind, on in slot.trials.items()} == {
            "shadow": "lora-lyra-v2",
            "canary": "lora-lyra-v2",
        }
        on = slot.trials["shadow"]
        on.tally.judged = 7
        assert sorted(slot.pinned(on.served)) == ["canary", "shadow"]
        assert slot.current.name == "lora-lyra-v1"
        trials.end("canary", slot.base.name, who="test")
        follower.look([slot])
        assert list(slot.trials) == ["shadow"]
        assert slot.trials["shadow"].tally.judged == 7, "the same trial goes on"
        registry.activate("v2", who="test")
        follower.look([slot])
    assert (slot.trials, slot.current.name) == ({}, "lora-lyra-v2")
    assert follower.error is None


def test_a_trial_that_failed_here_is_ended_once_the_registry_can_be_written(
    world: World, slot: Slot, follower: Follower, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.publish()
    with world.registry() as registry:
        trials = Trials(registry)
        trials.start("canary", "v1", share=0.5, who="test")
        follower.look([slot])
        slot.give_up(slot.trials["canary"], "NaN")
        assert slot.trials == {}

        def locked(*_: object, **__: object) -> None:
            raise StorageError("the database is locked")

        with monkeypatch.context() as patch:
            patch.setattr(Trials, "end", locked)
            follower.look([slot])
        assert slot.trials == {}
        assert "runs no more" in (follower.error or "")
        assert "locked" in (follower.error or "")
        follower.look([slot])
        ended = trials.last("canary", slot.base.name)
    assert (ended.ended_by, ended.end_reason) == ("server", "it can't judge: NaN")
    follower.look([slot])
    assert follower.error is None
