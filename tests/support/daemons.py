"""Starts real daemons as processes, on free ports of loopback, with state directories of their own."""

from __future__ import annotations

import asyncio
import os
import re
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import psutil

START_S = 60.0
"""Under load from other tests, importing scikit-learn for the cards takes a while."""


@dataclass
class DaemonProcess:
    process: asyncio.subprocess.Process
    port: int
    lines: list[str] = field(default_factory=list)
    """What it wrote on stderr so far."""

    @property
    def pid(self) -> int:
        return self.process.pid

    def trainers(self) -> list[psutil.Process]:
        return [
            child
            for child in psutil.Process(self.pid).children()
            if "pi_daemon.trainer" in child.cmdline()
        ]

    async def wait_for_line(self, pattern: str) -> str:
        """The next line on stderr that holds the pattern."""
        assert self.process.stderr is not None
        async with asyncio.timeout(START_S):
            while line := (await self.process.stderr.readline()).decode():
                self.lines.append(line)
                if re.search(pattern, line):
                    return line
        raise AssertionError(f"{pattern!r} was never written, only:\n{''.join(self.lines)}")


def environment(folder: Path) -> dict[str, str]:
    """A process's environment whose runtime directory is in the test's folder."""
    folder.mkdir(exist_ok=True)
    return os.environ | {"XDG_RUNTIME_DIR": str(folder)}


async def run_daemon(folder: Path, *options: str) -> asyncio.subprocess.Process:
    """Start `pi-daemon` with these options and nothing else, stderr piped."""
    return await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "pi_daemon.cli.main", *options),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env=environment(folder / "runtime"),
    )


@asynccontextmanager
async def daemon(
    folder: Path,
    *options: str,
    name: str = "alice",
) -> AsyncIterator[DaemonProcess]:
    """A daemon that listens, by default without data; it is ended afterwards."""
    process = await run_daemon(
        folder,
        *("--port", "0", "--id", name, "--state-dir", str(folder / name), "--no-mdns"),
        *options,
    )
    found = DaemonProcess(process, port=0)
    try:
        line = await found.wait_for_line("listens on")
        found.port = int(line.split("ws://")[1].split(",")[0].rsplit(":", 1)[1])
        yield found
    finally:
        if process.returncode is None:
            process.terminate()
        # Reads what is left, so that a full pipe cannot keep it from ending.
        await process.communicate()
