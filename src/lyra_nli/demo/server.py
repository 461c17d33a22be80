"""The real ML server, run beside the demo as a process of its own."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx

from lyra_nli.client import MLClient
from lyra_nli.errors import ServerError

_START_SECONDS = 120.0
_POLL_SECONDS = 0.05


@contextmanager
def running_server(folder: Path) -> Iterator[MLClient]:
    """`lyra-nli serve` in a project folder, ready to judge; ended when the block ends.

    Raises:
        ServerError: when it does not become ready; its log's last lines say why.
    """
    port = _free_port()
    log = folder / "server.log"
    # The project's own settings count there, not the caller's variables.
    environment = {key: value for key, value in os.environ.items() if not _overrides(key)}
    command = [sys.executable, "-m", "lyra_nli.cli.main", "serve", "--port", str(port)]
    with log.open("w", encoding="utf-8") as stream:
        process = subprocess.Popen(  # noqa: S603 - our own interpreter and module
            command, cwd=folder, env=environment, stdout=stream, stderr=subprocess.STDOUT
        )
        try:
            with MLClient(f"http://127.0.0.1:{port}", timeout=300.0) as client:
                _wait_until_ready(client, process, log)
                yield client
        finally:
            process.terminate()
            try:
                process.wait(timeout=20)
            except subprocess.TimeoutExpired:
                process.kill()


def wait_for_version(client: MLClient, version: str | None, seconds: float = 30.0) -> float:
    """Wait until the server serves a version (None: the base); returns how long it took.

    Raises:
        ServerError: when it does not follow in time.
    """
    started = time.monotonic()
    while time.monotonic() - started < seconds:
        if client.status().get("version") == version:
            return time.monotonic() - started
        time.sleep(_POLL_SECONDS)
    raise ServerError(f"the server did not switch to {version or 'the base'} in {seconds:.0f} s")


def _wait_until_ready(client: MLClient, process: subprocess.Popen[bytes], log: Path) -> None:
    started = time.monotonic()
    while time.monotonic() - started < _START_SECONDS:
        if process.poll() is not None:
            break
        if _is_ready(client.url):
            return
        time.sleep(_POLL_SECONDS)
    raise ServerError(
        "the ML server did not become ready",
        problems=log.read_text("utf-8", errors="replace").splitlines()[-10:],
    )


def _overrides(variable: str) -> bool:
    return variable.startswith("LYRA_") and variable != "LYRA_NLI_CACHE"


def _is_ready(url: str) -> bool:
    try:
        return httpx.get(f"{url.rstrip('/')}/readyz", trust_env=False).is_success
    except httpx.TransportError:  # not listening yet
        return False


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])
