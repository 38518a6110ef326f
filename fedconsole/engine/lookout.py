"""Looks for devices whose links are lost, so that one that is back is dialled at once, wherever it is.

What it finds is a hint: the link asks who answers there.
"""

from __future__ import annotations

import asyncio
import itertools
import random
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from fedconsole.errors import StorageError
from fedconsole.fleet.device import Device, Source
from fedconsole.fleet.finding import ANNOUNCED_ID, candidates
from fedconsole.trust import known_devices

_FIRST_DELAY_S: Final = 0.5
_LAST_DELAY_S: Final = 30.0
_GRACE_S: Final = 5.0
"""A device that starts, or starts again, at the same time as the run is not missed: it may take so long."""
_PAUSE_S: Final = 2.0
"""Before each search: most links are back by then, and one that a device turns away is not stormed."""


@dataclass(frozen=True, slots=True, eq=False)
class _Seeker:
    address: str
    device_id: str | None
    seen_at: asyncio.Future[list[str]]

    def is_about(self, device: Device) -> bool:
        if self.device_id is None or device.device_id is None:
            return device.address == self.address
        return device.device_id[:ANNOUNCED_ID] == self.device_id[:ANNOUNCED_ID]


class Lookout:
    def __init__(self, search_s: float) -> None:
        """`search_s`: how long to listen for announcements at a time; 0 leaves multicast out."""
        self._search_s = search_s
        self._is_multicast_missed = False
        """It was said that there is none."""
        self._seekers: set[_Seeker] = set()
        self._is_wanted = asyncio.Event()

    async def wait(self, address: str, device_id: str | None, seconds: float) -> list[str]:
        """Wait so long, or until the device is seen.

        Args:
            device_id: None if it was never met; then only a device at the address is it.

        Returns:
            Where it was seen, each place once: anybody can announce it anywhere. Empty if it was not.
        """
        seeker = _Seeker(address, device_id, asyncio.get_running_loop().create_future())
        self._seekers.add(seeker)
        self._is_wanted.set()
        try:
            async with asyncio.timeout(seconds):
                return await seeker.seen_at
        except TimeoutError:
            return []
        finally:
            self._seekers.discard(seeker)

    async def run(self) -> None:
        """Search while anybody waits, until cancelled."""
        while True:
            await self._is_wanted.wait()
            await asyncio.sleep(_PAUSE_S)
            if not self._seekers:
                self._is_wanted.clear()
                continue
            seen = await self._search()
            for seeker in self._seekers:
                places = [device.address for device in seen if seeker.is_about(device)]
                if places and not seeker.seen_at.done():
                    seeker.seen_at.set_result(list(dict.fromkeys(places)))

    async def _search(self) -> list[Device]:
        """Those that are there now, by the registry of this machine or by multicast."""
        try:
            found = await candidates((), self._search_s)
        except StorageError:
            return []
        except OSError as error:
            if not self._is_multicast_missed:
                self._is_multicast_missed = True
                reason = f"no multicast here ({error}): lost devices are not found by it"
                print(reason, file=sys.stderr)
            return []
        return [device for device in found if device.source in (Source.LOCAL, Source.MDNS)]


class Search:
    """Where one device is to be tried next."""

    def __init__(self, lookout: Lookout, address: str) -> None:
        """`address`: where it should be."""
        self.device_id: str | None = None
        """Once it was met."""
        self._lookout = lookout
        self._address = address
        self._known_id: str | None = None
        self._known_places: Sequence[str] = ()
        self._turns = itertools.count(1)
        self._tried: dict[str, int] = {}
        """The turn in which each place was tried last."""

    def wanted_at(self, address: str) -> str | None:
        """Whose key must be proved there; None: whoever is known may be the one that is meant."""
        return self.device_id or (None if address == self._address else self._known_id)

    @property
    def is_exhausted(self) -> bool:
        """Whether it was tried in vain at every place where this console has met it."""
        return bool(self._tried) and self._tried.keys() >= set(self._known_places)

    async def next(self, last: str, home: str, seconds: float) -> str:
        """Wait so long, or until it is seen.

        Args:
            last: where it was tried just now, in vain.
            home: where it was met last, or should be.
        """
        self._known_id, self._known_places = await asyncio.to_thread(self._known)
        seen = await self._lookout.wait(home, self._known_id, seconds)
        places = seen or self._known_places
        self._tried[last] = next(self._turns)
        # Where it was seen it need not be reached: the old address has every second turn.
        if last != home or not places:
            return home
        return min(places, key=lambda place: self._tried.get(place, 0))

    def _known(self) -> tuple[str | None, Sequence[str]]:
        """Whom to look for, and where it was before; who answered at the address last, if none was
        met."""
        known = known_devices.load()
        device = known.by_id(self.device_id) if self.device_id else known.at(self._address)
        return (device.id, device.addresses) if device else (self.device_id, ())


def delays() -> Iterator[float]:
    """Seconds before each new attempt: doubling, with full jitter, so that a fleet spreads out."""
    most = _FIRST_DELAY_S
    while True:
        # Randomness between 0 and the bound; nothing of the run depends on it.
        yield random.uniform(_FIRST_DELAY_S / 2, most)
        most = min(2 * most, _LAST_DELAY_S)


def is_overdue(failure: Exception, since_s: float, dialled_s: float) -> bool:
    """Whether a device that was not there at `since_s` has had its time to come.

    One that is just starting refuses, and this process may hear of that late: what counts is when it
    was dialled.
    """
    until_s = dialled_s if isinstance(failure, ConnectionRefusedError) else time.monotonic()
    return until_s - since_s > _GRACE_S
