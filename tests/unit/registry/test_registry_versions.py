from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from sqlalchemy import Engine, insert
from tiny_versions import BASE, OUTCOME, new_manifest

from lyra_nli.errors import (
    AdapterError,
    AdapterExistsError,
    AdapterInvalidError,
    AdapterNotFoundError,
    StorageError,
    SupersededError,
)
from lyra_nli.registry.artifact import verify
from lyra_nli.registry.versions import Registry, Version
from lyra_nli.storage.engine import open_database, write
from lyra_nli.storage.tables import nli_evaluations, nli_training_runs

Train = Callable[..., Version]


def served(registry: Registry, base: str = BASE) -> tuple[str | None, str | None]:
    """The short names of the active and the previous version."""
    versions = (registry.active(base), registry.previous(base))
    one, other = (version and version.name.removeprefix("lora-lyra-") for version in versions)
    return one, other


# --- versions -----------------------------------------------------------------------------


def test_a_version_is_read_as_it_was_registered(
    registry: Registry, engine: Engine, train: Train
) -> None:
    with write(engine) as connection:
        run = {"id": "nlt_1", "base_model": BASE, "started_at": "2026", "status": "done"}
        connection.execute(insert(nli_training_runs).values(run))
    version = train(run_id="nlt_1", parent="lora-lyra-v0", status="unproven", verdict="unproven")
    assert version == registry.get(version.name)
    assert version.name == "lora-lyra-v1"
    assert version.path == registry.directory / "lora-lyra-v1"
    assert version.digest == verify(version.path).digest
    assert (version.status, version.verdict) == ("unproven", "unproven")
    assert (version.run_id, version.parent) == ("nlt_1", "lora-lyra-v0")
    assert version.samples_used == 120
    assert version.metrics == OUTCOME["metrics"]
    assert version.report_path == "report.md"
    assert version.aliases == ()
    assert registry.manifest_of(version) == registry.verify("v1")


def test_the_latest_evaluation_counts(registry: Registry, engine: Engine, train: Train) -> None:
    train()
    later = {
        "id": "nle_later",
        "version": "lora-lyra-v1",
        "verdict": "fail",
        "metrics_json": '{"accuracy": 0.1}',
        "evaluated_at": "9999",
    }
    with write(engine) as connection:
        connection.execute(insert(nli_evaluations).values(later))
    version = registry.get("v1")
    assert (version.verdict, version.metrics) == ("fail", {"accuracy": 0.1})


def test_versions_are_found_by_short_and_long_name(registry: Registry, train: Train) -> None:
    train()
    assert registry.get("v1") == registry.get("lora-lyra-v1")
    both = registry.find(["v1", "lora-lyra-v1", "v9", "nothing"])
    assert both == dict.fromkeys(("v1", "lora-lyra-v1"), registry.get("v1"))
    assert registry.find([]) == {}


def test_a_missing_version_tells_what_there_is(registry: Registry, train: Train) -> None:
    with pytest.raises(AdapterNotFoundError, match="None was trained yet"):
        registry.get("v1")
    train()
    train()
    with pytest.raises(AdapterNotFoundError, match="There are: lora-lyra-v1, lora-lyra-v2"):
        registry.get("v3")


def test_versions_are_listed_by_number_and_base(registry: Registry, train: Train) -> None:
    for _ in range(10):
        train()
    train(base_model="roberta")
    assert [v.name for v in registry.list()] == [f"lora-lyra-v{i}" for i in range(1, 12)]
    assert [v.name for v in registry.list("roberta")] == ["lora-lyra-v11"]


def test_register_wants_the_very_folder_that_was_sealed(
    registry: Registry, folder: Path, tmp_path: Path
) -> None:
    manifest = verify(folder)
    with pytest.raises(AdapterError, match="is not the folder"):
        registry.register(manifest, folder.rename(tmp_path / "lora-lyra-v1"), **OUTCOME)
    (tmp_path / "lora-lyra-v1").rename(folder)
    with pytest.raises(AdapterInvalidError, match="files that were sealed"):
        registry.register(new_manifest(name="lora-lyra-v1"), folder, **OUTCOME)
    assert registry.list() == []
    registry.register(manifest, folder, **OUTCOME)
    with pytest.raises(AdapterExistsError):
        registry.register(manifest, folder, **OUTCOME)


def test_a_registration_that_the_database_refuses_leaves_nothing(
    registry: Registry, train: Train
) -> None:
    with pytest.raises(StorageError, match="FOREIGN KEY"):
        train(run_id="no such run")
    assert registry.list() == []
    assert list(registry.directory.iterdir()) == []


def test_a_database_without_our_tables_has_no_versions(tmp_path: Path) -> None:
    engine = open_database(str(tmp_path / "old.db"), create=True)
    registry = Registry(engine, tmp_path / "adapters")
    assert registry.list() == []
    assert registry.active(BASE) is None
    assert registry.resolve("active", BASE) is None
    assert registry.events() == []
    assert registry.new_name() == "lora-lyra-v1"
    with pytest.raises(AdapterNotFoundError):
        registry.get("v1")
    engine.dispose()


def test_the_registry_may_move(registry: Registry, train: Train, tmp_path: Path) -> None:
    train()
    registry.directory.rename(tmp_path / "elsewhere")
    moved = Registry(registry.engine, tmp_path / "elsewhere")
    moved.activate("v1", who="ann")
    assert served(moved) == ("v1", None)


# --- names --------------------------------------------------------------------------------


def test_the_name_of_a_removed_version_is_never_given_again(
    registry: Registry, train: Train
) -> None:
    train()
    train()
    registry.remove("v2", who="ann")
    assert registry.new_name() == "lora-lyra-v3"


def test_folders_without_a_row_keep_their_names(registry: Registry, folder: Path) -> None:
    (registry.directory / "lora-lyra-v7").touch()
    (registry.directory / "lora-lyra-v99-notes").touch()
    assert registry.new_name() == "lora-lyra-v8"


# --- what serves --------------------------------------------------------------------------


def test_activation_moves_both_aliases(registry: Registry, train: Train) -> None:
    train()
    train()
    assert served(registry) == (None, None)
    event = registry.activate("v1", who="ann", reason="first")
    assert (event.who, event.action, event.reason) == ("ann", "activate", "first")
    assert (event.from_version, event.to_version) == (None, "lora-lyra-v1")
    assert served(registry) == ("v1", None)
    registry.activate("v2", who="ann")
    assert served(registry) == ("v2", "v1")
    assert registry.get("v2").aliases == ("active",)
    assert registry.get("v1").aliases == ("previous",)


def test_rollback_of_a_rollback_returns(registry: Registry, train: Train) -> None:
    train()
    train()
    registry.activate("v1", who="ann")
    registry.activate("v2", who="ann")
    registry.rollback(BASE, who="bob", reason="worse")
    assert served(registry) == ("v1", "v2")
    registry.rollback(BASE, who="bob")
    assert served(registry) == ("v2", "v1")


def test_rollback_of_the_first_version_leads_to_the_base(registry: Registry, train: Train) -> None:
    train()
    registry.activate("v1", who="ann")
    event = registry.rollback(BASE, who="bob")
    assert event.to_version is None
    assert served(registry) == (None, "v1")
    registry.rollback(BASE, who="bob")
    assert served(registry) == ("v1", None)


def test_deactivation_can_be_rolled_back(registry: Registry, train: Train) -> None:
    train()
    registry.activate("v1", who="ann")
    registry.deactivate(BASE, who="ann")
    assert served(registry) == (None, "v1")
    registry.rollback(BASE, who="ann")
    assert served(registry) == ("v1", None)


def test_changes_that_change_nothing_are_refused(registry: Registry, train: Train) -> None:
    train()
    with pytest.raises(AdapterError, match="no version was ever active"):
        registry.rollback(BASE, who="ann")
    with pytest.raises(AdapterError, match="the base serves"):
        registry.deactivate(BASE, who="ann")
    registry.activate("v1", who="ann")
    with pytest.raises(AdapterError, match="already active"):
        registry.activate("v1", who="ann")
    assert len(registry.events()) == 1


def test_bases_do_not_disturb_each_other(registry: Registry, train: Train) -> None:
    train()
    train(base_model="roberta")
    registry.activate("v1", who="ann")
    registry.activate("v2", who="ann")
    registry.deactivate("roberta", who="ann")
    assert served(registry) == ("v1", None)
    assert served(registry, "roberta") == (None, "v2")
    assert [event.to_version for event in registry.events(BASE)] == ["lora-lyra-v1"]


@pytest.mark.parametrize("status", ["rejected", "unproven"])
def test_what_the_gate_did_not_pass_needs_a_reason(
    registry: Registry, train: Train, status: str
) -> None:
    train(status=status)
    with pytest.raises(AdapterError, match="give a reason"):
        registry.activate("v1", who="ann", reason="  ")
    assert registry.events() == []
    registry.activate("v1", who="ann", reason="a trial")
    assert registry.events()[0].reason == "a trial"


def test_damaged_files_are_never_activated(registry: Registry, train: Train) -> None:
    train()
    train()
    registry.activate("v1", who="ann")
    (registry.get("v2").path / "adapter_model.safetensors").write_bytes(b"x")
    with pytest.raises(AdapterInvalidError, match="changed"):
        registry.activate("v2", who="ann")
    assert served(registry) == ("v1", None)


def test_a_swapped_folder_is_noticed(registry: Registry, train: Train) -> None:
    """Both folders verify alone; only the database knows which is which."""
    one, other = train(0.1), train(0.2)
    one.path.rename(registry.directory / "aside")
    other.path.rename(one.path)
    verify(one.path)
    with pytest.raises(AdapterInvalidError) as caught:
        registry.activate("v1", who="ann")
    assert {problem.split(":")[0] for problem in caught.value.problems} == {"name", "digest"}


def test_a_damaged_previous_version_does_not_come_back(registry: Registry, train: Train) -> None:
    train()
    train()
    registry.activate("v1", who="ann")
    registry.activate("v2", who="ann")
    (registry.get("v1").path / "evil.pkl").write_bytes(b"x")
    with pytest.raises(AdapterInvalidError, match=r"evil\.pkl"):
        registry.rollback(BASE, who="ann")
    assert served(registry) == ("v2", "v1")
    registry.deactivate(BASE, who="ann")
    assert served(registry) == (None, "v2")


def test_events_are_read_oldest_first_and_limited_to_the_newest(
    registry: Registry, train: Train
) -> None:
    train()
    registry.activate("v1", who="ann")
    for _ in range(3):
        registry.rollback(BASE, who="ann")
    assert [event.action for event in registry.events()] == ["activate", *["rollback"] * 3]
    assert registry.events(limit=1) == registry.events()[-1:]
    assert registry.events(limit=2) == registry.events(BASE)[-2:]


# --- references ---------------------------------------------------------------------------


def test_references_are_resolved(registry: Registry, train: Train) -> None:
    train()
    train()
    assert registry.resolve("active", BASE) is None
    registry.activate("v1", who="ann")
    registry.activate("v2", who="ann")
    assert registry.resolve("active", BASE) == registry.get("v2")
    assert registry.resolve("previous", BASE) == registry.get("v1")
    assert registry.resolve("v1", BASE) == registry.get("v1")
    assert registry.resolve("base", BASE) is None
    with pytest.raises(AdapterInvalidError, match="trained for starter, this is roberta"):
        registry.resolve("v1", "roberta")
    with pytest.raises(AdapterNotFoundError):
        registry.resolve("v3", BASE)


# --- removal ------------------------------------------------------------------------------


def test_a_removed_version_keeps_its_row_and_history(registry: Registry, train: Train) -> None:
    version = train()
    event = registry.remove("v1", who="ann", reason="old")
    assert (event.action, event.from_version, event.to_version) == ("remove", version.name, None)
    assert not version.path.exists()
    assert registry.list() == []
    assert [v.status for v in registry.list(include_removed=True)] == ["removed"]
    for use in (
        lambda: registry.activate("v1", who="ann"),
        lambda: registry.resolve("v1", BASE),
        lambda: registry.remove("v1", who="ann"),
        lambda: registry.verify("v1"),
    ):
        with pytest.raises(AdapterError, match="was removed"):
            use()


def test_what_serves_or_served_just_before_is_not_removed(registry: Registry, train: Train) -> None:
    train()
    train()
    registry.activate("v1", who="ann")
    registry.activate("v2", who="ann")
    for name, alias in (("v2", "active"), ("v1", "previous")):
        with pytest.raises(AdapterError, match=f"is {alias}"):
            registry.remove(name, who="ann")
        assert registry.get(name).path.exists()


def test_a_removal_that_failed_halfway_can_be_repeated(
    registry: Registry, train: Train, tmp_path: Path
) -> None:
    version = train()
    version.path.rename(tmp_path / "aside")
    version.path.symlink_to(tmp_path / "aside")  # which rmtree refuses
    with pytest.raises(AdapterError, match="could not be deleted"):
        registry.remove("v1", who="ann")
    assert (tmp_path / "aside" / "manifest.json").exists()
    version.path.unlink()
    (tmp_path / "aside").rename(version.path)
    registry.remove("v1", who="ann")
    assert not version.path.exists()


def test_a_program_activates_only_over_what_it_judged_beside(
    registry: Registry, train: Train
) -> None:
    for _ in range(3):
        train()
    registry.activate("v1", who="ann", only_over=(None,))
    registry.activate("v2", who="ann")
    with pytest.raises(
        SupersededError, match="judged beside lora-lyra-v1, and meanwhile"
    ) as caught:
        registry.activate("v3", who="bob", only_over=("lora-lyra-v1",))
    assert "gate lora-lyra-v3 --against lora-lyra-v2" in caught.value.hint
    with pytest.raises(SupersededError, match="judged beside the base"):
        registry.activate("v3", who="bob", only_over=(None,))
    assert served(registry) == ("v2", "v1")
    registry.activate("v3", who="bob", only_over=("lora-lyra-v2",))
    assert served(registry) == ("v3", "v2")
