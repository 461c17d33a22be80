"""The page of versions, one of them, and two side by side."""

from __future__ import annotations

import shutil
from functools import partial
from pathlib import Path

import pytest
from dashboard_world import History

from lyra_nli.dashboard.comparing import compare
from lyra_nli.dashboard.one_version import served, version
from lyra_nli.dashboard.quality import quality
from lyra_nli.dashboard.versions import versions
from lyra_nli.errors import AdapterNotFoundError


@pytest.fixture
def history(tmp_path: Path) -> History:
    made = History(tmp_path).init()
    made.publish()
    made.publish(recipe={"rank": 16}, row_ids={"train": ["r2", "r4", "r5"], "holdout": ["r3"]})
    made.activate("lora-lyra-v1", days=20)
    made.activate("lora-lyra-v2", days=10)
    return made


def test_the_list(history: History) -> None:
    history.answers(70, version="lora-lyra-v2")
    history.answers(30, version="lora-lyra-v2", label="neutral", days=1)
    history.review("a", "supports", "neutral", version="lora-lyra-v2")
    history.review("b", "supports", "supports", version="lora-lyra-v2")
    answer = history.show(versions)
    assert (answer["active"], answer["previous"]) == ("lora-lyra-v2", "lora-lyra-v1")
    one, other = answer["versions"]
    assert (one["name"], one["aliases"], one["folder"]) == ("lora-lyra-v1", ["previous"], "ok")
    assert (one["accuracy_before"], one["accuracy_after"]) == (0.5, 0.75)
    assert one["brier_before"] is None
    assert (one["answers"], other["answers"]) == (0, 100)
    assert one["correction_rate"]["value"] is None
    assert (other["correction_rate"]["k"], other["correction_rate"]["n"]) == (1, 2)
    assert [event["to_version"] for event in answer["events"]] == ["lora-lyra-v2", "lora-lyra-v1"]
    assert answer["missing"] == []


@pytest.mark.parametrize("name", ["v1", "lora-lyra-v1", "previous"])
def test_one_of_them(history: History, name: str) -> None:
    answer = history.show(partial(version, name=name))
    assert answer["version"]["name"] == "lora-lyra-v1"
    assert answer["report"] == "# Gate report\n"
    assert answer["report_page"] is False  # of a release that wrote none
    assert answer["manifest"]["rows"] == {"train": 2, "dev": 0, "holdout": 1}
    [span] = answer["served"]
    first, second = history.show(versions)["events"][::-1]
    assert span == {"from": first["at"], "to": second["at"]}
    gate = answer["gate"]
    assert gate["outcome"] == "insufficient"  # 4 fixed and 1 broken of 12 prove nothing
    [base, candidate] = gate["populations"][0]["models"]
    assert (base["model"], base["accuracy"]["k"], base["accuracy"]["n"]) == ("base", 6, 12)
    assert (candidate["version"], candidate["accuracy"]["k"]) == ("lora-lyra-v1", 9)
    assert (gate["against_base"]["fixed"], gate["against_base"]["broken"]) == (4, 1)
    assert gate["against_base"]["efr"]["value"] == pytest.approx(4 / 6)
    assert gate["against_active"] is None
    assert answer["missing"] == []


def test_an_unknown_one(history: History) -> None:
    with pytest.raises(AdapterNotFoundError, match="'v9'") as caught:
        history.show(partial(version, name="v9"))
    assert "lora-lyra-v1, lora-lyra-v2" in caught.value.hint


def test_its_folder_is_gone(history: History) -> None:
    shutil.rmtree(history.folder / "adapters" / "lora-lyra-v1")
    listed = history.show(versions)
    assert [each["folder"] for each in listed["versions"]] == ["missing", "ok"]
    answer = history.show(partial(version, name="v1"))
    assert answer["manifest"] is None
    assert answer["report"] is None
    assert answer["gate"]["outcome"] == "insufficient"  # the database still has it
    assert "restore it from an export" in answer["missing"][0]


def test_its_manifest_is_gone(history: History) -> None:
    (history.folder / "adapters" / "lora-lyra-v1" / "manifest.json").unlink()
    assert history.show(versions)["versions"][0]["folder"] == "damaged"
    answer = history.show(partial(version, name="v1"))
    assert "has no manifest.json" in answer["missing"][0]
    assert history.show(partial(compare, one="v1", other="v2"))["rows"] is None


def test_a_file_was_changed(history: History) -> None:
    (history.folder / "adapters" / "lora-lyra-v1" / "adapter_config.json").write_text("{} ")
    answer = history.show(partial(version, name="v1"))
    assert answer["version"]["folder"] == "damaged"
    assert "adapter_config.json: changed" in answer["missing"][0]


def test_a_removed_one_is_history(history: History) -> None:
    history.publish()
    shutil.rmtree(history.folder / "adapters" / "lora-lyra-v3")
    history.run("UPDATE nli_versions SET status = 'removed' WHERE name = 'lora-lyra-v3'")
    assert history.show(versions)["versions"][2]["status"] == "removed"
    answer = history.show(partial(version, name="v3"))
    assert answer["version"]["problem"] is None


def test_when_a_version_served() -> None:
    def event(at: str, action: str, to: str | None) -> dict[str, object]:
        return {"at": at, "action": action, "to_version": to}

    events = [
        event("1", "activate", "a"),
        event("2", "activate", "b"),
        event("3", "rollback", "a"),
        event("4", "remove", None),
        event("5", "deactivate", None),
        event("6", "activate", "b"),
    ]
    spans = served(events[::-1], "a")
    assert spans == [{"from": "1", "to": "2"}, {"from": "3", "to": "5"}]
    assert served(events[::-1], "b")[-1] == {"from": "6", "to": None}


def test_two_side_by_side(history: History) -> None:
    for name, human in (("a", "neutral"), ("b", "supports"), ("c", "supports")):
        history.review(name, "supports", human, version="lora-lyra-v1")
    history.review("d", "supports", "supports", version="lora-lyra-v2")
    answer = history.show(partial(compare, one="previous", other="v2"))
    assert (answer["one"]["name"], answer["other"]["name"]) == ("lora-lyra-v1", "lora-lyra-v2")
    assert answer["settings"] == [{"key": "recipe.rank", "one": 8, "other": 16}]
    # r1 r2 r3 beside r2 r4 r5 r3
    assert answer["rows"] == {"both": 2, "only_one": 1, "only_other": 2}
    assert answer["same_rows"] is True
    population = answer["populations"][0]
    assert population["name"] == "reviewed"
    assert population["one"]["accuracy"]["k"] == population["other"]["accuracy"]["k"] == 9
    assert answer["live"]["one"]["k"] == 1
    assert answer["live"]["difference"]["value"] == pytest.approx(-1 / 3)


def test_one_beside_the_base(history: History) -> None:
    answer = history.show(partial(compare, one="base", other="active"))
    assert answer["one"]["name"] == "base"
    assert set(answer["one"]) == set(answer["other"])
    population = answer["populations"][0]
    assert (population["one"]["accuracy"]["k"], population["other"]["accuracy"]["k"]) == (6, 9)
    assert answer["same_rows"] is True


def test_other_rows_are_said_so(history: History) -> None:
    history.publish(row_ids={"train": [], "holdout": ["r9"]})
    answer = history.show(partial(compare, one="v1", other="v3"))
    assert answer["same_rows"] is False
    assert "different rows" in answer["notes"][0]


def test_versions_of_another_base_are_not_mixed_in(history: History) -> None:
    history.publish(base_model="other")
    history.review("a", "supports", "neutral", version="lora-lyra-v1")
    history.review("b", "supports", "neutral", version="lora-lyra-v3")
    assert [each["name"] for each in history.show(versions)["versions"]] == [
        "lora-lyra-v1",
        "lora-lyra-v2",
    ]
    assert history.show(quality)["confusion"][0]["n"] == 1
