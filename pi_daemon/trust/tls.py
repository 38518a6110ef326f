"""TLS between a device and the consoles that it knows: version 1.3, keys compared, nobody else asked."""

from __future__ import annotations

import _ssl
import ssl
import sys
from collections.abc import Iterable

from pi_daemon.trust.keys import Keys


def device_context(keys: Keys, consoles: Iterable[bytes]) -> ssl.SSLContext:
    """The device's end. A certificate is not required, so that a console that is new can pair: who
    shows none, and who is not admitted any more, the daemon turns away itself.

    Args:
        consoles: certificates (DER) of those that are admitted; `trust` adds to them later.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.sslobject_class = _DeviceEnd
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.load_cert_chain(keys.certificate_path, keys.key_path)
    context.verify_mode = ssl.CERT_OPTIONAL
    # A ticket would let a console in again that was revoked meanwhile.
    context.num_tickets = 0
    for certificate in consoles:
        trust(context, certificate)
    return context


class _DeviceEnd(ssl.SSLObject):
    """Tells a console that its certificate is not known here.

    asyncio drops a connection at the first error, and the alert that waits to be sent with it. So it
    is given none: the console hangs up, or the time for the handshake runs out.
    """

    _is_refused = False

    def do_handshake(self) -> None:
        if self._is_refused:
            raise ssl.SSLWantReadError
        try:
            super().do_handshake()
        except ssl.SSLCertVerificationError as error:
            self._is_refused = True
            raise ssl.SSLWantReadError from error


def console_context(keys: Keys | None, devices: Iterable[bytes]) -> ssl.SSLContext:
    """The console's end.

    Args:
        keys: None: it shows no certificate, which only pairing does.
        devices: certificates (DER) of the devices that may answer. None at all: anybody may, and the
            caller compares the key before it sends anything.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.sslobject_class = _ConsoleEnd
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    # Addresses change, and names repeat: the key is what counts.
    context.check_hostname = False
    certificates = list(devices)
    if not certificates:
        context.verify_mode = ssl.CERT_NONE
    for certificate in certificates:
        trust(context, certificate)
    if keys is not None:
        context.load_cert_chain(keys.certificate_path, keys.key_path)
    return context


class UnknownKeyError(ssl.SSLCertVerificationError):
    """Whoever answers a console has another key than those that may."""

    certificate: bytes | None = None
    """What it has shown (DER), whatever that is; None: nothing."""


class _ConsoleEnd(ssl.SSLObject):
    """Keeps what was shown in a handshake that fails: in a second one, whoever has shown it could
    hide it."""

    def do_handshake(self) -> None:
        try:
            super().do_handshake()
        except ssl.SSLCertVerificationError as error:
            unknown = UnknownKeyError(*error.args)
            unknown.reason = error.reason
            unknown.certificate = next(iter(_shown(self)), None)
            raise unknown from error


def _shown(connection: ssl.SSLObject) -> list[bytes]:
    if sys.version_info >= (3, 13):
        return connection.get_unverified_chain()
    # The same, before it had a public name.
    chain = connection._sslobj.get_unverified_chain()  # type: ignore[attr-defined]
    return [certificate.public_bytes(_ssl.ENCODING_DER) for certificate in chain or ()]


def trust(context: ssl.SSLContext, certificate: bytes) -> None:
    """Accept one more certificate (DER), from the next handshake on."""
    context.load_verify_locations(cadata=certificate)


def peer_certificate(connection: ssl.SSLObject) -> bytes | None:
    """What the other side has shown (DER); None: nothing."""
    return connection.getpeercert(binary_form=True)
