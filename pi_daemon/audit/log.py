"""The device's audit log: what each console did here, was refused and was given. A JSON line each.

`audit.jsonl` in the state directory. What was before it is `audit.jsonl.1`; of what was before that
only the sums stay, with which a file begins. Nobody waits for a line to be written, and a disk that
takes none does not stop the device.
"""

from __future__ import annotations

import asyncio
import logging
import os
import threading
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import msgspec

from pi_daemon.audit.recorder import Entry
from pi_daemon.protocol.errors import UNREADABLE
from pi_daemon.protocol.text import clean

log = logging.getLogger(__name__)

NAME: Final = "audit.jsonl"
BEFORE: Final = "audit.jsonl.1"
MAX_BYTES: Final = 4 << 20
"""Of one file: about 15,000 lines."""
MAX_WAITING: Final = 1_000
"""Entries that wait for a disk that is slow or full."""
RETRY_S: Final = 1.0
MINUTE_S: Final = 60.0
PER_MINUTE: Final = 50
"""Lines of one sort. More are only counted, with what has left the device by them: nobody may wash the
others away."""
_SORTS: Final = {
    "link opened": "links",
    "link closed": "links",
    "lease taken": "links",
    "lease released": "links",
}
"""What always comes together counts together; all else is its own sort, so that no flood of one hides another."""
_SUMS: Final = "sums of before"


class Sums(msgspec.Struct):
    """What has left the device."""

    updates: int = 0
    update_bytes: int = 0
    evaluations: int = 0
    losses: int = 0

    def add(self, entry: Entry) -> None:
        match entry:
            case {"what": "update sent", "bytes": int(size)}:
                self.updates += 1
                self.update_bytes += size
            case {"what": "evaluation sent"}:
                self.evaluations += 1
            case {"what": "losses told", "losses": int(count)}:
                self.losses += count
            case {"what": "left out"}:
                for name in self.__struct_fields__:
                    setattr(self, name, getattr(self, name) + entry.get(name, 0))
            case {"what": what} if what == _SUMS:
                for name in self.__struct_fields__:
                    setattr(self, name, entry.get(name, 0))


def read_log(folder: Path) -> Iterator[Entry]:
    """All entries that are there, oldest first; what a power cut left of a line is skipped.

    Raises:
        OSError: a file cannot be read; one that is not there has no entries.
    """
    for name in (BEFORE, NAME):
        with suppress(FileNotFoundError), (folder / name).open("rb") as file:
            for line in file:
                with suppress(*UNREADABLE):
                    yield msgspec.json.decode(line, type=dict[str, Any])


def is_entry(entry: Entry) -> bool:
    """Something that happened, and no sums."""
    return entry.get("what") != _SUMS


def sums_of(entries: Iterable[Entry]) -> Sums:
    sums = Sums()
    for entry in entries:
        sums.add(entry)
    return sums


def _now() -> datetime:
    return datetime.now(UTC)


class AuditLog:
    """Takes entries on the event loop; writes them in a thread, in their order."""

    def __init__(
        self, folder: Path, max_bytes: int = MAX_BYTES, now: Callable[[], datetime] = _now
    ) -> None:
        self._folder = folder
        self._now = now
        self._max_bytes = max_bytes
        self._waiting: deque[Entry] = deque()
        self._wake = asyncio.Event()
        self._minute = 0
        self._num_of_sort: Counter[str] = Counter()
        """In this minute."""
        self._num_left_out = 0
        self._left_out = Sums()
        self._is_broken = False
        self._writing = threading.Lock()

    def put(self, entries: Iterable[Entry]) -> None:
        """Never waits, never raises."""
        now = self._now()
        for entry in entries:
            if self._is_too_much(entry, now):
                self._num_left_out += 1
                self._left_out.add(entry)
            else:
                self._admit_gap(now)
                self._waiting.append(_dated(now, entry))
                self._wake.set()

    async def run(self) -> None:
        """Write until cancelled; call `close` after."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            if not await asyncio.to_thread(self._write_waiting):
                await asyncio.sleep(RETRY_S)
                self._wake.set()

    def close(self) -> None:
        """Write what is left."""
        self._admit_gap(self._now())
        self._write_waiting()

    def _is_too_much(self, entry: Entry, now: datetime) -> bool:
        if len(self._waiting) >= MAX_WAITING:
            return True
        minute = int(now.timestamp() / MINUTE_S)
        if minute != self._minute:
            self._minute, self._num_of_sort = minute, Counter()
        what: str = entry["what"]
        sort = _SORTS.get(what, what)
        self._num_of_sort[sort] += 1
        return self._num_of_sort[sort] > PER_MINUTE

    def _admit_gap(self, now: datetime) -> None:
        if self._num_left_out:
            left = {name: n for name, n in msgspec.structs.asdict(self._left_out).items() if n}
            gap = {"what": "left out", "lines": self._num_left_out, **left}
            self._waiting.append(_dated(now, gap))
            self._num_left_out, self._left_out = 0, Sums()

    # In a thread

    def _write_waiting(self) -> bool:
        """Whether all could be written that waited; otherwise it waits on."""
        with self._writing:
            entries = self._waiting.copy()
            content = b"".join(msgspec.json.encode(entry) + b"\n" for entry in entries)
            try:
                self._make_room(len(content))
                _append(self._folder / NAME, content)
            except OSError as error:
                if not self._is_broken:
                    log.error("the audit log cannot be written: %s; trying on", error)
                self._is_broken = True
                return False
            for _ in entries:
                self._waiting.popleft()
            if self._is_broken:
                log.info("the audit log is written again")
            self._is_broken = False
            return True

    def _make_room(self, num_bytes: int) -> None:
        path = self._folder / NAME
        with suppress(FileNotFoundError):
            if path.stat().st_size + num_bytes > self._max_bytes:
                sums = msgspec.structs.asdict(sums_of(read_log(self._folder)))
                path.replace(self._folder / BEFORE)
                first = _dated(self._now(), {"what": _SUMS, **sums})
                _append(path, msgspec.json.encode(first) + b"\n")


def _append(path: Path, content: bytes) -> None:
    """Add whole lines, or nothing: what a full disk took of them is cut off again."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW, 0o600)
    try:
        size = os.fstat(descriptor).st_size
        if size and os.pread(descriptor, 1, size - 1) != b"\n":
            content = b"\n" + content
        try:
            while content:
                content = content[os.write(descriptor, content) :]
        except OSError:
            os.ftruncate(descriptor, size)
            raise
    finally:
        os.close(descriptor)


def _dated(now: datetime, entry: Entry) -> Entry:
    time = now.isoformat(timespec="milliseconds").replace("+00:00", "Z")
    return {"time": time, **{key: _cleaned(value) for key, value in entry.items()}}


def _cleaned(value: Any) -> Any:
    match value:
        case str():
            return clean(value)
        case list():
            return [_cleaned(item) for item in value]
        case _:
            return value
