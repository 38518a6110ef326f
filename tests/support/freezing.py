"""Processes that stand still for a while, as a laptop that sleeps or a machine that swaps does."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress


@contextmanager
def frozen(pid: int) -> Iterator[None]:
    """Meanwhile the process does nothing; its connections stay open and its buffers fill."""
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)
