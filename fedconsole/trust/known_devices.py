"""The devices that this console is paired with: a file for each, in a folder of this user alone.

Every call reads them anew, so that a device that was paired elsewhere meanwhile counts at once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import msgspec
from msgspec.structs import replace

from fedconsole import paths
from fedconsole.errors import DamagedDeviceError, StorageError
from fedconsole.fleet.device import is_same_place
from fedconsole.trust.folders import locked, require_private
from pi_daemon.protocol.pairing import ConsoleRole
from pi_daemon.trust.keys import ID_LENGTH, CertificateError, key_id, pem_to_der, write_privately

MAX_ADDRESSES: Final = 8
MIN_ID: Final = 7
"""Characters of an id that may stand for the whole."""


class KnownDevice(msgspec.Struct, frozen=True, kw_only=True):
    id: str
    name: str
    """A label, as it named itself at pairing; cleaned."""
    role: ConsoleRole
    """What this console may do there."""
    paired_at: str
    """ISO 8601, UTC."""
    certificate: str
    """PEM."""
    addresses: tuple[str, ...]
    """HOST:PORT, where it answered last first."""

    @property
    def short_id(self) -> str:
        return self.id[:MIN_ID]


@dataclass(frozen=True, slots=True)
class KnownDevices:
    """As they were when they were read; by name."""

    all: Sequence[KnownDevice]
    damaged: Mapping[str, DamagedDeviceError] = field(default_factory=dict)
    """Files that cannot be read, by their name without suffix: an id."""

    def require_whole(self, device_id: str | None) -> None:
        """Raises DamagedDeviceError: the file of this device, or of that whose id begins so, is."""
        if device_id is not None and len(device_id) >= MIN_ID:
            for stem, error in self.damaged.items():
                if stem.startswith(device_id):
                    raise error

    def by_id(self, device_id: str | None) -> KnownDevice | None:
        """The one whose id this is, or begins so: announcements carry a part of it."""
        if device_id is None or len(device_id) < MIN_ID:
            return None
        found = [device for device in self.all if device.id.startswith(device_id)]
        return found[0] if len(found) == 1 else None

    def at(self, address: str) -> KnownDevice | None:
        """The one that answered there last, as far as is known here."""
        there = [
            (rank, device)
            for device in self.all
            for rank, place in enumerate(device.addresses)
            if is_same_place(place, address)
        ]
        return min(there, key=lambda found: found[0])[1] if there else None

    def named(self, text: str) -> list[KnownDevice]:
        """Those whose name or address this is, else those whose id begins with it."""
        identity = text.replace("-", "").upper()
        return [d for d in self.all if text == d.name or text in d.addresses] or [
            d for d in self.all if len(identity) >= MIN_ID and d.id.startswith(identity)
        ]


def load() -> KnownDevices:
    """Raises RefusedError: the folder is open to others."""
    folder = paths.known_devices_dir()
    if not folder.is_dir():
        return KnownDevices(())
    require_private(folder)
    devices, damaged = [], {}
    for path in sorted(folder.glob("*.json")):
        try:
            if (device := _read(path)) is not None:
                devices.append(device)
        except DamagedDeviceError as error:
            damaged[path.stem] = error
    return KnownDevices(sorted(devices, key=lambda device: (device.name, device.id)), damaged)


def certificate_of(device: KnownDevice) -> bytes:
    """DER. Imports cryptography: only for who speaks TLS.

    Raises DamagedDeviceError: it is not that device's, or no device's.
    """
    try:
        certificate = pem_to_der(device.certificate)
        if key_id(certificate) == device.id:
            return certificate
    except CertificateError:
        pass
    raise _damaged(paths.known_devices_dir() / f"{device.id}.json")


def remember(device: KnownDevice) -> None:
    """Store a device that was just paired, or paired anew; on return it survives a power cut.

    Raises:
        RefusedError, StorageError: it is not stored.
    """
    folder = paths.known_devices_dir()
    with locked(folder):
        if (before := load().by_id(device.id)) is not None:
            addresses = _newest_first(device.addresses[0], before.addresses)
            device = replace(device, addresses=addresses)
        _write(folder, device)


def met(device_id: str, address: str) -> None:
    """Note where a known device has proved its key. What cannot be written is not missed.

    Raises RefusedError: as `load`.
    """
    device = load().by_id(device_id)
    if device is None or device.addresses[:1] == (address,):
        return
    folder = paths.known_devices_dir()
    try:
        with locked(folder):
            # It may have been forgotten meanwhile.
            if (device := load().by_id(device_id)) is not None:
                addresses = _newest_first(address, device.addresses)
                _write(folder, replace(device, addresses=addresses))
    except StorageError:
        return


def forget(device_id: str) -> None:
    """From now on it is a stranger; raises StorageError: it is not."""
    folder = paths.known_devices_dir()
    with locked(folder):
        try:
            (folder / f"{device_id}.json").unlink(missing_ok=True)
        except OSError as error:
            raise StorageError(f"device {device_id} cannot be forgotten: {error}") from error


def _newest_first(address: str, others: Sequence[str]) -> tuple[str, ...]:
    return (address, *(other for other in others if other != address))[:MAX_ADDRESSES]


def _write(folder: Path, device: KnownDevice) -> None:
    path = folder / f"{device.id}.json"
    try:
        write_privately(path, msgspec.json.format(msgspec.json.encode(device)))
    except OSError as error:
        raise StorageError(f"cannot write {path}: {error}") from error


def _read(path: Path) -> KnownDevice | None:
    """None: it was forgotten this moment."""
    try:
        paths.require_regular(path)
        device = msgspec.json.decode(path.read_bytes(), type=KnownDevice)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise DamagedDeviceError(
            f"cannot read {path}: {error.strerror or error}; mend that, or delete it and pair that "
            "device anew"
        ) from error
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise _damaged(path) from error
    if device.id != path.stem or len(device.id) != ID_LENGTH or not device.addresses:
        raise _damaged(path)
    return device


def _damaged(path: Path) -> DamagedDeviceError:
    return DamagedDeviceError(f"{path} is damaged: delete it, and pair that device anew")
