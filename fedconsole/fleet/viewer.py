"""Viewer links: asks devices who they are and what they have, without steering them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

from fedconsole.dialling import console_hello, dial, exchange_hellos
from fedconsole.errors import (
    DamagedDeviceError,
    DeviceFullError,
    IdentityChangedError,
    NotPairedError,
    RefusedError,
    StorageError,
)
from fedconsole.fleet.device import Device
from fedconsole.link_failures import LINK_ERRORS, in_words
from pi_daemon.protocol.messages import Hello, Role
from pi_daemon.protocol.text import clean

_LINKS_AT_ONCE = 32


@dataclass(frozen=True, slots=True)
class Greeting:
    """What became of an attempt to reach a device."""

    device: Device
    """Its address is where it answered, if it did."""
    hello: Hello | None
    """None: it did not answer, and `reason` says why."""
    ping_s: float | None = None
    reason: str = ""
    failure: NotPairedError | None = None
    """If that was why."""
    is_full: bool = False
    """It serves as many consoles as it can, which was why."""
    is_proven: bool = False
    """By its key; on a plain link of this machine it is not."""


async def greet_all(devices: Sequence[Device], timeout_s: float = 2.0) -> list[Greeting]:
    """Greet many at once, in the order given; raises as `greet`."""
    limit = asyncio.Semaphore(_LINKS_AT_ONCE)

    async def greet_one(device: Device) -> Greeting:
        return await greet(device, timeout_s, limit)

    return await asyncio.gather(*map(greet_one, devices))


async def greet(
    device: Device, timeout_s: float = 2.0, limit: asyncio.Semaphore | None = None
) -> Greeting:
    """Greet a device at all the places where it may be, at once.

    Args:
        limit: of the links that are made at a time.

    Raises:
        RefusedError, StorageError: this console's own files are damaged; that is no device's fault.
    """
    limit = limit or asyncio.Semaphore(_LINKS_AT_ONCE)

    async def greet_at(place: str) -> Greeting:
        async with limit:
            return await _greet_in_time(replace(device, address=place), timeout_s)

    greetings = await asyncio.gather(*map(greet_at, device.places))
    return min(greetings, key=_rank)


def _rank(greeting: Greeting) -> int:
    """The right one, then the worst that is known: where another key answers, it must be said."""
    if greeting.hello is not None:
        return 0
    return 1 if isinstance(greeting.failure, IdentityChangedError) else 2


async def _greet_in_time(device: Device, timeout_s: float) -> Greeting:
    failure, is_full = None, False
    try:
        async with asyncio.timeout(timeout_s):
            return await _greet(device)
    except TimeoutError:
        reason = f"no answer within {timeout_s:g} s; is it on, and in this network?"
    except NotPairedError as error:
        reason, failure = str(error), error
    except DeviceFullError as error:
        reason, is_full = str(error), True
    except DamagedDeviceError as error:
        reason = str(error)
    except (RefusedError, StorageError):
        raise
    except LINK_ERRORS as error:
        reason = in_words(error)
    return Greeting(device, None, reason=clean(reason), failure=failure, is_full=is_full)


async def _greet(device: Device) -> Greeting:
    """Open a viewer link, take the device's hello and one ping, and leave."""
    async with dial(device.address, device.device_id) as link:
        theirs = await exchange_hellos(link, console_hello(Role.VIEWER))
        begun = time.monotonic()
        await (await link.ping())
        ping_s = time.monotonic() - begun
        return Greeting(device, theirs, ping_s, is_proven=link.device_id is not None)
