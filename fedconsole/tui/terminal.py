"""The terminal that the console is drawn on, which may go away at any time."""

from __future__ import annotations

from typing import TextIO


class Terminal:
    """As the file that Textual's writing thread takes. Once the terminal is gone, nothing is written.

    An error would end that thread; who writes then waits for it for ever, and the console with him.
    """

    def __init__(self, file: TextIO) -> None:
        self._file = file
        self._is_gone = False

    def fileno(self) -> int:
        return self._file.fileno()

    def write(self, text: str) -> int:
        if not self._is_gone:
            try:
                self._file.write(text)
            except OSError:
                self._is_gone = True
        return len(text)

    def flush(self) -> None:
        if not self._is_gone:
            try:
                self._file.flush()
            except OSError:
                self._is_gone = True
