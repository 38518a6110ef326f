"""Finds devices that announce themselves on the local network.

What multicast says is a hint for people: it decides neither trust nor whether a device is alive.
"""

from __future__ import annotations

import asyncio

from zeroconf import IPVersion, ServiceStateChange, Zeroconf
from zeroconf.asyncio import AsyncServiceBrowser, AsyncServiceInfo, AsyncZeroconf

from fedconsole.fleet.device import Device, Source, parse_address
from pi_daemon.discovery import SERVICE
from pi_daemon.protocol.text import clean

_RESOLVE_MS = 1_000


async def browse(seconds: float) -> list[Device]:
    """Listen for this long.

    Raises:
        OSError: this machine has no multicast.
    """
    names: set[str] = set()

    def changed(
        zeroconf: Zeroconf, service_type: str, name: str, state_change: ServiceStateChange
    ) -> None:
        if state_change is ServiceStateChange.Removed:
            names.discard(name)
        else:
            names.add(name)

    async with AsyncZeroconf() as network:
        browser = AsyncServiceBrowser(network.zeroconf, SERVICE, handlers=[changed])
        await asyncio.sleep(seconds)
        await browser.async_cancel()
        found = await asyncio.gather(*(_resolve(network, name) for name in sorted(names)))
    return [device for device in found if device is not None]


async def _resolve(network: AsyncZeroconf, instance: str) -> Device | None:
    info = AsyncServiceInfo(SERVICE, instance)
    if not await info.async_request(network.zeroconf, _RESOLVE_MS):
        return None
    addresses = info.parsed_scoped_addresses(IPVersion.All)
    if not addresses or not info.port:
        return None
    texts = {
        key.decode(errors="replace"): (value or b"").decode(errors="replace")
        for key, value in info.properties.items()
    }
    label = texts.get("nm") or instance.removesuffix(f".{SERVICE}")
    address = parse_address(f"[{addresses[0]}]:{info.port}")
    return Device(clean(label, 64), address, Source.MDNS, texts.get("id") or None)
