"""How a link to a daemon fails: the exceptions, and what an operator is told of them.

Makes no connection.
"""

from __future__ import annotations

import ssl
from typing import Final

from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidMessage, InvalidURI
from websockets.frames import Close, CloseCode

from fedconsole.errors import DeviceFullError, FedconsoleError, NotPairedError
from pi_daemon.protocol.errors import FrameError, ProtocolError
from pi_daemon.protocol.limits import CLOSE_NOT_ADMITTED, CLOSE_NOT_PAIRED, CLOSE_TOO_MANY_LINKS
from pi_daemon.protocol.text import clean

HOW_TO_PAIR: Final = (
    "run pi-daemon pair there, then fedconsole pair 'fp1:...' here, with the line that it prints"
)
_NO_TLS: Final = (
    "what answers there does not speak TLS 1.3, and nothing was told to it; if it is your device, "
    "start pi-daemon --pair on it and pair with it, else look at the address"
)
_NO_TLS_REASONS: Final = ("WRONG_VERSION_NUMBER", "RECORD_LAYER_FAILURE", "PACKET_LENGTH_TOO_LONG")
_REFUSED_KEY: Final = ("UNKNOWN_CA", "CERTIFICATE_UNKNOWN", "BAD_CERTIFICATE", "ACCESS_DENIED")
"""How a daemon's TLS says that it does not admit this console's certificate (RFC 8446, 6.2)."""
_BROKEN: Final = frozenset(
    {CloseCode.PROTOCOL_ERROR, CloseCode.INVALID_DATA, CloseCode.MESSAGE_TOO_BIG}
)
"""With which the websockets library closes a link on which the device has broken its rules."""


class HungUpError(ConnectionError):
    """Whoever answers hangs up at the beginning of a link with TLS."""


class NoTlsError(HungUpError):
    """Whoever answers shows no sign of TLS."""

    def __init__(self) -> None:
        super().__init__(_NO_TLS)


class WrongDeviceError(ConnectionError):
    """Another device answers at an address; nothing was sent to it."""


class NoCommonVersionError(ProtocolError):
    """The device speaks other versions of the protocol; it was told so."""


LINK_ERRORS: Final = (
    *(OSError, TimeoutError, ConnectionClosed, InvalidHandshake, InvalidURI, UnicodeError),
    *(ProtocolError, FedconsoleError),
)
"""How a link ends, or does not come about."""


def why_not_opened(error: OSError | InvalidMessage) -> Exception:
    """Why a link with TLS did not come about: NotPairedError, HungUpError, NoTlsError, or the error
    itself."""
    match error:
        case InvalidMessage():
            return HungUpError("the device hung up in the handshake")
        case ConnectionResetError() | ConnectionAbortedError():
            return NoTlsError()
        case ssl.SSLError(reason=str(reason)) if reason in _NO_TLS_REASONS:
            return NoTlsError()
        case ssl.SSLError() if _is_refused_key(error):
            return _not_admitted("")
        case _:
            return error


def why_closed(error: ConnectionClosed) -> Exception:
    """NotPairedError or DeviceFullError if a device has closed the link for that reason, else the error."""
    match error:
        case ConnectionClosed(rcvd=Close(code=code, reason=reason)) if code in (
            CLOSE_NOT_PAIRED,
            CLOSE_NOT_ADMITTED,
        ):
            return _not_admitted(reason)
        case ConnectionClosed(rcvd=Close(code=code, reason=reason)) if code == CLOSE_TOO_MANY_LINKS:
            return DeviceFullError(clean(reason) or "it serves as many consoles as it can")
        case ConnectionClosed(__cause__=ssl.SSLError() as cause) if _is_refused_key(cause):
            return _not_admitted("")
        case _:
            return error


def _not_admitted(reason: str) -> NotPairedError:
    return NotPairedError(
        clean(reason) or "this console is not paired there, or was revoked: pair it again"
    )


def _is_refused_key(error: ssl.SSLError) -> bool:
    """Whether the other side says that it does not admit this console's certificate."""
    return any(reason in (error.reason or "") for reason in _REFUSED_KEY)


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
        case ConnectionError() if not str(error):
            return "the other side hung up"
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
            return f"no pi-daemon without TLS answers there; if it is initialised, {HOW_TO_PAIR}"
        case InvalidHandshake() | FrameError():
            return f"no pi-daemon answers there: {clean(str(error))}"
        case OSError(strerror=str(words)):
            return words
        case _:
            return clean(str(error)) or type(error).__name__


def _tls_in_words(reason: str) -> str:
    if reason in _NO_TLS_REASONS:
        return _NO_TLS
    if "PROTOCOL_VERSION" in reason or "UNSUPPORTED_PROTOCOL" in reason:
        return "an older TLS than 1.3 is spoken there: it is no pi-daemon"
    return f"TLS failed: {reason.lower().replace('_', ' ')}"
