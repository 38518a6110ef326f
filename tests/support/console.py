"""A console in a test's own folders: whom it reaches, and what it says of those that it does not."""

from __future__ import annotations

import asyncio
import socket
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import psutil
import pytest

from fedconsole.dialling import console_hello, dial, exchange_hellos
from fedconsole.fleet.device import Device
from fedconsole.fleet.inventory import DeviceRecord, Inventory, Presence, presence
from fedconsole.fleet.watching import Watcher
from fedconsole.trust import pairing
from fedconsole.trust.known_devices import KnownDevice
from pi_daemon.protocol.messages import Role
from pi_daemon.trust.join import parse_join
from tests.support.daemons import DaemonProcess, daemon

WAIT_S = 60.0
LOOPBACK = ("--host", "127.0.0.1")


@asynccontextmanager
async def paired(
    place: Path, *options: str, name: str = "alice"
) -> AsyncIterator[tuple[DaemonProcess, KnownDevice]]:
    """A daemon that this console is paired with."""
    async with daemon(place, *LOOPBACK, "--pair", *options, name=name) as running:
        yield running, await pairing.pair(parse_join(running.join))


async def why_not(
    address: str, device_id: str | None = None, role: Role = Role.VIEWER
) -> Exception:
    """What keeps this console from a link."""
    try:
        async with dial(address, device_id) as link:
            await exchange_hellos(link, console_hello(role))
    except Exception as error:
        return error
    raise AssertionError(f"{address} was reached")


async def answered_by(address: str, device_id: str | None = None) -> str:
    async with dial(address, device_id) as link:
        hello = await exchange_hellos(link, console_hello(Role.VIEWER))
        assert link.device_id == hello.id
        return hello.id


def on_this_port(running: DaemonProcess) -> tuple[str, ...]:
    """Options of a daemon that takes another's place, which is the last option that counts."""
    return *LOOPBACK, "--port", str(running.port)


async def end(running: DaemonProcess) -> None:
    running.process.terminate()
    await running.process.wait()


async def run_on(address: str, *options: str) -> tuple[int | None, str]:
    """The exit code of `fedconsole run --headless` with this worker, and what it says."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "fedconsole.cli.entry", "run", "--headless"),
        *("--worker", address, "--rounds", "1", "--timeout", "300", *options),
        stdin=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
    )
    _, said = await process.communicate()
    return process.returncode, said.decode()


@asynccontextmanager
async def watched(
    inventory: Inventory, *hints: Device, search_s: float = 0.0
) -> AsyncIterator[None]:
    watcher = Watcher(inventory, hints, search_s, time.monotonic)
    task = asyncio.get_running_loop().create_task(watcher.run())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def record_named(inventory: Inventory, name: str) -> DeviceRecord | None:
    return next((r for r in inventory.records.values() if r.name == name), None)


def record_of(inventory: Inventory, name: str) -> DeviceRecord:
    record = record_named(inventory, name)
    assert record is not None
    return record


def presence_of(inventory: Inventory, name: str) -> Presence | None:
    record = record_named(inventory, name)
    return presence(record, time.monotonic()) if record else None


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(WAIT_S):
        while not holds():  # noqa: ASYNC110
            await asyncio.sleep(0.05)


@contextmanager
def listener_beyond_loopback() -> Iterator[tuple[socket.socket, str]]:
    addresses = [
        entry.address
        for entries in psutil.net_if_addrs().values()
        for entry in entries
        if entry.family is socket.AF_INET and not entry.address.startswith("127.")
    ]
    if not addresses:
        pytest.skip("this machine has no address beyond loopback")
    with socket.create_server((addresses[0], 0)) as listening:
        listening.setblocking(False)
        host, port = listening.getsockname()
        yield listening, f"{host}:{port}"
