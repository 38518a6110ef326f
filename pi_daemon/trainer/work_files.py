"""The files of what a run has brought to this device: graphs, models and updates."""

from __future__ import annotations

import errno
import os
from contextlib import suppress
from pathlib import Path

from pi_daemon.device.receiving import SPARE_BYTES
from pi_daemon.paths import make_private


class WorkFiles:
    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def path(self, sha256: str) -> Path:
        """Where graphs or a model lie that have this hash."""
        return self.folder / sha256

    def need_room(self, num_bytes: int) -> None:
        """Ask for this much, and for what a device always needs beside it.

        Raises:
            OSError: the disk has less.
        """
        disk = os.statvfs(self.folder)
        missing = num_bytes + SPARE_BYTES - disk.f_bavail * disk.f_frsize
        if missing > 0:
            reason = f"{os.strerror(errno.ENOSPC)}: free {missing} bytes"
            raise OSError(errno.ENOSPC, reason)

    def need_room_for_update(self, model_sha256: str) -> None:
        """It will be as large as its model. Raises as `need_room`."""
        self.need_room(self.path(model_sha256).stat().st_size)

    def update(self, ticket: int) -> Path:
        """Where a round's update is written."""
        return self.folder / f"update-{ticket}"

    def drop_update(self, ticket: int) -> None:
        """Delete it, if there is any; what a failing disk does not let go is deleted at the next start."""
        with suppress(OSError):
            self.update(ticket).unlink(missing_ok=True)

    def keep_only(self, *digests: str) -> None:
        """Delete the graphs and models of before; a file of 64 digits is one of them.

        Raises:
            OSError: the disk refuses.
        """
        for path in self.folder.iterdir():
            if len(path.name) == 64 and path.name not in digests:
                path.unlink(missing_ok=True)

    def drop_blobs(self) -> None:
        """Delete all graphs and models, as far as the disk lets them go."""
        with suppress(OSError):
            self.keep_only()

    def empty(self) -> None:
        """Begin anew, with a folder that is there and private."""
        make_private(self.folder)
        for path in self.folder.iterdir():
            path.unlink()
