"""A server's products have the helpers of one thread, whatever else has multiplied before."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = """
import asyncio, os, threading

from lyra_nli.ml_server.nli import NLIService
from lyra_nli.models import starter
from lyra_nli.records import Pair
from lyra_nli.settings import Settings


def helpers():
    return len(os.listdir("/proc/self/task")) - threading.active_count()


async def main():
    slow = str(starter.materialise())
    settings = {
        "nli": {"fast_model": "starter", "slow_model": slow, "device": "cpu"},
        "ml_server": {"threads": 2},
        "storage": {"database_path": "nowhere.db"},
        "monitoring": {"log_share": 0.0},
    }
    before = helpers()
    service = NLIService(Settings.model_validate(settings))
    await service.start()
    pairs = [Pair(f"Trial {n} met its end point.", "The trial succeeded.") for n in range(16)]
    await service.judge(pairs)
    await service.judge(pairs, use_slow=True)
    print("helpers", helpers() - before)
    await service.close()


asyncio.run(main())
"""


@pytest.mark.skipif(sys.platform != "linux", reason="threads are counted by /proc")
def test_a_server_has_the_helpers_of_the_thread_that_judges(tmp_path: Path) -> None:
    # Tokenizers have threads of their own, which are not meant here.
    env = {**os.environ, "OMP_NUM_THREADS": "2", "TOKENIZERS_PARALLELISM": "false"}
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT],
        cwd=tmp_path,
        env=env,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split()[-2:] == ["helpers", "1"]
