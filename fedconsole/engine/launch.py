"""Starts a run's engine as a process of its own; imports nothing that is slow."""

from __future__ import annotations

import os
import secrets
import select
import subprocess
import sys
from datetime import UTC, datetime

import msgspec

from fedconsole import paths
from fedconsole.coordinator.plan import Plan
from fedconsole.errors import EngineCrashedError, StorageError

_START_S = 20.0
"""The engine listens within a third of a second; a busy Pi as a desktop needs more."""


class EngineRequest(msgspec.Struct, frozen=True):
    """What an engine reads from its standard input before anything else."""

    run_id: str
    plan: Plan
    dry_run: bool = False


def new_run_id() -> str:
    """The day, then four random hexadecimal digits: sorts by day, is short to type."""
    return f"{datetime.now(tz=UTC):%Y%m%d}-{secrets.token_hex(2)}"


def start_engine(run_id: str, plan: Plan, *, dry_run: bool = False) -> subprocess.Popen[bytes]:
    """Start an engine; returns when its control socket listens.

    The engine lives in a session of its own: closing the terminal leaves the run going.

    Raises:
        EngineCrashedError: it ended at once; the message ends with its last words.
        StorageError: the run's folder cannot be made.
    """
    folder = paths.runs_dir() / run_id
    try:
        folder.mkdir(mode=0o700, parents=True)
        log = (folder / "engine.log").open("wb")
    except OSError as error:
        raise StorageError(f"cannot make the run's folder {folder}: {error}") from error
    ready, ready_writer = os.pipe()
    with log:
        process = subprocess.Popen(
            [sys.executable, "-m", "fedconsole.engine", str(ready_writer)],
            stdin=subprocess.PIPE,
            stdout=log,
            stderr=log,
            pass_fds=[ready_writer],
            start_new_session=True,
        )
    os.close(ready_writer)
    try:
        assert process.stdin is not None
        with process.stdin as pipe:
            pipe.write(msgspec.json.encode(EngineRequest(run_id, plan, dry_run)))
        has_answer = bool(select.select([ready], [], [], _START_S)[0])
        is_ready = has_answer and os.read(ready, 1) != b""
    except BrokenPipeError:
        is_ready = False
    finally:
        os.close(ready)
    if not is_ready:
        process.kill()
        process.wait()
        last = (folder / "engine.log").read_text(errors="replace").strip().splitlines()[-1:]
        raise EngineCrashedError(f"the engine did not start: {last[0] if last else 'no reason'}")
    return process
