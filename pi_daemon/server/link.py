"""One console's link, as the daemon holds it: what goes out in which order, what comes in and where to.

A link that is slow costs memory for a few messages, and nothing else.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections import deque
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO, Final

from msgspec.structs import replace
from websockets.asyncio.server import ServerConnection
from websockets.exceptions import ConnectionClosed

from pi_daemon.protocol.codec import (
    CHUNK_HEADER,
    IncomingTransfers,
    close_reason,
    decode_from_console,
    encode,
)
from pi_daemon.protocol.errors import FrameError
from pi_daemon.protocol.limits import CHUNK_BYTES, CLOSE_CANNOT_STORE, MAX_LOSSES
from pi_daemon.protocol.messages import Batches, Blob, FromDaemon, Hello, Status, Telemetry
from pi_daemon.trust.consoles import Console

log = logging.getLogger(__name__)

FIRST_MESSAGE_S: Final = 5.0
_TURN_AWAY_S: Final = 0.5
MAX_WAITING: Final = 256
"""Messages that wait; a console that reads so little is as good as gone."""


class Backlog:
    """Messages that wait to be sent. What a newer one makes worthless is dropped, and losses in a
    row are joined, so that it stays short however long the console does not read."""

    def __init__(self) -> None:
        self._messages: list[FromDaemon] = []

    def __len__(self) -> int:
        return len(self._messages)

    def put(self, message: FromDaemon) -> None:
        match message:
            case Status() | Telemetry():
                self._messages = [m for m in self._messages if type(m) is not type(message)]
            case Batches():
                told = [i for i, m in enumerate(self._messages) if isinstance(m, Batches)]
                if told and (joined := _joined(self._messages[told[-1]], message)):
                    self._messages[told[-1]] = joined
                    return
        self._messages.append(message)

    def pop(self) -> FromDaemon:
        """The oldest."""
        return self._messages.pop(0)


class Link:
    def __init__(
        self, number: int, socket: ServerConnection, console: Console | None = None
    ) -> None:
        """`console` is who is at the other end, as far as a key has proved it."""
        self.number = number
        self.socket = socket
        self.console = console
        self.is_open = False
        """The console has said who it is."""
        self.is_over = False
        """What still comes is not obeyed."""
        self._incoming = IncomingTransfers()
        self._sinks: dict[int, tuple[BinaryIO, Path]] = {}
        """Of transfers that are kept: the open file, and its name once it is complete."""
        self._backlog = Backlog()
        self._uploads: deque[tuple[int, BinaryIO]] = deque()
        self._transfers = itertools.count(1)
        self._wake = asyncio.Event()

    # Out

    def tell(self, message: FromDaemon) -> None:
        """Queue a message."""
        self._backlog.put(message)
        if len(self._backlog) > MAX_WAITING and not self.socket.transport.is_closing():
            log.warning("link %s closed: it does not read what it is told", self.number)
            self.socket.transport.abort()
        self._wake.set()

    def next_transfer(self) -> int:
        return next(self._transfers)

    def upload(self, transfer: int, path: Path) -> None:
        """Send a file that is announced, whenever no message waits. Raises OSError: it cannot be read."""
        # Open from now on: it may be deleted before it is sent.
        self._uploads.append((transfer, path.open("rb")))
        self._wake.set()

    async def close_for_lack(self, reason: str) -> None:
        """Of room, of descriptors, or of a disk that works."""
        log.error("link %s closed: %s", self.number, reason)
        await self.socket.close(CLOSE_CANNOT_STORE, close_reason(reason))

    async def send(self) -> None:
        """Send what is queued until the link closes."""
        try:
            while True:
                if self._backlog:
                    await self.socket.send(encode(self._backlog.pop()))
                elif self._uploads:
                    await self._send_chunk(*self._uploads[0])
                else:
                    self._wake.clear()
                    await self._wake.wait()
        except ConnectionClosed:
            pass
        except OSError as error:
            log.error("link %s closed: the device cannot read its update: %s", self.number, error)
            self.socket.transport.abort()
        finally:
            for _, file in self._uploads:
                file.close()

    async def _send_chunk(self, transfer: int, file: BinaryIO) -> None:
        offset = file.tell()
        if chunk := await asyncio.to_thread(file.read, CHUNK_BYTES):
            await self.socket.send(CHUNK_HEADER.pack(transfer, offset) + chunk)
        else:
            self._uploads.popleft()
            file.close()

    async def turn_away(self, code: int, reason: str) -> None:
        """Close a link that is over."""
        self.is_open = False
        await hang_up(self.socket, code, reason)

    # In

    def expect(self, blob: Blob, limit_bytes: int) -> None:
        """Let the frames of a blob come; they are thrown away unless they are kept.

        Raises:
            TransferError: as `IncomingTransfers.announce`.
        """
        self._incoming.announce(blob, limit_bytes)

    def keep(self, transfer: int, path: Path) -> None:
        """Write the blob to a file, which gets its name when it is complete."""
        partial = path.with_name(f"incoming-{self.number}-{transfer}")
        self._sinks[transfer] = partial.open("wb"), path

    def go_on_with(self, transfer: int, part: Path, offset: int) -> None:
        """Write the blob into a file from `offset` on; it is kept when the blob is broken off."""
        part.touch(mode=0o600)
        file = part.open("r+b")
        file.truncate(offset)
        file.seek(offset)
        self._sinks[transfer] = file, part

    def stop_keeping(self, transfer: int) -> None:
        """Throw the rest of a blob away, and delete what has arrived, unless that outlives the link."""
        if transfer in self._sinks:
            file, path = self._sinks.pop(transfer)
            _close(file)
            if Path(file.name) != path:
                _delete(Path(file.name))

    def let_go(self, part: Path) -> None:
        """Write into this file no more."""
        for transfer in [t for t, (_, path) in self._sinks.items() if path == part]:
            file, _ = self._sinks.pop(transfer)
            _close(file)

    async def take_chunk(self, frame: bytes) -> int | None:
        """Take a binary frame; give the transfer's number if its file is complete now.

        Raises:
            ProtocolError: the frame does not fit what was announced.
            OSError: it cannot be written.
        """
        incoming, payload = self._incoming.feed(frame)
        transfer = incoming.blob.transfer
        if transfer not in self._sinks:
            return None
        file, path = self._sinks[transfer]
        try:
            await asyncio.to_thread(_write, file, payload)
            if not incoming.is_complete or transfer not in self._sinks:
                return None
            file.close()
        except OSError:
            # A full disk needs the room more than the next try needs the part.
            _delete(Path(file.name))
            raise
        del self._sinks[transfer]
        Path(file.name).replace(path)
        return transfer

    def drop_incoming(self) -> None:
        """Keep nothing of what is still on its way: its sender broke it off."""
        for transfer in list(self._sinks):
            self.stop_keeping(transfer)
        self._incoming = IncomingTransfers()


async def hang_up(socket: ServerConnection, code: int, reason: str) -> None:
    """Close, within a second also where the other side neither reads nor answers, or never stops to send."""
    asyncio.get_running_loop().call_later(_TURN_AWAY_S, socket.transport.abort)
    await socket.close(code, close_reason(reason))


async def first_hello(socket: ServerConnection) -> Hello:
    """What a console says first.

    Raises:
        FrameError: it says nothing for 5 s, or something else.
    """
    try:
        async with asyncio.timeout(FIRST_MESSAGE_S):
            frame = await socket.recv()
    except TimeoutError:
        raise FrameError(f"no hello within {FIRST_MESSAGE_S:g} s") from None
    hello = decode_from_console(frame) if isinstance(frame, str) else None
    if not isinstance(hello, Hello):
        raise FrameError("the first message must be hello")
    return hello


def _write(file: BinaryIO, payload: bytes | memoryview) -> None:
    # Another link's command may have closed it while this chunk waited for its turn.
    with suppress(ValueError):
        file.write(payload)


def _close(file: BinaryIO) -> None:
    # What a full disk cannot take is of no use any more.
    with suppress(OSError):
        file.close()


def _delete(part: Path) -> None:
    # What a disk does not let go is deleted when the daemon starts again.
    with suppress(OSError):
        part.unlink(missing_ok=True)


def _joined(earlier: FromDaemon, later: Batches) -> Batches | None:
    """Both as one message, if they are of one attempt and nothing lies between them."""
    assert isinstance(earlier, Batches)
    losses = earlier.losses + later.losses
    end = earlier.first + len(earlier.losses)
    if replace(earlier, first=end, losses=later.losses) != later or len(losses) > MAX_LOSSES:
        return None
    return replace(earlier, losses=losses)
