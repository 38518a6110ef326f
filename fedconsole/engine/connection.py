"""One connection to a daemon, from hello to close. An instance is used once."""

from __future__ import annotations

import asyncio
import itertools
import secrets
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, TypeVar

from websockets.exceptions import ConnectionClosed

from fedconsole.dialling import Link, exchange_hellos
from fedconsole.engine.worker import ModelOnDisk, Refusal
from fedconsole.errors import NotPairedError
from fedconsole.link_failures import NoCommonVersionError, in_words, why_closed
from pi_daemon.protocol import messages as m
from pi_daemon.protocol.codec import (
    CHUNK_HEADER,
    Incoming,
    IncomingTransfers,
    Unknown,
    close_reason,
    decode_from_daemon,
    encode,
)
from pi_daemon.protocol.errors import ProtocolError
from pi_daemon.protocol.limits import (
    CHUNK_BYTES,
    CLOSE_CANNOT_STORE,
    CLOSE_PROTOCOL_ERROR,
    MAX_MODEL_BYTES,
)

A = TypeVar("A", bound=m.Answer)


class CommandRefused(Exception):
    """The daemon answered `refused`."""

    def __init__(self, code: m.RefusalCode, reason: str, limit: str | None = None) -> None:
        super().__init__(reason)
        self.code = code
        self.limit = limit
        """The bound of the device's owner that it would be over, if that is why."""


class LinkClosed(Exception):
    """The connection has ended; the message says how."""


@dataclass(slots=True)
class _Receiving:
    """An update on its way in."""

    update: m.Update
    incoming: Incoming
    path: Path
    file: BinaryIO | None = None
    failure: OSError | None = None
    """What this machine's disk said first; the rest of the bytes are let go."""

    def open(self) -> None:
        try:
            # Without a buffer that is written when nobody looks.
            self.file = self.path.open("xb", buffering=0)
        except OSError as error:
            self.failure = error

    def write(self, payload: memoryview) -> None:
        if self.file is None:
            return
        try:
            while payload:
                payload = payload[self.file.write(payload) :]
        except OSError as error:
            self.failure = error
            self.drop()

    def close(self) -> None:
        if self.file is not None:
            self.file.close()
            self.file = None

    def drop(self) -> None:
        """Leave nothing of it."""
        self.close()
        with suppress(OSError):
            self.path.unlink(missing_ok=True)


@dataclass(frozen=True, slots=True)
class Listener:
    """Where a connection hands on what the daemon tells."""

    status: Callable[[m.DeviceStatus], None]
    batches: Callable[[m.Batches], None]
    round_failed: Callable[[Connection, m.RoundFailed], None]
    telemetry: Callable[[m.Telemetry], None]
    log: Callable[[m.Log], None]
    update: Callable[[Connection, m.Update, Path, OSError | None], None]
    """With the connection that it came on, and the file that holds the bytes; the listener owns it. There is
    none where this machine's disk has refused it."""
    update_path: Callable[[m.Update], Path]
    """Where the bytes are to land: a name that is not used yet. Raises ProtocolError: it is not wanted."""


class Connection:
    """Sends commands and awaits their answers; hands on everything else that the daemon tells."""

    def __init__(self, websocket: Link, listener: Listener) -> None:
        self.bytes_sent = 0
        self.bytes_received = 0
        self.status: m.DeviceStatus | None = None
        self._was_given_up = False
        self._websocket = websocket
        self._listener = listener
        # A device remembers its answers by these, across connections and engines of a run.
        self._prefix = secrets.token_hex(4)
        self._ids = itertools.count(1)
        self._transfers = itertools.count(1)
        self._answers: dict[str, asyncio.Future[m.Answer]] = {}
        # The hash of an update is checked in a thread, with its tensors: this one is busy enough.
        self._incoming = IncomingTransfers(are_hashed=False)
        self._receiving: dict[int, _Receiving] = {}

    @property
    def was_given_up(self) -> bool:
        """One side has ended it because of what came on it, which will come again."""
        return self._was_given_up or self._websocket.close_code == CLOSE_CANNOT_STORE

    async def greet(self, ours: m.Hello) -> m.Hello:
        """Exchange hellos; the first thing on every connection.

        Raises:
            Refusal: no common protocol version, or the peer is no device.
            NotPairedError: the device does not admit this console, or not to steer it.
            WrongDeviceError: it gives itself another id than its key's.
            ProtocolError, LinkClosed, TimeoutError: it is no daemon, or went away.
        """
        try:
            theirs = await exchange_hellos(self._websocket, ours)
        except NoCommonVersionError as error:
            raise Refusal(str(error)) from error
        except ConnectionClosed as error:
            raise LinkClosed(in_words(error)) from error
        if theirs.status is None:
            raise Refusal("it is no device: its hello has no status")
        self.status = theirs.status
        return theirs

    async def listen(self) -> None:
        """Hand on what the daemon tells, until the connection ends.

        Raises:
            LinkClosed: always, in the end, unless
            NotPairedError: the device admits this console no more.
            ProtocolError: the daemon broke the protocol; it has been told.
        """
        try:
            while True:
                frame = await self._receive()
                if isinstance(frame, bytes):
                    self._take_chunk(frame)
                else:
                    self._take(decode_from_daemon(frame))
        except ProtocolError as error:
            await self.reject(error)
            raise
        finally:
            for answer in self._answers.values():
                if not answer.done():
                    answer.set_exception(LinkClosed("the connection ended before the answer"))
            for receiving in self._receiving.values():
                receiving.drop()

    async def ask(self, command: Callable[[str], m.Command], kind: type[A]) -> A:
        """Send a command, made from its new `cmd_id`, and await its answer.

        Raises:
            CommandRefused: the daemon said no.
            LinkClosed: the connection ended first, or by an answer of another kind.
        """
        cmd_id = f"{self._prefix}-{next(self._ids)}"
        answer: asyncio.Future[m.Answer] = asyncio.get_running_loop().create_future()
        # Whoever asked may have been cancelled when the connection's end is told.
        answer.add_done_callback(lambda done: done.cancelled() or done.exception())
        self._answers[cmd_id] = answer
        try:
            await self._send(encode(command(cmd_id)))  # type: ignore[arg-type]
            reply = await answer
        finally:
            self._answers.pop(cmd_id, None)
        match reply:
            case m.Refused(code=code, reason=reason, limit=limit):
                raise CommandRefused(code, reason, limit)
            case _ if isinstance(reply, kind):
                return reply
            case _:
                error = ProtocolError(f"answer {type(reply).__name__}, expected {kind.__name__}")
                await self.reject(error)
                raise LinkClosed(str(error)) from error

    def announce(self, size: int, digest: str) -> m.Blob:
        return m.Blob(next(self._transfers), size, digest)

    async def send_bytes(self, blob: m.Blob, content: bytes) -> None:
        for offset in range(0, len(content), CHUNK_BYTES):
            await self._send_chunk(blob, offset, content[offset : offset + CHUNK_BYTES])

    async def send_file(self, blob: m.Blob, model: ModelOnDisk) -> None:
        """Send a model chunk by chunk; other messages go between the chunks."""
        frame = memoryview(bytearray(CHUNK_HEADER.size + CHUNK_BYTES))
        content = frame[CHUNK_HEADER.size :]
        offset = 0
        with model.path.open("rb", buffering=0) as file:
            while size := file.readinto(content):
                CHUNK_HEADER.pack_into(frame, 0, blob.transfer, offset)
                # The websocket masks a copy: the same memory serves all chunks.
                await self._send(frame[: CHUNK_HEADER.size + size])
                offset += size

    async def close(self) -> None:
        await self._websocket.close()

    async def reject(self, error: ProtocolError) -> None:
        """Close the connection because of what the daemon sent on it."""
        self._was_given_up = True
        await self._websocket.close(CLOSE_PROTOCOL_ERROR, close_reason(str(error)))

    async def give_up(self) -> None:
        """Close the connection because what came on it cannot be kept here, or what was to go cannot be read."""
        self._was_given_up = True
        await self._websocket.close()

    async def _send_chunk(self, blob: m.Blob, offset: int, chunk: bytes) -> None:
        await self._send(CHUNK_HEADER.pack(blob.transfer, offset) + chunk)

    async def _send(self, frame: str | bytes | memoryview) -> None:
        self.bytes_sent += len(frame)
        try:
            await self._websocket.send(frame)
        except ConnectionClosed as error:
            raise LinkClosed(in_words(error)) from error

    async def _receive(self) -> str | bytes:
        try:
            frame = await self._websocket.recv()
        except ConnectionClosed as error:
            if isinstance(why := why_closed(error), NotPairedError):
                raise why from error
            raise LinkClosed(in_words(error)) from error
        self.bytes_received += len(frame)
        return frame

    def _take(self, message: m.FromDaemon | Unknown) -> None:
        match message:
            case m.Ok() | m.Refused() | m.Prepared() | m.Evaluated():
                answer = self._answers.get(message.cmd_id)
                if answer is not None and not answer.done():
                    answer.set_result(message)
            case m.Status(status):
                self.status = status
                self._listener.status(status)
            case m.Batches():
                self._listener.batches(message)
            case m.Update():
                self._expect(message)
            case m.RoundFailed():
                self._listener.round_failed(self, message)
            case m.Telemetry():
                self._listener.telemetry(message)
            case m.Log():
                self._listener.log(message)
            case m.Hello():
                raise ProtocolError("a second hello")
            case Unknown():
                pass  # a newer daemon may tell more than this side understands

    def _expect(self, update: m.Update) -> None:
        incoming = self._incoming.announce(update.parameters, MAX_MODEL_BYTES)
        receiving = _Receiving(update, incoming, self._listener.update_path(update))
        receiving.open()
        self._receiving[update.parameters.transfer] = receiving

    def _take_chunk(self, frame: bytes) -> None:
        incoming, payload = self._incoming.feed(frame)
        receiving = self._receiving[incoming.blob.transfer]
        receiving.write(payload)
        if incoming.is_complete:
            del self._receiving[incoming.blob.transfer]
            receiving.close()
            self._listener.update(self, receiving.update, receiving.path, receiving.failure)
