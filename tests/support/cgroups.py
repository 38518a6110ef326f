"""Limits on the memory and the processor of running processes, by control groups of version 1."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.tools import require_root

_ROOT = Path("/sys/fs/cgroup")
_PERIOD_US = 100_000
_numbers = itertools.count(1)


@contextmanager
def limited_memory(pid: int, num_bytes: int) -> Iterator[None]:
    """Meanwhile the kernel kills this process, or one it starts, when they take more than that.

    What the process has already does not count.
    """
    with _group("memory") as group:
        _write(group / "memory.limit_in_bytes", str(num_bytes))
        # Swap would make it slow instead; a kernel that does not count swap has no such file.
        if (swap := group / "memory.memsw.limit_in_bytes").exists():
            _write(swap, str(num_bytes))
        _write(group / "cgroup.procs", str(pid))
        yield


@contextmanager
def limited_processor(pid: int, share: float) -> Iterator[None]:
    """Meanwhile the process has this share of one core."""
    with _group("cpu") as group:
        _write(group / "cpu.cfs_period_us", str(_PERIOD_US))
        _write(group / "cpu.cfs_quota_us", str(int(share * _PERIOD_US)))
        _write(group / "cgroup.procs", str(pid))
        yield


@contextmanager
def _group(controller: str) -> Iterator[Path]:
    """A control group; what is in it goes back to where this process is."""
    require_root(f"cgroup v1 {controller}")
    folder = _ROOT / controller
    if not (folder / "cgroup.procs").exists():
        pytest.skip(f"needs cgroup v1 {controller}")
    group = folder / f"fedconsole-{os.getpid()}-{next(_numbers)}"
    group.mkdir()
    try:
        yield group
    finally:
        for pid in (group / "cgroup.procs").read_text().split():
            _write(folder / "cgroup.procs", pid)
        group.rmdir()


def _write(path: Path, text: str) -> None:
    path.write_text(text)
