"""A device without torch: it speaks the protocol on a real websocket, and returns the model it was sent.

Or what a test has it return. Many of them fit into one process.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from msgspec.structs import replace
from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.exceptions import ConnectionClosed
from websockets.typing import Subprotocol

from pi_daemon.protocol import messages as m
from pi_daemon.protocol.batching import batches_per_epoch
from pi_daemon.protocol.codec import (
    IncomingTransfers,
    Unknown,
    chunk_frames,
    decode_from_console,
    encode,
)
from pi_daemon.protocol.limits import (
    CLOSE_CANNOT_STORE,
    MAX_FRAME_BYTES,
    MAX_MODEL_BYTES,
    PROTO,
    SUBPROTOCOL,
)

NUM_EXAMPLES = 96

Sent = tuple[m.Update, bytes]


def once(update: m.Update, content: bytes) -> Iterable[Sent]:
    """What an honest device sends."""
    return [(update, content)]


def _set_event() -> asyncio.Event:
    event = asyncio.Event()
    event.set()
    return event


def with_content(update: m.Update, content: bytes) -> Sent:
    """The update with other bytes, announced as they are."""
    blob = replace(update.parameters, size=len(content), sha256=hashlib.sha256(content).hexdigest())
    return replace(update, parameters=blob), content


@dataclass
class EchoDaemon:
    """Stays the same device, at the same port, over restarts."""

    name: str
    answer: Callable[[m.Update, bytes], Iterable[Sent]] = once
    """Which updates it sends for the one that would be right."""
    num_log_lines: int = 0
    """What it says at once when a round begins."""
    flood: Callable[[m.StartRound], Iterable[m.FromDaemon]] = lambda start: ()
    """What it says besides, before its update."""
    evaluation: Callable[[m.Evaluate], m.Answer] | None = None
    """What it answers to that; None: it has no holdout."""
    may_deliver: asyncio.Event = field(default_factory=asyncio.Event)
    is_fenced: bool = False
    """Another console takes its lease before it is made ready."""
    may_answer: asyncio.Event = field(default_factory=_set_event)
    """Until then it hears nothing."""
    may_prepare: asyncio.Event = field(default_factory=_set_event)
    """Until then it is made ready."""
    fence: int = 0
    """The highest one so far."""
    holder: str | None = None
    """The run that alone may take the lease."""
    lack: str = ""
    """Why it can store nothing now."""
    fences: asyncio.Queue[int] = field(default_factory=asyncio.Queue)
    """With which it was asked for its lease."""
    proto: int = PROTO
    port: int = 0
    accepted_s: list[float] = field(default_factory=list)
    """When each connection came, by the loop's clock."""
    closed: list[tuple[int | None, str]] = field(default_factory=list)
    """With what code and reason consoles have closed."""
    _server: Server | None = None

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    async def start(self) -> None:
        self._server = await serve(
            self._serve,
            "127.0.0.1",
            self.port,
            subprotocols=[Subprotocol(SUBPROTOCOL)],
            compression=None,
            max_size=MAX_FRAME_BYTES,
        )
        self.port = next(iter(self._server.sockets)).getsockname()[1]

    async def kill(self) -> None:
        """As a power cut would: no close frame, and nobody listens."""
        assert self._server is not None
        for connection in self._server.connections:
            connection.transport.abort()
        self._server.close()
        await self._server.wait_closed()

    def refusal_of(self, take: m.TakeLease) -> m.RefusalCode | None:
        self.fences.put_nowait(take.fence)
        if take.fence < self.fence:
            return m.RefusalCode.STALE_FENCE
        return m.RefusalCode.HELD if self.holder not in (None, take.run) else None

    async def _serve(self, socket: ServerConnection) -> None:
        self.accepted_s.append(asyncio.get_running_loop().time())
        async with asyncio.TaskGroup() as tasks:
            link = _EchoLink(self, socket, tasks)
            try:
                await socket.send(encode(self._hello()))
                async for frame in socket:
                    await link.take(frame)
            except ConnectionClosed:
                pass
            for training in link.trainings:
                training.cancel()
        self.closed.append((socket.close_code, socket.close_reason or ""))

    def _hello(self) -> m.Hello:
        return m.Hello(
            proto=self.proto,
            min_proto=self.proto,
            id=f"device-{self.name}",
            name=self.name,
            boot_id=f"boot-{len(self.accepted_s)}",
            build="echo",
            capabilities=m.Capabilities(None, None, "none", 1, 1 << 30, 1 << 30),
            status=m.DeviceStatus(m.DeviceState.IDLE, highest_fence=self.fence),
            datasets=(
                m.DatasetCard("digits", (8, 8), "uint8", "int64", NUM_EXAMPLES, 10, "0" * 64),
            ),
        )


class _EchoLink:
    def __init__(
        self, device: EchoDaemon, socket: ServerConnection, tasks: asyncio.TaskGroup
    ) -> None:
        self.trainings: list[asyncio.Task[None]] = []
        self._tasks = tasks
        self._device = device
        self._socket = socket
        self._incoming = IncomingTransfers()
        self._parts: dict[int, bytearray] = {}
        self._awaited: dict[int, m.Prepare | m.StartRound | m.Evaluate] = {}
        self._batch_size = 1
        self._num_sent = 0

    async def take(self, frame: str | bytes) -> None:
        if isinstance(frame, bytes):
            incoming, payload = self._incoming.feed(frame)
            part = self._parts.setdefault(incoming.blob.transfer, bytearray())
            part += payload
            if incoming.is_complete:
                transfer = incoming.blob.transfer
                await self._carry_out(self._awaited.pop(transfer), bytes(self._parts.pop(transfer)))
            return
        await self._device.may_answer.wait()
        command = decode_from_console(frame)
        match command:
            case m.Hello() | Unknown():
                pass
            case (
                m.Prepare(graphs=blob)
                | m.StartRound(model=m.Blob() as blob)
                | m.Evaluate(model=m.Blob() as blob)
            ):
                self._incoming.announce(blob, MAX_MODEL_BYTES)
                self._awaited[blob.transfer] = command
            case m.TakeLease() if self._device.lack:
                await self._socket.close(CLOSE_CANNOT_STORE, self._device.lack)
            case m.TakeLease() if refusal := self._device.refusal_of(command):
                await self._say(m.Refused(command.cmd_id, refusal, "another run"))
            case _:
                await self._say(m.Ok(command.cmd_id))

    async def _carry_out(
        self, command: m.Prepare | m.StartRound | m.Evaluate, content: bytes
    ) -> None:
        evaluation = self._device.evaluation
        if isinstance(command, m.Prepare) and self._device.is_fenced:
            code, reason = m.RefusalCode.STALE_FENCE, "the fence is over"
            await self._say(m.Refused(command.cmd_id, code, reason))
            return
        if isinstance(command, m.Prepare):
            await self._device.may_prepare.wait()
            self._batch_size = command.batch_size
            num_holdout = NUM_EXAMPLES if evaluation else 0
            await self._say(m.Prepared(command.cmd_id, NUM_EXAMPLES, num_holdout, 0.01, 1))
            return
        if isinstance(command, m.Evaluate):
            assert evaluation is not None
            await self._say(evaluation(command))
            return
        await self._say(m.Ok(command.cmd_id))
        self.trainings.append(self._tasks.create_task(self._train(command, content)))

    async def _train(self, start: m.StartRound, content: bytes) -> None:
        try:
            for number in range(self._device.num_log_lines):
                await self._say(m.Log("info", f"line {number}"))
            for message in self._device.flood(start):
                await self._say(message)
            if self._device.num_log_lines:
                await self._device.may_deliver.wait()
            for update, sent in self._device.answer(self._right_update(start, content), content):
                self._num_sent += 1
                blob = replace(update.parameters, transfer=self._num_sent)
                await self._say(replace(update, parameters=blob))
                for frame in chunk_frames(blob.transfer, sent):
                    await self._socket.send(frame)
        except ConnectionClosed:
            pass

    def _right_update(self, start: m.StartRound, content: bytes) -> m.Update:
        per_epoch = batches_per_epoch(NUM_EXAMPLES, self._batch_size)
        epochs, batch = divmod(start.cursor.batch + start.num_batches, per_epoch)
        return m.Update(
            run=start.run,
            round=start.round,
            attempt=start.attempt,
            model_id=start.model_id,
            num_examples=start.num_batches * self._batch_size,
            num_batches=start.num_batches,
            loss=0.5,
            seconds=0.1,
            cursor=m.Cursor(start.cursor.epoch + epochs, batch),
            parameters=m.Blob(1, len(content), hashlib.sha256(content).hexdigest()),
        )

    async def _say(self, message: m.FromDaemon) -> None:
        await self._socket.send(encode(message))
