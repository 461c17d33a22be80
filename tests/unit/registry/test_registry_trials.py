from __future__ import annotations

import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy import Engine, text
from tiny_versions import BASE

from lyra_nli.errors import AdapterError, AdapterInvalidError, AdapterNotFoundError, InputError
from lyra_nli.registry.trials import Trials
from lyra_nli.registry.versions import Registry, Version
from lyra_nli.storage.engine import write

Train = Callable[..., Version]


@pytest.fixture
def trials(registry: Registry) -> Trials:
    return Trials(registry)


def start(trials: Trials, name: str = "v1", kind: str = "shadow", **more: object) -> object:
    return trials.start(kind, name, **{"share": 0.2, "who": "ada", **more})  # type: ignore[arg-type]


def test_it_is_open_until_it_is_ended_and_the_history_has_both(
    trials: Trials, train: Train
) -> None:
    train()
    started = start(trials, reason="looks good")
    assert trials.open(BASE) == [started]
    assert (started.version, started.share, started.ended_at) == ("lora-lyra-v1", 0.2, None)
    ended = trials.end("shadow", BASE, who="bob", reason="seen enough")
    assert trials.open(BASE) == []
    assert trials.last("shadow", BASE) == ended
    assert (ended.ended_by, ended.end_reason) == ("bob", "seen enough")
    assert [
        (e.action, e.from_version, e.to_version, e.who, e.reason)
        for e in trials.registry.events(BASE)
    ] == [
        ("shadow_start", None, "lora-lyra-v1", "ada", "20% of the traffic: looks good"),
        ("shadow_end", "lora-lyra-v1", None, "bob", "seen enough"),
    ]
    start(trials)
    assert trials.last("shadow", BASE).ended_at is None


def test_one_of_each_kind_and_base(trials: Trials, train: Train) -> None:
    train(), train(), train(base_model="other")
    start(trials)
    with pytest.raises(AdapterError, match=r"lora-lyra-v1 is the shadow of .* one at a time"):
        start(trials, "v2")
    start(trials, "v2", "canary")
    start(trials, "v3")
    assert len(trials.open(BASE)) == 2


def test_two_processes_start_one(trials: Trials, train: Train) -> None:
    train()

    def attempt(_: int) -> bool:
        try:
            start(trials)
        except AdapterError:
            return False
        return True

    with ThreadPoolExecutor(4) as pool:
        assert sum(pool.map(attempt, range(8))) == 1


def test_what_is_refused(trials: Trials, train: Train) -> None:
    active, removed, broken = train(), train(), train()
    trials.registry.activate(active.name, who="ada")
    trials.registry.remove(removed.name, who="ada")
    shutil.rmtree(broken.path)
    with pytest.raises(AdapterError, match="v1 is active: there is nothing to try out"):
        start(trials, "v1")
    with pytest.raises(AdapterError, match="v2 was removed"):
        start(trials, "v2")
    with pytest.raises(AdapterInvalidError):
        start(trials, "v3")
    with pytest.raises(AdapterNotFoundError, match="no adapter version 'v9'"):
        start(trials, "v9")
    for share in (0.0, -1.0, 1.5, float("nan")):
        with pytest.raises(InputError, match="share"):
            start(trials, share=share)
    with pytest.raises(AdapterError, match="has no shadow"):
        trials.end("shadow", BASE, who="ada")
    assert trials.open(BASE) == []


def test_what_the_gate_refused_may_be_a_shadow_but_no_canary_without_a_reason(
    trials: Trials, train: Train
) -> None:
    train(status="rejected"), train(metrics={"domain": "a.org"})
    start(trials)
    for name, why in (("v1", "the gate has not passed"), ("v2", "for a.org only")):
        with pytest.raises(AdapterError, match=why):
            start(trials, name, "canary", reason=" ")
    assert start(trials, "v1", "canary", reason="to see").reason == "to see"


def test_one_that_becomes_active_is_over(trials: Trials, train: Train) -> None:
    train(), train()
    start(trials), start(trials, "v1", "canary")
    trials.registry.activate("v2", who="ada")
    assert len(trials.open(BASE)) == 2, "the trials go on beside another version"
    trials.registry.activate("v1", who="ada")
    assert trials.open(BASE) == []
    trials.registry.rollback(BASE, who="ada")
    start(trials)
    trials.registry.rollback(BASE, who="bob")
    last = trials.last("shadow", BASE)
    assert (last.ended_by, last.end_reason) == ("bob", "it became active: rollback")
    assert trials.registry.events(BASE)[-1].action == "shadow_end"


def test_a_version_on_trial_stays(trials: Trials, train: Train) -> None:
    version = train()
    start(trials)
    with pytest.raises(AdapterError, match=r"on trial as shadow.*\n.*shadow stop"):
        trials.registry.remove("v1", who="ada")
    assert version.path.exists()
    trials.end("shadow", BASE, who="ada")
    trials.registry.remove("v1", who="ada")
    assert not version.path.exists()


def test_a_program_ends_only_what_it_saw(trials: Trials, train: Train) -> None:
    train()
    first = start(trials)
    trials.end("shadow", BASE, who="ada")
    start(trials)
    with pytest.raises(AdapterError, match="no such shadow"):
        trials.end("shadow", BASE, who="watch", only=first.id)
    assert len(trials.open(BASE)) == 1


def test_a_database_from_before_has_no_trials(trials: Trials, train: Train, engine: Engine) -> None:
    train()
    with write(engine) as connection:
        connection.execute(text("DROP TABLE nli_disagreements"))
        connection.execute(text("DROP TABLE nli_trials"))
    assert trials.open(BASE) == []
    assert trials.last("shadow", BASE) is None
    trials.registry.activate("v1", who="ada")
    trials.registry.deactivate(BASE, who="ada")


def test_keys_fall_into_the_share_and_stay_there(trials: Trials, train: Train) -> None:
    train(), train()
    one = start(trials, kind="canary", share=0.3)
    keys = [f"task {n}" for n in range(5000)]
    taken = {key for key in keys if one.takes(key)}
    assert 0.27 < len(taken) / len(keys) < 0.33
    [again] = trials.open(BASE)
    assert {key for key in keys if again.takes(key)} == taken
    trials.end("canary", BASE, who="ada")
    other = start(trials, "v2", "canary", share=0.3)
    both = sum(other.takes(key) for key in taken) / len(taken)
    assert 0.2 < both < 0.4, "another trial draws others"
    trials.end("canary", BASE, who="ada")
    whole = start(trials, kind="canary", share=1.0)
    assert all(whole.takes(key) for key in keys)
    assert isinstance(one.takes("half \ud800"), bool)
