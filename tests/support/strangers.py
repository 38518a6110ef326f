"""Who answers at an address and is no device that a console knows."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from pi_daemon.trust.keys import Keys, der_to_pem, key_id, open_keys
from pi_daemon.trust.tls import device_context
from tests.support.certificates import PrivateKey, pem_of, self_signed


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
    folder: Path,
    *,
    port: int = 0,
    host: str = "127.0.0.1",
    tls: bool = True,
    newest: bool = True,
    shows: Callable[[Keys], bytes] = lambda keys: keys.certificate,
    key: PrivateKey | None = None,
) -> AsyncIterator[Stranger]:
    """One that listens at a port, with a key of its own unless it speaks no TLS.

    Args:
        newest: otherwise it speaks TLS 1.2 at most.
        shows: the certificate (DER) that it shows.
        key: of any kind, in the place of one of its own.
    """
    found = Stranger()
    context = None
    if tls:
        found.keys = open_keys(folder / "stranger")
        if key is not None:
            found.keys = _keys_of(key, folder)
        context = device_context(found.keys, [])
        shown = folder / "shown.pem"
        shown.write_text(der_to_pem(shows(found.keys)))
        context.load_cert_chain(shown, found.keys.key_path)
        if not newest:
            context.minimum_version = ssl.TLSVersion.TLSv1_2
            context.maximum_version = ssl.TLSVersion.TLSv1_2
    server = await asyncio.start_server(found.listen, host, port, ssl=context)
    found.port = server.sockets[0].getsockname()[1]
    try:
        yield found
    finally:
        server.close()


def _keys_of(key: PrivateKey, folder: Path) -> Keys:
    certificate = self_signed(key)
    keys = Keys(key_id(certificate), folder / "other key", folder / "other.pem", certificate)
    keys.key_path.write_bytes(pem_of(key))
    keys.certificate_path.write_text(der_to_pem(certificate))
    return keys


def of_version_8(keys: Keys) -> bytes:
    """A certificate that TLS takes, and that cannot be parsed."""
    version = bytes.fromhex("a003020102")
    assert version in keys.certificate
    return keys.certificate.replace(version, bytes.fromhex("a003020107"))


@asynccontextmanager
async def shy_stranger(folder: Path, port: int, begins: bool) -> AsyncIterator[Stranger]:
    """One that shows its key on every second connection only, and hangs up on the others.

    Args:
        begins: it shows its key on the first.
    """
    found = Stranger(port, keys=open_keys(folder / "stranger"))
    assert found.keys is not None
    context = device_context(found.keys, [])

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        found.num_connections += 1
        if found.num_connections % 2 != begins:
            writer.transport.abort()
            return
        with suppress(OSError):
            await writer.start_tls(context)
            found.heard += await reader.read(1 << 16)
        writer.transport.abort()

    server = await asyncio.start_server(answer, "127.0.0.1", port)
    try:
        yield found
    finally:
        server.close()
