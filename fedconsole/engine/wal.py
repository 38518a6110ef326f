"""Tells whether the end of a journal is lost: SQLite leaves out what is damaged of a WAL without a word.

The layout is that of https://www.sqlite.org/fileformat2.html, "The Write-Ahead Log".
"""

from __future__ import annotations

import os
import struct
from pathlib import Path
from typing import Final

_HEAD_BYTES: Final = 32
_FRAME: Final = struct.Struct(">2I8s2I")
"""Page number, pages after a commit (else 0), salts, checksum; the page follows."""


def num_written(wal: Path) -> int:
    """How many frames a WAL has up to its last commit, be they whole or not; 0: there is no WAL.

    Raises:
        OSError: it cannot be read.
    """
    if not wal.exists():
        return 0
    num_frames = num_committed = 0
    with wal.open("rb") as file:
        head = file.read(_HEAD_BYTES)
        # A commit that comes after the WAL has begun anew has other salts than what it overwrites.
        salts = head[16:24] if _is_whole(head) else None
        page_bytes = int.from_bytes(head[8:12])
        size = os.fstat(file.fileno()).st_size
        while file.tell() + _FRAME.size + page_bytes <= size:
            num_frames += 1
            frame = file.read(_FRAME.size)
            _, num_pages, found, *_ = _FRAME.unpack(frame)
            salts = salts or found
            if found == salts and num_pages:
                num_committed = num_frames
            file.seek(page_bytes, 1)
    return num_committed


def _is_whole(head: bytes) -> bool:
    """Whether SQLite takes any of the WAL: its checksum is right."""
    if len(head) < _HEAD_BYTES:
        return False
    first = second = 0
    for one, other in struct.iter_unpack(">2I" if head[3] & 1 else "<2I", head[:24]):
        first = (first + one + second) & 0xFFFFFFFF
        second = (second + other + first) & 0xFFFFFFFF
    return struct.pack(">2I", first, second) == head[24:]
