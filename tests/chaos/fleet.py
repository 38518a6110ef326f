"""Daemons that can be killed and come back: each keeps its name, port, data and state folder."""

from __future__ import annotations

import asyncio
import re
import sys
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections import deque
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import psutil

_START_S = 60.0
_END_S = 5.0


class Device:
    """One daemon, over as many processes as it takes."""

    def __init__(self, name: str, folder: Path, options: Sequence[str]) -> None:
        self.name = name
        self.port = 0
        """Chosen by the first process; the later ones take the same."""
        self.last_words: deque[str] = deque(maxlen=50)
        """What its processes wrote on stderr."""
        self._arguments = (
            *("--id", name, "--state-dir", str(folder / name), "--no-mdns"),
            *options,
        )
        self._process: Process | None = None
        self._listens = asyncio.Event()
        """Of this process: a new one for each."""
        self._readings: set[asyncio.Task[None]] = set()

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    @property
    def pid(self) -> int:
        """Of its newest process, alive or not."""
        assert self._process is not None
        return self._process.pid

    async def start(self) -> None:
        """Returns before it listens."""
        self._listens = asyncio.Event()
        self._process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "pi_daemon.cli.main", "--port", str(self.port)),
            *self._arguments,
            stdin=DEVNULL,
            stdout=DEVNULL,
            stderr=PIPE,
            # Ctrl-C in the terminal is the campaign's to handle.
            start_new_session=True,
        )
        reading = self._read(self._process, self._listens)
        task = asyncio.get_running_loop().create_task(reading)
        self._readings.add(task)
        task.add_done_callback(self._readings.discard)

    async def wait_until_it_listens(self) -> None:
        try:
            async with asyncio.timeout(_START_S):
                await self._listens.wait()
        except TimeoutError:
            words = "".join(self.last_words)
            raise RuntimeError(f"{self.name} does not listen; its last words: {words}") from None

    def trainers(self) -> list[psutil.Process]:
        """Its training processes, of which there is at most one."""
        assert self._process is not None
        try:
            children = psutil.Process(self._process.pid).children()
            return [child for child in children if "pi_daemon.trainer" in child.cmdline()]
        except psutil.NoSuchProcess:
            return []

    def kill(self) -> None:
        assert self._process is not None
        self._process.kill()

    async def restart(self) -> None:
        """Start again after `kill`, at once; returns before it listens."""
        assert self._process is not None
        await self._process.wait()
        await self.start()

    async def end(self) -> None:
        process = self._process
        if process is None:
            return
        if process.returncode is None:
            process.terminate()
            try:
                await asyncio.wait_for(process.wait(), _END_S)
            except TimeoutError:
                process.kill()
                await process.wait()
        for reading in list(self._readings):
            await reading

    async def _read(self, process: Process, listens: asyncio.Event) -> None:
        assert process.stderr is not None
        while line := (await process.stderr.readline()).decode(errors="replace"):
            self.last_words.append(line)
            if found := re.search(r"listens on ws://127\.0\.0\.1:(\d+)", line):
                self.port = int(found[1])
                listens.set()


@asynccontextmanager
async def fleet(folder: Path, names: Sequence[str]) -> AsyncIterator[list[Device]]:
    """A device for each name, which share the digits; they listen, and are ended afterwards."""
    devices = [
        Device(name, folder, ("--dataset", "digits=sample", "--shard", f"{number}/{len(names)}"))
        for number, name in enumerate(names, start=1)
    ]
    try:
        for device in devices:
            await device.start()
        for device in devices:
            await device.wait_until_it_listens()
        yield devices
    finally:
        for device in devices:
            await device.end()
