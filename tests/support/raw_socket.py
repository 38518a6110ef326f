"""A console that speaks HTTP and websocket frames by hand, byte by byte as it likes."""

from __future__ import annotations

import asyncio
import ssl
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from pi_daemon.protocol.limits import SUBPROTOCOL

WAIT_S = 30.0
TEXT, BINARY, CLOSE, PING = 1, 2, 8, 9


class RawSocket:
    """After the handshake. Frames from the daemon are small: control frames and messages."""

    def __init__(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, answer: str
    ) -> None:
        self.answer = answer
        """To the handshake: status line and headers."""
        self.writer = writer
        self.reader = reader

    def write(
        self, opcode: int, payload: bytes, *, fin: bool = True, rsv: int = 0, masked: bool = True
    ) -> None:
        """One frame. The mask is zero, so that masking changes nothing."""
        size = len(payload)
        header = bytes([fin << 7 | rsv << 4 | opcode])
        if size < 126:
            header += bytes([masked << 7 | size])
        elif size < 1 << 16:
            header += bytes([masked << 7 | 126]) + struct.pack(">H", size)
        else:
            header += bytes([masked << 7 | 127]) + struct.pack(">Q", size)
        self.writer.write(header + bytes(4 if masked else 0) + payload)

    async def close_code(self) -> int | None:
        """With which code the daemon closes; None: it drops the connection without one."""
        async with asyncio.timeout(WAIT_S):
            try:
                while True:
                    opcode, payload = await self._frame()
                    if opcode == CLOSE:
                        return int(struct.unpack(">H", payload[:2])[0])
            except (asyncio.IncompleteReadError, ConnectionError):
                return None

    async def ping_until_dropped(self) -> None:
        """Send pings and read none of their answers.

        Raises:
            AssertionError: 64 MiB have been taken.
        """
        self.writer.transport.pause_reading()  # type: ignore[attr-defined]
        try:
            for _ in range(1_000):
                for _ in range(512):
                    self.write(PING, bytes(125))
                await self.writer.drain()
                # Where nothing waits, `drain` gives nobody else a turn.
                await asyncio.sleep(0)
        except ConnectionError:
            return
        raise AssertionError("64 MiB of pings were taken")

    async def _frame(self) -> tuple[int, bytes]:
        first, size = await self.reader.readexactly(2)
        if size == 126:
            (size,) = struct.unpack(">H", await self.reader.readexactly(2))
        elif size == 127:
            (size,) = struct.unpack(">Q", await self.reader.readexactly(8))
        return first & 15, await self.reader.readexactly(size)


@asynccontextmanager
async def raw_socket(
    port: int, *headers: str, tls: ssl.SSLContext | None = None
) -> AsyncIterator[RawSocket]:
    """Connect, and upgrade to a websocket with these further headers."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=tls)
    lines = [
        "GET / HTTP/1.1",
        f"Host: 127.0.0.1:{port}",
        "Upgrade: websocket",
        "Connection: Upgrade",
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
        "Sec-WebSocket-Version: 13",
        f"Sec-WebSocket-Protocol: {SUBPROTOCOL}",
        *headers,
    ]
    writer.write("\r\n".join([*lines, "", ""]).encode())
    try:
        async with asyncio.timeout(WAIT_S):
            answer = (await reader.readuntil(b"\r\n\r\n")).decode()
        assert answer.startswith("HTTP/1.1 101 "), answer
        yield RawSocket(reader, writer, answer)
    finally:
        writer.transport.abort()
