"""Finds devices that announce themselves on the local network.

What multicast says is a hint that anybody can forge: it decides neither trust nor whether a device
is alive, and however much of it comes, this much is kept.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping
from typing import Final

from zeroconf import Error as ZeroconfError
from zeroconf import IPVersion, ServiceStateChange, Zeroconf
from zeroconf.asyncio import AsyncServiceBrowser, AsyncServiceInfo, AsyncZeroconf

from fedconsole.fleet.device import Device, Source, parse_address
from pi_daemon.discovery import SERVICE
from pi_daemon.protocol.text import clean

MAX_ANNOUNCED: Final = 400
_RESOLVE_MS: Final = 1_000
_ID: Final = re.compile("[A-Z2-7]{7,52}", re.ASCII)


async def browse(seconds: float) -> list[Device]:
    """Listen for this long.

    Raises:
        OSError: this machine has no multicast, or not now.
    """
    try:
        return await _browse(seconds)
    except ZeroconfError as error:
        # Its own, as on a machine that is so busy that the sockets are not ready in time.
        raise OSError(str(error) or type(error).__name__) from error


async def _browse(seconds: float) -> list[Device]:
    names: dict[str, None] = {}

    def changed(
        zeroconf: Zeroconf, service_type: str, name: str, state_change: ServiceStateChange
    ) -> None:
        if state_change is ServiceStateChange.Removed:
            names.pop(name, None)
        elif len(names) < MAX_ANNOUNCED:
            names[name] = None

    async with AsyncZeroconf() as network:
        browser = AsyncServiceBrowser(network.zeroconf, SERVICE, handlers=[changed])
        await asyncio.sleep(seconds)
        await browser.async_cancel()
        # All at once: however many do not answer, it takes a second.
        found = await asyncio.gather(*(_resolve(network, name) for name in names))
    return [device for device in found if device is not None]


async def _resolve(network: AsyncZeroconf, instance: str) -> Device | None:
    info = AsyncServiceInfo(SERVICE, instance)
    if not await info.async_request(network.zeroconf, _RESOLVE_MS):
        return None
    addresses = info.parsed_scoped_addresses(IPVersion.All)
    if not addresses or not info.port:
        return None
    label = _text(info.properties, b"nm") or instance.removesuffix(f".{SERVICE}")
    device_id = _text(info.properties, b"id")
    return Device(
        clean(label, 64),
        parse_address(f"[{addresses[0]}]:{info.port}"),
        Source.MDNS,
        device_id if _ID.fullmatch(device_id) else None,
    )


def _text(properties: Mapping[bytes, bytes | None], name: bytes) -> str:
    return (properties.get(name) or b"").decode(errors="replace")
