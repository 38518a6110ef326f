"""A TCP proxy that spoils a link while it is used: slow, sliced, cut off, silent or full of errors.

It stands between a console and a daemon. What it does in each direction can be changed at any time.
"""

from __future__ import annotations

import asyncio
import random
import socket
import struct
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, fields

_READ_BYTES = 1 << 16
_IN_FLIGHT_BYTES = 1 << 18
"""On their way in one direction of a connection; the sender waits when there are more."""


@dataclass
class Toxics:
    """What happens to bytes in one direction, on all connections together; all off by default.

    Settings count for bytes that come after they were made.
    """

    latency_s: float = 0.0
    jitter_s: float = 0.0
    """Up to so much is added to the latency of each piece; pieces never overtake each other."""
    bytes_per_s: float | None = None
    slice_bytes: int | None = None
    """Write so many at a time."""
    reset_after_bytes: int | None = None
    """Let so many more through, then reset their connection, once."""
    is_half_open: bool = False
    """Swallow everything, the end of the stream too. A connection that has lost something this way
    gets nothing through any more."""
    is_stalled: bool = False
    """Read nothing, so that the sender's buffers fill; what was read goes on its way."""
    flips_per_byte: float = 0.0
    flip_bits: int = 0xFF
    """Which bits of a byte may be flipped; each flip changes at least one of them."""


class Direction(Toxics):
    """One direction of the proxy: its toxics, and what went through."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        self.num_bytes = 0
        """That were written to the receiver."""
        self.num_flips = 0
        self.on_data: Callable[[bytes], None] = lambda data: None
        """Hears everything that comes in, before a toxic does anything to it."""
        self._random = random.Random(seed)
        self._until_flip: int | None = None
        self._changed = asyncio.Event()

    def set(self, **toxics: float | None) -> None:
        """Change these toxics and leave the others."""
        names = {field.name for field in fields(Toxics)}
        if unknown := toxics.keys() - names:
            raise TypeError(f"no such toxic: {', '.join(sorted(unknown))}")
        for name, value in toxics.items():
            setattr(self, name, value)
        self._until_flip = None
        self._changed.set()
        self._changed = asyncio.Event()

    def clear(self) -> None:
        self.set(**vars(Toxics()))

    async def may_read(self) -> None:
        while self.is_stalled:
            await self._changed.wait()

    def delay_s(self) -> float:
        return self.latency_s + self.jitter_s * self._random.random()

    def spoil(self, data: bytes) -> bytes:
        """Flip bits of the bytes whose turn it is."""
        if not self.flips_per_byte:
            return data
        spoilt, at = bytearray(data), 0
        while True:
            if self._until_flip is None:
                self._until_flip = int(self._random.expovariate(self.flips_per_byte))
            if (at := at + self._until_flip) >= len(data):
                self._until_flip = at - len(data)
                return bytes(spoilt)
            bits = [1 << i for i in range(8) if self.flip_bits >> i & 1]
            spoilt[at] ^= sum(self._random.sample(bits, self._random.randint(1, len(bits))))
            self.num_flips += 1
            at, self._until_flip = at + 1, None


class ChaosProxy:
    def __init__(self, to_port: int, seed: int = 0) -> None:
        self.port = 0
        self._news = asyncio.Event()
        self.up = Direction(seed)
        """To the daemon."""
        self.down = Direction(seed + 1)
        self.opened_s: list[float] = []
        """When each connection so far was accepted, by the monotonic clock."""
        self.num_resets = 0
        """Connections that a toxic or `reset` has reset."""
        self._to_port = to_port
        self._open: dict[asyncio.Task[None], list[asyncio.StreamWriter]] = {}

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    @property
    def num_connections(self) -> int:
        """Accepted so far."""
        return len(self.opened_s)

    @property
    def num_open(self) -> int:
        return len(self._open)

    async def until(self, is_so: Callable[[], bool]) -> None:
        """Wait until what has gone through is so."""
        while not is_so():
            self._news.clear()
            await self._news.wait()

    def set(self, **toxics: float | None) -> None:
        """Change these toxics in both directions."""
        self.up.set(**toxics)
        self.down.set(**toxics)

    def clear(self) -> None:
        self.up.clear()
        self.down.clear()

    def reset(self) -> None:
        """Reset every connection now."""
        for writers in self._open.values():
            self.num_resets += 1
            _reset(writers)

    def accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.opened_s.append(time.monotonic())
        self._news.set()
        writers = [writer]
        task = asyncio.get_running_loop().create_task(self._carry(reader, writers))
        self._open[task] = writers
        task.add_done_callback(self._open.pop)

    async def close(self) -> None:
        """Reset what is open, and wait until nothing is left of it."""
        tasks = list(self._open)
        for writers in self._open.values():
            _reset(writers)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _carry(
        self, reader: asyncio.StreamReader, writers: list[asyncio.StreamWriter]
    ) -> None:
        """One connection, from its first byte to its last."""
        try:
            there, to_daemon = await asyncio.open_connection("127.0.0.1", self._to_port)
            writers.append(to_daemon)
            for writer in writers:
                _send_at_once(writer)
            async with asyncio.TaskGroup() as group:
                ends = asyncio.Barrier(2)
                group.create_task(self._pass(reader, to_daemon, self.up, writers, ends))
                group.create_task(self._pass(there, writers[0], self.down, writers, ends))
        except* OSError:
            # One end is gone hard, or was never there: so is the other.
            _reset(writers)
        finally:
            for writer in writers:
                writer.close()
            for writer in writers:
                with suppress(OSError):
                    await writer.wait_closed()

    async def _pass(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        direction: Direction,
        writers: list[asyncio.StreamWriter],
        ends: asyncio.Barrier,
    ) -> None:
        pieces: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue()
        in_flight = _Room(_IN_FLIGHT_BYTES)
        async with asyncio.TaskGroup() as group:
            group.create_task(self._take(reader, direction, pieces, in_flight, ends))
            group.create_task(self._give(writer, direction, pieces, in_flight, writers))

    async def _take(
        self,
        reader: asyncio.StreamReader,
        direction: Direction,
        pieces: asyncio.Queue[tuple[float, bytes]],
        in_flight: _Room,
        ends: asyncio.Barrier,
    ) -> None:
        loop = asyncio.get_running_loop()
        due_s, has_lost = 0.0, False
        while True:
            await direction.may_read()
            try:
                data = await reader.read(_READ_BYTES)
            except OSError:
                if direction.is_half_open or has_lost:
                    data = b""
                else:
                    raise
            direction.on_data(data)
            has_lost = has_lost or direction.is_half_open
            if has_lost and data:
                continue
            if has_lost:
                # The receiver does not hear of this end: it waits until it gives up by itself.
                await ends.wait()
            due_s = max(due_s, loop.time() + direction.delay_s())
            pieces.put_nowait((due_s, direction.spoil(data)))
            if not data:
                break
            await in_flight.take(len(data))
        if not has_lost:
            await ends.wait()

    async def _give(
        self,
        writer: asyncio.StreamWriter,
        direction: Direction,
        pieces: asyncio.Queue[tuple[float, bytes]],
        in_flight: _Room,
        writers: list[asyncio.StreamWriter],
    ) -> None:
        loop = asyncio.get_running_loop()
        free_s = 0.0
        while True:
            due_s, data = await pieces.get()
            if (wait_s := due_s - loop.time()) > 0:
                await asyncio.sleep(wait_s)
            if not data:
                writer.write_eof()
                return
            for piece in _slices(data, direction):
                if (left := direction.reset_after_bytes) is not None:
                    piece = piece[:left]
                    direction.reset_after_bytes = left - len(piece)
                writer.write(piece)
                await writer.drain()
                direction.num_bytes += len(piece)
                self._news.set()
                if direction.reset_after_bytes == 0:
                    direction.reset_after_bytes = None
                    self.num_resets += 1
                    _reset(writers)
                    return
                if rate := direction.bytes_per_s:
                    free_s = max(free_s, loop.time()) + len(piece) / rate
                await asyncio.sleep(max(0.0, free_s - loop.time()))
            in_flight.give(len(data))


class _Room:
    """Bytes that may be under way; taking waits while there are none left."""

    def __init__(self, size: int) -> None:
        self._left = size
        self._is_free = asyncio.Event()
        self._is_free.set()

    async def take(self, size: int) -> None:
        """Take first and wait after, so that one piece larger than the room still goes through."""
        self._left -= size
        if self._left <= 0:
            self._is_free.clear()
        await self._is_free.wait()

    def give(self, size: int) -> None:
        self._left += size
        if self._left > 0:
            self._is_free.set()


def _slices(data: bytes, direction: Direction) -> Iterator[bytes]:
    """The toxics are read anew for each slice."""
    at = 0
    while at < len(data):
        size = direction.slice_bytes or len(data)
        if direction.bytes_per_s and not direction.slice_bytes:
            # Twenty pieces a second look like a slow link, not like a fast one with gaps.
            size = max(1, int(direction.bytes_per_s / 20))
        yield data[at : at + size]
        at += size


def _send_at_once(writer: asyncio.StreamWriter) -> None:
    """What is drained has left for the kernel, and the kernel sends each slice by itself."""
    writer.transport.set_write_buffer_limits(high=0)
    connection: socket.socket = writer.get_extra_info("socket")
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


def _reset(writers: list[asyncio.StreamWriter]) -> None:
    for writer in writers:
        connection: socket.socket = writer.get_extra_info("socket")
        with suppress(OSError):
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        writer.transport.abort()


@asynccontextmanager
async def chaos_proxy(to_port: int, seed: int = 0) -> AsyncIterator[ChaosProxy]:
    """A proxy to this port of loopback, harmless at first."""
    proxy = ChaosProxy(to_port, seed)
    async with await asyncio.start_server(proxy.accept, "127.0.0.1", 0) as server:
        for listener in server.sockets:
            # Inherited by each connection: the kernel's own room hides a slow or stalled link.
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _READ_BYTES)
        proxy.port = server.sockets[0].getsockname()[1]
        try:
            yield proxy
        finally:
            server.close()
            await proxy.close()
