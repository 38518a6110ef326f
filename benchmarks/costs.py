"""What is paid before any training: memory of an idle daemon, and the time until programs are there."""

from __future__ import annotations

import asyncio
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Final

import psutil

from benchmarks.processes import Memory, memory, tree
from benchmarks.runs import own_places
from benchmarks.samples import write_samples
from benchmarks.table import Row
from fedconsole.fleet.local import local_daemons

_REPEATS: Final = 9
_IDLE_S: Final = 3.0
"""A daemon has measured its telemetry by then."""


def run(folder: Path) -> list[Row]:
    write_samples(folder / "mnist.npz", 60_000)
    with own_places(folder):
        idle = asyncio.run(idle_daemon(folder / "mnist.npz"))
        programs = {
            "python": "pass",
            "fedconsole --help": "import sys; sys.argv[1:] = ['--help']; "
            "from fedconsole.cli.main import main; main()",
            "import fedconsole.cli.main": "import fedconsole.cli.main",
            "import pi_daemon.server.server": "import pi_daemon.server.server",
            "import pi_daemon.trainer": "import pi_daemon.trainer.__main__",
        }
        seconds = {name: program_seconds(code) for name, code in programs.items()}
    bare = seconds.pop("python")
    return [
        Row("idle daemon: memory (PSS)", idle.pss / 1e6, None, "MB", ""),
        Row("idle daemon: memory (RSS)", idle.rss / 1e6, None, "MB", "<= 70"),
        *(Row(name, time_s, bare, "s", "") for name, time_s in seconds.items()),
    ]


async def idle_daemon(dataset: Path) -> Memory:
    """Memory of a daemon and its children before its first run."""
    async with local_daemons(1, f"mnist={dataset}"):
        await asyncio.sleep(_IDLE_S)
        [daemon] = psutil.Process().children()
        return memory(tree(daemon.pid))


def program_seconds(code: str) -> float:
    """From the start of a Python process to its end: the median of several."""
    return statistics.median(_seconds(code) for _ in range(_REPEATS))


def _seconds(code: str) -> float:
    start_s = time.perf_counter()
    subprocess.run(
        [sys.executable, "-c", code],
        check=True,
        stdout=subprocess.DEVNULL,
        env={**os.environ, "COLUMNS": "100"},
    )
    return time.perf_counter() - start_s
