"""Who this device is: a key that is made at the first start, and the highest fence that it has seen."""

from __future__ import annotations

import base64
import contextlib
import fcntl
import hashlib
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import msgspec

from pi_daemon.durable import put_in_place
from pi_daemon.paths import make_private


class IdentityError(Exception):
    """The state directory cannot be used; the message says how to mend it."""


class Fence(msgspec.Struct, frozen=True):
    """The highest fence, and the run that brought it."""

    fence: int = 0
    run: str = ""


@dataclass(frozen=True, slots=True)
class Identity:
    """What a state directory holds."""

    folder: Path
    device_id: str
    """SHA-256 of the public key (SubjectPublicKeyInfo, DER) in base32, without padding: 52 characters."""

    @property
    def short_id(self) -> str:
        """For people, beside the name."""
        return self.device_id[:7]

    def load_fence(self) -> Fence:
        try:
            return msgspec.json.decode(self._fence_path.read_bytes(), type=Fence)
        except FileNotFoundError:
            return Fence()
        except msgspec.DecodeError as error:
            raise IdentityError(
                f"{self._fence_path} is damaged ({error}): delete it while no run is going on"
            ) from error

    def save_fence(self, fence: Fence) -> None:
        """On return, the fence survives a power cut."""
        _write_durably(self._fence_path, msgspec.json.encode(fence))

    @property
    def _fence_path(self) -> Path:
        return self.folder / "fence.json"


@contextlib.contextmanager
def open_identity(folder: Path) -> Iterator[Identity]:
    """Use a state directory alone; the key is made if there is none.

    Raises:
        IdentityError: another daemon uses it, or the key is broken or open to others.
        UnsafePathError: the directory is open to others.
    """
    make_private(folder)
    # Opened for as long as the daemon runs: the lock ends with the process, however that ends.
    with (folder / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise IdentityError(
                f"another pi-daemon uses {folder}: give this one another --id or --state-dir"
            ) from None
        yield Identity(folder, _device_id(folder / "key.pem"))


def _device_id(path: Path) -> str:
    # Imported here, as it takes a while and 10 MB.
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    if not path.exists():
        new = ec.generate_private_key(ec.SECP256R1()).private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        _write_durably(path, new)
    mode = stat.S_IMODE(path.stat().st_mode)
    if mode & 0o077:
        raise IdentityError(
            f"{path} has mode {mode:04o}: others can read this device's key. If nobody has: "
            f"chmod 600 {path}; otherwise delete it, and the device gets a new identity"
        )
    try:
        key = serialization.load_pem_private_key(path.read_bytes(), None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise IdentityError(
            f"{path} holds no private key that can be read: restore it, or delete it, "
            "and the device gets a new identity"
        ) from error
    public = key.public_key().public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    return base64.b32encode(hashlib.sha256(public).digest()).decode().rstrip("=")


def _write_durably(path: Path, content: bytes) -> None:
    temporary = path.with_suffix(".tmp")
    temporary.unlink(missing_ok=True)
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(fd, "wb") as file:
        file.write(content)
    put_in_place(temporary, path)
