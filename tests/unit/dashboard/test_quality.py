"""The page of quality, against figures that were worked out by hand."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from dashboard_world import BASE, History, ago

from lyra_nli.dashboard.quality import quality


@pytest.fixture
def history(tmp_path: Path) -> History:
    return History(tmp_path).init()


def counted(share: dict[str, Any]) -> tuple[int, int]:
    return share["k"], share["n"]


def test_confusion_and_classes(history: History) -> None:
    said = [("supports", "supports")] * 3 + [("supports", "neutral"), ("neutral", "refutes")]
    for n, (model, human) in enumerate(said):
        history.review(str(n), model, human, version="lora-lyra-v1" if n < 4 else "base")
    history.review("queue", "refutes", "neutral", sampling="queue")  # was chosen, not drawn
    answer = history.show(quality)
    everything, base, first = answer["confusion"]
    assert (everything["version"], everything["n"]) == ("all", 5)
    assert everything["labels"] == ["supports", "refutes", "neutral"]
    assert everything["matrix"] == [[3, 0, 1], [0, 0, 0], [0, 1, 0]]
    assert (base["version"], base["matrix"][2]) == ("base", [0, 1, 0])
    assert (first["version"], first["matrix"][0]) == ("lora-lyra-v1", [3, 0, 1])
    supports, refutes, neutral = answer["classes"]
    assert (supports["judged"], supports["meant"]) == (4, 3)
    assert counted(supports["right"]) == (3, 4)
    assert counted(supports["found"]) == (3, 3)
    assert (refutes["right"]["value"], refutes["found"]["value"]) == (None, 0.0)
    assert (neutral["right"]["value"], neutral["found"]["value"]) == (0.0, 0.0)


def test_versions_and_weeks(history: History) -> None:
    monday = datetime.now(UTC).date() - timedelta(days=datetime.now(UTC).weekday(), weeks=2)
    for n, human in enumerate(("supports", "supports", "neutral")):
        at = f"{monday + timedelta(days=n)}T12:00:00+00:00"
        history.review(f"v1-{n}", "supports", human, version="lora-lyra-v1", reviewed_at=at)
    at = f"{monday + timedelta(days=7)}T00:00:00+00:00"
    history.review("v2", "supports", "neutral", version="lora-lyra-v2", reviewed_at=at)
    answer = history.show(quality)
    one, other = answer["weeks"]
    year, week, _ = monday.isocalendar()
    assert (one["week"], one["start"]) == (f"{year}-W{week:02}", monday.isoformat())
    assert (one["version"], other["version"]) == ("lora-lyra-v1", "lora-lyra-v2")
    assert counted(one["correction_rate"]) == (1, 3)
    assert counted(one["accuracy"]) == (2, 3)
    assert one["correction_rate"]["few"] is True
    assert other["start"] == (monday + timedelta(days=7)).isoformat()
    assert [counted(each["accuracy"]) for each in answer["versions"]] == [(2, 3), (0, 1)]


def test_the_log_says_who_judged_and_how_sure_it_was(history: History) -> None:
    history.log("pair_a", version="lora-lyra-v1")
    history.review("a", "supports", "neutral", days=1)
    [version] = history.show(quality)["versions"]
    assert version["version"] == "lora-lyra-v1"
    # 0.8**2 + 0.1**2 + (1 - 0.1)**2
    assert version["brier"] == {
        "value": pytest.approx(1.46),
        "low": None,
        "high": None,
        "n": 1,
    }


def test_what_a_change_did(history: History) -> None:
    history.publish()
    history.publish()
    history.activate("lora-lyra-v1", days=40)
    history.activate("lora-lyra-v2", days=20)
    for n in range(40):
        human = "neutral" if n < 10 else "supports"
        history.review(f"a{n}", "supports", human, version="lora-lyra-v1", days=30)
    for n in range(40):
        human = "neutral" if n < 4 else "supports"
        history.review(f"b{n}", "supports", human, version="lora-lyra-v2", days=10)
    first, second = history.show(quality)["activations"]
    assert (first["from_version"], first["to_version"]) == ("base", "lora-lyra-v1")
    assert first["difference"] is None
    assert (second["who"], second["reason"], second["action"]) == ("ann", "better", "activate")
    assert counted(second["before"]) == (10, 40)
    assert counted(second["after"]) == (4, 40)
    assert second["difference"]["value"] == pytest.approx(-0.15)
    assert second["p"] > 0.5  # it is not worse
    assert second["day"] == ago(20)[:10]


def test_sites(history: History) -> None:
    history.add("pages", id="p1", url="https://www.example.co.uk/a", domain="example.co.uk")
    history.add("fragments", id="f1", page_id="p1", text_content="p")
    for name in ("a", "b"):
        history.add(
            "edges",
            id=f"edge_{name}",
            source_type="fragment",
            source_id="f1",
            target_type="claim",
            target_id="c1",
            relation="supports",
        )
    history.review("a", "supports", "neutral")
    history.review("b", "supports", "supports")
    # A second verdict on an edge does not count, whatever it says.
    history.review("b2", "supports", "neutral", edge_id="edge_b", days=-0.001)
    history.review("c", "supports", "supports", source_url="https://who.int/x")
    history.review("d", "supports", "supports")
    found = {
        each["domain"]: counted(each["correction_rate"])
        for each in history.show(quality)["domains"]
    }
    assert found == {"example.co.uk": (1, 2), "who.int": (0, 1), "": (0, 1)}


def test_labels_by_week(history: History) -> None:
    history.answers(70, version="base", days=7)
    history.answers(20, version="base", label="refutes", days=7)
    history.answers(10, version="lora-lyra-v1")
    history.answers(99, version="lora-lyra-v1", days=-30)  # a clock that was wrong
    before, now = history.show(quality)["labels_by_week"]
    assert (before["version"], before["supports"], before["refutes"]) == ("base", 70, 20)
    assert (now["version"], now["supports"], now["neutral"]) == ("lora-lyra-v1", 10, 0)


def test_a_clock_that_was_wrong(history: History) -> None:
    history.review("a", "supports", "neutral", version="base")
    history.review("b", "supports", "neutral", version="base", days=-30)
    history.review("c", "supports", "neutral", version="base", reviewed_at="noon")
    history.review("d", "supports", "neutral", version="base", reviewed_at="2026-01-01 10:00:00")
    answer = history.show(quality)
    assert counted(answer["versions"][0]["correction_rate"]) == (4, 4)
    assert sum(each["correction_rate"]["n"] for each in answer["weeks"]) == 2
    assert answer["notes"][0].startswith("2 reviews bear a time that can't be read")


def test_alerts(history: History) -> None:
    for number, resolved in enumerate((None, ago(1))):
        history.add(
            "nli_alerts",
            id=f"nla_{number}",
            at=ago(number),
            rule="drift_label",
            base_model=BASE,
            version="base",
            message="m",
            resolved_at=resolved,
        )
    assert [alert["id"] for alert in history.show(quality)["alerts"]] == ["nla_0", "nla_1"]
