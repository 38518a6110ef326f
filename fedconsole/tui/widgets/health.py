"""A device's temperature and throttling in words."""

from __future__ import annotations

from typing import Final

_FLAGS: Final = ("UV!", "CAP", "THR", "SOFT")
"""The lowest bits of `vcgencmd get_throttled`; 16 bits higher: since it was switched on."""
_WARM, _HOT, _TOO_HOT = 60, 70, 80


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
    if celsius >= _TOO_HOT:
        return f"{celsius:.0f} HOT!", "bad"
    if celsius >= _HOT:
        return f"{celsius:.0f} hot", "warning"
    if celsius >= _WARM:
        return f"{celsius:.0f} warm", None
    return f"{celsius:.0f}", None
