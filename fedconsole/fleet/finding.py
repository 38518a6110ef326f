"""Gathers the devices that could be there, from every source that works on this network.

What the network says is a hint: it gives a known device a place to be tried at, and nothing else.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TypeVar

from fedconsole import paths
from fedconsole.errors import StorageError
from fedconsole.fleet.device import Device, Source, parse_address, reachable
from fedconsole.trust import known_devices
from fedconsole.trust.known_devices import KnownDevice
from pi_daemon.discovery import damaged_entries, registered_daemons
from pi_daemon.paths import UnsafePathError
from pi_daemon.protocol.text import clean

T = TypeVar("T")

ANNOUNCED_ID = 16
"""Characters of a device id in an mDNS record."""
MAX_PLACES = 16
"""Addresses at which one device is tried."""


async def find(configured: Iterable[Device], seconds: float) -> list[Device]:
    """Devices from all sources, each once; none of them has been spoken to.

    Args:
        configured: those of the configuration.
        seconds: how long to listen for announcements; 0 leaves that out.

    Raises:
        OSError: `seconds` is above 0 and this machine has no multicast.
        RefusedError: the folder of the devices that it knows is open to others.
        StorageError: this user has no private folder for the registry of this machine.
    """
    found = await candidates(configured, seconds)
    return merge(found, known_devices.load().all)


async def candidates(configured: Iterable[Device], seconds: float) -> list[Device]:
    """All that the sources say, but for known devices; one may be there many times. Raises OSError as
    `find`."""
    announced: list[Device] = []
    if seconds > 0:
        from fedconsole.fleet import mdns

        announced = await mdns.browse(seconds)
    return [*_local(), *announced, *configured]


def merge(found: Sequence[Device], known: Iterable[KnownDevice] = ()) -> list[Device]:
    """Each device and each address once; the first that was found wins. Sorted by name."""
    merged: list[Device] = []
    seen: set[str] = set()
    strangers = list(found)
    for device in known:
        hints = [hint for hint in strangers if _is_about(hint, device)]
        strangers = [hint for hint in strangers if hint not in hints]
        merged.append(_with_places(device, hints))
    for hint in strangers:
        keys = {hint.address}
        if hint.device_id is not None:
            keys.add(hint.device_id[:ANNOUNCED_ID])
        if not keys & seen:
            merged.append(hint)
        seen |= keys
    return sorted(merged, key=lambda device: (device.name, device.address))


def places_of(device_id: str, found: Iterable[Device]) -> list[str]:
    """Where somebody says that this device is; announcements carry a part of an id."""
    return [d.address for d in found if d.device_id and device_id.startswith(d.device_id)]


def copies() -> str:
    """Where daemons of this machine share an identity: names and addresses, "" if none do."""
    by_id: dict[str | None, list[str]] = {}
    for device in _local():
        by_id.setdefault(device.device_id, []).append(f"{device.address} ({device.name})")
    return "; ".join(" and ".join(places) for places in by_id.values() if len(places) > 1)


def damage() -> str:
    """Which files of paired devices cannot be read, "" if all can; raises RefusedError as `find`."""
    return "; ".join(map(str, known_devices.load().damaged.values()))


def registry_damage() -> str:
    """Which files of this machine's registry tell of no daemon, "" if none; raises StorageError as `find`."""
    return "; ".join(
        f"{path} is damaged: delete it, and restart the pi-daemon that is missing"
        for path in _registry(damaged_entries)
    )


def _is_about(hint: Device, device: KnownDevice) -> bool:
    if hint.device_id is None:
        return hint.address in device.addresses
    return hint.device_id[:ANNOUNCED_ID] == device.id[:ANNOUNCED_ID]


def _with_places(device: KnownDevice, hints: Sequence[Device]) -> Device:
    """A known device with all places where it may be, the most trusted first."""
    here = [hint.address for hint in hints if hint.source is Source.LOCAL]
    around = [hint.address for hint in hints]
    first, *others = dict.fromkeys([*here, *device.addresses, *around])
    source = hints[0].source if hints else Source.KNOWN
    return Device(
        device.name, first, source, device.id, tuple(others[: MAX_PLACES - 1]), is_paired=True
    )


def _local() -> list[Device]:
    """Raises StorageError: this user has no private folder for the registry."""
    return [
        Device(
            clean(daemon.worker_name, 64),
            parse_address(f"[{reachable(daemon.address)}]:{daemon.port}"),
            Source.LOCAL,
            daemon.device_id,
        )
        for daemon in _registry(registered_daemons)
    ]


def _registry(read: Callable[[], list[T]]) -> list[T]:
    paths.runtime_dir()
    try:
        return read()
    except UnsafePathError as error:
        raise StorageError(f"devices on this machine are not found: {error}") from error
