"""Consoles with keys of their own that pair with real daemons."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import msgspec
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed
from websockets.typing import Subprotocol

from pi_daemon.liveness import ConsoleConnection
from pi_daemon.protocol.limits import MAX_FRAME_BYTES, SUBPROTOCOL
from pi_daemon.protocol.pairing import PATH, Pair, Paired, decode_paired, to_be_signed
from pi_daemon.trust.join import parse_join
from pi_daemon.trust.keys import Keys, der_to_pem, key_id, open_keys, prove
from pi_daemon.trust.tls import console_context, peer_certificate
from tests.support.daemons import DaemonProcess, daemon

WAIT_S = 60.0


@dataclass(frozen=True)
class PairedConsole:
    keys: Keys
    device: bytes
    """The certificate (DER) of the device that it knows."""
    told: Paired

    @property
    def context(self) -> ssl.SSLContext:
        return console_context(self.keys, [self.device])


async def pair(
    join: str,
    keys: Keys,
    name: str = "desk-1",
    *,
    from_address: str = "127.0.0.1",
    certificate: bytes | None = None,
) -> PairedConsole:
    """Pair as a console does; raises ConnectionClosed: the daemon would not.

    Args:
        from_address: may try once a second: every one of 127.0.0.0/8 will do.
        certificate: another (DER) than that of the keys.
    """
    found = parse_join(join)
    context = console_context(None, [])
    async with open_socket(found.port, context, PATH, from_address=from_address) as socket:
        device = peer_certificate(socket.transport.get_extra_info("ssl_object"))
        assert device is not None
        assert key_id(device) == found.device_id
        question = Pair(
            secret=found.secret,
            name=name,
            certificate=der_to_pem(certificate or keys.certificate),
            proof=prove(keys, to_be_signed(found.device_id, found.secret)),
        )
        await socket.send(msgspec.json.encode(question).decode())
        return PairedConsole(keys, device, decode_paired(await socket.recv()))


def open_socket(
    port: int,
    tls: ssl.SSLContext | None = None,
    path: str = "/",
    *,
    from_address: str = "127.0.0.1",
) -> connect:
    """A websocket to a daemon, to be entered: as a console opens it, nothing said yet."""
    return connect(
        f"{'wss' if tls else 'ws'}://127.0.0.1:{port}{path}",
        ssl=tls,
        subprotocols=[Subprotocol(SUBPROTOCOL)],
        compression=None,
        max_size=MAX_FRAME_BYTES,
        local_addr=(from_address, 0),
        create_connection=ConsoleConnection if tls else None,
    )


async def closing(link: ClientConnection) -> tuple[int | None, str | None]:
    """Code and reason with which the daemon closes, after whatever it still says."""
    async with asyncio.timeout(WAIT_S):
        with suppress(ConnectionClosed):
            while True:
                await link.recv()
    return link.close_code, link.close_reason


@asynccontextmanager
async def paired_daemon(
    folder: Path, *options: str, name: str = "alice"
) -> AsyncIterator[tuple[DaemonProcess, PairedConsole]]:
    """An initialised daemon on loopback, and the one console that is paired with it."""
    async with daemon(folder, "--host", "127.0.0.1", "--pair", *options, name=name) as running:
        yield running, await pair(running.join, open_keys(folder / f"console of {name}"))
