"""A throw-away PostgreSQL server for tests, where its programs are installed.

`LYRA_TEST_POSTGRES_URL` names a server of your own instead; each test makes a database of
its own there and drops it.
"""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest


@contextmanager
def postgres_url() -> Iterator[str]:
    """Give the URL of a server on which databases may be made; skip where there is none."""
    pytest.importorskip("psycopg", reason="psycopg is not installed (extra: postgres)")
    if given := os.environ.get("LYRA_TEST_POSTGRES_URL"):
        yield given
        return
    programs = find_programs()
    if programs is None:
        pytest.skip("no PostgreSQL here: no initdb, and LYRA_TEST_POSTGRES_URL is not set")
    folder = Path(tempfile.mkdtemp(prefix="pg-"))  # short: a socket's path has a limit
    owner = unprivileged(folder)
    data = folder / "data"

    def run(program: str, *arguments: str) -> None:
        command = [str(programs / program), *arguments]
        done = subprocess.run(command, capture_output=True, text=True, check=False, **owner)
        if done.returncode:
            pytest.skip(f"PostgreSQL can't run here: {(done.stderr or done.stdout).strip()}")

    try:
        run("initdb", "-D", str(data), "-U", "lyra", "-A", "trust", "-E", "UTF8", "--no-sync")
        options = f"-k {folder} -c listen_addresses= -c fsync=off -c max_connections=30"
        run("pg_ctl", "-D", str(data), "-o", options, "-l", str(folder / "log"), "-w", "start")
        try:
            yield f"postgresql+psycopg://lyra@/postgres?host={folder}"
        finally:
            run("pg_ctl", "-D", str(data), "-m", "immediate", "-w", "stop")
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def find_programs() -> Path | None:
    """Find the folder with `initdb` and `pg_ctl`."""
    newest_first = sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    on_path = shutil.which("initdb")
    folders = [Path(on_path).resolve().parent] if on_path else []
    return next(
        (
            folder
            for folder in (*folders, *newest_first)
            if (folder / "initdb").exists() and (folder / "pg_ctl").exists()
        ),
        None,
    )


def unprivileged(folder: Path) -> dict[str, Any]:
    """Who is to run the server: PostgreSQL refuses to be root."""
    if os.geteuid() != 0:
        return {}
    for name in ("postgres", "nobody"):
        try:
            user = pwd.getpwnam(name)
        except KeyError:
            continue
        os.chown(folder, user.pw_uid, user.pw_gid)
        return {
            "user": user.pw_uid,
            "group": user.pw_gid,
            "extra_groups": [],
            "cwd": str(folder),
            "env": {"PATH": os.environ.get("PATH", ""), "LC_ALL": "C.UTF-8"},
        }
    pytest.skip("PostgreSQL can't run as root, and there is no user postgres or nobody")
