"""Real runs for the benchmarks: an engine process in a folder of its own, and workers on this machine."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import msgspec
import psutil

from fedconsole import paths
from fedconsole.coordinator.plan import Plan
from fedconsole.engine.control import ControlLink
from fedconsole.engine.launch import new_run_id, start_engine
from fedconsole.engine.store import Line
from fedconsole.learning.tasks.loading import load_task
from fedconsole.trust import known_devices
from fedconsole.trust.known_devices import KnownDevice
from fedconsole.trust.own_keys import own_keys
from pi_daemon.protocol.messages import DatasetCard
from pi_daemon.protocol.pairing import ConsoleRole
from pi_daemon.trust.keys import key_id, pem_to_der


@contextmanager
def own_places(folder: Path) -> Iterator[None]:
    """Runs and sockets of this process and its children go below `folder`, and are deleted after."""
    before = dict(os.environ)
    places = folder / "places"
    for name in ("STATE_HOME", "RUNTIME_DIR", "CONFIG_HOME", "CACHE_HOME", "DATA_HOME"):
        # One letter: socket paths end at 108 bytes.
        place = places / name[0].lower()
        place.mkdir(mode=0o700, parents=True, exist_ok=True)
        os.environ[f"XDG_{name}"] = str(place)
    # An installation has its bytecode from the second start on, as users do; without it each start compiles.
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)
        shutil.rmtree(places, ignore_errors=True)


def cpu_seconds(pid: int) -> float:
    times = psutil.Process(pid).cpu_times()
    return float(times.user + times.system)


class Processes:
    """Worker processes of one kind, each of which has printed its port."""

    def __init__(self, arguments: list[str], num_workers: int) -> None:
        self._processes = [
            subprocess.Popen(
                [sys.executable, "-m", *arguments],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
            for _ in range(num_workers)
        ]
        self.addresses = [
            f"127.0.0.1:{process.stdout.readline().strip()}"
            for process in self._processes
            if process.stdout is not None
        ]

    @property
    def pids(self) -> list[int]:
        return [process.pid for process in self._processes]

    def cpu_seconds(self) -> float:
        """Of all of them, since they were started."""
        return sum(cpu_seconds(process.pid) for process in self._processes)

    def wait_until_asked(self) -> None:
        """Until each has printed another line."""
        for process in self._processes:
            assert process.stdout is not None
            process.stdout.readline()

    def say_go(self) -> None:
        for process in self._processes:
            assert process.stdin is not None
            process.stdin.write("\n")
            process.stdin.flush()

    def close(self) -> None:
        for process in self._processes:
            process.kill()
            process.communicate()


@contextmanager
def processes(arguments: list[str], num_workers: int) -> Iterator[Processes]:
    started = Processes(arguments, num_workers)
    try:
        yield started
    finally:
        started.close()


@contextmanager
def echo_workers(task_name: str, num_workers: int, *, secure: bool = False) -> Iterator[Processes]:
    """Workers that have data of a task and return its model as it came (benchmarks.echo).

    Secure ones speak TLS, and this console and they know each other's keys.
    """
    task = load_task(task_name)
    card = DatasetCard(
        name=task.dataset,
        sample_shape=task.sample_shape,
        sample_dtype=task.sample_dtype,
        target_dtype=task.target_dtype,
        num_examples=10**9,
        num_classes=task.num_classes,
        sha256="0" * 64,
    )
    arguments = ["benchmarks.echo", msgspec.json.encode(card).decode()]
    with TemporaryDirectory(prefix="fedconsole-bench-keys-") as keys:
        if secure:
            arguments += [keys, str(own_keys().certificate_path)]
        with processes(arguments, num_workers) as workers:
            if secure:
                for address, pid in zip(workers.addresses, workers.pids, strict=True):
                    _remember(address, Path(keys) / str(pid) / "cert.pem")
            yield workers


def _remember(address: str, certificate: Path) -> None:
    """As if this console had paired with the worker at the address."""
    pem = certificate.read_text()
    device_id = key_id(pem_to_der(pem))
    known_devices.remember(
        KnownDevice(
            id=device_id,
            name="echo",
            role=ConsoleRole.OPERATOR,
            paired_at="2026-01-01T00:00:00+00:00",
            certificate=pem,
            addresses=(address,),
        )
    )


class EngineRun:
    """A run in an engine process, seen from outside."""

    def __init__(self, process: subprocess.Popen[bytes], link: ControlLink) -> None:
        self.pid = process.pid
        self._link = link

    async def lines(self) -> AsyncIterator[Line]:
        async for line in self._link.events():
            yield line
            if line["type"] == "run.finished" and line["outcome"] != "completed":
                raise RuntimeError(f"a benchmark's run {line['outcome']}: {line['reason']}")


@asynccontextmanager
async def engine_run(plan: Plan) -> AsyncIterator[EngineRun]:
    """Carry a plan; its run's folder is deleted at the end."""
    run_id = new_run_id()
    process = start_engine(run_id, plan)
    try:
        async with ControlLink.connect(run_id) as link:
            yield EngineRun(process, link)
        await asyncio.to_thread(process.wait)
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
        shutil.rmtree(paths.runs_dir() / run_id, ignore_errors=True)
