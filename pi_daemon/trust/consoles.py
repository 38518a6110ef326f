"""The consoles that a device admits: a file for each, in a folder that only the daemon can read.

A device whose state directory has that folder is initialised: it speaks TLS, to these alone.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final, Protocol, TypeVar

import msgspec

from pi_daemon.paths import make_private
from pi_daemon.protocol.pairing import ConsoleRole
from pi_daemon.protocol.text import clean
from pi_daemon.trust.keys import IdentityError, der_to_pem, key_id, pem_to_der, write_privately

log = logging.getLogger(__name__)

FOLDER: Final = "consoles"
MAX_CONSOLES: Final = 64
MIN_PREFIX: Final = 4


class Console(msgspec.Struct, frozen=True):
    id: str
    name: str
    """Cleaned; need not be unique."""
    role: ConsoleRole
    paired_at: str
    """ISO 8601, UTC."""
    certificate: str
    """PEM."""
    device_id: str = ""
    """Of the key that this device had then: the console admits no other. Empty: not known."""

    @property
    def der(self) -> bytes:
        return pem_to_der(self.certificate)


class Named(Protocol):
    @property
    def id(self) -> str: ...

    @property
    def name(self) -> str: ...


C = TypeVar("C", bound=Named)


class TooManyConsolesError(Exception):
    """No further console can be admitted; the message says what to do."""


class Consoles:
    """Read once, then kept beside the files."""

    def __init__(self, folder: Path) -> None:
        """Raises IdentityError: a file is damaged, or the folder is none. UnsafePathError: it is open
        to others."""
        if os.path.lexists(folder) and (folder.is_symlink() or not folder.is_dir()):
            raise IdentityError(
                f"{folder} is not a folder, so who is paired cannot be told: put the folder back that "
                "was there; or delete this, run `pi-daemon init`, and pair the consoles again"
            )
        self._folder = make_private(folder)
        self._consoles = {path.stem: _read(path) for path in self._paths()}
        self._bad: set[str] = set()
        """Names of files that cannot be read."""

    def look(self) -> None:
        """Take in what was done to the files by hand: a console whose file is gone is not admitted.

        A file that cannot be read admits nobody, and is logged.
        """
        if {path.stem for path in self._folder.glob("*.json")} == self._consoles.keys() | self._bad:
            return
        self._bad = set()
        found = {}
        for path in self._paths():
            try:
                found[path.stem] = _read(path)
            except IdentityError as error:
                log.error("%s", error)
                self._bad.add(path.stem)
        self._consoles = found

    def __iter__(self) -> Iterator[Console]:
        """By name."""
        return iter(sorted(self._consoles.values(), key=lambda c: (c.name, c.id)))

    def get(self, console_id: str) -> Console | None:
        return self._consoles.get(console_id)

    def admit(
        self, certificate: bytes, name: str, role: ConsoleRole, paired_at: str, device_id: str
    ) -> Console:
        """Store a console; on return it survives a power cut. One that is there gets the new role.

        Args:
            certificate: DER.
            device_id: this device's own.

        Raises:
            TooManyConsolesError, OSError: nothing has changed.
        """
        console_id = key_id(certificate)
        if console_id not in self._consoles and len(self._consoles) >= MAX_CONSOLES:
            raise TooManyConsolesError(
                f"{MAX_CONSOLES} consoles are paired with this device: revoke one first"
            )
        console = Console(
            console_id,
            clean(name, 64) or "console",
            role,
            paired_at,
            der_to_pem(certificate),
            device_id,
        )
        write_privately(self._path(console_id), msgspec.json.encode(console))
        self._consoles[console_id] = console
        return console

    def revoke(self, console_id: str) -> None:
        """Forget a console; raises OSError: it could not be, and is still admitted."""
        self._path(console_id).unlink(missing_ok=True)
        self._consoles.pop(console_id, None)

    def _paths(self) -> list[Path]:
        return sorted(self._folder.glob("*.json"))

    def _path(self, console_id: str) -> Path:
        return self._folder / f"{console_id}.json"


def named(consoles: Iterable[C], text: str) -> list[C]:
    """Those whose name this is, else those whose id begins with it, if that is not too short."""
    known, prefix = list(consoles), text.replace("-", "").upper()
    return [c for c in known if c.name == text] or [
        c for c in known if len(text) >= MIN_PREFIX and c.id.startswith(prefix)
    ]


def is_initialised(state_dir: Path) -> bool:
    """Also where the folder was replaced by something else: opening it then says so in words."""
    return os.path.lexists(state_dir / FOLDER)


def _read(path: Path) -> Console:
    damaged = IdentityError(f"{path} is damaged: delete it, and pair that console anew")
    try:
        console = msgspec.json.decode(path.read_bytes(), type=Console)
        is_whole = key_id(console.der) == console.id == path.stem
    except (ValueError, OSError, RecursionError, msgspec.MsgspecError) as error:
        raise damaged from error
    if not is_whole:
        raise damaged
    return console
