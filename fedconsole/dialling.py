"""How fedconsole reaches a daemon: with or without TLS, and only those that may answer.

Who is not known here is refused before a connection is made; who does not prove the key that is
known, before anything is sent.
"""

from __future__ import annotations

import asyncio
import platform
import secrets
import ssl
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from importlib.metadata import version
from typing import Final

from msgspec.structs import replace
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidMessage
from websockets.typing import Subprotocol

from fedconsole.errors import (
    DamagedDeviceError,
    IdentityChangedError,
    NotPairedError,
)
from fedconsole.fleet.device import is_loopback, is_same_place, parse_address, reachable
from fedconsole.link_failures import (
    HOW_TO_PAIR,
    NoCommonVersionError,
    NoTlsError,
    WrongDeviceError,
    why_closed,
    why_not_opened,
)
from fedconsole.trust import known_devices
from fedconsole.trust.known_devices import KnownDevice, KnownDevices
from pi_daemon.discovery import registered_daemons
from pi_daemon.liveness import ConsoleConnection
from pi_daemon.protocol.codec import common_version, decode_from_daemon, encode, no_common_version
from pi_daemon.protocol.errors import ProtocolError
from pi_daemon.protocol.limits import (
    CLOSE_NO_COMMON_VERSION,
    MAX_FRAME_BYTES,
    MIN_PROTO,
    PING_S,
    PONG_S,
    PROTO,
    SUBPROTOCOL,
)
from pi_daemon.protocol.messages import Hello, Role
from pi_daemon.protocol.text import clean

_BOOT_ID = secrets.token_hex(8)
_OPEN_S: Final = 5.0
_HELLO_S: Final = 5.0


class Link(ConsoleConnection):
    """A connection to whoever was dialled."""

    known: KnownDevices = KnownDevices(())
    """As they were when it was made."""
    device_id: str | None = None
    """The one that has proved its key; None: a plain link on this machine proves nothing."""
    own_id: str | None = None
    """What this console has proved to it."""
    expected_id: str | None = None
    """Who was dialled, or the beginning of its id."""


class _Connect(connect):
    def process_redirect(self, exc: Exception) -> Exception | str:
        # Where a device sends its caller, none was dialled.
        return exc


@dataclass(frozen=True, slots=True)
class _Way:
    """How an address is to be dialled."""

    known: KnownDevices
    expected: Sequence[KnownDevice] = ()
    """Those that may answer; none: a plain link."""
    tls: ssl.SSLContext | None = None
    own_id: str | None = None
    may_be_plain: bool = False
    """Whoever shows no sign of TLS is dialled without."""


@asynccontextmanager
async def dial(address: str, device_id: str | None = None) -> AsyncIterator[Link]:
    """Connect to HOST:PORT. docs/protocol.md, section 1.

    Args:
        device_id: whose key must be proved, or its beginning; None: any known device may answer.

    Raises:
        NotPairedError: the device is not known here, or does not admit this console.
        IdentityChangedError: it is known, and another key answers where it was.
        WrongDeviceError: it is another one.
        DamagedDeviceError: what is kept of it is damaged.
        RefusedError, StorageError: this console's own files are damaged.
        OSError, InvalidHandshake, InvalidURI, TimeoutError: nothing answers that could be one.
    """
    way = await asyncio.to_thread(_find_way, address, device_id)
    async with await _open(address, device_id, way) as link:
        assert isinstance(link, Link)
        link.known, link.expected_id = way.known, device_id
        if (tls := link.transport.get_extra_info("ssl_object")) is not None:
            link.device_id, link.own_id = _proved(tls, way, address), way.own_id
            await asyncio.to_thread(known_devices.met, link.device_id, address)
        yield link


async def _open(address: str, device_id: str | None, way: _Way) -> ClientConnection:
    """Raises HungUpError, and as `dial`."""
    if way.tls is not None:
        from pi_daemon.trust.tls import UnknownKeyError

        try:
            return await open_socket(f"wss://{address}", way.tls)
        except UnknownKeyError as error:
            raise _who_else(address, way, device_id, error.certificate) from error
        except (OSError, InvalidMessage) as error:
            why = why_not_opened(error)
            if not (way.may_be_plain and isinstance(why, NoTlsError)):
                raise why from error
    return await open_socket(f"ws://{address}")


def open_socket(uri: str, tls: ssl.SSLContext | None = None) -> connect:
    """A websocket with the protocol's settings, to be awaited or used as a context manager."""
    return _Connect(
        uri,
        ssl=tls,
        subprotocols=[Subprotocol(SUBPROTOCOL)],
        compression=None,
        proxy=None,
        max_size=MAX_FRAME_BYTES,
        max_queue=16,
        open_timeout=_OPEN_S,
        ping_interval=PING_S,
        ping_timeout=PONG_S,
        close_timeout=2,
        create_connection=Link,
        user_agent_header=None,
    )


def _find_way(address: str, device_id: str | None) -> _Way:
    """Raises NotPairedError: nobody who is known can be meant. DamagedDeviceError: who is meant, or
    all, cannot be told from their files."""
    known = known_devices.load()
    known.require_whole(device_id)
    meant = known.by_id(device_id)
    has_tls = meant is not None or not is_loopback(address) or _has_tls_here(address, known)
    if has_tls is False or (has_tls is None and (device_id is not None or not known.all)):
        return _Way(known)
    expected = [meant] if meant else known.all if device_id is None else []
    if not expected:
        raise next(iter(known.damaged.values() if device_id is None else ()), _not_paired(address))
    from fedconsole.trust.own_keys import own_keys
    from pi_daemon.trust.tls import console_context

    certificates = []
    for device in expected:
        try:
            certificates.append(known_devices.certificate_of(device))
        except DamagedDeviceError as error:
            damage = error
    if not certificates:
        raise damage
    keys = own_keys()
    tls = console_context(keys, certificates)
    return _Way(known, expected, tls, keys.id, may_be_plain=has_tls is None)


def _has_tls_here(address: str, known: KnownDevices) -> bool | None:
    """Whether TLS is spoken at an address of loopback; None: that is to be seen. Ports there are given
    anew every day, and may lead to another machine; this user's own daemons leave word of themselves.
    """
    for daemon in registered_daemons():
        if is_same_place(parse_address(f"[{reachable(daemon.address)}]:{daemon.port}"), address):
            return daemon.is_initialised
    # It could be that of a device whose file cannot be read.
    return True if known.at(address) is not None or known.damaged else None


def _proved(tls: ssl.SSLObject, way: _Way, address: str) -> str:
    """Whose key the other side has proved; raises WrongDeviceError: nobody's who was expected."""
    from pi_daemon.trust.tls import peer_certificate

    device_id = _id_shown(peer_certificate(tls))
    if not any(device.id == device_id for device in way.expected):
        raise WrongDeviceError(f"another device answers at {address}")
    return device_id


def _who_else(
    address: str, way: _Way, device_id: str | None, certificate: bytes | None
) -> Exception:
    """What is wrong with an address at which none of those answered who may."""
    found = _id_shown(certificate)
    if (other := way.known.by_id(found)) is not None:
        return WrongDeviceError(f"another device answers at {address}: {other.name} ({found})")
    was_there = KnownDevices(way.expected).at(address)
    if was_there is not None:
        return IdentityChangedError(address, was_there.name, was_there.id, found)
    shown = found or "its certificate cannot be read"
    if device_id is not None:
        return WrongDeviceError(f"another device answers at {address}: {shown}")
    return NotPairedError(
        f"the device at {address} has a key that is not paired with this console ({shown}), and "
        f"nothing was told to it; if it is yours, {HOW_TO_PAIR}"
    )


def _id_shown(certificate: bytes | None) -> str:
    """Whose key a certificate has; "" if that cannot be told: nobody's who is known."""
    from pi_daemon.trust.keys import CertificateError, key_id

    try:
        return key_id(certificate or b"")
    except CertificateError:
        return ""


async def peer_of(address: str) -> bytes:
    """The certificate (DER) of whoever answers there; raises OSError or TimeoutError: nobody does."""
    from pi_daemon.trust.tls import console_context, peer_certificate

    host, _, port = address.rpartition(":")
    async with asyncio.timeout(_OPEN_S):
        _, writer = await asyncio.open_connection(
            host.strip("[]"), int(port), ssl=console_context(None, [])
        )
    try:
        certificate = peer_certificate(writer.get_extra_info("ssl_object"))
    finally:
        writer.transport.abort()
    if certificate is None:
        raise ConnectionError("it shows no certificate")
    return certificate


def _not_paired(address: str) -> NotPairedError:
    return NotPairedError(f"the device at {address} is not paired with this console: {HOW_TO_PAIR}")


# Hello


def console_hello(role: Role) -> Hello:
    """What this console says first. On a plain link its id lasts as long as its process."""
    return Hello(
        proto=PROTO,
        min_proto=MIN_PROTO,
        id=f"console-{_BOOT_ID}",
        name=clean(platform.node(), 64) or "desktop",
        boot_id=_BOOT_ID,
        build=f"fedconsole {version('fedconsole')}",
        role=role,
    )


async def exchange_hellos(link: Link, ours: Hello) -> Hello:
    """Exchange hellos, the first thing on every link; what the device says.

    Raises:
        NotPairedError: it does not admit this console, or not in that role.
        DeviceFullError: it serves as many consoles as it can.
        WrongDeviceError: it gives itself another id than its key's.
        NoCommonVersionError: it speaks other versions of the protocol.
        ProtocolError: it is no device.
        ConnectionClosed, TimeoutError: it went away, or says nothing.
    """
    ours = ours if link.own_id is None else replace(ours, id=link.own_id)
    try:
        await link.send(encode(ours))
        async with asyncio.timeout(_HELLO_S):
            theirs = decode_from_daemon(await link.recv())
    except ConnectionClosed as error:
        raise why_closed(error) from error
    if not isinstance(theirs, Hello):
        raise ProtocolError(f"its first message is {type(theirs).__name__}, expected hello")
    _require_same(link, theirs)
    if common_version(ours, theirs) is None:
        reason = no_common_version(theirs)
        await link.close(CLOSE_NO_COMMON_VERSION, reason)
        raise NoCommonVersionError(reason)
    return theirs


def _require_same(link: Link, hello: Hello) -> None:
    """Raises WrongDeviceError: a device gives itself another id than the one that its key proves, or
    that was dialled; or that of a paired device, and proves no key."""
    if link.device_id not in (None, hello.id):
        raise WrongDeviceError(
            f"the device with the key of {link.device_id} says that it is {clean(hello.id, 64)}"
        )
    if link.device_id is None and (claimed := link.known.by_id(hello.id)) is not None:
        raise WrongDeviceError(
            f"what answers says that it is {claimed.name} ({claimed.id}), which is paired with this "
            "console, and proves no key"
        )
    if not hello.id.startswith(link.expected_id or ""):
        raise WrongDeviceError(
            f"another device answers: {clean(hello.id, 64)}, not {link.expected_id}"
        )
