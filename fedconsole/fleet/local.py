"""Daemons on this machine, for the demo and the benchmarks.

They are real ones: a process, a port and a state folder each.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory

from fedconsole.errors import RunFailedError
from pi_daemon.discovery import registered_daemons

_NAMES = ("alice", "bob", "charlie", "dave", "erin", "frank", "grace", "heidi", "ivan", "judy")
_MAIN = "from pi_daemon.cli.main import main; main()"
"""What `pi-daemon` does, wherever that script is installed."""
_START_S = 30.0
_POLL_S = 0.05
_END_S = 5.0


def local_daemons(
    num_workers: int, dataset: str = "digits=sample"
) -> AbstractAsyncContextManager[list[str]]:
    """Daemons that share a dataset between them, NAME=SOURCE as pi-daemon takes it."""
    shards = (f"{number}/{num_workers}" for number in range(1, num_workers + 1))
    return daemons_with([["--dataset", dataset, "--shard", shard] for shard in shards])


@asynccontextmanager
async def daemons_with(options: Sequence[Sequence[str]]) -> AsyncIterator[list[str]]:
    """A daemon for each list of options of pi-daemon; gives their addresses, and ends them after.

    Raises:
        RunFailedError: one did not start; the message has its last words.
    """
    with TemporaryDirectory(prefix="fedconsole-demo-") as folder:
        daemons: list[subprocess.Popen[bytes]] = []
        try:
            daemons.extend(_start(Path(folder), name_of(i), own) for i, own in enumerate(options))
            yield await _addresses(daemons, Path(folder))
        finally:
            await _end(daemons)


def name_of(index: int) -> str:
    return _NAMES[index] if index < len(_NAMES) else f"worker-{index + 1}"


def _start(folder: Path, name: str, options: Sequence[str]) -> subprocess.Popen[bytes]:
    # What this machine's own daemon is told must not reach these.
    arguments = ["--config", os.devnull, "--id", name, "--port", "0", "--no-mdns"]
    arguments += ["--state-dir", str(folder / name)]
    with (folder / f"{name}.log").open("wb") as log:
        return subprocess.Popen(
            [sys.executable, "-c", _MAIN, *arguments, *options],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            # Ctrl-C goes to the terminal's whole group; the run must be aborted before they end.
            start_new_session=True,
        )


async def _addresses(daemons: list[subprocess.Popen[bytes]], folder: Path) -> list[str]:
    with suppress(TimeoutError):
        async with asyncio.timeout(_START_S):
            while all(daemon.poll() is None for daemon in daemons):
                ports = {found.pid: found.port for found in registered_daemons()}
                if all(daemon.pid in ports for daemon in daemons):
                    return [f"127.0.0.1:{ports[daemon.pid]}" for daemon in daemons]
                await asyncio.sleep(_POLL_S)
    names = [name_of(index) for index in range(len(daemons))]
    logs = [(folder / f"{name}.log").read_text(errors="replace").split("\n") for name in names]
    words = "; ".join(line for log in logs for line in log[-2:] if line)
    raise RunFailedError(
        f"not all of the demo's daemons started; their last words: {words or 'none'}"
    )


async def _end(daemons: list[subprocess.Popen[bytes]]) -> None:
    for daemon in daemons:
        daemon.terminate()
    try:
        for daemon in daemons:
            await asyncio.to_thread(daemon.wait, _END_S)
    except subprocess.TimeoutExpired:
        pass
    finally:
        for daemon in daemons:
            daemon.kill()
            daemon.wait()
