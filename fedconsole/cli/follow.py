"""Starts an engine and stays with its run: shows it, and turns signals into requests."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

from fedconsole import history, paths
from fedconsole.cli.output import say
from fedconsole.engine.control import ControlLink
from fedconsole.engine.launch import WhileWaiting, new_run_id
from fedconsole.errors import EngineCrashedError, ExitCode, FedconsoleError
from fedconsole.headless import RunProgress, Screen, advance, status

_ABORT_S = 10.0
"""A service manager that sent SIGTERM kills after some 10 to 90 s; the run must be tidy by then."""
_KILL_S = 2.0
_EXIT_S = 5.0
_CAUSES = {
    signal.SIGINT: ExitCode.INTERRUPT,
    signal.SIGTERM: ExitCode.TERMINATE,
    signal.SIGHUP: ExitCode.HANGUP,
}
_LOG_LINES = 5
_TELL_S = 4


async def start_and_follow(
    start: Callable[[str, WhileWaiting], subprocess.Popen[bytes]],
    screen: Screen,
    *,
    run: str | None = None,
    timeout_s: float | None = None,
) -> int:
    """Carry a run to its end.

    Args:
        start: starts the engine of the run with this id. One that may take long is to be waited for with
            what it is given: a signal ends it then.
        run: one that an engine has left; None: a new one.

    Ctrl-C aborts it and a second one kills its engine; SIGTERM, SIGHUP and the timeout abort it and
    kill its engine when that takes more than 10 s.

    Returns:
        The exit code of the run, or of what ended it.

    Raises:
        EngineCrashedError: the engine is gone without a last line.
    """
    run = run or new_run_id()
    with _causes() as causes, _status_on_request() as take:
        # In a thread: a signal in this moment must find an engine to stop.
        try:
            engine = await asyncio.to_thread(start, run, _until(causes))
        except _CalledOffError:
            return causes.get_nowait()
        stopper = _Stopper(run, engine, causes)
        loop = asyncio.get_running_loop()
        if timeout_s is not None:
            loop.call_later(timeout_s, causes.put_nowait, ExitCode.TIMEOUT)
        watching = loop.create_task(stopper.watch())
        try:
            exit_code = await _show_lines(run, screen, take)
            with suppress(subprocess.TimeoutExpired):
                await asyncio.to_thread(engine.wait, _EXIT_S)
        finally:
            watching.cancel()
            with suppress(asyncio.CancelledError):
                await watching
    if stopper.exit_code is not None:
        return stopper.exit_code
    if exit_code is None:
        raise crash(run)
    return exit_code


class _CalledOffError(Exception):
    """A signal came while the engine was waited for."""


def _until(causes: asyncio.Queue[ExitCode]) -> WhileWaiting:
    """Waits until a signal comes."""

    def wait(num_seconds: int) -> None:
        tell_waiting(num_seconds)
        if not causes.empty():
            raise _CalledOffError

    return wait


def tell_waiting(num_seconds: int) -> None:
    """Say once what an engine does that takes a run up and is not ready yet."""
    if num_seconds == _TELL_S:
        say("reading the journal of a long run; Ctrl-C leaves the run as it is")


async def show(run: str, screen: Screen) -> int | None:
    """Show a run's lines until its engine closes; gives the exit code of its last line, if any.

    SIGUSR1 says meanwhile where the run stands.
    """
    with _status_on_request() as take:
        return await _show_lines(run, screen, take)


async def _show_lines(
    run: str, screen: Screen, take: Callable[[dict[str, Any]], None]
) -> int | None:
    exit_code = None
    is_seen = True
    try:
        async for line in history.follow(run):
            take(line)
            if is_seen:
                is_seen = _show(screen, line)
            if line["type"] == "run.finished":
                exit_code = line["exit_code"]
    finally:
        if is_seen:
            with suppress(OSError):
                screen.close()
    return exit_code


def crash(run: str) -> EngineCrashedError:
    """What to raise when an engine is gone without a last line."""
    log = paths.runs_dir() / run / "engine.log"
    with suppress(OSError):
        paths.require_regular(log)
        tail = log.read_text(errors="replace").splitlines()[-_LOG_LINES:]
        say("\n".join(tail))
    if history.summarize(run) is None:
        return EngineCrashedError(f"run {run} never began; its engine's log is {log}")
    return EngineCrashedError(
        f"the engine of run {run} ended without a last word; its log is {log}; "
        f"finished rounds are kept, and the run can go on after them: fedconsole resume {run}"
    )


def _show(screen: Screen, line: dict[str, object]) -> bool:
    try:
        screen.show(line)
    except OSError:
        # Nobody reads any more; the run goes on. Python would complain at exit of what is buffered.
        with open(os.devnull, "w") as devnull:  # noqa: PTH123
            os.dup2(devnull.fileno(), sys.stdout.fileno())
        return False
    return True


class _Stopper:
    """Ends a run when there is a cause."""

    def __init__(
        self, run: str, engine: subprocess.Popen[bytes], causes: asyncio.Queue[ExitCode]
    ) -> None:
        self._run = run
        self._engine = engine
        self._causes = causes
        self.exit_code: ExitCode | None = None
        """None: the run's own last line decides."""

    async def watch(self) -> None:
        cause = await self._causes.get()
        if cause is ExitCode.INTERRUPT:
            say("aborting; the last checkpoint is kept; Ctrl-C again ends at once")
        else:
            say(f"aborting ({cause.name.lower()})")
            self.exit_code = cause
        # Not awaited: an engine that does not answer must not hide the next signal.
        asking = asyncio.get_running_loop().create_task(self._ask_to_abort())
        try:
            async with asyncio.timeout(None if cause is ExitCode.INTERRUPT else _ABORT_S):
                await self._causes.get()
        except TimeoutError:
            say(f"no end within {_ABORT_S:.0f} s; killing the engine")
        finally:
            asking.cancel()
        self.exit_code = self.exit_code or ExitCode.ABORTED
        await self._kill()

    async def _ask_to_abort(self) -> None:
        # Refused or unheard: the run has ended by itself, and its last line says how.
        with suppress(FedconsoleError):
            async with ControlLink.connect(self._run) as link:
                await link.request("abort")

    async def _kill(self) -> None:
        # The group: the engine's trainers are in it.
        with suppress(ProcessLookupError):
            os.killpg(self._engine.pid, signal.SIGTERM)
        try:
            await asyncio.to_thread(self._engine.wait, _KILL_S)
        except subprocess.TimeoutExpired:
            with suppress(ProcessLookupError):
                os.killpg(self._engine.pid, signal.SIGKILL)


@contextmanager
def _status_on_request() -> Iterator[Callable[[dict[str, Any]], None]]:
    """Meanwhile SIGUSR1 writes one line on stderr; gives what must be told every line of the run."""
    loop = asyncio.get_running_loop()
    progress = RunProgress()

    def take(line: dict[str, Any]) -> None:
        nonlocal progress
        progress = advance(progress, line)

    loop.add_signal_handler(signal.SIGUSR1, lambda: say(status(progress)))
    try:
        yield take
    finally:
        loop.remove_signal_handler(signal.SIGUSR1)
        signal.signal(signal.SIGUSR1, signal.SIG_IGN)


@contextmanager
def _causes() -> Iterator[asyncio.Queue[ExitCode]]:
    """Signals, as the exit codes that they would give to the front end."""
    loop = asyncio.get_running_loop()
    causes: asyncio.Queue[ExitCode] = asyncio.Queue()
    # An ignored one stays ignored: that is how nohup asks.
    caught = [number for number in _CAUSES if signal.getsignal(number) != signal.SIG_IGN]
    num_causes = 0

    def take(cause: ExitCode) -> None:
        nonlocal num_causes
        num_causes += 1
        causes.put_nowait(cause)

    for number in caught:
        loop.add_signal_handler(number, take, _CAUSES[number])
    try:
        yield causes
    finally:
        for number in caught:
            loop.remove_signal_handler(number)
            if num_causes:
                # It leaves already: one more must not end it with another exit code, or a traceback.
                signal.signal(number, signal.SIG_IGN)
