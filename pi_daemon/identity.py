"""Who this device is: a key that is made at the first start, and the highest fence that it has seen."""

from __future__ import annotations

import contextlib
import fcntl
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import msgspec

from pi_daemon.device.actions import NO_FENCE, Fence
from pi_daemon.paths import make_private
from pi_daemon.protocol.errors import UNREADABLE
from pi_daemon.trust.keys import IdentityError as IdentityError
from pi_daemon.trust.keys import Keys, open_keys, write_privately


class StateInUseError(IdentityError):
    """A daemon that runs uses this state directory."""


@dataclass(frozen=True, slots=True)
class Identity:
    """What a state directory holds."""

    folder: Path
    keys: Keys

    @property
    def device_id(self) -> str:
        """52 characters; `Keys.id` says of what."""
        return self.keys.id

    @property
    def short_id(self) -> str:
        """For people, beside the name."""
        return self.device_id[:7]

    def load_fence(self) -> Fence:
        try:
            return msgspec.json.decode(self._fence_path.read_bytes(), type=Fence)
        except FileNotFoundError:
            return NO_FENCE
        except UNREADABLE as error:
            raise IdentityError(
                f"{self._fence_path} is damaged ({error}): delete it while no run is going on"
            ) from error

    def save_fence(self, fence: Fence) -> None:
        """On return, the fence survives a power cut."""
        write_privately(self._fence_path, msgspec.json.encode(fence))

    @property
    def _fence_path(self) -> Path:
        return self.folder / "fence.json"


@contextlib.contextmanager
def open_identity(folder: Path) -> Iterator[Identity]:
    """Use a state directory alone; the key is made if there is none.

    Raises:
        StateInUseError: another daemon uses it.
        IdentityError: its key cannot be used.
        UnsafePathError: the directory is open to others.
    """
    make_private(folder, group_may_pass=True)
    # Opened for as long as the daemon runs: the lock ends with the process, however that ends.
    with (folder / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise StateInUseError(
                f"another pi-daemon uses {folder}: give this one another --id or --state-dir"
            ) from None
        yield Identity(folder, open_keys(folder))
