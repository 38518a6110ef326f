"""A TCP relay between a console and a daemon that a test can stop in mid-transfer."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

UNLIMITED = 1 << 60


class Relay:
    def __init__(self, to_port: int) -> None:
        self.port = 0
        self.limits: list[int] = []
        """Bytes to the daemon on the first connection, the next, ...; then there is no limit."""
        self.cuts = True
        """Close a connection at its limit; otherwise hold it until the daemon goes away."""
        self.passed: list[int] = []
        """Bytes that went to the daemon, connection by connection, in the order of their ends."""
        self._to_port = to_port

    async def carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        limit = self.limits.pop(0) if self.limits else UNLIMITED
        ends = [writer]
        try:
            there_reader, there_writer = await asyncio.open_connection("127.0.0.1", self._to_port)
            ends.append(there_writer)
            async with asyncio.TaskGroup() as group:
                back = group.create_task(_pass_back(there_reader, writer))
                passed = await _copy(reader, there_writer, limit)
                self.passed.append(passed)
                if passed == limit and not self.cuts:
                    await back
                # What was written goes out before the end.
                await _close(there_writer)
                back.cancel()
        except ConnectionRefusedError:
            pass
        finally:
            for end in ends:
                end.transport.abort()
                await _close(end)


async def _pass_back(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await _copy(reader, writer, UNLIMITED)
    await _close(writer)


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, limit: int) -> int:
    """Copy until the limit or the end; the bytes copied."""
    copied = 0
    with suppress(ConnectionError):
        while copied < limit and (data := await reader.read(min(1 << 16, limit - copied))):
            writer.write(data)
            await writer.drain()
            copied += len(data)
    return copied


async def _close(writer: asyncio.StreamWriter) -> None:
    with suppress(ConnectionError):
        writer.close()
        await writer.wait_closed()


@asynccontextmanager
async def relay(to_port: int) -> AsyncIterator[Relay]:
    running = Relay(to_port)
    connections: list[asyncio.Task[None]] = []

    def on_connection(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.get_running_loop().create_task(running.carry(reader, writer))
        connections.append(task)

    async with await asyncio.start_server(on_connection, "127.0.0.1", 0) as server:
        running.port = server.sockets[0].getsockname()[1]
        try:
            yield running
        finally:
            server.close()
            for connection in connections:
                connection.cancel()
            await asyncio.gather(*connections, return_exceptions=True)
