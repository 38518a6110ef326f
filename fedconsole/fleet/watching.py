"""Keeps the inventory: searches again and again, and holds a viewer link to every device."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Final

from websockets.asyncio.client import ClientConnection
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidURI

from fedconsole.dialling import console_hello, dial, in_words
from fedconsole.errors import StorageError
from fedconsole.fleet import last_seen
from fedconsole.fleet.device import Device, Source, parse_address
from fedconsole.fleet.finding import find
from fedconsole.fleet.inventory import Inventory
from pi_daemon.protocol import messages as m
from pi_daemon.protocol.codec import common_version, decode_from_daemon, encode, no_common_version
from pi_daemon.protocol.errors import ProtocolError
from pi_daemon.protocol.text import clean

_SEARCH_S: Final = 10.0
_QUICK_SEARCH_S: Final = 1.0
"""Looking into the registry of this machine costs nothing."""
_PING_S: Final = 5.0
_HELLO_S: Final = 5.0
_FIRST_WAIT_S: Final = 0.5
_LONGEST_WAIT_S: Final = 10.0
_LINK_ENDS = (
    *(OSError, TimeoutError, ConnectionClosed, InvalidHandshake, InvalidURI),
    ProtocolError,
)


class Watcher:
    """Runs until it is cancelled."""

    def __init__(
        self,
        inventory: Inventory,
        configured: Sequence[Device],
        search_s: float,
        clock: Callable[[], float],
    ) -> None:
        """`search_s`: how long to listen for announcements; 0 leaves multicast out."""
        self._inventory = inventory
        self._configured = configured
        self._search_s = search_s
        self._clock = clock
        self._group: asyncio.TaskGroup | None = None

    def add(self, address: str) -> None:
        """Watch a device at HOST:PORT, too. Raises UsageError: that is no address."""
        parsed = parse_address(address)
        self._found(Device(clean(address, 64), parsed, Source.CONFIG))

    async def run(self) -> None:
        async with asyncio.TaskGroup() as group:
            self._group = group
            group.create_task(self._search_here())
            if self._search_s > 0:
                group.create_task(self._search_around())

    async def _search_here(self) -> None:
        while True:
            try:
                found = await find(self._configured, 0)
            except StorageError as error:
                self._inventory.notice = str(error)
                return
            for device in found:
                self._found(device)
            await asyncio.sleep(_QUICK_SEARCH_S)

    async def _search_around(self) -> None:
        while True:
            try:
                found = await find(self._configured, self._search_s)
            except OSError as error:
                self._inventory.notice = f"no multicast here ({error}); add devices by address"
                return
            for device in found:
                self._found(device)
            await asyncio.sleep(_SEARCH_S)

    def _found(self, device: Device) -> None:
        if device.address in self._inventory.records:
            return
        record = self._inventory.found(device)
        if record is not None and self._group is not None:
            self._group.create_task(self._stay_linked(device))

    async def _stay_linked(self, device: Device) -> None:
        wait_s = _FIRST_WAIT_S
        while True:
            begun = self._clock()
            try:
                async with dial(device.address) as link:
                    await self._listen(device, link)
            except _LINK_ENDS as error:
                self._inventory.lost(device.address, in_words(error))
            if self._clock() - begun > _LONGEST_WAIT_S:
                wait_s = _FIRST_WAIT_S
            # Jitter: a hundred devices that come back at once are not dialled at once.
            await asyncio.sleep(wait_s * random.uniform(0.8, 1.2))
            wait_s = min(2 * wait_s, _LONGEST_WAIT_S)

    async def _listen(self, device: Device, link: ClientConnection) -> None:
        """Take in what the device tells until its link ends; raises what ended it."""
        key = device.address
        hello = await _greet(device, link)
        self._inventory.linked(key, hello, self._clock())
        last_seen.remember([Device(clean(hello.name, 64), key, device.source, hello.id)])
        pinging = asyncio.get_running_loop().create_task(self._ping(key, link))
        try:
            while True:
                self._take(key, decode_from_daemon(await link.recv()))
        finally:
            pinging.cancel()

    def _take(self, key: str, message: object) -> None:
        now = self._clock()
        match message:
            case m.Status(status=status):
                self._inventory.told_status(key, status, now)
            case m.Telemetry():
                self._inventory.told_telemetry(key, message, now)
            case m.Datasets(datasets=datasets):
                self._inventory.told_datasets(key, datasets, now)
            case m.Log():
                self._inventory.told_log(key, message, now)

    async def _ping(self, key: str, link: ClientConnection) -> None:
        with suppress(ConnectionClosed):
            while True:
                begun = self._clock()
                await (await link.ping())
                now = self._clock()
                self._inventory.pinged(key, now - begun, now)
                await asyncio.sleep(_PING_S)


async def _greet(device: Device, link: ClientConnection) -> m.Hello:
    ours = console_hello(m.Role.VIEWER)
    await link.send(encode(ours))
    async with asyncio.timeout(_HELLO_S):
        theirs = decode_from_daemon(await link.recv())
    if not isinstance(theirs, m.Hello):
        raise ProtocolError(f"its first message is {type(theirs).__name__}, expected hello")
    if common_version(ours, theirs) is None:
        raise ProtocolError(no_common_version(theirs))
    return theirs
