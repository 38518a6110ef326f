"""How fedconsole reaches a daemon: with or without TLS, only those that may answer, failures in words.

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
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidMessage, InvalidURI
from websockets.frames import Close, CloseCode
from websockets.typing import Subprotocol

from fedconsole.errors import (
    DamagedDeviceError,
    FedconsoleError,
    IdentityChangedError,
    NotPairedError,
)
from fedconsole.fleet.device import is_loopback, is_same_place, parse_address, reachable
from fedconsole.trust import known_devices
from fedconsole.trust.known_devices import KnownDevice, KnownDevices
from pi_daemon.discovery import registered_daemons
from pi_daemon.liveness import ConsoleConnection
from pi_daemon.protocol.codec import common_version, decode_from_daemon, encode, no_common_version
from pi_daemon.protocol.errors import FrameError, ProtocolError
from pi_daemon.protocol.limits import (
    CLOSE_NO_COMMON_VERSION,
    CLOSE_NOT_ADMITTED,
    CLOSE_NOT_PAIRED,
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
_REFUSED_KEY: Final = ("UNKNOWN_CA", "CERTIFICATE_UNKNOWN", "BAD_CERTIFICATE", "ACCESS_DENIED")
"""How a daemon's TLS says that it does not admit this console's certificate (RFC 8446, 6.2)."""
_BROKEN: Final = frozenset(
    {CloseCode.PROTOCOL_ERROR, CloseCode.INVALID_DATA, CloseCode.MESSAGE_TOO_BIG}
)
"""With which the websockets library closes a link on which the device has broken its rules."""
_HOW_TO_PAIR: Final = (
    "run pi-daemon pair there, then fedconsole pair 'fp1:...' here, with the line that it prints"
)
_NO_TLS: Final = (
    "what answers there does not speak TLS 1.3, and nothing was told to it; if it is your device, "
    "start pi-daemon --pair on it and pair with it, else look at the address"
)


class HungUpError(ConnectionError):
    """Whoever answers hangs up at the beginning of a link with TLS."""


class WrongDeviceError(ConnectionError):
    """Another device answers at an address; nothing was sent to it."""


class NoCommonVersionError(ProtocolError):
    """The device speaks other versions of the protocol; it was told so."""


LINK_ERRORS: Final = (
    *(OSError, TimeoutError, ConnectionClosed, InvalidHandshake, InvalidURI, UnicodeError),
    *(ProtocolError, FedconsoleError),
)
"""How a link ends, or does not come about."""


class Link(ConsoleConnection):
    """A connection to whoever was dialled."""

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
    if way.tls is None:
        link = await open_socket(f"ws://{address}")
    else:
        from pi_daemon.trust.tls import UnknownKeyError

        try:
            link = await _open_tls(address, way.tls)
        except UnknownKeyError as error:
            raise _who_else(address, way, device_id, error.certificate) from error
    async with link:
        assert isinstance(link, Link)
        link.expected_id = device_id
        if way.tls is not None:
            link.device_id, link.own_id = _proved(link, way, address), way.own_id
            await asyncio.to_thread(known_devices.met, link.device_id, address)
        yield link


async def _open_tls(address: str, tls: ssl.SSLContext) -> ClientConnection:
    """Raises NotPairedError, HungUpError, and as `dial`."""
    try:
        return await open_socket(f"wss://{address}", tls)
    except InvalidMessage as error:
        raise HungUpError("the device hung up in the handshake") from error
    except (ConnectionResetError, ConnectionAbortedError) as error:
        raise HungUpError(_NO_TLS) from error
    except ssl.SSLError as error:
        if _is_refused_key(error):
            raise _not_admitted("") from error
        raise


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
    if meant is None and is_loopback(address) and not _has_tls_here(address, known):
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
    return _Way(known, expected, console_context(keys, certificates), keys.id)


def _has_tls_here(address: str, known: KnownDevices) -> bool:
    """Whether TLS is spoken at an address of loopback: ports there are given anew every day, but
    this user's own daemons leave word of themselves."""
    for daemon in registered_daemons():
        if is_same_place(parse_address(f"[{reachable(daemon.address)}]:{daemon.port}"), address):
            return daemon.is_initialised
    # It could be that of a device whose file cannot be read.
    return known.at(address) is not None or bool(known.damaged)


def _proved(link: Link, way: _Way, address: str) -> str:
    """Whose key the other side has proved; raises WrongDeviceError: nobody's who was expected."""
    from pi_daemon.trust.tls import peer_certificate

    device_id = _id_shown(peer_certificate(link.transport.get_extra_info("ssl_object")))
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
        f"nothing was told to it; if it is yours, {_HOW_TO_PAIR}"
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
    return NotPairedError(
        f"the device at {address} is not paired with this console: {_HOW_TO_PAIR}"
    )


def _not_admitted(reason: str) -> NotPairedError:
    return NotPairedError(
        clean(reason) or "this console is not paired there, or was revoked: pair it again"
    )


def _is_refused_key(error: ssl.SSLError) -> bool:
    """Whether the other side says that it does not admit this console's certificate."""
    return any(reason in (error.reason or "") for reason in _REFUSED_KEY)


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
    that was dialled."""
    if link.device_id not in (None, hello.id):
        raise WrongDeviceError(
            f"the device with the key of {link.device_id} says that it is {clean(hello.id, 64)}"
        )
    if not hello.id.startswith(link.expected_id or ""):
        raise WrongDeviceError(
            f"another device answers: {clean(hello.id, 64)}, not {link.expected_id}"
        )


def why_closed(error: ConnectionClosed) -> Exception:
    """NotPairedError if a device has closed the link for that reason, else the error itself."""
    match error:
        case ConnectionClosed(rcvd=Close(code=code, reason=reason)) if code in (
            CLOSE_NOT_PAIRED,
            CLOSE_NOT_ADMITTED,
        ):
            return _not_admitted(reason)
        case ConnectionClosed(__cause__=ssl.SSLError() as cause) if _is_refused_key(cause):
            return _not_admitted("")
        case _:
            return error


# Failures


def in_words(error: BaseException) -> str:
    """Why a device cannot be reached or was lost, for the operator."""
    match error:
        case TimeoutError():
            return "no answer in time; is it on, and in this network?"
        case UnicodeError():
            return "that is no host's name"
        case ConnectionRefusedError():
            return "connection refused; is pi-daemon running there?"
        case WrongDeviceError() | HungUpError() | FedconsoleError():
            return str(error)
        case ssl.SSLError(reason=str(reason)):
            return _tls_in_words(reason)
        case ConnectionClosed(rcvd=Close(code=code, reason=reason)):
            return clean(reason) or f"closed by the device ({code})"
        case ConnectionClosed(sent=Close(code=code, reason=str(broken))) if code in _BROKEN:
            return f"the device broke the protocol: {clean(broken)}"
        case ConnectionClosed(__cause__=TimeoutError() as silence):
            return str(silence)
        case ConnectionClosed():
            return "the connection was lost"
        case InvalidMessage():
            return f"no pi-daemon without TLS answers there; if it is initialised, {_HOW_TO_PAIR}"
        case InvalidHandshake() | FrameError():
            return f"no pi-daemon answers there: {clean(str(error))}"
        case OSError(strerror=str(words)):
            return words
        case _:
            return clean(str(error)) or type(error).__name__


def _tls_in_words(reason: str) -> str:
    if reason in ("WRONG_VERSION_NUMBER", "RECORD_LAYER_FAILURE", "PACKET_LENGTH_TOO_LONG"):
        return _NO_TLS
    if "PROTOCOL_VERSION" in reason or "UNSUPPORTED_PROTOCOL" in reason:
        return "an older TLS than 1.3 is spoken there: it is no pi-daemon"
    return f"TLS failed: {reason.lower().replace('_', ' ')}"
