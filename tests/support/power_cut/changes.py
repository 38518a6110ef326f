"""What a recording keeps: files and folders, and what was done to each of them, when."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Collection
from dataclasses import dataclass, field
from enum import StrEnum
from random import Random

SECTOR_BYTES = 512
"""Of a write that was not synced each may be there or not, or garbled."""


class Sync(StrEnum):
    """What a control may leave out, to see that something is lost then."""

    DATABASE = "database"
    FILE = "file"
    FOLDER = "folder"


@dataclass(frozen=True, slots=True)
class Write:
    offset: int
    data: bytes


@dataclass(frozen=True, slots=True)
class Truncate:
    size: int


@dataclass(frozen=True, slots=True)
class Rename:
    """What becomes of a folder's names at one stroke."""

    removed: str | None = None
    added: str | None = None
    node: Node | None = None
    """Of the added name."""


Change = Write | Truncate | Rename


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
    changes: list[Change] = field(default_factory=list)
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


def apply(content: bytearray, change: Change) -> None:
    match change:
        case Write(offset, data):
            if offset > len(content):
                content.extend(bytes(offset - len(content)))
            content[offset : offset + len(data)] = data
        case Truncate(size):
            del content[size:]
            content.extend(bytes(size - len(content)))


def apply_partly(content: bytearray, write: Write, random: Random) -> None:
    """A write that was under way: not begun, cut off, or some sectors of it with others garbled."""
    match random.choice(("lost", "lost", "short", "torn", "garbled")):
        case "short":
            apply(content, Write(write.offset, write.data[: random.randrange(len(write.data))]))
        case "torn" | "garbled" as fate:
            begin, end = write.offset, write.offset + len(write.data)
            while begin < end:
                border = min((begin // SECTOR_BYTES + 1) * SECTOR_BYTES, end)
                if random.random() < 0.5:
                    part = write.data[begin - write.offset : border - write.offset]
                    apply(content, Write(begin, part))
                elif fate == "garbled":
                    apply(content, Write(begin, random.randbytes(border - begin)))
                begin = border
