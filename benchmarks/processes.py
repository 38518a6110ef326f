"""What processes and all their children cost: time on the cores, and memory."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

_SAMPLE_S = 0.5


@dataclass(slots=True)
class Memory:
    """Of several processes together, in bytes."""

    pss: int = 0
    """What they share is counted once."""
    rss: int = 0
    """What they share is counted for each."""


def tree(*pids: int) -> list[psutil.Process]:
    """The processes that live now, with their children's children."""
    found = []
    for pid in pids:
        with suppress(psutil.NoSuchProcess):
            parent = psutil.Process(pid)
            found += [parent, *parent.children(recursive=True)]
    return found


def cpu_seconds(processes: Sequence[psutil.Process]) -> float:
    """User and system time so far; those that have ended count for nothing."""
    total = 0.0
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            times = process.cpu_times()
            total += times.user + times.system
    return total


def memory(processes: Sequence[psutil.Process]) -> Memory:
    found = Memory()
    for process in processes:
        with suppress(OSError):
            for line in Path(f"/proc/{process.pid}/smaps_rollup").read_text().splitlines()[1:]:
                name, value = line.split()[:2]
                if name == "Pss:":
                    found.pss += int(value) << 10
                elif name == "Rss:":
                    found.rss += int(value) << 10
    return found


@contextmanager
def peak_memory(pid: int) -> Iterator[Memory]:
    """The most that a process and its children hold at any of the moments they are looked at."""
    peak = Memory()
    is_over = threading.Event()

    def watch() -> None:
        while not is_over.wait(_SAMPLE_S):
            now = memory(tree(pid))
            peak.pss, peak.rss = max(peak.pss, now.pss), max(peak.rss, now.rss)

    watching = threading.Thread(target=watch)
    watching.start()
    try:
        yield peak
    finally:
        is_over.set()
        watching.join()
