"""Private folders, changed by one process at a time: the console, engines and commands share them."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from fedconsole.errors import RefusedError, StorageError
from pi_daemon.paths import UnsafePathError, make_private


def require_private(folder: Path) -> None:
    """Make it if it is missing; raises RefusedError: it cannot be made, or is open to others."""
    try:
        make_private(folder)
    except UnsafePathError as error:
        raise RefusedError(f"what this console keeps of trust: {error}") from error


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Raises RefusedError as `require_private`, StorageError: it cannot be opened."""
    require_private(folder)
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    except OSError as error:
        raise StorageError(f"cannot open {folder}: {error}") from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
