"""A console's end of the protocol, message by message: what a test says is what goes over the wire."""

from __future__ import annotations

import asyncio
import hashlib
import itertools
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import TypeVar

from msgspec import structs
from websockets.asyncio.client import ClientConnection

from pi_daemon.protocol.codec import (
    IncomingTransfers,
    Unknown,
    chunk_frames,
    decode_from_daemon,
    encode,
)
from pi_daemon.protocol.limits import MAX_MODEL_BYTES
from pi_daemon.protocol.messages import (
    Answer,
    Blob,
    Command,
    FromConsole,
    FromDaemon,
    Hello,
    Role,
    TakeLease,
    Update,
)
from tests.support.pairing import PairedConsole, open_socket

M = TypeVar("M", bound=FromDaemon)

ANSWER_S = 60.0


def console_hello(role: Role = Role.CONTROLLER, name: str = "desk-1") -> Hello:
    return Hello(
        proto=1, min_proto=1, id="console", name=name, boot_id="boot", build="test", role=role
    )


class RawLink:
    def __init__(self, socket: ClientConnection, fence: int) -> None:
        self.socket = socket
        self.fence = fence
        self.run = f"run-{fence}"
        self.seen: list[FromDaemon] = []
        """Every message, in order."""
        self.blobs: dict[int, bytes] = {}
        """Complete ones, by transfer."""
        self._incoming = IncomingTransfers()
        self._parts: dict[int, bytearray] = {}
        self._transfers = itertools.count(1)
        self._cmd_ids = itertools.count(1)

    async def send(self, message: FromConsole) -> None:
        await self.socket.send(encode(message))

    async def send_blob(self, blob: Blob, content: bytes) -> None:
        for frame in chunk_frames(blob.transfer, content):
            await self.socket.send(frame)

    def blob(self, content: bytes) -> Blob:
        """Announces these bytes."""
        return Blob(next(self._transfers), len(content), hashlib.sha256(content).hexdigest())

    async def receive(self) -> FromDaemon:
        """The next message; binary frames before it are gathered."""
        while (message := await self._receive_frame()) is None:
            pass
        return message

    async def expect(self, kind: type[M], matches: Callable[[M], bool] = lambda _: True) -> M:
        """The next message of a kind; others before it are only noted in `seen`."""
        while True:
            message = await self.receive()
            if isinstance(message, kind) and matches(message):
                return message

    async def ask(self, command: Command, content: bytes | None = None) -> Answer:
        """Send a command, the bytes that it announces if it does, and wait for its answer."""
        await self.send(command)  # type: ignore[arg-type]
        values = structs.asdict(command).values()
        blob = next((value for value in values if isinstance(value, Blob)), None)
        if blob is not None and content is not None:
            await self.send_blob(blob, content)
        return await self.answer_to(command.cmd_id)

    async def answer_to(self, cmd_id: str) -> Answer:
        async with asyncio.timeout(ANSWER_S):
            while True:
                message = await self.receive()
                if isinstance(message, Answer) and message.cmd_id == cmd_id:
                    return message

    async def take_lease(self, *, take_over: bool = False, trains: bool = True) -> Answer:
        return await self.ask(
            TakeLease(
                cmd_id=self.new_cmd_id(),
                run=self.run,
                fence=self.fence,
                take_over=take_over,
                trains=trains,
            )
        )

    def new_cmd_id(self) -> str:
        return f"{id(self)}-{next(self._cmd_ids)}"

    async def update(self) -> tuple[Update, bytes]:
        """The next update, with its bytes."""
        update = await self.expect(Update)
        while update.parameters.transfer not in self.blobs:
            await self._receive_frame()
        return update, self.blobs[update.parameters.transfer]

    async def _receive_frame(self) -> FromDaemon | None:
        async with asyncio.timeout(ANSWER_S):
            frame = await self.socket.recv()
        if isinstance(frame, bytes):
            incoming, payload = self._incoming.feed(frame)
            transfer = incoming.blob.transfer
            part = self._parts.setdefault(transfer, bytearray())
            part += payload
            if incoming.is_complete:
                self.blobs[transfer] = bytes(self._parts.pop(transfer))
            return None
        message = decode_from_daemon(frame)
        assert not isinstance(message, Unknown)
        if isinstance(message, Update):
            self._incoming.announce(message.parameters, MAX_MODEL_BYTES)
        self.seen.append(message)
        return message


@asynccontextmanager
async def open_link(
    port: int, *, fence: int = 1, hello: Hello | None = None, paired: PairedConsole | None = None
) -> AsyncIterator[RawLink]:
    """Connect and exchange hellos; the daemon's is `seen[0]`. Each fence has a run of its own.

    A paired console connects with TLS, and names itself in the hello.
    """
    async with open_socket(port, paired.context if paired else None) as socket:
        link = RawLink(socket, fence)
        hello = hello or console_hello()
        await link.send(structs.replace(hello, id=paired.keys.id) if paired else hello)
        await link.expect(Hello)
        yield link
