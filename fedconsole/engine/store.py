"""One run's folder: the journal in SQLite, checkpoints, and the updates of the open round.

A row of the journal is on disk (WAL, synchronous=FULL) before anybody acts on it or reads it.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import sqlite3
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from fedconsole.engine import seal, wal
from fedconsole.errors import StorageError
from pi_daemon.durable import sync

Line = dict[str, Any]
"""One JSON line: `v`, `seq`, `time`, `type`, `run`, and the fields of its type."""

_MAX_PENDING = 50_000
_LOCK_TRIES = 20
_LOCK_PAUSE_S = 0.02
_SCHEMA = """
CREATE TABLE IF NOT EXISTS journal(
    seq INTEGER PRIMARY KEY,
    time_ms INTEGER NOT NULL,
    type TEXT NOT NULL,
    line TEXT NOT NULL
);
CREATE TABLE IF NOT EXISTS events(
    number INTEGER PRIMARY KEY,
    event TEXT NOT NULL
);
"""
"""`events`: what the run's machine was told, in order; replaying it gives the run's state.
`journal`: what was made public of it, and what the machine need not know, such as batch losses."""


@dataclass(frozen=True, slots=True)
class Row:
    """A line of the journal that has no number yet."""

    type: str
    fields: Line


class RunStore:
    """The only writer of a run's folder: a second one is refused.

    Raises:
        StorageError: from every method, when the disk refuses.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.run_id = folder.name
        self.updates = folder / "updates"
        self.checkpoints = folder / "checkpoints"
        self.graphs_path = folder / "graphs.json"
        self.model_path = folder / "model.safetensors"
        """The model of the last complete round, for the run's user."""
        self.refusal: str | None = None
        """Why the disk refused the last commit; None: it did not."""
        self.on_change: Callable[[], None] = lambda: None
        """Called after rows have become readable, and after a refusal."""
        self._pending: list[Row] = []
        self._pending_events: list[bytes] = []
        self._num_left_out = 0
        self._num_updates = 0
        try:
            for path in (folder, self.updates, self.checkpoints):
                path.mkdir(mode=0o700, parents=True, exist_ok=True)
            # Else a power cut may take the name of the folder, and the run with it.
            sync(folder.parent)
            self._lock = os.open(folder / "engine.lock", os.O_RDWR | os.O_CREAT, 0o600)
            _lock_alone(self._lock)
            num_written = wal.num_written(folder / "run.db-wal")
            self._database = sqlite3.connect(folder / "run.db", isolation_level=None)
            self._database.execute("PRAGMA journal_mode=WAL")
            self._database.execute("PRAGMA synchronous=FULL")
            self._database.executescript(_SCHEMA + seal.SCHEMA)
            self._seal = seal.read_sealed(self._database)
            self.has_lost_end = num_written > 0 and num_written > self._num_in_wal() >= 0
            """The disk has damaged the last transactions: they are not in the journal."""
        except BlockingIOError as error:
            raise StorageError(f"another engine carries the run of {folder}") from error
        except (OSError, sqlite3.Error) as error:
            raise StorageError(f"cannot open the run's folder {folder}: {error}") from error

    def _num_in_wal(self) -> int:
        """How many frames of the WAL SQLite takes; -1: that cannot be told now."""
        num_frames: int
        _, num_frames, _ = self._database.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
        return num_frames

    @property
    def last_seq(self) -> int:
        """Of the last committed line; 0: there is none."""
        return self._seal.num_lines

    def note(self, row: Row) -> None:
        """Keep a row for the next commit; for what may be lost with the last second.

        While the disk refuses, at most so many are kept: how many were left out is told later.
        """
        if len(self._pending) < _MAX_PENDING:
            self._pending.append(row)
        else:
            self._num_left_out += 1

    def keep(self, *rows: Row, events: Sequence[bytes]) -> None:
        """Keep events and their rows for the next commit, which nobody acts on before."""
        self._pending += rows
        self._pending_events += events

    def commit(self, *rows: Row, events: Sequence[bytes] = ()) -> None:
        """Write all that is kept and then this, in order, in one transaction.

        When the disk refuses, nothing is written and what was kept stays for the next time.
        """
        batch = [*self._pending, *self._of_left_out(), *rows]
        texts = [event.decode() for event in (*self._pending_events, *events)]
        if not batch and not texts:
            return
        now_ms = time_ms()
        values = [
            (self.last_seq + n, now_ms, row.type, json.dumps(row.fields))
            for n, row in enumerate(batch, start=1)
        ]
        sealed = self._seal.after(texts, values)
        with self._transaction():
            self._database.executemany(
                "INSERT INTO events(event) VALUES (?)", [(text,) for text in texts]
            )
            self._database.executemany("INSERT INTO journal VALUES (?,?,?,?)", values)
            sealed.write(self._database)
        self._pending, self._pending_events, self._num_left_out = [], [], 0
        self._seal = sealed
        self.on_change()

    def go_back(self, num_events: int, round_number: int, why: Row) -> None:
        """Take back what follows the first start of a round, and say why: it is done again.

        Args:
            num_events: so many had happened when the round was started.
        """
        seq = self._start_of(round_number)
        value = (seq + 1, time_ms(), why.type, json.dumps(why.fields))
        with self._transaction():
            self._database.execute("DELETE FROM events WHERE number > ?", (num_events,))
            self._database.execute("DELETE FROM journal WHERE seq > ?", (seq,))
            self._database.execute("INSERT INTO journal VALUES (?,?,?,?)", value)
            sealed = seal.compute(self._database)
            sealed.write(self._database)
        self._seal = sealed
        self.on_change()

    def losses_told(self, round_number: int) -> dict[str, tuple[int, int]]:
        """Worker -> the round, and how many losses of it were told when the last ones came."""
        cursor = self._database.execute(
            "SELECT line FROM journal WHERE type = 'worker.batches' AND seq > ? ORDER BY seq",
            (self._start_of(round_number),),
        )
        lines = (json.loads(text) for (text,) in cursor)
        return {
            line["worker"]: (round_number, line["first"] + len(line["losses"])) for line in lines
        }

    def _start_of(self, round_number: int) -> int:
        """The number of the line that tells of a round first."""
        seq: int
        (seq,) = self._database.execute(
            "SELECT min(seq) FROM journal WHERE type = 'round.started' AND line ->> '$.round' = ?",
            (round_number,),
        ).fetchone()
        return seq

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        """All that is written meanwhile is there afterwards, or nothing; raises StorageError."""
        try:
            self._database.execute("BEGIN")
            yield
            self._database.execute("COMMIT")
        except sqlite3.Error as error:
            if self._database.in_transaction:
                self._database.execute("ROLLBACK")
            self.refusal = f"cannot write {self.folder / 'run.db'}: {error}"
            self.on_change()
            raise StorageError(self.refusal) from error
        self.refusal = None

    def _of_left_out(self) -> list[Row]:
        if not self._num_left_out:
            return []
        text = f"{self._num_left_out} lines of losses, telemetry and logs are left out: the disk was full"
        return [Row("warning", {"text": text})]

    def lines(self, first_seq: int, limit: int) -> list[Line]:
        """At most `limit` committed lines from `first_seq` on."""
        cursor = self._database.execute(
            "SELECT seq, time_ms, type, line FROM journal WHERE seq >= ? ORDER BY seq LIMIT ?",
            (first_seq, limit),
        )
        return [make_line(self.run_id, *row) for row in cursor]

    def events(self) -> Iterator[bytes]:
        """The machine's events, in order."""
        for (event,) in self._database.execute("SELECT event FROM events ORDER BY number"):
            yield event.encode()

    @property
    def seconds_so_far(self) -> float:
        """From the first line to the last, by the wall clock."""
        (span,) = self._database.execute(
            "SELECT max(time_ms) - min(time_ms) FROM journal"
        ).fetchone()
        return max(0, span or 0) / 1000

    def new_update_path(self, round_number: int, worker_id: str) -> Path:
        """Where a worker's update may land: a name that was not given out before."""
        self._num_updates += 1
        safe = "".join(c if c.isalnum() or c in "-_" else f"%{ord(c):x}" for c in worker_id)
        return self.updates / f"{round_number:06d}-{safe}-{self._num_updates}.safetensors"

    def keep_updates(self, names: Collection[str]) -> None:
        """Delete all updates but these, which an earlier engine took in."""
        for path in self.updates.glob("*.safetensors"):
            if path.name not in names:
                path.unlink(missing_ok=True)
            else:
                number = int(path.stem.rpartition("-")[2])
                self._num_updates = max(self._num_updates, number)

    def checkpoint_path(self, round_number: int) -> Path:
        return self.checkpoints / f"round-{round_number:06d}.safetensors"

    def tidy(self, round_number: int) -> None:
        """Delete what a complete round leaves behind, while the next one goes on.

        Updates up to this round go, and the checkpoints before it but the last one.
        """
        self.drop_updates(round_number)
        for path in self.checkpoints.glob("round-*.safetensors"):
            if is_outdated(path, round_number):
                path.unlink(missing_ok=True)

    def drop_updates(self, last_round: int) -> None:
        """Delete the update files of closed rounds."""
        for path in self.updates.iterdir():
            if int(path.name.partition("-")[0]) <= last_round:
                path.unlink(missing_ok=True)

    def close(self) -> None:
        """Rows that the disk still refuses are lost; what was committed is not."""
        with suppress(StorageError):
            self.commit()
        self._database.close()
        os.close(self._lock)

    def remove(self) -> None:
        """Leave nothing behind of a dry run."""
        self._database.close()
        os.close(self._lock)
        shutil.rmtree(self.folder, ignore_errors=True)


def is_outdated(checkpoint: Path, round_number: int) -> bool:
    """Whether it is of no use any more when this round is complete."""
    return int(checkpoint.stem.removeprefix("round-")) < round_number - 1


def time_ms() -> int:
    """Now, for people: wall clock, milliseconds since 1970."""
    return time.time_ns() // 1_000_000


def make_line(run_id: str, seq: int, time_ms: int, line_type: str, fields: str) -> Line:
    """The JSON line of a journal's row (docs/operating.md, "JSON lines")."""
    moment = datetime.fromtimestamp(time_ms / 1000, tz=UTC)
    stamp = moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
    head = {"v": 1, "seq": seq, "time": stamp, "type": line_type, "run": run_id}
    line: Line = head | json.loads(fields)
    return line


def _lock_alone(descriptor: int) -> None:
    """Raises BlockingIOError: an engine has the lock. Who only looks whether one has holds it for a moment."""
    for _ in range(_LOCK_TRIES):
        with suppress(BlockingIOError):
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        time.sleep(_LOCK_PAUSE_S)
    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
