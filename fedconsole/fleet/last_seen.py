"""Remembers at which addresses devices answered, for networks that carry no multicast."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

import msgspec

from fedconsole import paths
from fedconsole.fleet.device import Device, Source, is_loopback
from pi_daemon.protocol.text import clean

_MAX_DEVICES = 512


class _Seen(msgspec.Struct, frozen=True):
    name: str
    address: str


_decoder = msgspec.json.Decoder(dict[str, _Seen])


def load() -> list[Device]:
    """The last address of each device, the latest first; a missing or broken file is empty."""
    return [
        Device(clean(seen.name, 64), seen.address, Source.LAST_SEEN, device_id)
        for device_id, seen in _read().items()
    ]


def remember(devices: Iterable[Device]) -> None:
    """Note devices that answered. What cannot be written is not missed.

    Those on loopback are left out: they are in the registry as long as they live, and their ports
    are anybody's afterwards.
    """
    answered = {
        device.device_id: _Seen(device.name, device.address)
        for device in devices
        if device.device_id is not None and not is_loopback(device.address)
    }
    merged = list((answered | {k: v for k, v in _read().items() if k not in answered}).items())
    path = paths.last_seen_file()
    with suppress(OSError):
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor, temporary = tempfile.mkstemp(dir=path.parent)
        with os.fdopen(descriptor, "wb") as file:
            file.write(msgspec.json.encode(dict(merged[:_MAX_DEVICES])))
        Path(temporary).replace(path)


def _read() -> dict[str, _Seen]:
    try:
        return _decoder.decode(paths.last_seen_file().read_bytes())
    except (OSError, msgspec.DecodeError):
        return {}
