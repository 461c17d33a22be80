"""The pages overview, data, shadow and calibration, against figures worked out by hand."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path

import pytest
from dashboard_world import BASE, History, ago

from lyra_nli.dashboard.calibration import calibration
from lyra_nli.dashboard.data import DAYS, data
from lyra_nli.dashboard.overview import overview
from lyra_nli.dashboard.shadow import shadow


@pytest.fixture
def history(tmp_path: Path) -> History:
    return History(tmp_path).init()


def edge(history: History, name: str, *, reviewed: bool) -> None:
    history.add(
        "edges",
        id=name,
        source_type="fragment",
        source_id=f"f_{name}",
        target_type="claim",
        target_id="c1",
        relation="supports",
        nli_label="supports",
        edge_human_corrected=int(reviewed),
    )
    history.add("fragments", id=f"f_{name}", page_id="p1", text_content=f"Premise of {name}")


class TestData:
    def test_days(self, history: History) -> None:
        history.review("a", "supports", "neutral", reviewer="ann")
        history.review("b", "supports", "supports", reviewer="ann", sampling="queue")
        history.review("c", "supports", "neutral", reviewer="bob", days=1)
        history.review("d", "supports", "neutral", undone_at=ago(0))
        history.review("e", "supports", "neutral", days=DAYS + 1)
        history.review("f", "supports", "neutral", days=-5)
        answer = history.show(data)
        assert len(answer["days"]) == DAYS
        today, yesterday = answer["days"][-1], answer["days"][-2]
        assert today == {
            "day": ago(0)[:10],
            "reviewed": 2,
            "corrected": 1,
            "agreed": 1,
            "random": 1,
            "queue": 1,
            "unknown": 0,
        }
        assert yesterday["corrected"] == 1
        assert sum(day["reviewed"] for day in answer["days"]) == 3
        assert answer["notes"][0].startswith("1 reviews bear a time that has not come")
        totals = answer["totals"]
        assert (totals["reviewed"], totals["corrected"], totals["undone"]) == (5, 4, 1)
        assert (totals["random"], totals["queue"]) == (4, 1)
        assert totals["correction_rate"]["value"] == 1.0
        ann = next(each for each in answer["reviewers"] if each["reviewer"] == "ann")
        assert (ann["reviewed"], ann["corrected"]) == (2, 1)

    def test_queue_and_suspects(self, history: History) -> None:
        for name in ("e1", "e2", "e3"):
            edge(history, name, reviewed=name == "e3")
        for kind, name, score in (("suspect", "e3", 2.0), ("suspect", "gone", 3.0)):
            detail = json.dumps({"version": "lora-lyra-v1"})
            history.add(
                "nli_queue_scores",
                kind=kind,
                edge_id=name,
                score=score,
                detail_json=detail,
                source="training",
                at=ago(0),
            )
        answer = history.show(data)
        queue = answer["queue"]
        assert (queue["waiting"], queue["suspects"], queue["disagree"]) == (2, 2, 0)
        gone, third = answer["suspects"]
        assert (gone["edge_id"], gone["label"], gone["premise"]) == ("gone", None, "")
        assert (third["premise"], third["label"]) == ("Premise of e3", "supports")
        assert third["detail"] == {"version": "lora-lyra-v1"}

    def test_agreement(self, history: History) -> None:
        assert history.show(data)["agreement"]["n"] == 0
        history.review("a", "supports", "neutral")
        history.add(
            "nli_second_reviews",
            id="s",
            review_id="nlr_a",
            edge_id="edge_a",
            label="neutral",
            reviewer="bob",
            reviewed_at=ago(0),
        )
        agreement = history.show(data)["agreement"]
        assert (agreement["n"], agreement["observed"]) == (1, 1.0)
        assert "100% of 1" in agreement["text"]


class TestShadow:
    def test_pairs_and_comparisons(self, history: History) -> None:
        matrix = [[50, 2, 0], [0, 20, 0], [8, 0, 20]]
        for number, (other, disagreed) in enumerate((("v2", 10), ("v2", 30), ("base", 5))):
            history.add(
                "nli_comparisons",
                id=f"ncmp_{number}",
                at=ago(number),
                kind="compare",
                base_model=BASE,
                one="v1",
                other=other,
                compared=100,
                disagreed=disagreed,
                details_json=json.dumps({"labels": matrix, "confidence_shift": 0.02}),
            )
        answer = history.show(shadow)
        assert [each["id"] for each in answer["comparisons"]] == ["ncmp_0", "ncmp_1", "ncmp_2"]
        assert answer["comparisons"][0]["labels"] == matrix
        assert answer["comparisons"][0]["confidence_shift"] == 0.02
        together, base = answer["pairs"]
        assert (together["comparisons"], together["compared"]) == (2, 200)
        assert (together["disagreement"]["k"], together["disagreement"]["n"]) == (40, 200)
        assert base["disagreement"]["value"] == 0.05

    def test_what_is_on_trial(self, history: History) -> None:
        version = history.publish()
        for trial, ended in (("nlt_0", ago(5)), ("nlt_1", None)):
            history.add(
                "nli_trials",
                id=trial,
                base_model=BASE,
                kind="shadow",
                version=version.name,
                share=0.2,
                started_at=ago(6),
                started_by="ada",
                ended_at=ended,
            )
            details = {
                "labels": [[70, 0, 0], [0, 0, 0], [30, 0, 0]],
                "confidence_shift": 0.0,
                "skipped": 0,
                "trial": trial,
            }
            history.add(
                "nli_comparisons",
                id=f"ncmp_{trial}",
                at=ago(5),
                kind="shadow",
                base_model=BASE,
                one="base",
                other=version.name,
                compared=100,
                disagreed=30,
                details_json=json.dumps(details),
            )
        [trial] = history.show(shadow)["trials"]
        assert (trial["kind"], trial["version"], trial["share"]) == ("shadow", version.name, 0.2)
        assert (trial["disagreement"]["k"], trial["disagreement"]["n"]) == (30, 100)

    def test_edges_in_dispute(self, history: History) -> None:
        edge(history, "e1", reviewed=False)
        answers = {"v1": {"supports": 0.9}, "base": {"supports": 0.2}}
        history.add(
            "nli_queue_scores",
            kind="disagree",
            edge_id="e1",
            score=0.7,
            detail_json=json.dumps(answers),
            at=ago(0),
        )
        [found] = history.show(shadow)["edges"]
        assert found["answers"] == answers
        assert found["premise"] == "Premise of e1"


class TestCalibration:
    def test_never_evaluated(self, history: History) -> None:
        answer = history.show(partial(calibration, version="active"))
        assert (answer["source"], answer["before"], answer["current"]) == ("base", None, None)
        assert "lyra-nli calibrate" in answer["missing"][0]

    def test_before_and_after(self, history: History) -> None:
        history.publish()
        history.activate("lora-lyra-v1")
        raw = {"low": 0.9, "high": 1.0, "n": 4, "confidence": 0.95, "accuracy": 0.5}
        corrected = {**raw, "confidence": 0.6}
        history.add(
            "calibration_evaluations",
            id="cev_1",
            source="lora-lyra-v1",
            brier_score=0.3,
            bins_json=json.dumps([{**raw, "calibrated": corrected}]),
            samples_evaluated=4,
            calibration_version="7",
            evaluated_at=ago(0),
        )
        estimate = {"value": 0.45, "low": None, "high": None, "n": 4, "groups": 4}
        history.add(
            "nli_calibrations",
            id="ncal_7",
            version=7,
            base_model=BASE,
            source="lora-lyra-v1",
            method="temperature",
            params_json='{"temperature": 2.0}',
            metrics_json=json.dumps({"before": {"ece": estimate}, "after": {}}),
            samples=4,
            created_at=ago(0),
            is_current=1,
        )
        history.add(
            "nli_calibration_events",
            at=ago(0),
            who="ann",
            action="fit",
            base_model=BASE,
            source="lora-lyra-v1",
            to_version=7,
        )
        answer = history.show(partial(calibration, version="active"))
        assert answer["before"]["bins"] == [raw]
        assert answer["after"]["bins"] == [corrected]
        assert (answer["before"]["n"], answer["before"]["ece"]["value"]) == (4, 0.45)
        assert answer["after"]["ece"]["value"] is None
        assert (answer["current"]["number"], answer["current"]["method"]) == (7, "temperature")
        assert [event["to"] for event in answer["events"]] == [7]
        assert "bins" not in answer["evaluations"][0]
        assert {"source": "lora-lyra-v1", "samples": 0, "current": 7} in answer["sources"]
        assert answer["missing"] == []
        assert history.show(partial(calibration, version="base"))["current"] is None

    def test_what_was_served(self, history: History) -> None:
        for name, human in (("a", "supports"), ("b", "neutral")):
            history.log(f"pair_{name}", version="base", calibrated=0.75)
            history.review(name, "supports", human, days=1)
        served = history.show(partial(calibration, version="base"))["served"]
        [full] = [each for each in served["bins"] if each["n"]]
        assert (full["n"], full["confidence"], full["accuracy"]) == (2, 0.75, 0.5)


class TestOverview:
    def test_what_serves_and_what_happened_today(self, history: History) -> None:
        history.publish()
        history.activate("lora-lyra-v1", days=3)
        history.answers(1200, version="lora-lyra-v1")
        history.answers(34, version="base", label="neutral")
        history.answers(500, version="lora-lyra-v1", days=1)
        history.review("a", "supports", "neutral", version="lora-lyra-v1", before_json="{}")
        edge(history, "e1", reviewed=False)
        answer = history.show(overview)
        assert answer["serving"]["version"] == "lora-lyra-v1"
        assert answer["serving"]["since"][:10] == ago(3)[:10]
        assert answer["today"]["answers"] == 1234
        assert answer["today"]["corrected"] == 1
        assert answer["correction_rate"]["now"]["k"] == 1
        assert answer["queue"]["waiting"] == 1
        assert answer["due"]["due"] is False
        assert answer["due"]["conditions"][2]["value"] is None  # never trained: no number of days
        stations = {each["id"]: each for each in answer["loop"]}
        assert list(stations) == [
            "answers",
            "reviews",
            "due",
            "training",
            "gate",
            "serving",
            "watch",
        ]
        assert stations["answers"]["figure"] == "1,234"
        assert stations["serving"]["figure"] == "v1"
        assert (stations["gate"]["figure"], stations["gate"]["state"]) == ("passed", "ok")
        assert (stations["training"]["figure"], stations["training"]["text"]) == (
            "–",  # noqa: RUF001
            "never trained",
        )

    @pytest.mark.parametrize(
        ("run", "figure", "state"),
        [
            ({"status": "running", "started_at": ago(0)}, "now", "wait"),
            ({"status": "done", "started_at": ago(3), "finished_at": ago(2.5)}, "2 days ago", "ok"),
            ({"status": "failed", "started_at": ago(1), "finished_at": ago(0)}, "today", "warn"),
            (
                {"status": "done", "started_at": ago(1), "finished_at": ago(-9)},
                "–",  # noqa: RUF001
                "ok",
            ),
        ],
    )
    def test_the_last_training(
        self, history: History, run: dict[str, str], figure: str, state: str
    ) -> None:
        history.add("nli_training_runs", id="run_1", base_model=BASE, **run)
        answer = history.show(overview)
        station = next(each for each in answer["loop"] if each["id"] == "training")
        assert (station["figure"], station["state"]) == (figure, state)
        assert answer["last_run"]["status"] == run["status"]

    def test_an_open_alert(self, history: History) -> None:
        history.add(
            "nli_alerts",
            id="nla_1",
            at=ago(0),
            rule="drift_label",
            base_model=BASE,
            version="base",
            message="m",
        )
        answer = history.show(overview)
        assert [alert["id"] for alert in answer["alerts"]] == ["nla_1"]
        watch = answer["loop"][-1]
        assert (watch["figure"], watch["text"], watch["state"]) == ("1", "open alert", "warn")
        assert answer["next"][0]["page"] == "quality"
