"""Records what happens below a folder, and writes what a power cut may leave of it."""

from __future__ import annotations

import builtins
import io
import os
import sqlite3
import stat
import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from itertools import count
from pathlib import Path
from random import Random
from types import SimpleNamespace
from typing import Any

import pytest

from tests.support.power_cut.changes import (
    Change,
    Node,
    Rename,
    Sync,
    Truncate,
    Write,
    apply,
    apply_partly,
)
from tests.support.power_cut.sqlite import SYNC_S, Connection, Vfs

_NOT_RECORDED = ("-shm",)
"""Rebuilt from the WAL by whoever opens the database after a cut."""
_names = (f"power-cut-{n}" for n in count(1))


class Recording:
    """What happens below a folder while this is entered.

    Everything that is there at the beginning is on the disk, and so is the folder itself.
    """

    def __init__(self, root: Path) -> None:
        self._root = root.absolute()
        self.lock = threading.RLock()
        self._nodes: dict[tuple[int, int], Node] = {}
        """By device and number of the inode, as long as it has a name."""
        self._vfs = Vfs(self, next(_names))
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
        with self.lock:
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

    def node(self, path: Any) -> Node:
        """What has this name."""
        found = _absolute(path).lstat()
        return self._nodes[found.st_dev, found.st_ino]

    def log(self, node: Node, change: Change) -> None:
        """Something has been done to it; by whoever holds `lock`."""
        node.moments.append(self.num_moments)
        node.changes.append(change)
        self.num_moments += 1

    def log_sync(self, node: Node, called: int) -> None:
        """A sync has returned; what others wrote since it was called need not be on the disk."""
        with self.lock:
            covered = max(called, node.syncs[-1][1]) if node.syncs else called
            node.syncs.append((self.num_moments, covered))
            self.num_moments += 1

    def log_new(self, path: Any) -> Node:
        """A file or folder that was not there has been made."""
        new = _absolute(path)
        found = new.stat()
        node = Node(is_folder=stat.S_ISDIR(found.st_mode), is_database=_is_database(new))
        self._nodes[found.st_dev, found.st_ino] = node
        self.log(self.node(new.parent), Rename(added=new.name, node=node))
        return node

    def _replacing(self, function: Callable[..., None]) -> Callable[..., None]:
        def replace(source: Any, target: Any, **options: Any) -> None:
            with self.lock:
                node = self.node(source) if self._holds(target) else None
                function(source, target, **options)
                if node is not None:
                    old, new = _absolute(source), _absolute(target)
                    assert old.parent == new.parent, "renames between folders are not modelled"
                    self.log(self.node(new.parent), Rename(old.name, new.name, node))

        return replace

    def _removing(self, function: Callable[..., None]) -> Callable[..., None]:
        def remove(path: Any, **options: Any) -> None:
            is_held = options.get("dir_fd") is None and self._holds(path)
            with self.lock:
                function(path, **options)
                if is_held:
                    gone = _absolute(path)
                    self.log(self.node(gone.parent), Rename(removed=gone.name))

        return remove

    def _making_folder(self, function: Callable[..., None]) -> Callable[..., None]:
        def mkdir(path: Any, *args: Any, **options: Any) -> None:
            with self.lock:
                function(path, *args, **options)
                if self._holds(path):
                    self.log_new(path)

        return mkdir

    def _linking(self, function: Callable[..., None]) -> Callable[..., None]:
        def link(source: Any, target: Any, **options: Any) -> None:
            with self.lock:
                function(source, target, **options)
                if self._holds(target):
                    new = _absolute(target)
                    self.log(self.node(new.parent), Rename(added=new.name, node=self.node(new)))

        return link

    def _opening(self, function: Callable[..., int]) -> Callable[..., int]:
        def open_(path: Any, flags: int, *args: Any, **options: Any) -> int:
            if not flags & os.O_CREAT or not self._holds(path):
                return function(path, flags, *args, **options)
            with self.lock:
                is_new = not os.path.lexists(path)
                descriptor = function(path, flags, *args, **options)
                if is_new:
                    self.log_new(path)
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
                self.log_sync(node, called)

        return sync

    def _recorded_open(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def open_(path: Any, mode: str = "r", *args: Any, **options: Any) -> Any:
            if not set(mode) & set("wxa+") or not self._holds(path):
                return function(path, mode, *args, **options)
            assert mode in {"wb", "xb"}, f"mode {mode!r} is not modelled"
            return io.BufferedWriter(_RecordedFile(self, path, mode))

        return open_

    def _connect(self, path: Path, **_: Any) -> Connection:
        return Connection(path, self._vfs.name)

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

    def write_killed(self, moment: int, target: Path) -> None:
        """Write what is there when a process ends at this moment: the kernel loses nothing of it."""
        self._write(self.tree, moment, Random(0), dict.fromkeys(Sync, 1.0), target, ())

    def write_everything(self, target: Path) -> None:
        """Write what is there when nothing is lost: the folder as it is."""
        for node in self._all(self.tree):
            node.syncs.append((self.num_moments, self.num_moments))
        self._write(self.tree, self.num_moments + 1, Random(0), {}, target, ())
        for node in self._all(self.tree):
            node.syncs.pop()

    def _all(self, node: Node) -> Iterator[Node]:
        yield node
        added = [change.node for change in node.changes if isinstance(change, Rename)]
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
            assert isinstance(change, Rename)
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
            apply(durable, change)
        self._durable[node] = num_synced, durable
        content = bytearray(durable)
        for change in node.changes[num_synced : node.num_made(moment)]:
            if random.random() < chance[node.kind]:
                apply(content, change)
            elif isinstance(change, Write):
                apply_partly(content, change, random)
        return content


class _RecordedFile(io.FileIO):
    """Below a buffer: what has not left the process cannot be synced."""

    def __init__(self, recording: Recording, path: Any, mode: str) -> None:
        self._recording = recording
        with recording.lock:
            is_new = not os.path.lexists(path)
            super().__init__(path, mode)
            if is_new:
                self._node = recording.log_new(path)
            else:
                self._node = recording.node(path)
                recording.log(self._node, Truncate(0))

    def write(self, data: Any) -> int:
        with self._recording.lock:
            offset = self.tell()
            num_bytes = super().write(data) or 0
            written = bytes(memoryview(data).cast("B")[:num_bytes])
            self._recording.log(self._node, Write(offset, written))
            return num_bytes

    def truncate(self, size: int | None = None) -> int:
        with self._recording.lock:
            size = super().truncate(size)
            self._recording.log(self._node, Truncate(size))
            return size


def _absolute(path: Any) -> Path:
    return Path(os.fsdecode(path)).absolute()


def _is_database(path: Path) -> bool:
    return path.name.startswith("run.db")


def _is_recorded(path: Path) -> bool:
    return not path.name.endswith(_NOT_RECORDED)
