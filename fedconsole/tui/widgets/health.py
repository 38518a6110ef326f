"""A device's temperature and throttling in words."""

from __future__ import annotations

from typing import Final

from fedconsole.health import HOT_CELSIUS, TOO_HOT_CELSIUS, WARM_CELSIUS, is_clock_wrong
from fedconsole.tui.formats import age
from fedconsole.tui.lang import _

_FLAGS: Final = ("UV!", "CAP", "THR", "SOFT")
"""The lowest bits of `vcgencmd get_throttled`; 16 bits higher: since it was switched on."""


def throttle_flags(bits: int | None) -> str:
    """What holds now in capitals, what has held since boot in small letters; "-": nothing."""
    if not bits:
        return "-"
    now = [name for i, name in enumerate(_FLAGS) if bits >> i & 1]
    once = [
        name.lower().rstrip("!")
        for i, name in enumerate(_FLAGS)
        if bits >> (16 + i) & 1 and name not in now
    ]
    return " ".join([*now, *once]) or "-"


def heat(celsius: float | None) -> tuple[str, str | None]:
    """A temperature with its word, and the role of its colour."""
    if celsius is None:
        return "-", None
    if celsius >= TOO_HOT_CELSIUS:
        return f"{celsius:.0f} {_('HOT!')}", "bad"
    if celsius >= HOT_CELSIUS:
        return f"{celsius:.0f} {_('hot')}", "warning"
    if celsius >= WARM_CELSIUS:
        return f"{celsius:.0f} {_('warm')}", None
    return f"{celsius:.0f}", None


def clock_words(ahead_s: float | None) -> str:
    """How far a device's clock is from this one's."""
    if ahead_s is None:
        return "-"
    if not is_clock_wrong(ahead_s):
        return _("right")
    words = "{time} ahead" if ahead_s > 0 else "{time} behind"
    return _(words, time=age(abs(ahead_s)))
