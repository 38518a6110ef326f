"""Watches a parser: an input that takes too long, or too much memory, is a finding like a crash."""

from __future__ import annotations

import faulthandler
import re
import resource
import signal
import tracemalloc
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Final

from tests.fuzz.targets import MAX_INPUT_BYTES, Target

HANG_S: Final = 10
"""A thousand times what the slowest honest input takes."""
STUCK_S: Final = 30
"""Code that never comes back to Python is ended from outside of it."""
SLACK_BYTES: Final = 64 << 20
"""For what a library loads or keeps when it is first used."""


class HangError(Exception):
    """An input took longer than `HANG_S`."""


class TooMuchMemoryError(Exception):
    """An input took more memory than its target's limit."""


@contextmanager
def no_hang() -> Iterator[None]:
    """Raises HangError; ends the process when even that cannot be raised."""
    signal.setitimer(signal.ITIMER_REAL, HANG_S)
    faulthandler.dump_traceback_later(STUCK_S, exit=True)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        faulthandler.cancel_dump_traceback_later()


def watch_time() -> None:
    """Call once in the process that uses `no_hang`."""

    def raise_hang(number: int, frame: FrameType | None) -> None:
        raise HangError(f"an input took more than {HANG_S} s")

    signal.signal(signal.SIGALRM, raise_hang)


def limit_memory(target: Target) -> None:
    """From now on this process gets no more data memory than one input may take, and `SLACK_BYTES`."""
    limit = _status_bytes("VmData") + SLACK_BYTES + target.limit_bytes(MAX_INPUT_BYTES)
    resource.setrlimit(resource.RLIMIT_DATA, (limit, resource.getrlimit(resource.RLIMIT_DATA)[1]))


def resident_bytes() -> int:
    """Of this process, now."""
    return _status_bytes("VmRSS")


def _status_bytes(key: str) -> int:
    [kilobytes] = re.findall(rf"{key}:\s+(\d+) kB", Path("/proc/self/status").read_text())
    return int(kilobytes) << 10


def measured(target: Target, content: bytes) -> int:
    """Run one input; the most bytes that Python and NumPy held for it at a time.

    Raises:
        TooMuchMemoryError: over the target's limit. Everything else that the target raises.
    """
    tracemalloc.start()
    try:
        target(content)
        peak_bytes = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    limit_bytes = target.limit_bytes(len(content))
    if peak_bytes > limit_bytes:
        raise TooMuchMemoryError(
            f"{peak_bytes} bytes for an input of {len(content)}, at most {limit_bytes} allowed"
        )
    return peak_bytes
