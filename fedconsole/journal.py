"""Reads the journal in a run's folder, which an engine may be writing."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from fedconsole.engine.store import Line, make_line
from fedconsole.errors import StorageError
from fedconsole.paths import require_regular


def select(folder: Path, condition: str, *values: object) -> Iterator[Line]:
    """The lines for which an SQL condition holds; none if there is no journal yet.

    Raises:
        StorageError: the journal cannot be read.
    """
    path = folder / "run.db"
    query = f"SELECT seq, time_ms, type, line FROM journal WHERE {condition}"
    try:
        if not path.exists():
            return
        _require_regular(path)
        if _is_empty(path):
            return
        with closing(_open(path)) as database:
            if not any(database.execute("SELECT 1 FROM sqlite_schema")):
                return  # Its engine ended, or has not come, so far as to make the tables.
            for row in database.execute(query, values):
                yield make_line(folder.name, *row)
    except (sqlite3.Error, OSError, ValueError) as error:
        raise StorageError(f"cannot read the journal {path}: {error}") from error


def _open(journal: Path) -> sqlite3.Connection:
    connection = _connect(journal, "mode=ro")
    try:
        connection.execute("PRAGMA schema_version").fetchone()
    except sqlite3.OperationalError:
        connection.close()
        # SQLite makes files beside it even to read. Where a full disk has no room for them, a journal whose log is
        # empty, as it was closed, can be read without.
        wal = journal.with_name("run.db-wal")
        if wal.exists() and wal.stat().st_size:
            raise
        return _connect(journal, "immutable=1")
    return connection


def _connect(journal: Path, option: str) -> sqlite3.Connection:
    return sqlite3.connect(f"{journal.as_uri()}?{option}", uri=True, check_same_thread=False)


def _is_empty(journal: Path) -> bool:
    """Whether there is nothing in it yet; SQLite deletes a log that it finds beside an empty file.

    Raises:
        OSError: there is such a log.
    """
    wal = journal.with_name("run.db-wal")
    # First: an engine that begins at this moment makes the journal before it.
    has_log = wal.exists() and wal.stat().st_size > 0
    if journal.stat().st_size > 0:
        return False
    if has_log:
        raise OSError(f"it is empty, but its {wal.name} is not: bring it back from a copy")
    return True


@contextmanager
def damage_in_words(folder: Path) -> Iterator[None]:
    """Lines that a failing disk has changed may lack anything; raises StorageError."""
    try:
        yield
    except (KeyError, TypeError, ValueError) as error:
        raise StorageError(
            f"cannot read the journal {folder / 'run.db'}: a line is damaged: {error!r}"
        ) from error


def _require_regular(journal: Path) -> None:
    """As `require_regular`, for all of its files."""
    for path in (journal, *(journal.with_name(f"run.db-{end}") for end in ("wal", "shm"))):
        require_regular(path)
