"""Checks the journal of a run against what a run promises, for tests that kill things.

Written from docs/operating.md and docs/protocol.md alone. It must not import the engine, the
coordinator or the protocol: what is wrong there must not be wrong here, too.
"""

from __future__ import annotations

import hashlib
import json
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

Line = dict[str, Any]


def check_run(folder: Path, *, must_be_finished: bool = True) -> list[str]:
    """What is wrong in a run's folder: with its journal, and with the model of its last round."""
    lines = read_journal(folder)
    return [
        *check_lines(lines, must_be_finished=must_be_finished),
        *_check_checkpoint(lines, folder),
    ]


def read_journal(folder: Path) -> list[Line]:
    """The lines in a run's `run.db`, without the fields that all lines share but `seq` and `type`."""
    path = folder / "run.db"
    if not path.exists():
        return []
    with closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True)) as database:
        rows = database.execute("SELECT seq, type, line FROM journal ORDER BY seq").fetchall()
    return [{"seq": seq, "type": kind} | json.loads(text) for seq, kind, text in rows]


def read_json_lines(path: Path) -> list[Line]:
    """The lines that `run --json` printed into a file."""
    return [json.loads(text) for text in path.read_text().splitlines()]


def check_lines(lines: Sequence[Line], *, must_be_finished: bool = True) -> list[str]:
    """What is wrong with a journal, a sentence each; nothing: it keeps every promise.

    Args:
        must_be_finished: also that the run has ended is promised.
    """
    return list(_Reader(must_be_finished).read(lines))


def file_model_id(path: Path) -> str:
    """The id of the model in a safetensors file (docs/protocol.md, "Model id").

    Raises:
        ValueError: it is no such file.
    """
    data = path.read_bytes()
    start = 8 + int.from_bytes(data[:8], "little")
    header = json.loads(data[8:start])
    digest = hashlib.sha256()
    for name in sorted(header.keys() - {"__metadata__"}):
        tensor = header[name]
        begin, end = tensor["data_offsets"]
        content = data[start + begin : start + end]
        if len(content) != end - begin:
            raise ValueError(f"{path.name} ends within tensor {name!r}")
        shape = json.dumps(tensor["shape"], separators=(",", ":"))
        for part in (name.encode(), tensor["dtype"].encode(), shape.encode(), content):
            digest.update(part + b"\0")
    return digest.hexdigest()


@dataclass
class _Round:
    """What the journal has said so far of the round that was started last."""

    number: int
    attempt: int
    cohort: list[str]
    updates: dict[str, int] = field(default_factory=dict)
    """Worker -> attempt of the round in which its last update was accepted."""


class _Reader:
    """Reads one journal, line by line."""

    def __init__(self, must_be_finished: bool) -> None:
        self._must_be_finished = must_be_finished
        self._round: _Round | None = None
        """None before the first one, and between two."""
        self._num_rounds = 0
        """Finished ones."""
        self._model_id: str | None = None
        """Of the last finished one."""
        self._told: dict[str, tuple[int, int]] = {}
        """Worker -> a round, and how many of its losses are told."""
        self._may_begin_anew: set[str] = set()
        """Workers whose training may have been lost since the last loss."""

    def read(self, lines: Sequence[Line]) -> Iterator[str]:
        if not lines:
            yield "there is no line at all"
            return
        if (first := lines[0]["type"]) != "run.created":
            yield f"the first line is {first}, expected run.created"
        end: int | None = None
        for expected, line in enumerate(lines, start=1):
            if line["seq"] != expected:
                yield f"line {expected} has seq {line['seq']}"
            if end is not None:
                yield f"{line['type']} (seq {line['seq']}) follows run.finished (seq {end})"
            yield from self._take(line)
            if line["type"] == "run.finished" and end is None:
                end = line["seq"]
        if end is None and self._must_be_finished:
            yield f"the last line is {lines[-1]['type']}, expected run.finished"

    def _take(self, line: Line) -> Iterator[str]:
        match line["type"]:
            case "run.created" if line["seq"] != 1:
                yield f"run.created a second time (seq {line['seq']})"
            case "round.started":
                yield from self._start(line)
            case "run.restarted":
                # Devices tell the new engine all of the open round.
                self._told.clear()
            case "worker.rejoined" | "warning" if line.get("worker"):
                self._may_begin_anew.add(line["worker"])
            case "worker.batches":
                yield from self._hear(line)
            case "worker.update":
                yield from self._accept(line)
            case "round.finished":
                yield from self._finish(line)
            case "run.finished":
                yield from self._end(line)

    def _start(self, line: Line) -> Iterator[str]:
        number, attempt, cohort = line["round"], line["attempt"], line["cohort"]
        if number != self._num_rounds + 1:
            yield f"round {number} was started after {self._num_rounds} finished rounds"
        if len(set(cohort)) != len(cohort):
            yield f"the cohort of round {number} names a worker twice: {', '.join(cohort)}"
        before = self._round
        if before is None or before.number != number:
            if attempt != 1:
                yield f"round {number} was first started as attempt {attempt}"
            self._round = _Round(number, attempt, cohort)
            return
        if attempt != before.attempt + 1:
            yield f"attempt {attempt} of round {number} follows attempt {before.attempt}"
        if cohort != before.cohort:
            yield (
                f"the cohort of round {number} was {', '.join(before.cohort)} and is "
                f"{', '.join(cohort)} in attempt {attempt}"
            )
        # A new engine keeps the updates that an earlier one has taken.
        self._round = _Round(number, attempt, cohort, before.updates)

    def _hear(self, line: Line) -> Iterator[str]:
        number, worker, first = line["round"], line["worker"], line["first"]
        before, num_told = self._told.get(worker, (number, 0))
        begins_anew = first == 0 and worker in self._may_begin_anew
        if before == number and first < num_told and not begins_anew:
            yield f"{worker} tells the loss of batch {first} of round {number} a second time"
        self._may_begin_anew.discard(worker)
        self._told[worker] = number, first + len(line["losses"])

    def _accept(self, line: Line) -> Iterator[str]:
        number, worker = line["round"], line["worker"]
        round_ = self._round
        if round_ is None or number != round_.number:
            yield f"an update of {worker} was accepted for round {number}, which was not open"
            return
        if worker not in round_.cohort:
            yield f"an update of {worker} was accepted, which is not in round {number}'s cohort"
        if round_.updates.get(worker) == round_.attempt:
            yield f"two updates of {worker} were accepted in round {number}"
        round_.updates[worker] = round_.attempt

    def _finish(self, line: Line) -> Iterator[str]:
        number, counted = line["round"], line["updates"]
        if number != self._num_rounds + 1:
            yield f"round {number} was finished after {self._num_rounds} finished rounds"
        for worker in sorted({worker for worker in counted if counted.count(worker) > 1}):
            yield f"round {number} counts the update of {worker} {counted.count(worker)} times"
        round_ = self._round
        if round_ is None or round_.number != number:
            yield f"round {number} was finished, but not started"
        else:
            for worker in sorted(set(counted)):
                if worker not in round_.cohort:
                    yield f"round {number} counts {worker}, which is not in its cohort"
                if worker not in round_.updates:
                    yield f"round {number} counts {worker}, whose update was not accepted before"
            for worker in sorted(round_.updates.keys() - set(counted)):
                # What an earlier engine accepted may have been damaged on disk.
                if round_.updates[worker] == round_.attempt:
                    yield f"round {number} leaves out {worker}, whose update was accepted"
        self._round = None
        self._num_rounds = max(number, self._num_rounds)
        self._model_id = line["model_id"]

    def _end(self, line: Line) -> Iterator[str]:
        if line["rounds"] != self._num_rounds:
            yield f"run.finished tells of {line['rounds']} rounds, finished were {self._num_rounds}"
        if self._model_id is not None and line["model_id"] != self._model_id:
            yield (
                f"run.finished names model {_short(line['model_id'])}, "
                f"the last round {_short(self._model_id)}"
            )


def _check_checkpoint(lines: Sequence[Line], folder: Path) -> Iterator[str]:
    finished = [line for line in lines if line["type"] == "round.finished"]
    if not finished:
        return
    number, model_id = finished[-1]["round"], finished[-1]["model_id"]
    path = folder / "checkpoints" / f"round-{number:06d}.safetensors"
    try:
        found = file_model_id(path)
    except (OSError, ValueError, KeyError, TypeError) as error:
        yield f"the model of round {number} cannot be read: {error}"
        return
    if found != model_id:
        yield f"{path.name} holds model {_short(found)}, the journal says {_short(model_id)}"


def _short(model_id: str) -> str:
    return model_id[:12] or "none"
