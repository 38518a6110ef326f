"""A terminal for a program: a pseudo-terminal whose screen can be read and whose keys and mouse can be used."""

from __future__ import annotations

import asyncio
import codecs
import fcntl
import os
import pty
import signal
import struct
import subprocess
import sys
import termios
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

import pyte

WAIT_S = 120.0
"""Under load from other tests everything takes its time."""
FEDCONSOLE = (sys.executable, "-m", "fedconsole.cli.entry")
KEYS = {
    "enter": "\r",
    "escape": "\x1b",
    "tab": "\t",
    "shift+tab": "\x1b[Z",
    "up": "\x1b[A",
    "down": "\x1b[B",
    "right": "\x1b[C",
    "left": "\x1b[D",
    "f1": "\x1bOP",
    "f5": "\x1b[15~",
    "f9": "\x1b[20~",
    "backspace": "\x7f",
    "ctrl+a": "\x01",
    "ctrl+c": "\x03",
    "ctrl+k": "\x0b",
    "ctrl+r": "\x12",
}


class Terminal:
    """One program on a terminal of its own."""

    def __init__(
        self, process: subprocess.Popen[bytes], master: int, size: tuple[int, int], is_read: bool
    ) -> None:
        self._is_read = is_read
        self.process = process
        self.output = bytearray()
        """Every byte that the program wrote."""
        self._master = master
        self.first_modes: list[Any] = []
        """Before the program could change any."""
        self._screen = pyte.Screen(*size)
        self._stream = pyte.Stream(self._screen)
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._grown = asyncio.Event()

    @property
    def lines(self) -> list[str]:
        return [line.rstrip() for line in self._screen.display]

    @property
    def text(self) -> str:
        return "\n".join(self.lines)

    @property
    def modes(self) -> list[Any]:
        """How the terminal takes lines and keys, as `stty -g` tells it."""
        return termios.tcgetattr(self._master)

    @property
    def cursor(self) -> tuple[int, int]:
        """Column and row, from 0: where a field with the focus is."""
        return self._screen.cursor.x, self._screen.cursor.y

    def press(self, *keys: str) -> None:
        """Press keys: a name of KEYS, or text that is typed."""
        for key in keys:
            os.write(self._master, KEYS.get(key, key).encode())

    def click(self, column: int, row: int) -> None:
        """The left button, at cells counted from 0."""
        at = f"{column + 1};{row + 1}"
        os.write(self._master, f"\x1b[<0;{at}M\x1b[<0;{at}m".encode())

    def click_on(self, text: str) -> None:
        """Click on the first cell of a text that is on the screen."""
        for row, line in enumerate(self._screen.display):
            if (column := line.find(text)) >= 0:
                self.click(column + len(text) // 2, row)
                return
        raise AssertionError(f"{text!r} is not on the screen:\n{self.text}")

    def resize(self, columns: int, rows: int) -> None:
        self._screen.resize(rows, columns)
        _set_size(self._master, (columns, rows))

    async def until(self, is_so: Callable[[str], bool], what: str) -> str:
        """Wait until the screen's text is so; the text.

        Raises:
            AssertionError: the program ended first, or took too long; with the screen.
        """
        try:
            async with asyncio.timeout(WAIT_S):
                while not is_so(self.text):
                    await self.grown()
        except TimeoutError:
            raise AssertionError(f"{what} did not come; the screen is:\n{self.text}") from None
        return self.text

    async def shows(self, *texts: str) -> str:
        """Wait until all these texts are on the screen together."""
        return await self.until(
            lambda screen: all(text in screen for text in texts), " and ".join(map(repr, texts))
        )

    async def ended(self) -> int:
        """Wait for the end of the program; its exit code."""
        return await asyncio.wait_for(asyncio.to_thread(self.process.wait), WAIT_S)

    def take(self) -> None:
        """Read what the program has written."""
        try:
            data = os.read(self._master, 1 << 16)
        except OSError:
            # On Linux the end of the last writer is an error of the reader.
            asyncio.get_running_loop().remove_reader(self._master)
            return
        self.output += data
        if self._is_read:
            self._stream.feed(self._decoder.decode(data))
        self._grown.set()

    async def grown(self) -> None:
        """Wait until the program writes something."""
        self._grown.clear()
        await self._grown.wait()


@asynccontextmanager
async def terminal(
    *arguments: str,
    program: Sequence[str] = FEDCONSOLE,
    size: tuple[int, int] = (120, 40),
    environment: Mapping[str, str] | None = None,
    is_read: bool = True,
) -> AsyncIterator[Terminal]:
    """`fedconsole` with these arguments on a terminal; it is killed afterwards.

    Args:
        is_read: keep the screen's text; False leaves only `output`, for measurements.
    """
    master, slave = pty.openpty()
    _set_size(slave, size)
    modes = termios.tcgetattr(master)
    process = subprocess.Popen(  # noqa: ASYNC220
        [*program, *arguments],
        stdin=slave,
        stdout=slave,
        stderr=slave,
        start_new_session=True,
        preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0) and None,
        env=_environment() | dict(environment or {}),
    )
    os.close(slave)
    opened = Terminal(process, master, size, is_read)
    opened.first_modes = modes
    loop = asyncio.get_running_loop()
    loop.add_reader(master, opened.take)
    try:
        yield opened
    finally:
        loop.remove_reader(master)
        if process.poll() is None:
            process.send_signal(signal.SIGKILL)
        await asyncio.to_thread(process.wait)
        os.close(master)


def _environment() -> dict[str, str]:
    able = {"TERM": "xterm-256color", "COLORTERM": "truecolor", "LANG": "C.UTF-8"}
    hidden = {"CI", "NO_COLOR", "LC_ALL", "LC_MESSAGES", "TMUX"}
    return {name: value for name, value in os.environ.items() if name not in hidden} | able


def _set_size(descriptor: int, size: tuple[int, int]) -> None:
    columns, rows = size
    fcntl.ioctl(descriptor, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
