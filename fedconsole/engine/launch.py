"""Starts a run's engine as a process of its own; imports nothing that is slow."""

from __future__ import annotations

import math
import os
import secrets
import select
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Final

import msgspec

from fedconsole import paths
from fedconsole.coordinator.plan import Plan
from fedconsole.equivalent import command_line
from fedconsole.errors import EngineCrashedError, RefusedError, StorageError

if TYPE_CHECKING:
    from fedconsole.history import RunSummary

_START_S = 20.0
"""A new run's engine listens within a third of a second; a busy Pi as a desktop needs more. One that takes a
run up reads its journal first: of ten thousand rounds for half a minute and more."""
_PATIENCE_S = 1.0
"""After each of these whoever waits for an engine is told so."""

READY: Final = b"!"
"""What an engine says when it listens; else why it cannot use the run's folder."""
_MAX_ANSWER_BYTES: Final = 4096
"""A pipe passes on so much in one piece."""

WhileWaiting = Callable[[int], None]
"""Called after each second of waiting with their number; what it raises ends the engine."""


class EngineRequest(msgspec.Struct, frozen=True):
    """What an engine reads from its standard input before anything else."""

    run_id: str
    plan: Plan
    dry_run: bool = False
    search_s: float = 0.0
    """How long to listen for announcements of a device that is lost; 0: no multicast."""


def take_up_engine(
    run_id: str, *, search_s: float = 0.0, while_waiting: WhileWaiting = lambda _: None
) -> subprocess.Popen[bytes]:
    """Start another engine for a run whose own is gone; returns as `start_engine` does.

    It is waited for as long as it reads.

    Raises:
        RefusedError: the run has ended, is running, is being taken up, or never began.
        EngineCrashedError, StorageError: as `start_engine`; the journal is damaged.
    """
    from fedconsole import history

    summary = history.summarize(run_id)
    created = next(history.lines(run_id, types=["run.created"]), None)
    if summary is None or created is None:
        raise RefusedError(f"run {run_id} never began: there is nothing to go on with")
    resumed_already = RefusedError(
        f"run {run_id} is resumed already; to join it: fedconsole attach {run_id}"
    )
    if summary.state.is_going:
        raise resumed_already
    if summary.state is not history.RunState.CRASHED:
        raise RefusedError(
            f"run {run_id} is not running: it is {summary.state}; only one whose engine is gone can be "
            f"taken up. {_what_else(summary)}"
        )
    plan = _plan(summary)
    folder = created.get("folder", ".")
    try:
        return start_engine(
            run_id, plan, goes_on_in=folder, search_s=search_s, while_waiting=while_waiting
        )
    except (EngineCrashedError, StorageError):
        if history.is_carried(run_id):
            raise resumed_already from None
        raise


def _what_else(summary: RunSummary) -> str:
    """What may be done in place of taking up a run that has ended."""
    if summary.model_path is not None:
        return f"To train on from its model: fedconsole run --init-from {summary.model_path}"
    return f"It has no model: {summary.reason}. To try again: {command_line(_plan(summary))}"


def _plan(summary: RunSummary) -> Plan:
    try:
        return msgspec.convert(summary.plan, Plan)
    except ValueError as error:
        raise StorageError(f"the journal of run {summary.run} is damaged: {error}") from error


def new_run_id() -> str:
    """The day, then four random hexadecimal digits, of no run so far: sorts by day, is short to type."""
    while True:
        run_id = f"{datetime.now(tz=UTC):%Y%m%d}-{secrets.token_hex(2)}"
        if not os.path.lexists(paths.runs_dir() / run_id):
            return run_id


def start_engine(
    run_id: str,
    plan: Plan,
    *,
    dry_run: bool = False,
    goes_on_in: str | None = None,
    search_s: float = 0.0,
    while_waiting: WhileWaiting = lambda _: None,
) -> subprocess.Popen[bytes]:
    """Start an engine; returns when its control socket listens.

    The engine lives in a session of its own: closing the terminal leaves the run going.

    Args:
        goes_on_in: the folder in which an earlier engine of this run was started; None: there was
            none. The new one goes on where the journal ends.
        search_s: how long to listen for announcements of a lost device at a time; 0: never.

    Raises:
        EngineCrashedError: it ended at once; the message ends with its last words.
        StorageError: the run's folder cannot be made, or the engine cannot use it.
    """
    folder = paths.runs_dir() / run_id
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=goes_on_in is not None)
        paths.require_regular(folder / "engine.log")
        log = (folder / "engine.log").open("ab")
        if goes_on_in is not None:
            Path(goes_on_in).stat()
    except OSError as error:
        raise StorageError(f"cannot begin in {folder}: {error}") from error
    ready, ready_writer = os.pipe()
    with log:
        process = subprocess.Popen(
            [sys.executable, "-m", "fedconsole.engine", str(ready_writer)],
            stdin=subprocess.PIPE,
            stdout=log,
            stderr=log,
            pass_fds=[ready_writer],
            start_new_session=True,
            cwd=goes_on_in,
        )
    os.close(ready_writer)
    try:
        assert process.stdin is not None
        with process.stdin as pipe:
            pipe.write(msgspec.json.encode(EngineRequest(run_id, plan, dry_run, search_s)))
        limit_s = _START_S if goes_on_in is None else math.inf
        answer = _answer(ready, limit_s, while_waiting)
    except BrokenPipeError:
        answer = b""
    except BaseException:
        process.kill()
        process.wait()
        raise
    finally:
        os.close(ready)
    if answer != READY:
        process.kill()
        process.wait()
        if answer:
            raise StorageError(answer.decode(errors="replace"))
        last = (folder / "engine.log").read_text(errors="replace").strip().splitlines()[-1:]
        raise EngineCrashedError(f"the engine did not start: {last[0] if last else 'no reason'}")
    return process


def _answer(ready: int, limit_s: float, while_waiting: WhileWaiting) -> bytes:
    """What an engine says at its start; empty: it has ended, or the time is up."""
    for num_waits in count(1):
        if select.select([ready], [], [], min(_PATIENCE_S, limit_s))[0]:
            break
        if num_waits * _PATIENCE_S >= limit_s:
            return b""
        while_waiting(num_waits)
    return os.read(ready, _MAX_ANSWER_BYTES)
