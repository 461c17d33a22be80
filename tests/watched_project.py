"""Half a year of a project in a database: answers, reviews, versions, alerts, comparisons.

Three versions served one after the other, each better than the one before, and a fourth runs beside
the last. All of them are too sure of themselves. The figures come from a fixed seed.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
from serving_world import World
from sqlalchemy import Connection, insert, text

from lyra_nli.evaluation.gate import Evidence, Verdict, judge_candidate
from lyra_nli.feedback import calibration
from lyra_nli.labels import LABELS
from lyra_nli.records import Example, Pair, Source
from lyra_nli.settings import Settings
from lyra_nli.storage import tables
from lyra_nli.storage.engine import open_database, write

DAYS = 180
SITES = ("trials.example.org", "nature.example.com", "statistics.example.net", "law.example.eu")
PEOPLE = ("Ada", "Grace", "Mika")
SERVED = (  # from which day on, what, and how often it is right
    (0, "base", 0.66),
    (45, "lora-lyra-v1", 0.76),
    (115, "lora-lyra-v3", 0.86),
)
SOURCES: tuple[Source, Source] = ("agreed", "correction")
SEED = 20


def fill(world: World, *, answers: int = 4000, reviews: int = 1500) -> None:
    """Fill the database of a world, and its registry with four versions; the third one serves."""
    rng = np.random.default_rng(SEED)
    end = datetime.now(UTC)
    start = end - timedelta(days=DAYS)
    for number, status in enumerate(("passed", "rejected", "passed", "unproven"), 1):
        world.publish(seed=number, status=status, metrics={"note": "simulated"})
    for name in ("lora-lyra-v1", "lora-lyra-v3"):
        world.activate(name)
    engine = open_database(world.database)
    with write(engine) as connection:
        judged = _answers(connection, world.fast.name, rng, start, answers)
        _reviews(connection, rng, judged, reviews, end)
        _gates(connection, rng)
        _history(connection, world.fast.name, start, end)
        _watch(connection, world.fast.name, end)
    calibration.evaluate(engine, source="lora-lyra-v3", directory=world.adapters, who="cli:ada")
    engine.dispose()


def _answers(
    connection: Connection, base: str, rng: np.random.Generator, start: datetime, n: int
) -> list[dict[str, Any]]:
    """Answers, evenly over the days, and the edges that they are about."""
    rows: list[dict[str, Any]] = []
    counts: Counter[tuple[str, str, str, str]] = Counter()
    parts: dict[Any, list[dict[str, Any]]] = {tables.fragments: [], tables.claims: []}
    edges: list[dict[str, Any]] = []
    for number in range(n):
        day = DAYS * number / n
        _, version, right = [each for each in SERVED if each[0] <= day][-1]
        truth = rng.integers(3)
        top = float(np.clip(rng.beta(6, 1.6), 0.35, 0.995))
        sure = right + 0.35 * (top - 0.8)  # how often that confidence is right
        said = truth if rng.random() < sure else (truth + rng.integers(1, 3)) % 3
        vector = [(1 - top) / 2] * 3
        vector[said] = top
        pair = Pair(f"Finding {number}: admissions fell.", f"Claim {number}: the drug works.")
        at = start + timedelta(days=day)
        label, site = LABELS[said], SITES[int(rng.integers(len(SITES)))]
        rows.append(
            {
                "at": at.isoformat(),
                "pair_key": pair.key,
                "base_model": base,
                "version": version,
                "label": label,
                **dict(zip(LABELS, vector, strict=True)),
                "premise_chars": int(rng.integers(40, 900)),
                "hypothesis_chars": 40,
                "milliseconds": 12.0,
                "domain": site,
            }
        )
        for kind, bucket in (
            ("label", label),
            ("confidence", f"{min(int(20 * top), 19) / 20:.2f}"),
            ("length", str(2 ** int(np.log2(rows[-1]["premise_chars"] + 40)))),
            ("domain", site),
        ):
            counts[str(at.date()), version, kind, bucket] += 1
        parts[tables.fragments].append(
            {"id": f"f{number}", "page_id": f"p-{site}", "text_content": pair.premise}
        )
        parts[tables.claims].append({"id": f"c{number}", "claim_text": pair.hypothesis})
        edges.append(
            {
                "id": f"e{number}",
                "source_type": "fragment",
                "source_id": f"f{number}",
                "target_type": "claim",
                "target_id": f"c{number}",
                "relation": label,
                "nli_label": label,
                "nli_confidence": top,
                "created_at": at.isoformat(),
                "truth": LABELS[truth],
                "pair": pair,
            }
        )
    pages = [{"id": f"p-{s}", "url": f"https://{s}/a", "domain": s, "title": s} for s in SITES]
    connection.execute(insert(tables.pages), pages)
    for table, values in parts.items():
        connection.execute(insert(table), values)
    connection.execute(insert(tables.nli_predictions), rows)
    plain = [{k: v for k, v in edge.items() if k not in ("truth", "pair")} for edge in edges]
    connection.execute(insert(tables.edges), plain)
    values = [
        {"day": day, "base_model": base, "version": version, "kind": kind, "bucket": b, "n": n}
        for (day, version, kind, b), n in counts.items()
    ]
    connection.execute(insert(tables.nli_prediction_counts), values)
    return [{**edge, **row} for edge, row in zip(edges, rows, strict=True)]


def _reviews(
    connection: Connection,
    rng: np.random.Generator,
    judged: Sequence[dict[str, Any]],
    n: int,
    end: datetime,
) -> None:
    reviews, seconds = [], []
    for number, index in enumerate(sorted(rng.choice(len(judged), n, replace=False))):
        one = judged[index]
        at = min(
            datetime.fromisoformat(one["at"]) + timedelta(hours=float(rng.exponential(9))), end
        )
        reviewer = PEOPLE[int(rng.choice(3, p=(0.5, 0.3, 0.2)))]
        reviews.append(
            {
                "id": f"nlr_{number:06}",
                "edge_id": one["id"],
                "pair_key": one["pair_key"],
                "premise": one["pair"].premise,
                "hypothesis": one["pair"].hypothesis,
                "predicted_label": one["label"],
                "predicted_confidence": one["nli_confidence"],
                "predicted_by": one["version"] if number % 3 else None,
                "correct_label": one["truth"],
                "reviewer": reviewer,
                "sampling": "random" if rng.random() < 0.6 else "queue",
                "reviewed_at": at.isoformat(),
            }
        )
        if number % 12 == 0:
            other = LABELS[(LABELS.index(one["truth"]) + 1) % 3]
            seconds.append(
                {
                    "id": f"nls_{number:06}",
                    "review_id": f"nlr_{number:06}",
                    "edge_id": one["id"],
                    "label": other if number % 108 == 0 else one["truth"],
                    "reviewer": "Eve",
                    "reviewed_at": at.isoformat(),
                }
            )
    connection.execute(insert(tables.nli_reviews), reviews)
    connection.execute(insert(tables.nli_second_reviews), seconds)
    reviewed = "UPDATE edges SET edge_human_corrected = 1 WHERE id IN "
    connection.execute(text(reviewed + "(SELECT edge_id FROM nli_reviews)"))
    doubted = [row for row in reviews if row["predicted_label"] != row["correct_label"]][:12]
    scores = [
        {"kind": "suspect", "edge_id": row["edge_id"], "score": 3.4 - 0.1 * n, "source": "training",
         "detail_json": json.dumps({"version": "lora-lyra-v3"}), "at": end.isoformat()}
        for n, row in enumerate(doubted)
    ]  # fmt: skip
    waiting = [one for one in judged if one["id"] not in {row["edge_id"] for row in reviews}][:12]
    said = [dict(zip(LABELS, each, strict=True)) for each in ((0.9, 0.04, 0.06), (0.1, 0.2, 0.7))]
    scores += [
        {"kind": "disagree", "edge_id": one["id"], "score": 0.9 - 0.05 * n, "source": "compare",
         "detail_json": json.dumps({"lora-lyra-v3": said[0], "lora-lyra-v4": said[1]}),
         "at": end.isoformat()}
        for n, one in enumerate(waiting)
    ]  # fmt: skip
    connection.execute(insert(tables.nli_queue_scores), scores)


def gate(rng: np.random.Generator, right: float, active: str | None) -> Verdict:
    """A real verdict on answers of which so many are right."""
    rows = [
        Example(f"r{n}", Pair(f"a {n}", "b"), LABELS[n % 3], SOURCES[n % 2], str(n))
        for n in range(240)
    ]
    models = {"base": 0.62, "candidate": right} | ({"active": 0.72} if active else {})
    reviewed, general = (
        Evidence(tuple(rows), {name: _said(rng, 240, p) for name, p in shares.items()})
        for shares in (models, dict.fromkeys(models, 0.9))
    )
    return judge_candidate(reviewed, general, Settings().gate, kind="holdout", active=active)


def _said(rng: np.random.Generator, n: int, right: float) -> Any:
    truth = np.arange(n) % 3
    said = np.where(rng.random(n) < right, truth, (truth + rng.integers(1, 3, n)) % 3)
    top = rng.uniform(0.5, 0.98, n)
    vectors = np.repeat(((1 - top) / 2)[:, None], 3, axis=1)
    vectors[np.arange(n), said] = top
    return vectors


def _gates(connection: Connection, rng: np.random.Generator) -> None:
    parents = {"v1": None, "v2": "lora-lyra-v1", "v3": "lora-lyra-v1", "v4": "lora-lyra-v3"}
    for (short, parent), right in zip(parents.items(), (0.76, 0.6, 0.86, 0.87), strict=True):
        verdict = gate(rng, right, parent).to_dict()
        scores = {each["name"]: each["scores"] for each in verdict["populations"]}["reviewed"]
        metrics = {"verdict": verdict}
        for when, model in (("before", "base"), ("after", "candidate")):
            metrics[f"accuracy_{when}"] = scores[model]["accuracy"]["value"]
            metrics[f"brier_{when}"] = scores[model]["brier"]
        values = {"v": f"lora-lyra-{short}", "m": json.dumps(metrics), "o": verdict["outcome"]}
        change = "UPDATE nli_evaluations SET metrics_json = :m, verdict = :o WHERE version = :v"
        connection.execute(text(change), values)
        connection.execute(
            text("UPDATE nli_versions SET parent = :p WHERE name = :v"), {"p": parent, **values}
        )


def _history(connection: Connection, base: str, start: datetime, end: datetime) -> None:
    """Move what happened to the days when it did."""
    for day, version, _ in SERVED[1:]:
        values = {"at": (start + timedelta(days=day)).isoformat(), "v": version}
        for change in (
            "UPDATE nli_version_events SET at = :at, who = 'cli:ada', "
            "reason = 'gate: better than what served' WHERE to_version = :v",
            "UPDATE nli_versions SET created_at = :at WHERE name = :v",
        ):
            connection.execute(text(change), values)
    for version, day in (("lora-lyra-v2", 80), ("lora-lyra-v4", 170)):
        at = (start + timedelta(days=day)).isoformat()
        connection.execute(
            text("UPDATE nli_versions SET created_at = :at WHERE name = :v"),
            {"at": at, "v": version},
        )
    runs = [
        {"id": f"run_{number}", "base_model": base, "status": "done", "samples": 200 * number,
         "started_at": (start + timedelta(days=day)).isoformat(),
         "finished_at": (start + timedelta(days=day, minutes=5)).isoformat(),
         "message": message}
        for number, (day, message) in enumerate(
            [(45, "lora-lyra-v1: pass"), (80, "lora-lyra-v2: fail"), (115, "lora-lyra-v3: pass"),
             (170, "lora-lyra-v4: insufficient evidence")], 1)
    ]  # fmt: skip
    connection.execute(insert(tables.nli_training_runs), runs)
    for number in range(1, 5):
        connection.execute(
            text("UPDATE nli_versions SET run_id = :r WHERE name = :v"),
            {"r": f"run_{number}", "v": f"lora-lyra-v{number}"},
        )


def _watch(connection: Connection, base: str, end: datetime) -> None:
    """Comparisons, an alert that is open, and one that is not."""
    matrix = [[310, 8, 21], [5, 190, 12], [24, 15, 415]]
    comparisons = [
        {"id": f"ncmp_{number}", "at": (end - timedelta(days=2 * number)).isoformat(),
         "kind": "shadow" if number % 2 else "compare", "base_model": base, "one": "lora-lyra-v3",
         "other": "lora-lyra-v4" if number % 3 else "base", "compared": 1000,
         "disagreed": 85 if number % 3 else 210,
         "details_json": json.dumps({"labels": matrix, "confidence_shift": 0.021})}
        for number in range(6)
    ]  # fmt: skip
    connection.execute(insert(tables.nli_comparisons), comparisons)
    alert = {"base_model": base, "version": "lora-lyra-v3", "value": 0.12, "threshold": 0.08}
    alerts = [
        {**alert, "id": "nla_1", "rule": "ece", "at": (end - timedelta(days=3)).isoformat(),
         "message": "The confidence of lora-lyra-v3 is off by 0.12 on average; 0.08 is allowed.",
         "action": "", "resolved_at": None},
        {**alert, "id": "nla_2", "rule": "drift", "at": (end - timedelta(days=40)).isoformat(),
         "message": "The lengths of the texts moved away from what they were.",
         "action": "", "resolved_at": (end - timedelta(days=33)).isoformat()},
    ]  # fmt: skip
    connection.execute(insert(tables.nli_alerts), alerts)
