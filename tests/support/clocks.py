"""Wall clocks that jump while a program runs: libfaketime, steered by a file."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

_PLACES = ("/usr/lib/x86_64-linux-gnu", "/usr/lib/aarch64-linux-gnu", "/usr/lib", "/usr/lib64")


class Clock:
    """The wall clock of every process that is started with its `environment`."""

    def __init__(self, folder: Path) -> None:
        """Without libfaketime the test is skipped."""
        self._file = folder / "offset"
        self._library = _library()
        self.step(0)

    @property
    def environment(self) -> dict[str, str]:
        return {
            "LD_PRELOAD": str(self._library),
            "FAKETIME_TIMESTAMP_FILE": str(self._file),
            # Read at each look at the clock: a step counts at once.
            "FAKETIME_NO_CACHE": "1",
            # Only the wall clock steps, as with NTP or an operator's `date`.
            "DONT_FAKE_MONOTONIC": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        }

    def step(self, offset_s: float) -> None:
        """From now on it is so many seconds ahead of the real one."""
        # Whole at once: half a file would be a time of its own.
        temporary = self._file.with_suffix(".new")
        temporary.write_text(f"{offset_s:+f}\n")
        temporary.replace(self._file)


def _library() -> Path:
    for folder in os.environ.get("LD_LIBRARY_PATH", "").split(":") + list(_PLACES):
        # Programs with threads need this one.
        if folder and (path := Path(folder) / "faketime" / "libfaketimeMT.so.1").exists():
            return path
    pytest.skip("needs libfaketime (Debian package libfaketime)")
