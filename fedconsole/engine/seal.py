"""Tells whether a journal is what was written: a checksum of all its rows, renewed in each transaction.

SQLite finds torn writes by itself. A byte that a failing disk has changed it does not find, unless that
breaks the structure of a table.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from typing import NamedTuple
from zlib import crc32

SCHEMA = """
CREATE TABLE IF NOT EXISTS seal(
    id INTEGER PRIMARY KEY,
    num_events INTEGER NOT NULL,
    events INTEGER NOT NULL,
    num_lines INTEGER NOT NULL,
    lines INTEGER NOT NULL
);
"""

LineRow = tuple[int, int, str, str]
"""As in the journal's table: seq, time, type, fields."""


class Seal(NamedTuple):
    """Of a journal up to some transaction."""

    num_events: int = 0
    events: int = 0
    """CRC-32 of all of them, in order, as `lines`."""
    num_lines: int = 0
    lines: int = 0

    def after(self, events: Iterable[str], rows: Iterable[LineRow]) -> Seal:
        """That of the journal with these, too."""
        num_events, events_crc, num_lines, lines_crc = self
        for event in events:
            num_events += 1
            events_crc = crc32(f"{event}\n".encode(), events_crc)
        for seq, time_ms, kind, fields in rows:
            num_lines += 1
            lines_crc = crc32(f"{seq} {time_ms} {kind} {fields}\n".encode(), lines_crc)
        return Seal(num_events, events_crc, num_lines, lines_crc)

    def write(self, database: sqlite3.Connection) -> None:
        database.execute("INSERT OR REPLACE INTO seal VALUES (1,?,?,?,?)", self)


def compute(database: sqlite3.Connection) -> Seal:
    """What the seal of a journal has to be, from all its rows."""
    events = database.execute("SELECT event FROM events ORDER BY number")
    rows = database.execute("SELECT seq, time_ms, type, line FROM journal ORDER BY seq")
    return Seal().after((event for (event,) in events), rows)


def read_sealed(database: sqlite3.Connection) -> Seal:
    """The seal of a journal, all of which is read and is as it was written.

    Raises:
        sqlite3.Error: it is not.
    """
    (answer,) = database.execute("PRAGMA quick_check(1)").fetchone()
    if answer != "ok":
        raise sqlite3.DatabaseError(f"its journal is damaged: {answer}")
    found = compute(database)
    columns = "num_events, events, num_lines, lines"
    written = database.execute(f"SELECT {columns} FROM seal WHERE id = 1").fetchone()
    if written is None and found != Seal():
        raise sqlite3.DatabaseError("its journal has no checksum: it is of an earlier version")
    if found != Seal(*(written or ())):
        raise sqlite3.DatabaseError(
            "its journal is damaged, as a failing disk does it: it holds other lines than were written"
        )
    return found
