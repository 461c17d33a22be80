"""Serving: latency, precision, versions, throughput and swaps, beside what else there is.

    make bench                         # or: python benchmarks/serving.py [--only PART ...]

The starter, and random LoRA adapters on all matrices of its upper third: the
default recipe's shape. Peers and ours are called in turn; medians. Parts:

- ``latency``: one pair and 32 mixed ones: transformers' forward pass in float32, ONNX Runtime in
  float32 and int8 (the same weights, exported), ours in float32 and in bf16.
- ``precision``: labels and probabilities of ours and of int8 against transformers' float32, on
  --data or the demo's pairs.
- ``throughput``: 384 pairs of 20 to 200 tokens by sentence-transformers' ``CrossEncoder.predict``,
  by the same over ONNX Runtime, and by our service; and the matrix products alone, as a bound.
- ``versions``: 32 rows of one version and of eight, in one pass.
- ``residents``: as many versions in memory as the default keeps; 32 rows of one, and of 32 of them.
- ``server``: 32 clients that send single pairs over HTTP, to ours and to a server like Lyra's,
  which judges pair by pair with a transformers pipeline.
- ``shadow``: what callers wait without and with a shadow that draws every pair, one after the
  other and four at a time, in turn.
- ``swaps``: the ways to another version; memory and the base's logits after a thousand loads.
- ``saturated``: a thousand swaps of the active version while 32 clients ask without pause; every
  answer is held against what the version that it names says to that pair alone.
- ``memory``: what a slow base takes, and whether the system gets it back.

Every part has a process of its own, and so has everything that is compared where threads of one
would be in the way of another's: servers, their clients, and what judges many pairs. The last
table holds the figures against the project's targets; a missed one is no error. Where the
processor has no bf16, nothing is measured in it.
"""

from __future__ import annotations

import argparse
import os
import platform
import sys
from collections.abc import Callable
from pathlib import Path

import torch
from serving_engine import latency, precision
from serving_memory import memory
from serving_processes import alone
from serving_residents import residents
from serving_saturated import saturated
from serving_server import server
from serving_shadow import shadow
from serving_throughput import throughput
from serving_tools import Ground, Target, read
from serving_versions import swaps, versions

from lyra_nli.cli.environment import TUNED
from lyra_nli.demo.world import build_world
from lyra_nli.models.base import load_base

PARTS: dict[str, Callable[[Ground], list[Target]]] = {
    "latency": latency,
    "precision": precision,
    "throughput": throughput,
    "versions": versions,
    "residents": residents,
    "server": server,
    "shadow": shadow,
    "swaps": swaps,
    "saturated": saturated,
    "memory": memory,
}

PASSES = ("latency", "precision", "versions", "swaps")
"""The parts that judge in the thread that calls them, without a service."""

OUTCOMES = {True: "met", False: "**missed**", None: "not to be measured here"}


def main() -> None:
    """Print the tables."""
    if not TUNED.keys() <= os.environ.keys():  # which libraries read when they are loaded
        os.execve(sys.executable, [sys.executable, *sys.argv], {**TUNED, **os.environ})
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--repeat", type=int, default=15)
    parser.add_argument("--data", type=Path, nargs="*", help="JSONL with premise and hypothesis")
    parser.add_argument("--only", nargs="*", choices=PARTS, default=list(PARTS))
    options = parser.parse_args()
    print(f"{platform.machine()}, {options.threads} threads, torch {torch.__version__}")
    targets: list[Target] = []
    for name in options.only:
        print(f"\n## {name}", flush=True)
        targets += alone(run, name, options)
    print("\n## targets\n\n| target | measured | |\n|---|---|---|")
    for target in targets:
        print(f"| {target.name} | {target.measured} | {OUTCOMES[target.met]} |")


def run(name: str, options: argparse.Namespace) -> list[Target]:
    """One part, in this process; where a service judges, it alone takes several cores."""
    torch.set_num_threads(options.threads if name in PASSES else 1)
    pairs = read(options.data) if options.data else list(build_world().pairs().values())
    targets = PARTS[name](Ground(load_base("starter"), pairs, options.threads, options.repeat))
    sys.stdout.flush()
    return targets


if __name__ == "__main__":
    main()
