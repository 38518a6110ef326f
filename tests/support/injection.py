"""System calls that fail, or kill their process, at a chosen moment: strace's fault injection."""

from __future__ import annotations

import itertools
import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.tools import require_program


@contextmanager
def injected(pid: int, *faults: str, only: Path | None = None) -> Iterator[None]:
    """Meanwhile a running process and all its threads meet these faults.

    Args:
        faults: as strace's `inject` takes them, such as "fsync:error=EIO:when=2+" or
            "rename:signal=KILL". `when` counts in each thread.
        only: calls that concern this file, by its name or an open descriptor; of a rename, the old name.
    """
    strace = require_program("strace", "strace")
    calls = ",".join(fault.partition(":")[0] for fault in faults)
    options = ["-o", os.devnull, "-e", f"trace={calls}"]
    for fault in faults:
        options += ["-e", f"inject={fault}"]
    if only is not None:
        options += ["-P", str(only)]
    tracer = subprocess.Popen(
        [strace, "-f", "-p", str(pid), *options],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        stdin=subprocess.DEVNULL,
        # Ctrl-C in the terminal is the tests' to handle.
        start_new_session=True,
    )
    assert tracer.stderr is not None
    try:
        # A path that is a link is announced first.
        while b"attached" not in (said := tracer.stderr.readline()):
            if not said or b"Operation not permitted" in said:
                pytest.skip(f"needs leave to trace processes: {said.decode().strip()}")
        yield
    finally:
        # It detaches, and what it traced goes on.
        tracer.send_signal(signal.SIGINT)
        tracer.wait()
        tracer.stderr.close()


def set_max_files(pid: int, num_files: int) -> int:
    """How many files a process may have open from now on; what it was before."""
    prlimit = require_program("prlimit", "util-linux")
    query = [prlimit, "--pid", str(pid), "--nofile", "--noheadings", "--output", "SOFT", "--raw"]
    before = int(subprocess.run(query, check=True, capture_output=True, text=True).stdout)
    subprocess.run([prlimit, "--pid", str(pid), f"--nofile={num_files}:"], check=True)
    return before


def num_open_files(pid: int) -> int:
    return len(os.listdir(f"/proc/{pid}/fd"))  # noqa: PTH208


def first_free_descriptor(pid: int) -> int:
    """With this as its limit a process can open nothing more, until it closes something."""
    taken = {int(name) for name in os.listdir(f"/proc/{pid}/fd")}  # noqa: PTH208
    return next(number for number in itertools.count() if number not in taken)
