"""Decides who may pair: for ten minutes, with a secret, once. Pure: times are passed in, in monotonic
seconds.
"""

from __future__ import annotations

import hmac
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

from pi_daemon.protocol.pairing import ConsoleRole

WINDOW_S: Final = 600.0
MAX_TRIES_PER_S: Final = 20
"""Wrong ones that are told so, of all addresses together; of each address one."""


class Verdict(StrEnum):
    ADMITTED = "admitted"
    WRONG = "wrong secret"
    CLOSED = "not open"
    """None was opened, it is over, or its secret was used."""
    TOO_FAST = "too many tries"


@dataclass(slots=True)
class PairingWindow:
    """Wrong tries never close it: a neighbour could keep anybody from pairing that way."""

    role: ConsoleRole = ConsoleRole.VIEWER
    """What the console becomes whose secret is right."""
    _secret: str = field(default="", repr=False)
    _until_s: float = 0.0
    _tries: dict[str, float] = field(default_factory=dict)
    """When each address tried last; only of the last second."""

    def open(self, secret: str, role: ConsoleRole, now_s: float) -> None:
        """An earlier secret is worth nothing from now on."""
        self._secret, self.role, self._until_s = secret, role, now_s + WINDOW_S

    def close(self) -> None:
        self._secret = ""

    def is_open(self, now_s: float) -> bool:
        return bool(self._secret) and now_s < self._until_s

    def judge(self, secret: str, address: str, now_s: float) -> Verdict:
        """On ADMITTED the caller stores the console, and closes the window before anybody else asks."""
        # First, so that no flood of tries keeps the owner out: 80 bits are not found in ten minutes.
        if self.is_open(now_s) and hmac.compare_digest(secret.encode(), self._secret.encode()):
            return Verdict.ADMITTED
        self._tries = {who: when for who, when in self._tries.items() if now_s - when < 1.0}
        if address in self._tries or len(self._tries) >= MAX_TRIES_PER_S:
            return Verdict.TOO_FAST
        self._tries[address] = now_s
        return Verdict.WRONG if self.is_open(now_s) else Verdict.CLOSED
