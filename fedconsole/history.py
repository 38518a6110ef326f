"""Reads the folders of finished and running runs; changes nothing in them but to remove one."""

from __future__ import annotations

import fcntl
import json
import shutil
import socket
from collections.abc import AsyncGenerator, Iterator, Sequence
from contextlib import aclosing, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from functools import cache
from pathlib import Path
from typing import Any

from fedconsole import paths
from fedconsole.coordinator.facts import metric
from fedconsole.engine.control import ControlLink, socket_path, standstill
from fedconsole.engine.store import Line, make_line, time_ms
from fedconsole.errors import RefusedError, StorageError
from fedconsole.journal import damage_in_words, select


class RunState(StrEnum):
    RUNNING = "running"
    PAUSING = "pausing"
    """Its workers finish their batches."""
    PAUSED = "paused"
    STALLED = "stalled"
    """It runs, and stands still because its disk refuses."""
    COMPLETED = "completed"
    ABORTED = "aborted"
    FAILED = "failed"
    CRASHED = "crashed"
    """Its engine is gone and left no last line."""

    @property
    def is_going(self) -> bool:
        """Whether it has an engine."""
        return self not in _ENDS


_ENDS = {RunState.COMPLETED, RunState.ABORTED, RunState.FAILED, RunState.CRASHED}


@dataclass(frozen=True, slots=True)
class RunSummary:
    """One run at a glance."""

    run: str
    state: RunState
    task: str
    started: datetime
    seconds: float | None
    """None while it runs, and when it crashed."""
    rounds: int
    """Finished ones."""
    loss: float | None
    """Of the last evaluation, as `accuracy`."""
    accuracy: float | None
    macro_f1: float | None
    model_id: str | None
    model_path: str | None
    reason: str
    plan: dict[str, Any]


@dataclass(frozen=True, slots=True)
class RoundSummary:
    """One finished round."""

    round: int
    seconds: float
    updates: tuple[str, ...]
    """Ids of the workers whose updates are in the model."""
    training_loss: float | None
    loss: float | None
    """Of the evaluation after this round, as `accuracy`; None without one."""
    accuracy: float | None
    bytes_sent: int
    bytes_received: int
    model_id: str
    macro_f1: float | None


_ANSWER_S = 0.5
"""An engine that is frozen does not answer."""


def run_ids() -> list[str]:
    """All runs by name; from the folders alone, so that completion is quick.

    Raises:
        StorageError: their folder cannot be read.
    """
    folder = paths.runs_dir()
    try:
        return sorted(path.name for path in folder.iterdir() if path.is_dir())
    except FileNotFoundError:
        return []
    except OSError as error:
        raise StorageError(f"cannot read the folder of runs {folder}: {error.strerror}") from error


def by_start() -> list[str]:
    """All runs, the newest last; one without a journal that can be read is as old as its folder.

    Raises:
        StorageError: as `run_ids`.
    """
    started = [
        (began(run), run)
        for run in run_ids()
        # One that is just made has no journal yet.
        if has_journal(run) or not is_carried(run)
    ]
    return [run for _, run in sorted(started)]


def last_words(run: str) -> str:
    """Of a run without a journal: the last line of its engine's log, or what else its folder holds."""
    log = folder_of(run) / "engine.log"
    with suppress(OSError):
        paths.require_regular(log)
        if tail := log.read_text(errors="replace").strip().splitlines()[-1:]:
            return f"{tail[0]} ({log})"
    try:
        names = sorted(path.name for path in folder_of(run).iterdir())
    except OSError as error:
        return f"cannot read the folder {folder_of(run)}: {error.strerror}"
    return f"its folder holds {', '.join(names) or 'nothing'}"


@cache
def _started(folder: Path) -> str:
    """Remembered: the console asks again and again, for all runs.

    Raises:
        StorageError: the journal cannot be read.
        LookupError: there is none yet.
    """
    first = _first(folder.name)
    if first is None:
        raise LookupError(folder)
    time: str = first["time"]
    return time


def began(run: str) -> str:
    """When a run began; without a journal that can be read, when its folder changed last."""
    try:
        return _started(folder_of(run))
    except (StorageError, LookupError):
        # It must not hide the others; reading it says what is wrong.
        return _changed(folder_of(run))


def _changed(folder: Path) -> str:
    try:
        changed = datetime.fromtimestamp(folder.stat().st_mtime, tz=UTC)
    except OSError:
        return ""
    return changed.isoformat(timespec="milliseconds")


def has_journal(run: str) -> bool:
    """Be it one that cannot be read."""
    try:
        _started(folder_of(run))
    except LookupError:
        return False
    except StorageError:
        pass
    return True


def folder_of(run: str) -> Path:
    return paths.runs_dir() / run


def is_running(run: str) -> bool:
    """Whether the run's engine is there: it alone listens at the run's control socket."""
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(str(socket_path(run)))
        except OSError:
            return False
        return True


def is_carried(run: str) -> bool:
    """Whether an engine has its folder, be it that it does not listen yet."""
    path = folder_of(run) / "engine.lock"
    with suppress(OSError):
        paths.require_regular(path)
        with path.open() as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                return True
    return False


def require_running(run: str) -> None:
    """Raises RefusedError: no engine carries it; and what can be done."""
    if is_running(run):
        return
    if is_carried(run):
        raise RefusedError(
            f"the engine of run {run} does not listen now: try again in some seconds"
        )
    summary = summarize(run)
    if summary is None:
        raise RefusedError(f"run {run} is not running: it never began; its engine.log says more")
    if summary.state is RunState.CRASHED:
        raise RefusedError(
            f"run {run} is not running: its engine is gone; take it up: fedconsole resume {run}"
        )
    raise RefusedError(
        f"run {run} is not running: it is {summary.state}; see fedconsole runs show {run}"
    )


def lines(run: str, first_seq: int = 1, types: Sequence[str] = ()) -> Iterator[Line]:
    """The journal's lines in order, as `run --json` printed them.

    May be read in several threads, one after another.

    Args:
        types: only lines of these; none: all.

    Raises:
        StorageError: the journal cannot be read.
    """
    wanted = f"AND type IN ({','.join('?' * len(types))})" if types else ""
    yield from select(folder_of(run), f"seq >= ? {wanted} ORDER BY seq", first_seq, *types)


async def follow(run: str) -> AsyncGenerator[Line, None]:
    """The lines of a run whose engine is there, from the first on and as they come; ends with the engine.

    An engine that ends does not wait for a reader that is slow, or was stopped: the journal has the rest.

    Raises:
        EngineCrashedError: there is no engine.
        StorageError: the journal cannot be read.
    """
    last: Line = {"seq": 0, "type": ""}
    async with ControlLink.connect(run) as link, aclosing(link.events()) as told:
        async for last in told:
            yield last
    if last["type"] != "run.finished":
        for line in lines(run, last["seq"] + 1):
            yield line


def stall(run: str, last_seq: int) -> Line | None:
    """What a run that stands still tells the readers of its engine, and cannot journal.

    Args:
        last_seq: of the journal's last line.
    """
    reason = standstill(run, _ANSWER_S)
    if not reason:
        return None
    return make_line(run, last_seq, time_ms(), "run.stalled", json.dumps({"reason": reason}))


def summarize(run: str) -> RunSummary | None:
    """One run at a glance; None if it has no journal yet.

    Raises:
        StorageError: the journal cannot be read.
    """
    with damage_in_words(folder_of(run)):
        return _summarize(run)


def _summarize(run: str) -> RunSummary | None:
    first = _first(run)
    if first is None:
        return None
    end = _end(run)
    test = _last_test(run)
    last_round = _last(run, "round.finished") or {}
    state, reason = _state(run, end)
    return RunSummary(
        run=run,
        state=state,
        task=first["task"],
        started=datetime.fromisoformat(first["time"]),
        seconds=end.get("seconds"),
        rounds=last_round.get("round", 0),
        loss=metric(test, "loss"),
        accuracy=metric(test, "accuracy"),
        macro_f1=metric(test, "macro_f1"),
        model_id=end.get("model_id") or last_round.get("model_id"),
        model_path=end.get("model_path"),
        reason=reason,
        plan=first["plan"],
    )


def _state(run: str, end: Line) -> tuple[RunState, str]:
    """And the reason for it, if there is one."""
    if end:
        return RunState(end["outcome"]), end.get("reason") or ""
    if not is_running(run) and not is_carried(run):
        return RunState.CRASHED, ""
    if reason := standstill(run, _ANSWER_S):
        return RunState.STALLED, reason
    # The newest of them is near the end of the journal: a paused run writes little, another one rounds.
    last = _last(run, *_PAUSES, *_PAUSE_ENDS) or {"type": ""}
    return _PAUSES.get(last["type"], RunState.RUNNING), ""


def rounds(run: str) -> list[RoundSummary]:
    """The finished rounds, in order.

    Raises:
        StorageError: the journal cannot be read.
    """
    tests: dict[int, Line] = {}
    finished: dict[int, Line] = {}
    for line in select(folder_of(run), f"(type = 'round.finished' OR {_ON_TEST_SET}) ORDER BY seq"):
        (tests if line["type"] == "eval" else finished)[line["round"]] = line
    return [
        RoundSummary(
            round=number,
            seconds=line["seconds"],
            updates=tuple(line["updates"]),
            training_loss=line["loss"],
            loss=metric(tests.get(number, {}), "loss"),
            accuracy=metric(tests.get(number, {}), "accuracy"),
            bytes_sent=line["bytes_sent"],
            bytes_received=line["bytes_received"],
            model_id=line["model_id"],
            macro_f1=metric(tests.get(number, {}), "macro_f1"),
        )
        for number, line in finished.items()
    ]


def confusion(run: str) -> dict[str, list[int]]:
    """How many examples of each true class the last evaluation took for each class, in this order.

    Empty without an evaluation by class.

    Raises:
        StorageError: the journal cannot be read.
    """
    found: dict[str, list[int]] = _last_test(run).get("confusion") or {}
    return found


def remove(run: str) -> None:
    """Delete a run's folder with its model.

    Raises:
        RefusedError: its engine is running.
        StorageError: the disk refuses.
    """
    if is_running(run) or is_carried(run):
        raise RefusedError(f"run {run} is running; abort it first: fedconsole abort {run}")
    try:
        socket_path(run).unlink(missing_ok=True)
        shutil.rmtree(folder_of(run))
    except OSError as error:
        raise StorageError(f"cannot remove {folder_of(run)}: {error}") from error


_PAUSES = {"run.pausing": RunState.PAUSING, "run.paused": RunState.PAUSED}
_PAUSE_ENDS = ("run.created", "run.resumed", "run.aborting", "run.restarted", "round.started")
_ON_TEST_SET = "(type = 'eval' AND line ->> '$.worker' IS NULL)"
"""Other evaluations are a worker's, on its holdout."""


def _first(run: str) -> Line | None:
    return next(select(folder_of(run), "seq = 1"), None)


def _end(run: str) -> Line:
    # It is the last of all lines; looking for its type would read the whole journal without one.
    last = next(select(folder_of(run), "TRUE ORDER BY seq DESC LIMIT 1"), {})
    return last if last.get("type") == "run.finished" else {}


def _last_test(run: str) -> Line:
    return next(select(folder_of(run), f"{_ON_TEST_SET} ORDER BY seq DESC LIMIT 1"), {})


def _last(run: str, *types: str) -> Line | None:
    wanted = ",".join("?" * len(types))
    return next(
        select(folder_of(run), f"type IN ({wanted}) ORDER BY seq DESC LIMIT 1", *types), None
    )
