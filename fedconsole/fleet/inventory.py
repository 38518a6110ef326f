"""What is known of every device, as the viewer links tell it.

Pure: times are passed in, in monotonic seconds. Names and texts are cleaned when they come in.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Final, NamedTuple

from fedconsole.errors import DeviceFullError, IdentityChangedError, NotPairedError
from fedconsole.fleet.device import ONE_IDENTITY, Device
from pi_daemon.protocol.text import clean

# The first frame of the console does not wait for the protocol.
if TYPE_CHECKING:
    from pi_daemon.protocol.messages import Hello, Log, Telemetry
    from pi_daemon.protocol.values import DatasetCards, DeviceStatus

STALE_S: Final = 6.0
"""Telemetry comes every 2 s, an answer to a ping every 5 s."""
OFFLINE_S: Final = 15.0
MAX_DEVICES: Final = 500
HISTORY_S: Final = 600.0
_HISTORY_STEP_S: Final = 2.0
_LOG_LINES: Final = 50


class Presence(StrEnum):
    CHANGED = "KEY CHANGED"
    """Another key than the known one answers where it was."""
    UNPAIRED = "not paired"
    FULL = "links full"
    """It serves as many consoles as it can, without this one."""
    NEW = "new"
    """Found, but it has never answered."""
    ONLINE = "online"
    STALE = "stale"
    """Linked, but silent for longer than 6 s."""
    OFFLINE = "offline"
    """Its link is gone, or it was silent for 15 s."""


class Hindrance(StrEnum):
    """What stands in the way of finding devices, and how to mend it. The screens translate it."""

    NO_MULTICAST = "no multicast here ({why}): add devices by address with +"
    NO_REGISTRY = "devices on this machine are not found: {why}"
    OWN_FILES = "no paired device can be reached: {why}"
    DAMAGED_DEVICE = "a paired device is not shown: {why}"
    ONE_IDENTITY = ONE_IDENTITY
    TOO_MANY = "more than {why} devices: the others are not shown"
    STOPPED = "the search for devices has stopped ({why}): quit and start fedconsole again"


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
    """An address at which it was expected: where a device is tells two of one name apart. Its id, if
    another paired device has all its addresses."""
    device: Device
    name: str
    place: str
    """Where it answered last; at first, where it should be."""
    is_linked: bool = False
    heard_at: float | None = None
    """When it last said anything."""
    hello: Hello | None = None
    status: DeviceStatus | None = None
    datasets: DatasetCards = ()
    telemetry: Telemetry | None = None
    clock_ahead_s: float | None = None
    """Of its wall clock before this one's."""
    ping_s: float | None = None
    reason: str = ""
    """Why it cannot be reached, if so."""
    is_refused: bool = False
    """It is not paired, or does not admit this console any more."""
    is_full: bool = False
    """It serves as many consoles as it can."""
    impostor: IdentityChangedError | None = None
    """Who answered in its place, until it has proved itself again."""
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
        return self.place


class Inventory:
    """All devices by key. Only `fleet.watching` changes it; screens read."""

    def __init__(self) -> None:
        self.records: dict[str, DeviceRecord] = {}
        self.is_searched = False
        """Whether a first search has ended, with or without devices."""
        self.hindrances: dict[Hindrance, str] = {}
        """What stands in the way of finding devices, and why; cleaned."""

    def hindered(self, by: Hindrance, why: object) -> None:
        self.hindrances[by] = clean(str(why))

    def found(self, device: Device) -> DeviceRecord | None:
        """Add a device, or the places where it may be; None: there are too many."""
        record = self.record_of(device)
        if record is not None:
            record.device = device
            return record
        if len(self.records) >= MAX_DEVICES:
            self.hindered(Hindrance.TOO_MANY, MAX_DEVICES)
            return None
        free = (place for place in device.places if place not in self.records)
        # Two paired devices may have answered at the same places, one after the other.
        key = next(free, device.device_id if device.is_paired else None)
        if key is None:
            return None
        record = DeviceRecord(key, device, clean(device.name, 64), device.address)
        self.records[key] = record
        return record

    def record_of(self, device: Device) -> DeviceRecord | None:
        """That of the same device: the same id of one that is paired, else the same address."""
        if not device.is_paired:
            record = self.records.get(device.address)
            return None if record is None or record.device.is_paired else record
        paired = (r for r in self.records.values() if r.device.is_paired)
        return next((r for r in paired if r.device.device_id == device.device_id), None)

    def dropped(self, key: str) -> None:
        """It is paired or forgotten now, and another record takes its place."""
        del self.records[key]

    def linked(self, key: str, hello: Hello, now: float, place: str | None = None) -> None:
        """It has said hello, at `place` if that is not where it was expected."""
        record = self.records[key]
        record.is_linked = True
        record.place = place or record.place
        record.is_refused = record.is_full = False
        record.impostor = None
        record.hello = hello
        record.name = clean(hello.name, 64) or record.name
        record.status = hello.status
        record.datasets = hello.datasets
        record.reason = ""
        _heard(record, now)

    def lost(self, key: str, reason: str, error: BaseException | None = None) -> None:
        """Its link is gone, or could not be made."""
        record = self.records[key]
        record.is_linked = False
        record.is_refused = isinstance(error, NotPairedError)
        record.is_full = isinstance(error, DeviceFullError)
        if isinstance(error, IdentityChangedError):
            record.impostor = error
        record.reason = clean(str(record.impostor or reason))
        record.version += 1

    def told_status(self, key: str, status: DeviceStatus, now: float) -> None:
        self.records[key].status = status
        _heard(self.records[key], now)

    def told_datasets(self, key: str, datasets: DatasetCards, now: float) -> None:
        self.records[key].datasets = datasets
        _heard(self.records[key], now)

    def told_telemetry(
        self, key: str, telemetry: Telemetry, now: float, wall: float | None = None
    ) -> None:
        """`wall`: seconds since 1970 now, to compare its clock with."""
        record = self.records[key]
        record.telemetry = telemetry
        if wall is not None and telemetry.clock is not None:
            record.clock_ahead_s = telemetry.clock - wall
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

    def handle(self, record: DeviceRecord) -> str:
        """What `fedconsole devices show` takes for it: its name, unless another has the same."""
        same = [other for other in self.records.values() if other.name == record.name]
        if len(same) == 1 and not record.name.startswith("-"):
            return record.name
        return record.address

    def counts(self, now: float) -> Mapping[Presence, int]:
        return Counter(presence(record, now) for record in self.records.values())


def presence(record: DeviceRecord, now: float) -> Presence:
    if record.impostor is not None:
        return Presence.CHANGED
    if record.is_refused:
        return Presence.UNPAIRED
    if record.is_full:
        return Presence.FULL
    if record.heard_at is None:
        return Presence.NEW
    silence_s = now - record.heard_at
    if not record.is_linked or silence_s > OFFLINE_S:
        return Presence.OFFLINE
    return Presence.STALE if silence_s > STALE_S else Presence.ONLINE


def status_now(record: DeviceRecord, now: float) -> DeviceStatus | None:
    """What it is doing; None: it has not said, or may be doing something else by now."""
    is_there = presence(record, now) in (Presence.ONLINE, Presence.STALE)
    return record.status if is_there else None


def _heard(record: DeviceRecord, now: float) -> None:
    record.heard_at = now
    record.version += 1
