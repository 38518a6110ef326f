"""SQLite as a recording sees it: a VFS of apsw, and a connection that looks like Python's."""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import apsw

from tests.support.power_cut.changes import Rename, Truncate, Write

if TYPE_CHECKING:
    from tests.support.power_cut.recording import Recording

SYNC_S = 0.005
"""A sync takes so long, as on a disk: what other threads do meanwhile gets ahead of it."""
_SYNCS_FOLDER = (
    apsw.SQLITE_OPEN_WAL | apsw.SQLITE_OPEN_MAIN_JOURNAL | apsw.SQLITE_OPEN_SUPER_JOURNAL
)
"""Files at whose first sync SQLite syncs their folder (os_unix.c, UNIXFILE_DIRSYNC)."""


class Vfs(apsw.VFS):
    """The operating system's, recorded."""

    def __init__(self, recording: Recording, name: str) -> None:
        self.name = name
        self._recording = recording
        super().__init__(name, "")

    def xOpen(self, name: Any, flags: list[int]) -> apsw.VFSFile:
        path = name.filename() if isinstance(name, apsw.URIFilename) else name
        return _VfsFile(self._recording, path, name, flags)

    def xDelete(self, filename: str, syncdir: bool) -> None:
        recording = self._recording
        with recording.lock:
            super().xDelete(filename, syncdir)
            folder = recording.node(Path(filename).parent)
            recording.log(folder, Rename(removed=Path(filename).name))
            if syncdir:
                recording.log_sync(folder, recording.num_moments)


class _VfsFile(apsw.VFSFile):
    def __init__(self, recording: Recording, path: str, name: Any, flags: list[int]) -> None:
        self._recording = recording
        with recording.lock:
            is_new = not os.path.lexists(path)
            super().__init__("", name, flags)
            self._node = recording.log_new(path) if is_new else recording.node(path)
        is_folder_due = is_new and flags[0] & _SYNCS_FOLDER
        self._folder = recording.node(Path(path).parent) if is_folder_due else None
        """To be synced with the file."""

    def xWrite(self, data: Any, offset: int) -> None:
        with self._recording.lock:
            super().xWrite(data, offset)
            self._recording.log(self._node, Write(offset, bytes(data)))

    def xTruncate(self, newsize: int) -> None:
        with self._recording.lock:
            super().xTruncate(newsize)
            self._recording.log(self._node, Truncate(newsize))

    def xSync(self, flags: int) -> None:
        called = self._recording.num_moments
        super().xSync(flags)
        time.sleep(SYNC_S)
        self._recording.log_sync(self._node, called)
        if self._folder is not None:
            self._recording.log_sync(self._folder, called)
            self._folder = None


class Connection:
    """As much of `sqlite3.Connection` as the run store uses, on apsw."""

    CHECKPOINT_PAGES = 40
    """A short run comes to a checkpoint of its WAL as well; a long one does at 1,000 pages."""

    def __init__(self, path: Path, vfs: str) -> None:
        with _errors_of_sqlite3():
            self._connection = apsw.Connection(str(path), vfs=vfs)
            self._connection.wal_autocheckpoint(self.CHECKPOINT_PAGES)

    @property
    def in_transaction(self) -> bool:
        return self._connection.in_transaction

    def execute(self, sql: str, values: Sequence[Any] = ()) -> apsw.Cursor:
        with _errors_of_sqlite3():
            return self._connection.execute(sql, tuple(values))

    def executemany(self, sql: str, rows: Sequence[Sequence[Any]]) -> None:
        with _errors_of_sqlite3():
            self._connection.executemany(sql, rows)

    def executescript(self, sql: str) -> None:
        with _errors_of_sqlite3():
            self._connection.execute(sql)

    def close(self) -> None:
        with _errors_of_sqlite3():
            self._connection.close()


@contextmanager
def _errors_of_sqlite3() -> Iterator[None]:
    try:
        yield
    except apsw.Error as error:
        raise sqlite3.OperationalError(str(error)) from error
