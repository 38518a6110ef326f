"""Viewer links: asks devices who they are and what they have, without steering them."""

from __future__ import annotations

import asyncio
import platform
import secrets
import time
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version

from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidURI
from websockets.typing import Subprotocol

from fedconsole.fleet import last_seen
from fedconsole.fleet.device import Device
from pi_daemon.protocol.codec import common_version, decode_from_daemon, encode, no_common_version
from pi_daemon.protocol.errors import ProtocolError
from pi_daemon.protocol.limits import MAX_FRAME_BYTES, MIN_PROTO, PROTO, SUBPROTOCOL
from pi_daemon.protocol.messages import Hello, Role
from pi_daemon.protocol.text import clean

_BOOT_ID = secrets.token_hex(8)
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
    except ConnectionClosed as closed:
        frame = closed.rcvd
        reason = f"it closed the link: {frame.reason or frame.code}" if frame else "the link broke"
    except (OSError, InvalidHandshake, InvalidURI, ProtocolError) as error:
        reason = str(error) or type(error).__name__
    return Greeting(device, None, reason=clean(reason))


async def _greet(device: Device) -> Greeting:
    async with connect(
        f"ws://{device.address}",
        subprotocols=[Subprotocol(SUBPROTOCOL)],
        compression=None,
        max_size=MAX_FRAME_BYTES,
        max_queue=16,
        close_timeout=2,
        proxy=None,
    ) as link:
        ours = _our_hello()
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


def _our_hello() -> Hello:
    name = clean(platform.node(), 64) or "console"
    return Hello(
        proto=PROTO,
        min_proto=MIN_PROTO,
        id=f"viewer-{name}",
        name=name,
        boot_id=_BOOT_ID,
        build=version("fedconsole"),
        role=Role.VIEWER,
    )
