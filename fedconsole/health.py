"""From when on a device's health is a worry: what screens, alarms and checks agree on. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from pi_daemon.protocol.messages import Telemetry

WARM_CELSIUS: Final = 60
HOT_CELSIUS: Final = 70
TOO_HOT_CELSIUS: Final = 80
"""A Raspberry Pi slows down from here on."""
THROTTLED_NOW: Final = 0xF
"""Bits of `vcgencmd get_throttled`: not those that tell what was since boot."""
LOW_DISK_BYTES: Final = 512 << 20
"""A model of the largest size and its update may not fit."""
WRONG_CLOCK_S: Final = 60.0
"""Nothing of a run depends on it, but logs and certificates of other programs do."""


def is_disk_low(free_bytes: int | None, *, was_low: bool = False) -> bool:
    """Once low, it is until twice as much is free: a file that comes and goes makes no news."""
    return free_bytes is not None and free_bytes < LOW_DISK_BYTES * (2 if was_low else 1)


def is_clock_wrong(ahead_s: float | None) -> bool:
    return ahead_s is not None and abs(ahead_s) > WRONG_CLOCK_S


def worries(health: Telemetry, clock_ahead_s: float | None) -> Iterator[str]:
    """What speaks against training on a device now, though it can."""
    if (health.celsius or 0) >= TOO_HOT_CELSIUS:
        yield f"it is hot: {health.celsius:.0f} °C"
    if (health.throttled or 0) & THROTTLED_NOW:
        yield "it is throttled"
    if is_disk_low(health.disk_free_bytes):
        yield f"its disk is nearly full: {health.disk_free_bytes >> 20} MiB are free"
    if clock_ahead_s is not None and is_clock_wrong(clock_ahead_s):
        way = "ahead" if clock_ahead_s > 0 else "behind"
        yield f"its clock is {abs(clock_ahead_s) / 60:,.0f} min {way}"
