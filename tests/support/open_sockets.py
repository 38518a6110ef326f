"""Carries out command lines, and looks at what all their processes listen on meanwhile."""

from __future__ import annotations

import asyncio
import ipaddress
import os
import re
import socket
import sys
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import psutil
import typer

from fedconsole.history import run_ids

LOOK_S = 0.1
FEDCONSOLE, PI_DAEMON = "fedconsole.cli.entry", "pi_daemon.cli.main"

Listening = set[tuple[str, str, int]]
"""Program, address and port of each socket that listens beyond this machine."""


# What there is


def all_of(app: typer.Typer) -> set[str]:
    """Each command, and each option with its command: `runs show`, `runs show --output`."""

    def walk(command: Any, path: str) -> Iterator[str]:
        inner = getattr(command, "commands", {})
        if path and not inner:
            yield path.strip()
        for option in command.params:
            for name in (option.opts[0], *option.secondary_opts):
                if name.startswith("--"):
                    yield f"{path} {name}".strip()
        for name, each in inner.items():
            yield from walk(each, f"{path} {name}")

    return set(walk(typer.main.get_command(app), ""))


def options_in(app: typer.Typer, line: str) -> set[str]:
    """What of `all_of` a line has."""
    command: Any = typer.main.get_command(app)
    path, found = "", set()
    for word in line.partition(" until ")[0].split():
        if word.startswith("--"):
            found.add(f"{path} {word}".strip())
        elif word in getattr(command, "commands", {}):
            command, path = command.commands[word], f"{path} {word}"
            if not hasattr(command, "commands"):
                found.add(path.strip())
    return found


def commands_of(app: typer.Typer) -> list[str]:
    """The words of each command and of each group of commands; "" is the program itself."""

    def walk(command: Any, path: str) -> Iterator[str]:
        yield path
        for name, each in getattr(command, "commands", {}).items():
            yield from walk(each, f"{path} {name}".strip())

    return list(walk(typer.main.get_command(app), ""))


# Carrying out


async def carry_out_all(module: str, lines: str, **put: str) -> None:
    for line in lines.splitlines():
        await asyncio.gather(*(carry_out(module, part, None, **put) for part in line.split(" & ")))


async def carry_out(
    module: str, line: str, environment: Mapping[str, str] | None = None, **put: str
) -> None:
    """One line, to its end; with what stands for the words in braces."""
    found = re.fullmatch(r"(?:(\S+): )?(.*?)(?: until (.*))?", line)
    assert found is not None
    expected, words, wanted = found.groups(default="")
    stored = " ".join(run_ids()[:2])
    while True:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", module, *words.format(**put, RUNS=stored).split()),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env=os.environ | dict(environment or {}),
        )
        try:
            out, err = await process.communicate()
        finally:
            if process.returncode is None:
                process.kill()
        code = str(process.returncode)
        assert re.fullmatch(expected or "0", code), f"{line}: {code}, {err.decode()}"
        if wanted in out.decode():
            return


# Looking


@asynccontextmanager
async def looking(place: Path) -> AsyncIterator[Listening]:
    """What a test's processes listen on beyond this machine, from now on."""
    found: Listening = set()

    async def look() -> None:
        while True:
            found.update(await looked(place))
            await asyncio.sleep(LOOK_S)

    task = asyncio.get_running_loop().create_task(look())
    try:
        yield found
        found.update(await looked(place))
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


async def looked(place: Path) -> Listening:
    def look() -> Listening:
        return {where for process in processes_in(place) for where in sockets_of(process.pid)}

    return await asyncio.to_thread(look)


def processes_in(place: Path) -> list[psutil.Process]:
    """All that a test has started, engines and daemons too: they have its folders."""
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if process.environ().get("XDG_STATE_HOME") == str(place / "s"):
                found.append(process)
    return found


def sockets_of(pid: int) -> Listening:
    with suppress(psutil.Error):
        process = psutil.Process(pid)
        return {(process.name(), *where) for where in _listening(process)}
    return set()


def _listening(process: psutil.Process) -> Iterator[tuple[str, int]]:
    for one in process.net_connections("inet"):
        listens = one.status == psutil.CONN_LISTEN or (
            one.type == socket.SOCK_DGRAM and not one.raddr and one.laddr
        )
        if listens and not ipaddress.ip_address(one.laddr.ip).is_loopback:
            yield one.laddr.ip, one.laddr.port
