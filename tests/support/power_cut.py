"""A model of power cuts for a run's folder: what is written is recorded, and images are made of it.

`Recording` keeps each write, truncation, sync, new name and lost name in one order: SQLite's through a
VFS of apsw, all others by replacing functions of `os` and `io` meanwhile. An image is what a disk may
hold when the power fails at one moment: all that was synced, and of the rest a seeded random part.
Content that was not synced may be missing, short or garbled; each name that came, went or moved since
its folder was synced may have done so or not.

apsw brings an SQLite of its own, newer than Python's; both write and sync the same (seen with strace: the
folder, too, at the first sync of a new `-journal` or `-wal`). Not modelled: writes of other processes,
modes and times of files, renames from one folder to another.
"""

from __future__ import annotations

import builtins
import io
import os
import sqlite3
import stat
import threading
import time
from bisect import bisect_left
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import StrEnum
from itertools import count
from pathlib import Path
from random import Random
from types import SimpleNamespace
from typing import Any

import apsw
import pytest

SECTOR_BYTES = 512
"""Of a write that was not synced each may be there or not, or garbled."""
SYNC_S = 0.005
"""A sync takes so long, as on a disk: what other threads do meanwhile gets ahead of it."""
_SYNCS_FOLDER = (
    apsw.SQLITE_OPEN_WAL | apsw.SQLITE_OPEN_MAIN_JOURNAL | apsw.SQLITE_OPEN_SUPER_JOURNAL
)
"""Files at whose first sync SQLite syncs their folder (os_unix.c, UNIXFILE_DIRSYNC)."""
_NOT_RECORDED = ("-shm",)
"""Rebuilt from the WAL by whoever opens the database after a cut."""
_names = (f"power-cut-{n}" for n in count(1))


class Sync(StrEnum):
    """What a control may leave out, to see that something is lost then."""

    DATABASE = "database"
    FILE = "file"
    FOLDER = "folder"


@dataclass(frozen=True, slots=True)
class _Write:
    offset: int
    data: bytes


@dataclass(frozen=True, slots=True)
class _Truncate:
    size: int


@dataclass(frozen=True, slots=True)
class _Rename:
    """What becomes of a folder's names at one stroke."""

    removed: str | None = None
    added: str | None = None
    node: Node | None = None
    """Of the added name."""


@dataclass(slots=True, eq=False)
class Node:
    """A file or a folder, whatever its names."""

    is_folder: bool = False
    is_database: bool = False
    content: bytes = b""
    """At the beginning of the recording, when all is on the disk."""
    names: dict[str, Node] = field(default_factory=dict)
    """The same, of a folder."""
    moments: list[int] = field(default_factory=list)
    """Of the changes."""
    changes: list[_Write | _Truncate | _Rename] = field(default_factory=list)
    syncs: list[tuple[int, int]] = field(default_factory=list)
    """When each returned, and how much was made before it or an earlier one was called: a moment, too."""

    @property
    def kind(self) -> Sync:
        if self.is_folder:
            return Sync.FOLDER
        return Sync.DATABASE if self.is_database else Sync.FILE

    def num_synced(self, moment: int, ignored: Collection[Sync]) -> int:
        """Changes that were on the disk for certain before this moment."""
        syncs = [] if self.kind in ignored else self.syncs
        last = bisect_left(syncs, (moment, 0))
        return self.num_made(syncs[last - 1][1]) if last else 0

    def num_made(self, moment: int) -> int:
        return bisect_left(self.moments, moment)


class Recording:
    """What happens below a folder while this is entered.

    Everything that is there at the beginning is on the disk, and so is the folder itself.
    """

    def __init__(self, root: Path) -> None:
        self._root = root.absolute()
        self._lock = threading.RLock()
        self._nodes: dict[tuple[int, int], Node] = {}
        """By device and number of the inode, as long as it has a name."""
        self._vfs = _Vfs(self, next(_names))
        self._durable: dict[Node, tuple[int, bytearray]] = {}
        """Of files: so many changes are synced and give this content."""
        self._patches: pytest.MonkeyPatch
        self.num_moments = 0
        """An image may be made of each, and of this number itself: the end."""
        self.marks: list[tuple[int, Any]] = []
        """What was known at which moment, by `mark`."""
        self.tree = self._scan(self._root)

    def mark(self, known: Any) -> None:
        """Note what is acknowledged from now on."""
        with self._lock:
            self.marks.append((self.num_moments, known))

    def known_at(self, moment: int) -> Any:
        """What was marked last before this moment."""
        return [known for marked, known in self.marks if marked <= moment][-1]

    # Recording

    def __enter__(self) -> Recording:
        self._patches = patches = pytest.MonkeyPatch()
        for name in ("replace", "rename"):
            patches.setattr(os, name, self._replacing(getattr(os, name)))
        for name in ("unlink", "remove", "rmdir"):
            patches.setattr(os, name, self._removing(getattr(os, name)))
        for name in ("fsync", "fdatasync"):
            patches.setattr(os, name, self._syncing(getattr(os, name)))
        patches.setattr(os, "mkdir", self._making_folder(os.mkdir))
        patches.setattr(os, "link", self._linking(os.link))
        patches.setattr(os, "open", self._opening(os.open))
        for module in (io, builtins):
            patches.setattr(module, "open", self._recorded_open(open))
        # `fedconsole.engine.store` has nothing but these two of it.
        namespace = SimpleNamespace(connect=self._connect, Error=sqlite3.Error)
        patches.setattr("fedconsole.engine.store.sqlite3", namespace)
        return self

    def __exit__(self, *_: object) -> None:
        self._patches.undo()

    def _scan(self, path: Path) -> Node:
        found = path.stat()
        node = Node(is_folder=path.is_dir(), is_database=_is_database(path))
        if node.is_folder:
            children = [child for child in path.iterdir() if _is_recorded(child)]
            node.names = {child.name: self._scan(child) for child in children}
        else:
            node.content = path.read_bytes()
        return self._nodes.setdefault((found.st_dev, found.st_ino), node)

    def _holds(self, path: Any) -> bool:
        if isinstance(path, int):
            return False
        absolute = _absolute(path)
        return self._root in absolute.parents and _is_recorded(absolute)

    def _node(self, path: Any) -> Node:
        found = _absolute(path).lstat()
        return self._nodes[found.st_dev, found.st_ino]

    def _log(self, node: Node, change: _Write | _Truncate | _Rename) -> None:
        node.moments.append(self.num_moments)
        node.changes.append(change)
        self.num_moments += 1

    def _log_sync(self, node: Node, called: int) -> None:
        """A sync has returned; what others wrote since it was called need not be on the disk."""
        with self._lock:
            covered = max(called, node.syncs[-1][1]) if node.syncs else called
            node.syncs.append((self.num_moments, covered))
            self.num_moments += 1

    def _log_new(self, path: Any) -> Node:
        """A file or folder that was not there has been made."""
        new = _absolute(path)
        found = new.stat()
        node = Node(is_folder=stat.S_ISDIR(found.st_mode), is_database=_is_database(new))
        self._nodes[found.st_dev, found.st_ino] = node
        self._log(self._node(new.parent), _Rename(added=new.name, node=node))
        return node

    def _replacing(self, function: Callable[..., None]) -> Callable[..., None]:
        def replace(source: Any, target: Any, **options: Any) -> None:
            with self._lock:
                node = self._node(source) if self._holds(target) else None
                function(source, target, **options)
                if node is not None:
                    old, new = _absolute(source), _absolute(target)
                    assert old.parent == new.parent, "renames between folders are not modelled"
                    self._log(self._node(new.parent), _Rename(old.name, new.name, node))

        return replace

    def _removing(self, function: Callable[..., None]) -> Callable[..., None]:
        def remove(path: Any, **options: Any) -> None:
            is_held = options.get("dir_fd") is None and self._holds(path)
            with self._lock:
                function(path, **options)
                if is_held:
                    gone = _absolute(path)
                    self._log(self._node(gone.parent), _Rename(removed=gone.name))

        return remove

    def _making_folder(self, function: Callable[..., None]) -> Callable[..., None]:
        def mkdir(path: Any, *args: Any, **options: Any) -> None:
            with self._lock:
                function(path, *args, **options)
                if self._holds(path):
                    self._log_new(path)

        return mkdir

    def _linking(self, function: Callable[..., None]) -> Callable[..., None]:
        def link(source: Any, target: Any, **options: Any) -> None:
            with self._lock:
                function(source, target, **options)
                if self._holds(target):
                    new = _absolute(target)
                    self._log(self._node(new.parent), _Rename(added=new.name, node=self._node(new)))

        return link

    def _opening(self, function: Callable[..., int]) -> Callable[..., int]:
        def open_(path: Any, flags: int, *args: Any, **options: Any) -> int:
            if not flags & os.O_CREAT or not self._holds(path):
                return function(path, flags, *args, **options)
            with self._lock:
                is_new = not os.path.lexists(path)
                descriptor = function(path, flags, *args, **options)
                if is_new:
                    self._log_new(path)
                return descriptor

        return open_

    def _syncing(self, function: Callable[[Any], None]) -> Callable[[Any], None]:
        def sync(file: Any) -> None:
            called = self.num_moments
            function(file)
            found = os.fstat(file if isinstance(file, int) else file.fileno())
            node = self._nodes.get((found.st_dev, found.st_ino))
            if node is not None:
                time.sleep(SYNC_S)
                self._log_sync(node, called)

        return sync

    def _recorded_open(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def open_(path: Any, mode: str = "r", *args: Any, **options: Any) -> Any:
            if not set(mode) & set("wxa+") or not self._holds(path):
                return function(path, mode, *args, **options)
            assert mode in {"wb", "xb"}, f"mode {mode!r} is not modelled"
            return io.BufferedWriter(_RecordedFile(self, path, mode))

        return open_

    def _connect(self, path: Path, **_: Any) -> _Connection:
        return _Connection(path, self._vfs.name)

    # Images

    def write_image(
        self, moment: int, random: Random, target: Path, ignored: Collection[Sync] = ()
    ) -> None:
        """Write what may be on the disk after a power cut at this moment to a new folder.

        Moments before that of the last image cost more time than others.

        Args:
            ignored: syncs that are taken to do nothing.
        """
        # Disks differ: one loses all that it can, another nearly nothing.
        chance = {kind: random.choice((0.0, 0.5, 0.9, 1.0)) for kind in Sync}
        self._write(self.tree, moment, random, chance, target, ignored)

    def write_everything(self, target: Path) -> None:
        """Write what is there when nothing is lost: the folder as it is."""
        for node in self._all(self.tree):
            node.syncs.append((self.num_moments, self.num_moments))
        self._write(self.tree, self.num_moments + 1, Random(0), {}, target, ())
        for node in self._all(self.tree):
            node.syncs.pop()

    def _all(self, node: Node) -> Iterator[Node]:
        yield node
        added = [change.node for change in node.changes if isinstance(change, _Rename)]
        for child in {*node.names.values(), *(node for node in added if node is not None)}:
            yield from self._all(child)

    def _write(
        self,
        node: Node,
        moment: int,
        random: Random,
        chance: Mapping[Sync, float],
        target: Path,
        ignored: Collection[Sync],
    ) -> None:
        if not node.is_folder:
            target.write_bytes(self._content(node, moment, random, chance, ignored))
            return
        target.mkdir()
        names = dict(node.names)
        num_synced = node.num_synced(moment, ignored)
        for n, change in enumerate(node.changes[: node.num_made(moment)]):
            assert isinstance(change, _Rename)
            if n < num_synced or random.random() < chance[Sync.FOLDER]:
                if change.removed is not None:
                    names.pop(change.removed, None)
                if change.added is not None and change.node is not None:
                    names[change.added] = change.node
        for name, child in names.items():
            self._write(child, moment, random, chance, target / name, ignored)

    def _content(
        self,
        node: Node,
        moment: int,
        random: Random,
        chance: Mapping[Sync, float],
        ignored: Collection[Sync],
    ) -> bytearray:
        num_synced = node.num_synced(moment, ignored)
        num_done, durable = self._durable.get(node, (0, bytearray(node.content)))
        if num_done > num_synced:
            num_done, durable = 0, bytearray(node.content)
        for change in node.changes[num_done:num_synced]:
            _apply(durable, change)
        self._durable[node] = num_synced, durable
        content = bytearray(durable)
        for change in node.changes[num_synced : node.num_made(moment)]:
            if random.random() < chance[node.kind]:
                _apply(content, change)
            elif isinstance(change, _Write):
                _apply_partly(content, change, random)
        return content


class _RecordedFile(io.FileIO):
    """Below a buffer: what has not left the process cannot be synced."""

    def __init__(self, recording: Recording, path: Any, mode: str) -> None:
        self._recording = recording
        with recording._lock:
            is_new = not os.path.lexists(path)
            super().__init__(path, mode)
            if is_new:
                self._node = recording._log_new(path)
            else:
                self._node = recording._node(path)
                recording._log(self._node, _Truncate(0))

    def write(self, data: Any) -> int:
        with self._recording._lock:
            offset = self.tell()
            num_bytes = super().write(data) or 0
            written = bytes(memoryview(data).cast("B")[:num_bytes])
            self._recording._log(self._node, _Write(offset, written))
            return num_bytes

    def truncate(self, size: int | None = None) -> int:
        with self._recording._lock:
            size = super().truncate(size)
            self._recording._log(self._node, _Truncate(size))
            return size


class _Vfs(apsw.VFS):
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
        with recording._lock:
            super().xDelete(filename, syncdir)
            folder = recording._node(Path(filename).parent)
            recording._log(folder, _Rename(removed=Path(filename).name))
            if syncdir:
                recording._log_sync(folder, recording.num_moments)


class _VfsFile(apsw.VFSFile):
    def __init__(self, recording: Recording, path: str, name: Any, flags: list[int]) -> None:
        self._recording = recording
        with recording._lock:
            is_new = not os.path.lexists(path)
            super().__init__("", name, flags)
            self._node = recording._log_new(path) if is_new else recording._node(path)
        is_folder_due = is_new and flags[0] & _SYNCS_FOLDER
        self._folder = recording._node(Path(path).parent) if is_folder_due else None
        """To be synced with the file."""

    def xWrite(self, data: Any, offset: int) -> None:
        with self._recording._lock:
            super().xWrite(data, offset)
            self._recording._log(self._node, _Write(offset, bytes(data)))

    def xTruncate(self, newsize: int) -> None:
        with self._recording._lock:
            super().xTruncate(newsize)
            self._recording._log(self._node, _Truncate(newsize))

    def xSync(self, flags: int) -> None:
        called = self._recording.num_moments
        super().xSync(flags)
        time.sleep(SYNC_S)
        self._recording._log_sync(self._node, called)
        if self._folder is not None:
            self._recording._log_sync(self._folder, called)
            self._folder = None


class _Connection:
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


def _absolute(path: Any) -> Path:
    return Path(os.fsdecode(path)).absolute()


def _is_database(path: Path) -> bool:
    return path.name.startswith("run.db")


def _is_recorded(path: Path) -> bool:
    return not path.name.endswith(_NOT_RECORDED)


def _apply(content: bytearray, change: _Write | _Truncate | _Rename) -> None:
    match change:
        case _Write(offset, data):
            if offset > len(content):
                content.extend(bytes(offset - len(content)))
            content[offset : offset + len(data)] = data
        case _Truncate(size):
            del content[size:]
            content.extend(bytes(size - len(content)))


def _apply_partly(content: bytearray, write: _Write, random: Random) -> None:
    """A write that was under way: not begun, cut off, or some sectors of it with others garbled."""
    match random.choice(("lost", "lost", "short", "torn", "garbled")):
        case "short":
            _apply(content, _Write(write.offset, write.data[: random.randrange(len(write.data))]))
        case "torn" | "garbled" as fate:
            begin, end = write.offset, write.offset + len(write.data)
            while begin < end:
                border = min((begin // SECTOR_BYTES + 1) * SECTOR_BYTES, end)
                if random.random() < 0.5:
                    part = write.data[begin - write.offset : border - write.offset]
                    _apply(content, _Write(begin, part))
                elif fate == "garbled":
                    _apply(content, _Write(begin, random.randbytes(border - begin)))
                begin = border
