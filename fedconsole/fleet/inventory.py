"""What is known of every device, as the viewer links tell it.

Pure: times are passed in, in monotonic seconds. Names and texts are cleaned when they come in.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final, NamedTuple

from fedconsole.fleet.device import Device
from pi_daemon.protocol.messages import Hello, Log, Telemetry
from pi_daemon.protocol.text import clean
from pi_daemon.protocol.values import DatasetCards, DeviceStatus

STALE_S: Final = 6.0
"""Telemetry comes every 2 s, an answer to a ping every 5 s."""
OFFLINE_S: Final = 15.0
MAX_DEVICES: Final = 500
HISTORY_S: Final = 600.0
_HISTORY_STEP_S: Final = 2.0
_LOG_LINES: Final = 50


class Presence(StrEnum):
    NEW = "new"
    """Found, but it has never answered."""
    ONLINE = "online"
    STALE = "stale"
    """Linked, but silent for longer than 6 s."""
    OFFLINE = "offline"
    """Its link is gone, or it was silent for 15 s."""


class Health(NamedTuple):
    """A device's health at one moment."""

    at: float
    celsius: float | None
    memory_share: float | None
    ping_s: float | None


@dataclass(slots=True)
class DeviceRecord:
    """One device; `version` grows with each change."""

    key: str
    """Its address: where a device answers is what tells two of one name apart."""
    device: Device
    name: str
    is_linked: bool = False
    heard_at: float | None = None
    """When it last said anything."""
    hello: Hello | None = None
    status: DeviceStatus | None = None
    datasets: DatasetCards = ()
    telemetry: Telemetry | None = None
    ping_s: float | None = None
    reason: str = ""
    """Why it cannot be reached, if so."""
    history: deque[Health] = field(
        default_factory=lambda: deque(maxlen=int(HISTORY_S / _HISTORY_STEP_S))
    )
    log: deque[tuple[float, str, str]] = field(default_factory=lambda: deque(maxlen=_LOG_LINES))
    """When, level, text."""
    version: int = 0

    @property
    def device_id(self) -> str | None:
        return clean(self.hello.id, 64) if self.hello else self.device.device_id

    @property
    def address(self) -> str:
        return self.device.address


class Inventory:
    """All devices by key. Only `fleet.watching` changes it; screens read."""

    def __init__(self) -> None:
        self.records: dict[str, DeviceRecord] = {}
        self.notice = ""
        """What stands in the way of finding devices, for the operator."""

    def found(self, device: Device) -> DeviceRecord | None:
        """Add a device; None: there are too many."""
        record = self.records.get(device.address)
        if record is None:
            if len(self.records) >= MAX_DEVICES:
                self.notice = f"more than {MAX_DEVICES} devices; the others are not shown"
                return None
            record = DeviceRecord(device.address, device, clean(device.name, 64))
            self.records[device.address] = record
        return record

    def linked(self, key: str, hello: Hello, now: float) -> None:
        record = self.records[key]
        record.is_linked = True
        record.hello = hello
        record.name = clean(hello.name, 64) or record.name
        record.status = hello.status
        record.datasets = hello.datasets
        record.reason = ""
        _heard(record, now)

    def lost(self, key: str, reason: str) -> None:
        """Its link is gone, or could not be made."""
        record = self.records[key]
        record.is_linked = False
        record.reason = clean(reason)
        record.version += 1

    def told_status(self, key: str, status: DeviceStatus, now: float) -> None:
        self.records[key].status = status
        _heard(self.records[key], now)

    def told_datasets(self, key: str, datasets: DatasetCards, now: float) -> None:
        self.records[key].datasets = datasets
        _heard(self.records[key], now)

    def told_telemetry(self, key: str, telemetry: Telemetry, now: float) -> None:
        record = self.records[key]
        record.telemetry = telemetry
        total = telemetry.memory_total_bytes
        share = telemetry.memory_bytes / total if total else None
        record.history.append(Health(now, telemetry.celsius, share, record.ping_s))
        _heard(record, now)

    def told_log(self, key: str, log: Log, now: float) -> None:
        self.records[key].log.append((now, log.level, clean(log.text)))
        _heard(self.records[key], now)

    def pinged(self, key: str, ping_s: float, now: float) -> None:
        self.records[key].ping_s = ping_s
        _heard(self.records[key], now)

    def counts(self, now: float) -> Mapping[Presence, int]:
        return Counter(presence(record, now) for record in self.records.values())


def presence(record: DeviceRecord, now: float) -> Presence:
    if record.heard_at is None:
        return Presence.NEW
    silence_s = now - record.heard_at
    if not record.is_linked or silence_s > OFFLINE_S:
        return Presence.OFFLINE
    return Presence.STALE if silence_s > STALE_S else Presence.ONLINE


def _heard(record: DeviceRecord, now: float) -> None:
    record.heard_at = now
    record.version += 1
