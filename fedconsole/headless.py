"""Shows a run without a screen of its own: JSON lines, Rich progress, or plain text.

A screen is given the run's lines (docs/operating.md, "JSON lines") and never asks for anything.
"""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Final, Protocol

import msgspec

from fedconsole.colours import painted, role_of_line
from fedconsole.errors import ExitCode
from fedconsole.sentences import (
    LINE_LIMIT,
    Line,
    count,
    metrics_in_words,
    number_in_words,
    seed_line,
    sentence,
)
from pi_daemon.protocol.text import clean

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import TaskID

_HIGH_RATE = frozenset({"worker.batches", "worker.telemetry", "worker.phase", "heartbeat"})
_NOTABLE = frozenset(
    {
        "run.created",
        "run.restarted",
        "run.pausing",
        "run.paused",
        "run.resumed",
        "run.aborting",
        "run.stopping",
        "run.quorum",
        "run.stalled",
        "run.fewer",
        "round.finished",
        "worker.lost",
        "worker.rejoined",
        "worker.straggler",
        "worker.rejected",
        "warning",
    }
)


# From lines to what is known about the run


@dataclass(frozen=True, slots=True)
class WorkerProgress:
    phase: str = ""
    batches_done: int = 0
    num_batches: int | None = None
    loss: float | None = None


@dataclass(frozen=True, slots=True)
class RunProgress:
    """What the lines so far say about a run."""

    run: str = ""
    num_rounds: int | None = None
    """None: the run is counted in epochs, and how many rounds they take is seen at the end."""
    round_number: int = 0
    rounds_finished: int = 0
    workers: Mapping[str, WorkerProgress] = field(default_factory=dict)
    test: Line = field(default_factory=dict)
    """The last evaluation on the desktop's test set."""
    finished: Line | None = None


def advance(progress: RunProgress, line: Line) -> RunProgress:
    """Take in the next line; one that says nothing about progress changes nothing."""
    match line["type"]:
        case "run.created":
            return replace(progress, run=line["run"], num_rounds=line["plan"].get("rounds"))
        case "run.stopping":
            return replace(progress, num_rounds=line["round"])
        case "round.started":
            workers = dict(progress.workers) | {name: WorkerProgress() for name in line["cohort"]}
            return replace(progress, round_number=line["round"], workers=workers)
        case "round.finished":
            return replace(progress, rounds_finished=line["round"])
        case "eval" if line.get("worker") is None:
            return replace(progress, test=line)
        case "run.finished":
            return replace(progress, finished=line)
        case "worker.phase":
            return _with_worker(progress, line, phase=line["phase"])
        case "worker.batches":
            return _with_worker(
                progress,
                line,
                batches_done=line["first"] + len(line["losses"]),
                num_batches=line["batches"],
                loss=line["losses"][-1],
            )
        case "worker.lost" | "worker.straggler":
            return _with_worker(progress, line, phase=line["type"].removeprefix("worker."))
        case "worker.update":
            return _with_worker(progress, line, phase="done", loss=line["loss"])
        case _:
            return progress


def _with_worker(progress: RunProgress, line: Line, **changes: Any) -> RunProgress:
    name = line["worker"]
    worker = replace(progress.workers.get(name, WorkerProgress()), **changes)
    return replace(progress, workers=dict(progress.workers) | {name: worker})


# From lines to words


def last_words(progress: RunProgress) -> list[str]:
    """How the run ended, where its model is, and what to type next; the run has finished."""
    end = progress.finished or {}
    is_cut_off = "rounds" not in end
    """The journal has no end, as another engine can go on with the run."""
    if is_cut_off or (
        end.get("exit_code") in {ExitCode.REFUSED, ExitCode.NOT_PAIRED, ExitCode.NO_QUORUM}
        and not end["rounds"]
    ):
        # It never began, or stays as it was: the reason is all there is to say, as for every command
        # that is refused.
        return [clean(f"fedconsole: {end.get('reason', '')}", LINE_LIMIT)]
    result = f"{end['outcome']}: {count(end.get('rounds') or 0, 'round')}"
    result += f" in {end.get('seconds') or 0:.1f} s"
    if progress.test:
        result += f", {metrics_in_words(progress.test)}"
    lines = [f"{result}; {end['reason']}" if end.get("reason") else result]
    if end.get("model_path"):
        lines.append(f"model {(end.get('model_id') or '')[:12]} in {end['model_path']}")
    if end.get("rounds"):
        lines.append("next: fedconsole runs show latest")
    return [clean(text, LINE_LIMIT) for text in lines]


def status(progress: RunProgress) -> str:
    """Where the run stands, in one line."""
    if progress.round_number == 0:
        return clean(f"run {progress.run or '?'}: no round has begun", LINE_LIMIT)
    total = f" of {progress.num_rounds}" if progress.num_rounds else ""
    parts = [f"run {progress.run}: round {progress.round_number}{total}"]
    for name, worker in progress.workers.items():
        batches = f"{worker.batches_done}/{worker.num_batches}" if worker.num_batches else ""
        parts.append(" ".join(filter(None, (name, worker.phase, batches))))
    if progress.test:
        parts.append(metrics_in_words(progress.test))
    return clean(", ".join(parts), LINE_LIMIT)


def talk(
    line: Line, progress: RunProgress, verbosity: int, *, is_plain: bool = False
) -> Iterator[str]:
    """The lines of text that a line of the run is worth.

    Args:
        progress: with this line taken in.
        verbosity: -1 nothing, 0 rounds and trouble, 1 also workers and batches, 2 everything.
        is_plain: every event that is no measurement, whatever the verbosity.
    """
    kind = line["type"]
    if verbosity < 0 or kind == "run.finished":
        return
    is_detailed = is_plain or verbosity >= 1
    if kind == "worker.batches" and verbosity >= 1:
        yield seed_line(line)
    elif verbosity >= 2 or (is_detailed and kind not in _HIGH_RATE):
        yield sentence(line)
    elif kind == "round.finished" and progress.test.get("round") == line["round"]:
        # One line per round: its test has come just before.
        yield f"{sentence(line).removesuffix('.')}, {metrics_in_words(progress.test)}."
    elif kind in _NOTABLE:
        yield sentence(line)


# Where it is written


class Screen(Protocol):
    """Shows the lines of one run. An OSError means that nobody can see it any more."""

    def show(self, line: Line) -> None: ...

    def close(self) -> None: ...


_NO_ASCII: Final = re.compile("[^ -~]")


def json_line(line: Line) -> str:
    """One line of JSON; what is not seen, and could move a cursor or reorder text, is escaped."""
    text = msgspec.json.encode(line).decode()
    return _NO_ASCII.sub(lambda m: m[0] if m[0].isprintable() else json.dumps(m[0])[1:-1], text)


class JsonScreen:
    """Each line as it is, at once, on stdout."""

    def show(self, line: Line) -> None:
        print(json_line(line), flush=True)

    def close(self) -> None:
        pass


class TextScreen:
    """Lines of text on stderr."""

    def __init__(self, verbosity: int = 0, *, is_plain: bool = False) -> None:
        self._verbosity = verbosity
        self._is_plain = is_plain
        self._progress = RunProgress()

    def show(self, line: Line) -> None:
        self._progress = advance(self._progress, line)
        for text in talk(line, self._progress, self._verbosity, is_plain=self._is_plain):
            role = None if self._is_plain else role_of_line(line)
            print(painted(text, role, sys.stderr), file=sys.stderr, flush=True)

    def close(self) -> None:
        _say_last_words(self._progress, is_plain=self._is_plain)


class ProgressScreen:
    """Bars for the rounds and for each worker at the foot of a stderr terminal."""

    def __init__(self, verbosity: int = 0, console: Console | None = None) -> None:
        """`console` is stderr unless given."""
        from rich.console import Console

        from fedconsole.bars import make_bars

        self._verbosity = verbosity
        self._progress = RunProgress()
        self._console = console or Console(stderr=True, markup=False, highlight=False, emoji=False)
        # Bars that do not fit on the terminal would scroll it at every refresh.
        self._num_rows = max(1, self._console.height - 4)
        self.bars = make_bars(self._console)
        self._rounds = self.bars.add_task("rounds", total=None, note="", start=False)
        self._rows: dict[str, TaskID] = {}
        self.bars.start()

    def show(self, line: Line) -> None:
        self._progress = advance(self._progress, line)
        for text in talk(line, self._progress, self._verbosity):
            self._console.print(text, style=role_of_line(line), soft_wrap=True)
        if line["type"] == "round.started":
            self.bars.start_task(self._rounds)
            for name in line["cohort"]:
                self._draw_worker(name)
        self._draw_rounds()
        if line.get("worker") in self._rows:
            self._draw_worker(line["worker"])

    def _draw_rounds(self) -> None:
        progress = self._progress
        self.bars.update(
            self._rounds,
            total=progress.num_rounds,
            completed=progress.rounds_finished,
            note=f"round {progress.round_number}"
            + (f", {metrics_in_words(progress.test)}" if progress.test else ""),
        )

    def _draw_worker(self, name: str) -> None:
        worker = self._progress.workers.get(name)
        if worker is None:
            return
        if name not in self._rows:
            if len(self._rows) >= self._num_rows:
                return
            self._rows[name] = self.bars.add_task(clean(name, 24), total=None, note="")
        self.bars.update(
            self._rows[name],
            total=worker.num_batches,
            completed=worker.batches_done,
            note=clean(worker.phase, 20)
            + (f" loss {number_in_words(worker.loss)}" if worker.batches_done else ""),
        )

    def close(self) -> None:
        self.bars.stop()
        _say_last_words(self._progress)


def _say_last_words(progress: RunProgress, *, is_plain: bool = False) -> None:
    if progress.finished is not None:
        role = None if is_plain else role_of_line(progress.finished)
        for text in last_words(progress):
            print(painted(text, role, sys.stderr), file=sys.stderr, flush=True)
            role = None  # the first says how it ended


def choose_screen(*, json: bool, plain: bool, verbosity: int) -> Screen:
    """Bars only where a person sees them: an able terminal, and nobody asked for less."""
    if json:
        return JsonScreen()
    if shows_bars() and not plain and verbosity >= 0:
        return ProgressScreen(verbosity)
    return TextScreen(verbosity, is_plain=plain)


def shows_bars() -> bool:
    """Whether stderr is a terminal that can redraw its lines, with a person before it."""
    is_able = sys.stderr.isatty() and os.environ.get("TERM") not in (None, "", "dumb")
    return is_able and "CI" not in os.environ
