"""Files that outlive a power cut."""

from __future__ import annotations

import os
from pathlib import Path


def put_in_place(written: Path, path: Path) -> None:
    """Give a file that is whole its name: after a power cut there is what was before, or all of it.

    Raises:
        OSError: the disk refuses.
    """
    sync(written)
    written.replace(path)
    sync(path.parent)


def sync(path: Path) -> None:
    """Wait until a file's content, or a folder's names, are on the disk; raises OSError."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
