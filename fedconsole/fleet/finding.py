"""Gathers the devices that could be there, from every source that works on this network."""

from __future__ import annotations

from collections.abc import Iterable

from fedconsole import paths
from fedconsole.fleet import last_seen
from fedconsole.fleet.device import Device, Source, parse_address
from pi_daemon.discovery import registered_daemons
from pi_daemon.protocol.text import clean

_ANNOUNCED_ID = 16
"""Characters of a device id in an mDNS record."""


async def find(configured: Iterable[Device], seconds: float) -> list[Device]:
    """Devices from all sources, each once; none of them has been spoken to.

    Args:
        configured: those of the configuration.
        seconds: how long to listen for announcements; 0 leaves that out.

    Raises:
        OSError: `seconds` is above 0 and this machine has no multicast.
    """
    announced: list[Device] = []
    if seconds > 0:
        from fedconsole.fleet import mdns

        announced = await mdns.browse(seconds)
    return merge([*_local(), *announced, *configured, *last_seen.load()])


def merge(candidates: Iterable[Device]) -> list[Device]:
    """Each device and each address once; the first candidate wins. Sorted by name."""
    found: list[Device] = []
    seen: set[str] = set()
    for device in candidates:
        keys = {device.address}
        if device.device_id is not None:
            keys.add(device.device_id[:_ANNOUNCED_ID])
        if not keys & seen:
            found.append(device)
        seen |= keys
    return sorted(found, key=lambda device: (device.name, device.address))


def _local() -> list[Device]:
    """Raises StorageError: this user has no private folder for the registry."""
    paths.runtime_dir()
    return [
        Device(
            clean(daemon.worker_name, 64),
            parse_address(f"[{_reachable(daemon.address)}]:{daemon.port}"),
            Source.LOCAL,
            daemon.device_id,
        )
        for daemon in registered_daemons()
    ]


def _reachable(listened: str) -> str:
    """An address of this machine for one that a daemon listens on: all interfaces has none."""
    return {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(listened, listened)
