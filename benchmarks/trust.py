"""What TLS and paired keys cost: rounds, connecting, and the way from nothing to a paired device."""

from __future__ import annotations

import asyncio
import statistics
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from benchmarks.runs import own_places
from benchmarks.table import Row, alternate
from benchmarks.wire import NUM_WORKERS, SMALL_TASK, federated

NUM_ROUNDS = 200
NUM_CONNECTIONS = 50
_DAEMON = "from pi_daemon.cli.main import main; main()"
_CONSOLE = "from fedconsole.cli.entry import main; main()"


def run(folder: Path) -> list[Row]:
    with own_places(folder):
        secure, plain = alternate(
            lambda: asyncio.run(federated(SMALL_TASK, NUM_ROUNDS, secure=True)),
            lambda: asyncio.run(federated(SMALL_TASK, NUM_ROUNDS)),
            times=3,
        )
        seconds, reference = (statistics.median(r.seconds for r in rs) for rs in (secure, plain))
        cpu, plain_cpu = (statistics.median(r.cpu_seconds for r in rs) for rs in (secure, plain))
        pairing_s = [asyncio.run(_pair_from_nothing(folder / str(n))) for n in range(3)]
        connecting_s, plain_s = asyncio.run(_connect_times(folder))
    name = f"TLS, 1.72 MB x {NUM_WORKERS}, no work:"
    return [
        Row(f"{name} rounds, beside no TLS", 1 / seconds, 1 / reference, "1/s", ">= 0.5 x"),
        Row(f"{name} CPU of all in a round", cpu, plain_cpu, "s", ""),
        Row("TLS: connect to hello, beside no TLS", connecting_s, plain_s, "s", "<= 0.05"),
        Row("from nothing to a paired device", statistics.median(pairing_s), None, "s", "< 10"),
    ]


async def _connect_times(folder: Path) -> tuple[float, float]:
    """Seconds until a device's hello has come, with TLS and without; medians of many."""
    async with (
        _daemon(folder / "tls", "--pair") as (address, join),
        _daemon(folder / "plain") as (
            plain_address,
            _,
        ),
    ):
        await _console("pair", join)
        secure, plain = [], []
        for _ in range(NUM_CONNECTIONS):
            secure.append(await _time_to_hello(address))
            plain.append(await _time_to_hello(plain_address))
    return statistics.median(secure), statistics.median(plain)


async def _time_to_hello(address: str) -> float:
    from fedconsole.dialling import dial

    began = time.perf_counter()
    async with dial(address) as link:
        await link.recv()
        return time.perf_counter() - began


async def _pair_from_nothing(folder: Path) -> float:
    """Seconds of both commands, from the start of the first to the end of the second."""
    began = time.perf_counter()
    async with _daemon(folder, "--pair") as (_, join):
        await _console("pair", join)
        return time.perf_counter() - began


@asynccontextmanager
async def _daemon(folder: Path, *options: str) -> AsyncIterator[tuple[str, str]]:
    """A daemon on loopback with digits; its address, and its join string if it has printed one."""
    state = ("--state-dir", str(folder), "--id", folder.name, "--port", "0", "--no-mdns")
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", _DAEMON, *state, "--host", "127.0.0.1", *options),
        *("--dataset", "digits=sample"),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdout is not None
    assert process.stderr is not None
    try:
        line = (await process.stderr.readline()).decode()
        address = line.split("://")[1].split(",")[0]
        join = (await process.stdout.readline()).decode().strip() if "--pair" in options else ""
        yield address, join
    finally:
        process.terminate()
        await process.communicate()


async def _console(*words: str) -> None:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", _CONSOLE, *words), stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    _, stderr = await process.communicate()
    if process.returncode != 0:
        raise RuntimeError(f"fedconsole {words[0]}: {stderr.decode()}")
