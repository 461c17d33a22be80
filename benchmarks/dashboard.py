"""The dashboard over a full log: a million answers and a hundred thousand reviews in SQLite.

    python benchmarks/dashboard.py [--predictions 1000000] [--reviews 100000] [--requests 30]

Three versions served for half a year; three reviews in ten were drawn at random, and four of ten
judgements say nothing of who made them but through the log. Over HTTP, `first` is the time after
the server's start, `changed` that after another review (a page waits a tenth of a second for what
is counted anew, then shows the figures before), `again` when all is known, and `CPU ms` the
mean of that, client included: what is left of a busy machine's figures. Then, where there is a
Chromium, the first contentful paint of every page.
"""

from __future__ import annotations

import argparse
import math
import os
import platform
import random
import shutil
import socket
import sqlite3
import statistics
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import httpx
import numpy as np
import uvicorn
from fastapi import FastAPI

from lyra_nli.evaluation.gate import Evidence, judge_candidate
from lyra_nli.labels import LABELS
from lyra_nli.ml_server.dashboard_page import create_dashboard_page_router
from lyra_nli.ml_server.dashboard_routes import create_dashboard_router
from lyra_nli.ml_server.nli import NLIService
from lyra_nli.records import Example, Pair
from lyra_nli.registry.artifact import Manifest, staged
from lyra_nli.registry.versions import Registry
from lyra_nli.settings import Settings
from lyra_nli.storage.engine import open_database
from lyra_nli.storage.upgrade import init_database

BASE = "starter"
DAYS, PAGES, CLAIMS, WAITING = 182, 2_000, 5_000, 20_000
ENDPOINTS = (
    "overview",
    "versions",
    "versions/v3",
    "versions/compare?one=v2&other=v3",
    "quality",
    "calibration",
    "data",
    "shadow",
)
CHROMIUM = ("chromium", "chromium-browser", "google-chrome")
SITE = ("", "/versions", "/quality", "/calibration", "/data", "/shadow")

# n numbers a thing; its time and version follow from it. `now` is a parameter.
FILL = """
INSERT INTO pages SELECT 'p' || n, 'https://site' || (n % 60) || '.org/' || n,
    'site' || (n % 60) || '.org', 'Page ' || n FROM num WHERE n < {pages};
INSERT INTO claims (id, task_id, claim_text)
    SELECT 'c' || n, 't1', 'Claim ' || n || ': the drug lowers the risk of stroke.' FROM num
    WHERE n < {claims};
INSERT INTO fragments SELECT 'f' || n, 'p' || (n % {pages}), 'Fragment ' || n || ': no difference '
    || 'between the arms was found after 24 months (hazard ratio 0.98, 95% CI 0.81 to 1.19).'
    FROM num WHERE n < {edges};
INSERT INTO nli_predictions (id, at, pair_key, base_model, version, label, supports, refutes,
        neutral, premise_chars, hypothesis_chars, milliseconds, domain)
    SELECT n + 1, strftime('%Y-%m-%dT%H:%M:%S+00:00', {now} - {seconds} * (1 - n / {answers}.0),
        'unixepoch'), printf('%032x', n), '{base}', 'lora-lyra-v' || (1 + 3 * n / {answers}), label,
        CASE WHEN label = 'supports' THEN top ELSE (1 - top) * 0.5 END,
        CASE WHEN label = 'refutes' THEN top ELSE (1 - top) * 0.5 END,
        CASE WHEN label = 'neutral' THEN top ELSE (1 - top) * 0.5 END,
        80 + n % 900, 40 + n % 60, 3.0 + n % 40, 'site' || (n % 60) || '.org'
    FROM (SELECT n, 0.34 + 0.66 * ((n * 7919) % 1000) / 1000.0 AS top,
        CASE n % 3 WHEN 0 THEN 'supports' WHEN 1 THEN 'refutes' ELSE 'neutral' END AS label
        FROM num WHERE n < {answers});
INSERT INTO edges SELECT 'e' || n, 'fragment', 'f' || n, 'claim', 'c' || (n % {claims}), r, r,
    0.9, n < {reviews}, NULL, NULL, '2026-01-01T00:00:00+00:00'
    FROM (SELECT n, CASE n % 3 WHEN 0 THEN 'supports' WHEN 1 THEN 'refutes' ELSE 'neutral' END AS r
        FROM num WHERE n < {edges});
INSERT INTO nli_reviews (id, edge_id, pair_key, premise, hypothesis, predicted_label,
        predicted_confidence, predicted_by, correct_label, reviewer, sampling, reviewed_at)
    SELECT printf('nlr_%016x', (r * 7919) % {reviews}), 'e' || r, answer.pair_key,
        text_content || ' ' || text_content, 'Claim: the drug lowers the risk of stroke.',
        answer.label, max(supports, refutes, neutral),
        CASE WHEN r % 10 < 6 THEN answer.version END,
        CASE WHEN abs(random()) % 100 < 8 + 4 * (answer.version = 'lora-lyra-v1') THEN 'neutral'
            ELSE answer.label END,
        'person' || (r % 7), CASE WHEN r % 10 IN (1, 4, 8) THEN 'random' ELSE 'queue' END,
        strftime('%Y-%m-%dT%H:%M:%S+00:00', answer.at, '+5 minutes')
    FROM (SELECT n AS r FROM num WHERE n < {reviews})
    JOIN nli_predictions AS answer ON answer.id = 1 + r * ({answers} / {reviews})
    JOIN fragments ON fragments.id = 'f' || r;
INSERT INTO nli_second_reviews SELECT 'nls_' || id, id, edge_id, correct_label, 'eve', '',
    reviewed_at FROM nli_reviews WHERE rowid % 50 = 0;
INSERT INTO nli_queue_scores (kind, edge_id, score, at)
    SELECT CASE WHEN n < {reviews} THEN 'suspect' ELSE 'disagree' END, 'e' || n, (n % 97) / 97.0,
    '2026-01-02T00:00:00+00:00' FROM num WHERE n < {edges} AND n % 40 = 0;
INSERT INTO nli_prediction_counts SELECT substr(at, 1, 10), base_model, version, 'label', label,
    count(*) FROM nli_predictions GROUP BY 1, 2, 3, 5;
INSERT INTO nli_prediction_counts SELECT substr(at, 1, 10), base_model, version, 'confidence',
    printf('%.2f', floor(20 * min(max(supports, refutes, neutral), 0.99)) / 20.0), count(*)
    FROM nli_predictions GROUP BY 1, 2, 3, 5;
INSERT INTO nli_prediction_counts SELECT substr(at, 1, 10), base_model, version, 'length',
    CAST(premise_chars / 128 * 128 AS TEXT), count(*) FROM nli_predictions GROUP BY 1, 2, 3, 5;
INSERT INTO nli_prediction_counts SELECT substr(at, 1, 10), base_model, version, 'domain', domain,
    count(*) FROM nli_predictions GROUP BY 1, 2, 3, 5;
INSERT INTO nli_comparisons SELECT 'ncmp_' || n, '2026-01-02T00:00:00+00:00', 'shadow', '{base}',
    'lora-lyra-v2', 'lora-lyra-v3', 1000, 40 + n, '{{}}' FROM num WHERE n < 50;
INSERT INTO nli_calibrations (id, version, base_model, source, method, params_json, samples,
    created_at, is_current) VALUES ('ncal_1', 1, '{base}', 'lora-lyra-v3', 'temperature',
    '{{"temperature": 1.7}}', 5000, '2026-01-02T00:00:00+00:00', 1);
INSERT INTO calibration_evaluations (id, source, brier_score, bins_json, calibration_version,
    evaluated_at) VALUES ('cev_1', 'lora-lyra-v3', 0.1, '[]', '1', '2026-01-02T00:00:00+00:00')
"""


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--predictions", type=int, default=1_000_000)
    parser.add_argument("--reviews", type=int, default=100_000)
    parser.add_argument("--requests", type=int, default=30)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="lyra-nli-bench-") as name:
        folder = Path(name)
        settings = Settings.model_validate(
            {
                "storage": {"database_path": str(folder / "lyra.db")},
                "nli": {"fast_model": BASE, "adapters_dir": str(folder / "adapters")},
            }
        )
        seconds = fill(settings, options.predictions, options.reviews)
        size = (folder / "lyra.db").stat().st_size / 2**20
        print(
            f"{platform.machine()}, {options.predictions:,} answers, {options.reviews:,} reviews, "
            f"{size:.0f} MB, {seconds:.0f} s to make"
        )
        with served(settings) as url:
            endpoints(settings, url, options.requests)
            paints(url)


def fill(settings: Settings, answers: int, reviews: int) -> float:
    """Make the database and three versions; returns the seconds that it took."""
    started = time.perf_counter()
    location = settings.storage.database_path
    init_database(location)
    sizes = {"pages": PAGES, "claims": CLAIMS, "answers": answers, "reviews": reviews}
    moment, edges = int(time.time()), reviews + WAITING
    with closing(sqlite3.connect(location)) as connection, connection:
        connection.execute("CREATE TEMP TABLE num (n INTEGER PRIMARY KEY)")
        numbers = ((n,) for n in range(max(answers, edges, CLAIMS)))
        connection.executemany("INSERT INTO num VALUES (?)", numbers)
        sql = FILL.format(base=BASE, now=moment, seconds=DAYS * 86400, edges=edges, **sizes)
        for one in sql.split(";\n"):
            connection.execute(one)
    engine = open_database(location)
    registry = Registry(engine, Path(settings.nli.adapters_dir))
    ids = [f"nli_reviews:nlr_{n:016x}" for n in range(reviews)]
    for number in range(3):
        publish(registry, ids, seed=number)
        registry.activate(f"v{number + 1}", who="benchmark", reason="a benchmark")
    engine.dispose()
    with closing(sqlite3.connect(location)) as connection, connection:
        for number in range(3):
            at = moment - DAYS * 86400 * (3 - number) // 3
            connection.execute(
                "UPDATE nli_version_events SET at = strftime('%Y-%m-%dT%H:%M:%S+00:00', ?, "
                "'unixepoch') WHERE to_version = ?",
                (at, f"lora-lyra-v{number + 1}"),
            )
    return time.perf_counter() - started


def publish(registry: Registry, ids: list[str], seed: int) -> None:
    """Register a version with a real verdict; its tensors are only bytes."""
    rng = np.random.default_rng(seed)
    rows = [
        Example(f"r{n}", Pair("a", "b"), LABELS[n % 3], "correction", str(n)) for n in range(300)
    ]
    said = {name: rng.dirichlet((1, 1, 1), len(rows)) for name in ("base", "candidate")}
    evidence = Evidence(tuple(rows), said)
    verdict = judge_candidate(evidence, evidence, Settings().gate, kind="holdout")
    with staged(registry.directory) as staging:
        (staging / "adapter_model.safetensors").write_bytes(rng.bytes(2**20))
        (staging / "adapter_config.json").write_text("{}", "utf-8")
        (staging / "report.md").write_text("# A report\n", "utf-8")
        manifest = Manifest(
            base_model=BASE,
            base_revision=None,
            base_fingerprint="f" * 64,
            dataset_hash="d" * 64,
            split_hash="e" * 64,
            row_ids={"train": ids[seed:], "dev": [], "holdout": ids[: 300 + seed]},
            recipe={"rank": 8 + seed},
            dataset_settings={},
            library_versions={},
            git_commit=None,
            seed=13,
            threads=1,
            created_at="2026-01-01T00:00:00+00:00",
            metrics={"verdict": verdict.to_dict()},
        )
        registry.publish(
            manifest,
            staging,
            status="passed",
            run_id=None,
            parent=None,
            samples_used=len(ids),
            metrics=manifest.metrics,
            verdict=verdict.outcome,
            report_path="report.md",
        )


def endpoints(settings: Settings, url: str, requests: int) -> None:
    """Time every endpoint: first, after another review, and again and again."""
    print("\n| endpoint | KB | first ms | changed ms | again p50 ms | p95 ms | CPU ms |")
    print("|---|---|---|---|---|---|---|")
    with httpx.Client(base_url=f"{url}/dashboard/api/", trust_env=False, timeout=120) as client:
        firsts = {name: timed(client, name) for name in ENDPOINTS}
        for name in ENDPOINTS:
            settle(client, name)
        for name in ENDPOINTS:
            review(settings)
            changed = timed(client, name)
            settle(client, name)
            cpu = time.process_time()
            times = sorted(timed(client, name) for _ in range(requests))
            cpu = 1000 * (time.process_time() - cpu) / requests
            p95 = times[math.ceil(0.95 * len(times)) - 1]
            size = len(client.get(name).content) / 1024
            figures = (size, firsts[name], changed, statistics.median(times), p95, cpu)
            print(f"| {name} | " + " | ".join(f"{each:.0f}" for each in figures) + " |", flush=True)


def settle(client: httpx.Client, name: str) -> None:
    """Wait until nothing is counted anew behind the page."""
    while client.get(name).json()["stale"]:
        time.sleep(0.05)


def timed(client: httpx.Client, name: str) -> float:
    """Milliseconds of one request, which finds everything that it looks for."""
    started = time.perf_counter()
    answer = client.get(name).raise_for_status()
    took = 1000 * (time.perf_counter() - started)
    assert answer.json()["missing"] == [], answer.json()["missing"]
    return took


def review(settings: Settings) -> None:
    """Another person has judged another edge."""
    with closing(sqlite3.connect(settings.storage.database_path)) as connection, connection:
        connection.execute(
            "INSERT INTO nli_reviews (id, pair_key, premise, hypothesis, predicted_label, "
            "correct_label, sampling, reviewed_at) VALUES (?, ?, 'a', 'b', 'neutral', 'neutral', "
            "'random', strftime('%Y-%m-%dT%H:%M:%f+00:00', 'now'))",
            (f"nlr_new{random.getrandbits(48):x}", f"{random.getrandbits(64):032x}"),
        )


def paints(url: str) -> None:
    """Time the first contentful paint of every page, each in a browser that has seen nothing."""
    program = next(filter(None, map(shutil.which, CHROMIUM)), None)
    if program is None:
        print(f"\nno Chromium here: none of {', '.join(CHROMIUM)} is installed")
        return
    from playwright.sync_api import sync_playwright

    print("\n| page | first contentful paint ms | until it stands still ms |\n|---|---|---|")
    arguments = ["--no-sandbox"] if os.geteuid() == 0 else []
    with sync_playwright() as playwright:
        for path in SITE:
            browser = playwright.chromium.launch(executable_path=program, args=arguments)
            page = browser.new_page()
            started = time.perf_counter()
            page.goto(f"{url}/dashboard{path}", wait_until="networkidle")
            still = 1000 * (time.perf_counter() - started)
            paint = page.evaluate(
                "performance.getEntriesByName('first-contentful-paint')[0].startTime"
            )
            print(f"| /dashboard{path} | {paint:.0f} | {still:.0f} |", flush=True)
            browser.close()


@contextmanager
def served(settings: Settings) -> Iterator[str]:
    """The dashboard's routes, with a service that has loaded no model, on a real port."""
    app = FastAPI()
    app.include_router(create_dashboard_page_router())
    app.include_router(create_dashboard_router(settings, NLIService(settings)))
    listener = socket.create_server(("127.0.0.1", 0))
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # as the server does
    server = uvicorn.Server(uvicorn.Config(app, log_config=None))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join()
        listener.close()


if __name__ == "__main__":
    main()
