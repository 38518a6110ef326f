"""Starts real daemons as processes, on free ports of loopback, with state directories of their own."""

from __future__ import annotations

import asyncio
import os
import re
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import psutil

RUNTIME = "p"
"""Of the daemons, in a test's folder; one letter: socket paths end at 108 bytes."""
START_S = 60.0
"""Under load from other tests, everything takes a while."""


@dataclass
class DaemonProcess:
    process: asyncio.subprocess.Process
    port: int
    lines: list[str] = field(default_factory=list)
    """What it wrote on stderr so far."""
    join: str = ""
    """What it let a console pair with when it began, if it did."""
    state_dir: Path = Path()

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

    async def next_join(self) -> str:
        """The join string that it writes next on stdout."""
        assert self.process.stdout is not None
        async with asyncio.timeout(START_S):
            return (await self.process.stdout.readline()).decode().strip()

    async def revoke(self, console: str) -> None:
        """As its owner does."""
        await owner_command(self, "consoles", "revoke", console)


def environment(folder: Path) -> dict[str, str]:
    """A process's environment whose runtime and configuration directories are in the test's folder."""
    folder.mkdir(exist_ok=True)
    return os.environ | {"XDG_RUNTIME_DIR": str(folder), "XDG_CONFIG_HOME": str(folder)}


async def run_daemon(
    folder: Path, *options: str, under: Sequence[str] = ()
) -> asyncio.subprocess.Process:
    """Start `pi-daemon` with these options and nothing else, stderr piped.

    `under` is a program that starts it, with its first arguments.
    """
    return await asyncio.create_subprocess_exec(
        *(*under, sys.executable, "-m", "pi_daemon.cli.main", *options),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env=environment(folder / RUNTIME),
    )


async def owner_command(of: DaemonProcess, *words: str) -> str:
    """What `pi-daemon WORDS` prints for the owner of a daemon."""
    state = ("--state-dir", str(of.state_dir))
    process = await run_daemon(of.state_dir.parent, *words, *state)
    stdout, stderr = await process.communicate()
    assert process.returncode == 0, stderr.decode()
    return stdout.decode()


@asynccontextmanager
async def daemon(
    folder: Path,
    *options: str,
    name: str = "alice",
    is_announced: bool = False,
    under: Sequence[str] = (),
) -> AsyncIterator[DaemonProcess]:
    """A daemon that listens, by default without data; it is ended afterwards.

    Args:
        under: a command that becomes the daemon, such as one that enters a namespace first.
    """
    process = await run_daemon(
        folder,
        *("--port", "0", "--id", name, "--state-dir", str(folder / name)),
        *(() if is_announced else ("--no-mdns",)),
        *options,
        under=under,
    )
    found = DaemonProcess(process, port=0, state_dir=folder / name)
    try:
        line = await found.wait_for_line("listens on")
        found.port = int(re.split("wss?://", line)[1].split(",")[0].rsplit(":", 1)[1])
        if "--pair" in options:
            found.join = await found.next_join()
        yield found
    finally:
        if process.returncode is None:
            process.terminate()
        # Reads what is left, so that a full pipe cannot keep it from ending.
        await process.communicate()
