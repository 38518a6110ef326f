"""Viewer links: asks devices who they are and what they have, without steering them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass

from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidURI

from fedconsole.dialling import console_hello, dial, in_words
from fedconsole.fleet import last_seen
from fedconsole.fleet.device import Device
from pi_daemon.protocol.codec import common_version, decode_from_daemon, encode, no_common_version
from pi_daemon.protocol.errors import ProtocolError
from pi_daemon.protocol.messages import Hello, Role
from pi_daemon.protocol.text import clean

_LINKS_AT_ONCE = 32


@dataclass(frozen=True, slots=True)
class Greeting:
    """What became of an attempt to reach a device."""

    device: Device
    hello: Hello | None
    """None: it did not answer, and `reason` says why."""
    ping_s: float | None = None
    reason: str = ""


async def greet_all(devices: Sequence[Device], timeout_s: float = 2.0) -> list[Greeting]:
    """Greet many at once, in the order given, and remember the addresses of those that answer."""
    limit = asyncio.Semaphore(_LINKS_AT_ONCE)

    async def greet_one(device: Device) -> Greeting:
        async with limit:
            return await greet(device, timeout_s)

    greetings = await asyncio.gather(*map(greet_one, devices))
    last_seen.remember(
        Device(clean(g.hello.name, 64), g.device.address, g.device.source, g.hello.id)
        for g in greetings
        if g.hello is not None
    )
    return greetings


async def greet(device: Device, timeout_s: float = 2.0) -> Greeting:
    """Open a viewer link, take the device's hello and one ping, and leave. Never raises."""
    try:
        async with asyncio.timeout(timeout_s):
            return await _greet(device)
    except TimeoutError:
        reason = f"no answer within {timeout_s:g} s"
    except (OSError, ConnectionClosed, InvalidHandshake, InvalidURI, ProtocolError) as error:
        reason = in_words(error)
    return Greeting(device, None, reason=clean(reason))


async def _greet(device: Device) -> Greeting:
    async with dial(device.address) as link:
        ours = console_hello(Role.VIEWER)
        await link.send(encode(ours))
        theirs = decode_from_daemon(await link.recv())
        if not isinstance(theirs, Hello):
            raise ProtocolError(f"its first message is {type(theirs).__name__}, expected hello")
        if common_version(ours, theirs) is None:
            raise ProtocolError(no_common_version(theirs))
        if device.device_id is not None and not theirs.id.startswith(device.device_id):
            raise ProtocolError(f"another device answers: {theirs.id}, not {device.device_id}")
        begun = time.monotonic()
        await (await link.ping())
        return Greeting(device, theirs, time.monotonic() - begun)
