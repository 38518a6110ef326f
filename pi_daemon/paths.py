"""Where the daemon keeps what outlives it, and where running daemons leave word of themselves."""

from __future__ import annotations

import os
import stat
import tempfile
from pathlib import Path

import platformdirs


class UnsafePathError(Exception):
    """A private folder or file belongs to somebody else, or others can get at it."""


def default_state_dir(worker_name: str) -> Path:
    """One for each name, so that several daemons of one user do not collide."""
    folder = "".join(c if c.isalnum() or c in "-_." else "_" for c in worker_name).lstrip(".")
    return platformdirs.user_state_path("pi-daemon") / (folder or "_")


def runtime_dir() -> Path:
    """A folder of this user's that is emptied at the latest at the next boot; made if missing."""
    parent = os.environ.get("XDG_RUNTIME_DIR")
    if parent and Path(parent).is_dir():
        folder = Path(parent) / "fedconsole"
    else:
        folder = Path(tempfile.gettempdir()) / f"fedconsole-{os.getuid()}"
    return make_private(folder)


def make_private(folder: Path, *, group_may_pass: bool = False) -> Path:
    """Make a folder that only this user can enter, or check that it is one.

    With `group_may_pass` its group may reach by name what is in there, and nothing more.

    Raises:
        UnsafePathError: it cannot be made, is a link, another user's, or open to others.
    """
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise UnsafePathError(
            f"{folder} cannot be made ({error.strerror}): choose another"
        ) from error
    found = folder.lstat()
    mode = stat.S_IMODE(found.st_mode)
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid():
        raise UnsafePathError(f"{folder} is not a folder of this user's: move it away")
    if mode & (0o067 if group_may_pass else 0o077):
        raise UnsafePathError(
            f"{folder} has mode {mode:04o}, expected 0700: others could get at it. "
            f"If you trust what it holds: chmod 700 {folder}"
        )
    return folder
