"""The string that is carried once from a device to a console: where it is, who it is, a secret.

`fp1:HOST:PORT:ID:SECRET`, of 89 characters or so. ID proves the device to the console, SECRET the
console to the device. Pure.
"""

from __future__ import annotations

import re
import secrets
from base64 import b32encode
from dataclasses import dataclass, field
from typing import Final

from pi_daemon.trust.keys import ID_LENGTH

SECRET_LENGTH: Final = 16
"""Base32 characters: 80 bits."""
MAX_JOIN: Final = 400
_SHAPE: Final = re.compile(
    r"fp(?P<version>[0-9]{1,3}):(?P<host>\[[0-9A-Fa-f:.%a-z]{2,80}\]|[A-Za-z0-9._-]{1,253})"
    r":(?P<port>[0-9]{1,5}):(?P<id>[A-Z2-7]*):(?P<secret>[A-Z2-7]*)",
    re.ASCII,
)


class JoinError(ValueError):
    """A text is no join string; the message says why, and repeats nothing of it."""


@dataclass(frozen=True, slots=True)
class JoinString:
    host: str
    """An IPv6 address without brackets."""
    port: int
    device_id: str
    secret: str = field(repr=False)

    @property
    def address(self) -> str:
        """HOST:PORT, an IPv6 address in brackets."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    def __str__(self) -> str:
        return f"fp1:{self.address}:{self.device_id}:{self.secret}"


def new_secret() -> str:
    return b32encode(secrets.token_bytes(SECRET_LENGTH * 5 // 8)).decode()


def parse_join(text: str) -> JoinString:
    """Raises JoinError: it is none, is cut, or of a version that is not known here."""
    text = text.strip()
    how = "copy the whole line that `pi-daemon pair` prints, in quotes"
    if not text.startswith("fp") or len(text) > MAX_JOIN:
        raise JoinError(f"this is no join string, which begins with fp1: {how}")
    found = _SHAPE.fullmatch(text)
    if found is None:
        raise JoinError(f"this join string is cut or has characters of something else: {how}")
    if found["version"] != "1":
        raise JoinError(
            f"this join string is of version {found['version']}, and 1 is known here: update fedconsole"
        )
    if len(found["id"]) != ID_LENGTH or len(found["secret"]) != SECRET_LENGTH:
        raise JoinError(f"this join string is cut: {how}")
    port = int(found["port"])
    if not 1 <= port <= 65_535:
        raise JoinError(f"port {port} of this join string is none: {how}")
    return JoinString(found["host"].strip("[]"), port, found["id"], found["secret"])
