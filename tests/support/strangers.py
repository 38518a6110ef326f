"""Who answers at an address and is no device that a console knows."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from pi_daemon.trust.keys import Keys, open_keys
from pi_daemon.trust.tls import device_context


@dataclass
class Stranger:
    """Takes every connection, and all that is said on it."""

    port: int = 0
    num_connections: int = 0
    heard: bytearray = field(default_factory=bytearray)
    """Of all connections; what came through TLS, deciphered."""
    keys: Keys | None = None

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    async def listen(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.num_connections += 1
        try:
            while data := await reader.read(1 << 16):
                self.heard += data
        except OSError:
            pass
        finally:
            writer.transport.abort()


@asynccontextmanager
async def stranger(
    folder: Path, *, port: int = 0, host: str = "127.0.0.1", tls: bool = True, newest: bool = True
) -> AsyncIterator[Stranger]:
    """One that listens at a port, with a key of its own unless it speaks no TLS.

    Args:
        newest: otherwise it speaks TLS 1.2 at most.
    """
    found = Stranger()
    context = None
    if tls:
        found.keys = open_keys(folder / "stranger")
        context = device_context(found.keys, [])
        if not newest:
            context.minimum_version = ssl.TLSVersion.TLSv1_2
            context.maximum_version = ssl.TLSVersion.TLSv1_2
    server = await asyncio.start_server(found.listen, host, port, ssl=context)
    found.port = server.sockets[0].getsockname()[1]
    try:
        yield found
    finally:
        server.close()
