"""Keeps the inventory: searches again and again, and holds a viewer link to every device."""

from __future__ import annotations

import asyncio
import itertools
import random
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Final

from websockets.exceptions import ConnectionClosed

from fedconsole.dialling import Link, console_hello, dial, exchange_hellos
from fedconsole.errors import DamagedDeviceError, FedconsoleError, RefusedError, StorageError
from fedconsole.fleet.device import Device, Source, parse_address
from fedconsole.fleet.finding import copies, damage, find, registry_damage
from fedconsole.fleet.inventory import Hindrance, Inventory
from fedconsole.link_failures import LINK_ERRORS, in_words
from pi_daemon.protocol import messages as m
from pi_daemon.protocol.codec import decode_from_daemon
from pi_daemon.protocol.text import clean

_SEARCH_S: Final = 10.0
_QUICK_SEARCH_S: Final = 1.0
"""Looking into this machine's registry, and at what is paired, costs nothing."""
_PING_S: Final = 5.0
_FIRST_WAIT_S: Final = 0.5
_LONGEST_WAIT_S: Final = 10.0


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
        self._configured = list(configured)
        self._search_s = search_s
        self._clock = clock
        self._group: asyncio.TaskGroup | None = None
        self._links: dict[str, asyncio.Task[None]] = {}
        self._announced: dict[str, Device] = {}
        """By address; what was announced once may still be there."""

    def add(self, address: str) -> None:
        """Watch a device at HOST:PORT, too. Raises UsageError: that is no address."""
        device = Device(clean(address, 64), parse_address(address), Source.CONFIG)
        self._configured.append(device)
        if all(device.address not in r.device.places for r in self._inventory.records.values()):
            self._show(device)

    async def run(self) -> None:
        """Raises what ends the search; the inventory tells it, too."""
        try:
            async with asyncio.TaskGroup() as group:
                self._group = group
                group.create_task(self._search_here())
                if self._search_s > 0:
                    group.create_task(self._search_around())
        except* Exception as errors:
            first = errors.exceptions[0]
            self._inventory.hindered(Hindrance.STOPPED, first if str(first) else repr(first))
            raise

    async def _search_here(self) -> None:
        while True:
            try:
                self._show_all(await self._find())
                self._tell(Hindrance.ONE_IDENTITY, copies())
                self._tell(Hindrance.DAMAGED_DEVICE, damage())
                self._tell(Hindrance.NO_REGISTRY, registry_damage())
            except FedconsoleError as error:
                self._inventory.hindered(Hindrance.NO_REGISTRY, error)
            finally:
                self._inventory.is_searched |= self._search_s <= 0
            await asyncio.sleep(_QUICK_SEARCH_S)

    def _tell(self, hindrance: Hindrance, why: str) -> None:
        """`why`: empty if nothing hinders."""
        if why:
            self._inventory.hindered(hindrance, why)
        else:
            self._inventory.hindrances.pop(hindrance, None)

    async def _search_around(self) -> None:
        from fedconsole.fleet import mdns

        while True:
            try:
                announced = await mdns.browse(self._search_s)
            except OSError as error:
                self._inventory.hindered(Hindrance.NO_MULTICAST, error)
                await asyncio.sleep(_SEARCH_S)
                continue
            finally:
                self._inventory.is_searched = True
            self._inventory.hindrances.pop(Hindrance.NO_MULTICAST, None)
            fresh = {device.address: device for device in announced}
            older = {k: v for k, v in self._announced.items() if k not in fresh}
            kept = list((fresh | older).items())[: mdns.MAX_ANNOUNCED]
            self._announced = dict(kept)
            if len(kept) == mdns.MAX_ANNOUNCED:
                self._inventory.hindered(Hindrance.TOO_MANY, mdns.MAX_ANNOUNCED)
            await asyncio.sleep(_SEARCH_S)

    async def _find(self) -> list[Device]:
        return await find([*self._announced.values(), *self._configured], 0)

    # Which devices there are

    def _show_all(self, found: Sequence[Device]) -> None:
        paired = {device.device_id for device in found if device.is_paired}
        placed = {place for device in found if device.is_paired for place in device.places}
        strangers = {device.address for device in found if not device.is_paired}
        # A stranger that was there first hides no paired device: its row tells who answers there.
        wanted = {
            place
            for device in found
            if device.is_paired and self._inventory.record_of(device) is None
            for place in device.places
        }
        for key, record in list(self._inventory.records.items()):
            if record.device.is_paired:
                is_over = record.device.device_id not in paired
            else:
                is_gone = key not in strangers and (key in placed or record.is_refused)
                is_over = is_gone or key in wanted
            if is_over:
                self._hide(key)
        if not paired:
            self._own_files_are_good()
        for device in sorted(found, key=lambda device: not device.is_paired):
            self._show(device)

    def _show(self, device: Device) -> None:
        is_new = self._inventory.record_of(device) is None
        record = self._inventory.found(device)
        if is_new and record is not None and self._group is not None:
            self._links[record.key] = self._group.create_task(self._stay_linked(record.key))

    def _hide(self, key: str) -> None:
        self._inventory.dropped(key)
        if (task := self._links.pop(key, None)) is not None:
            task.cancel()

    # One device

    async def _stay_linked(self, key: str) -> None:
        wait_s = _FIRST_WAIT_S
        for turn in itertools.count():
            device = self._inventory.records[key].device
            place = device.places[turn % len(device.places)]
            begun = self._clock()
            try:
                async with dial(place, device.device_id) as link:
                    await self._listen(key, place, link)
            except LINK_ERRORS as error:
                if isinstance(error, DamagedDeviceError):
                    pass  # its row says so
                elif isinstance(error, RefusedError | StorageError):
                    self._inventory.hindered(Hindrance.OWN_FILES, error)
                elif device.is_paired:
                    self._own_files_are_good()
                self._inventory.lost(key, in_words(error), error)
            if self._clock() - begun > _LONGEST_WAIT_S:
                wait_s = _FIRST_WAIT_S
            # Jitter: a hundred devices that come back at once are not dialled at once.
            await asyncio.sleep(wait_s * random.uniform(0.8, 1.2))
            wait_s = min(2 * wait_s, _LONGEST_WAIT_S)

    async def _listen(self, key: str, place: str, link: Link) -> None:
        """Take in what the device tells until its link ends; raises what ended it."""
        hello = await exchange_hellos(link, console_hello(m.Role.VIEWER))
        if link.own_id is not None:
            self._own_files_are_good()
        self._inventory.linked(key, hello, self._clock(), place)
        pinging = asyncio.get_running_loop().create_task(self._ping(key, link))
        try:
            while True:
                self._take(key, decode_from_daemon(await link.recv()))
        finally:
            pinging.cancel()

    def _own_files_are_good(self) -> None:
        self._inventory.hindrances.pop(Hindrance.OWN_FILES, None)

    def _take(self, key: str, message: object) -> None:
        now = self._clock()
        match message:
            case m.Status(status=status):
                self._inventory.told_status(key, status, now)
            case m.Telemetry():
                self._inventory.told_telemetry(key, message, now, time.time())
            case m.Datasets(datasets=datasets):
                self._inventory.told_datasets(key, datasets, now)
            case m.Log():
                self._inventory.told_log(key, message, now)

    async def _ping(self, key: str, link: Link) -> None:
        with suppress(ConnectionClosed):
            while True:
                begun = self._clock()
                await (await link.ping())
                now = self._clock()
                self._inventory.pinged(key, now - begun, now)
                await asyncio.sleep(_PING_S)
