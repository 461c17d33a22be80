"""Trainings side by side, one thread each, and a record of what came of them.

A record is JSONL: the fields of a job, under ``on`` the data and the default recipe, under ``by``
what measured it, under ``found`` what was measured. Lines about other data, or of a recipe whose
defaults have changed since, are left alone.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import multiprocessing
import os
from collections.abc import Callable, Iterable
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, fields
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import torch

from lyra_nli import provenance
from lyra_nli.models.machine import compute_dtype
from lyra_nli.settings import DatasetSettings, TrainingSettings

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

J = TypeVar("J", bound="DataclassInstance")

DRAWN = 2
"""Raise it when the benchmarks draw other rows of the same files: 2, since a pair counts once."""

Found = dict[str, Any]


def peak_megabytes() -> float:
    """The largest resident size of this process (Linux).

    ``getrusage`` would give a parent's where that was larger: a process inherits it.
    """
    lines = Path("/proc/self/status").read_text("utf-8").splitlines()
    [line] = [line for line in lines if line.startswith("VmHWM")]
    return int(line.split()[1]) / 1024


def processor() -> str:
    """The processor's name, family and model, as Linux tells them."""
    lines = Path("/proc/cpuinfo").read_text("utf-8").splitlines()
    pairs = [line.split(":", 1) for line in lines if ":" in line]
    facts = {name.strip(): value.strip() for name, value in pairs}
    family, model = facts.get("cpu family", "?"), facts.get("model", "?")
    return f"{facts.get('model name', 'unknown')} (family {family}, model {model})"


def add_options(parser: argparse.ArgumentParser) -> None:
    """``--jobs`` and ``--record``."""
    parser.add_argument("--jobs", type=int, default=os.cpu_count())
    parser.add_argument("--record", type=Path, help="JSONL of what was measured")


def recorded(file: Path | None, kind: type[J], data: str | None) -> dict[J, Found]:
    """What earlier runs measured on these data; None: on any."""
    lines = file.read_text("utf-8").splitlines() if file and file.is_file() else []
    jobs = [job for line in lines if (job := json.loads(line))["on"] == data or data is None]
    names = [field.name for field in fields(kind)]
    return {kind(**{name: job[name] for name in names}): job["found"] for job in jobs}


def data_of(options: argparse.Namespace) -> str:
    """The files that a benchmark was given, by name, and a hash of the default recipe.

    ``own`` stands for what the package brings.
    """
    files = (getattr(options, name, None) for name in ("data", "general"))
    recipe = TrainingSettings().model_dump_json() + DatasetSettings().model_dump_json()
    digest = hashlib.sha256(f"{DRAWN} {recipe}".encode()).hexdigest()[:8]
    return f"{', '.join(file.stem if file else 'own' for file in files)}; {digest}"


def measured_by() -> dict[str, str]:
    """The commit, the libraries and the float type."""
    libraries = provenance.library_versions()
    return {
        "commit": (provenance.git_commit() or "")[:12],
        "torch": libraries["torch"],
        "transformers": libraries["transformers"],
        "products": str(compute_dtype("auto")).removeprefix("torch."),
        "on": date.today().isoformat(),
    }


def run_jobs(
    jobs: Iterable[J], measure: Callable[[J], Found], options: argparse.Namespace, kind: type[J]
) -> dict[J, Found]:
    """What the record holds already, and what these jobs add to it.

    Args:
        measure: can be pickled; each call has a process for itself meanwhile, and one thread.
        options: with those of `add_options`; with ``only_table``, all that is recorded counts.
    """
    data = None if getattr(options, "only_table", False) else data_of(options)
    by = measured_by()
    found = recorded(options.record, kind, data)
    missing = [job for job in dict.fromkeys(jobs) if job not in found]
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(options.jobs, context, torch.set_num_threads, (1,)) as pool:
        running = {pool.submit(measure, job): job for job in missing}
        for future in as_completed(running):
            job, found[running[future]] = running[future], future.result()
            if options.record:
                with options.record.open("a", encoding="utf-8") as lines:
                    row = {**asdict(job), "on": data, "by": by, "found": found[job]}
                    lines.write(json.dumps(row) + "\n")
    return found
