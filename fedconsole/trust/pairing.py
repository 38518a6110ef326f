"""Makes a device known to this console, and this console to the device, by a join string.

The device's key is compared with that of the string before anything is sent; the secret then goes
to that key alone.
"""

from __future__ import annotations

import asyncio
import platform
from collections.abc import Awaitable, Callable, Iterable
from datetime import UTC, datetime
from typing import Final

import msgspec
from websockets.exceptions import ConnectionClosed
from websockets.frames import Close

from fedconsole.dialling import open_socket, peer_of
from fedconsole.errors import NotPairedError
from fedconsole.link_failures import LINK_ERRORS, in_words
from fedconsole.trust import known_devices
from fedconsole.trust.known_devices import KnownDevice
from fedconsole.trust.own_keys import own_keys
from pi_daemon.protocol.limits import (
    CLOSE_NOT_ADMITTED,
    CLOSE_NOT_PAIRED,
    CLOSE_TOO_MANY_LINKS,
)
from pi_daemon.protocol.pairing import PATH, Pair, Paired, decode_paired, to_be_signed
from pi_daemon.protocol.text import clean
from pi_daemon.trust.join import JoinString
from pi_daemon.trust.keys import (
    CertificateError,
    Keys,
    der_to_pem,
    in_groups,
    key_id,
    pem_to_der,
    prove,
)
from pi_daemon.trust.tls import console_context

_ANSWER_S: Final = 10.0
_TOO_FAST_S: Final = 1.2
"""A device lets an address try once a second."""
_REFUSALS: Final = {
    CLOSE_NOT_PAIRED: "this join string was used, or is older than ten minutes, or another was printed "
    "since: give pi-daemon pair there again",
    CLOSE_NOT_ADMITTED: "the device does not take this secret: copy the whole line that "
    "pi-daemon pair printed last",
    CLOSE_TOO_MANY_LINKS: "too many tries at once there: wait a second, then try again",
}


class _TooFastError(NotPairedError):
    pass


class _OtherKeyError(NotPairedError):
    """Somebody else than the string says answers; nothing was sent."""


async def pair(
    join: JoinString, elsewhere: Callable[[], Awaitable[Iterable[str]]] | None = None
) -> KnownDevice:
    """Pair with the device that printed the string; it is stored on return.

    Args:
        elsewhere: gives further addresses to try, if the device does not answer at its own.

    Raises:
        NotPairedError: it could not be reached, is another one, or refuses; the message says why.
        RefusedError, StorageError: this console's own files are damaged, or cannot be written.
    """
    keys = await asyncio.to_thread(own_keys)
    try:
        return await _pair_at(join.address, join, keys)
    except _OtherKeyError as error:
        first: NotPairedError = error
    except (OSError, TimeoutError, UnicodeError) as error:
        first = NotPairedError(f"{join.address}: {in_words(error)}")
    for address in await elsewhere() if elsewhere else ():
        if address == join.address:
            continue
        try:
            return await _pair_at(address, join, keys)
        except (_OtherKeyError, OSError, TimeoutError, UnicodeError):
            continue  # what is announced may be anybody's
    raise first


async def _pair_at(address: str, join: JoinString, keys: Keys) -> KnownDevice:
    """Raises NotPairedError; OSError or TimeoutError: nobody answers there."""
    certificate = await peer_of(address)
    try:
        shown = in_groups(found := key_id(certificate))
    except CertificateError as error:
        shown, found = str(error), ""
    if found != join.device_id:
        raise _OtherKeyError(
            f"another device answers at {address}: {shown}, and the join string is of "
            f"{in_groups(join.device_id)}. Nothing was sent to it. Somebody may be in between, or the "
            "address is another's now: give pi-daemon pair on the device again"
        )
    try:
        # The rule of all that is kept, before anything is told.
        pem_to_der(der_to_pem(certificate))
    except CertificateError as error:
        raise _OtherKeyError(
            f"no pi-daemon answers at {address}, though it has the key of the join string: it shows "
            f"{error}. Nothing was sent to it"
        ) from error
    try:
        paired = await _ask(address, certificate, join, keys)
    except _TooFastError:
        await asyncio.sleep(_TOO_FAST_S)
        paired = await _ask(address, certificate, join, keys)
    device = KnownDevice(
        id=join.device_id,
        name=clean(paired.name, 64) or "device",
        role=paired.role,
        paired_at=datetime.now(UTC).isoformat(timespec="seconds"),
        certificate=der_to_pem(certificate),
        addresses=(address,),
    )
    await asyncio.to_thread(known_devices.remember, device)
    return device


async def _ask(address: str, certificate: bytes, join: JoinString, keys: Keys) -> Paired:
    question = Pair(
        secret=join.secret,
        name=clean(platform.node(), 64) or "desktop",
        certificate=der_to_pem(keys.certificate),
        proof=prove(keys, to_be_signed(join.device_id, join.secret)),
    )
    # Only that key can end this handshake; our own is not shown, as the device does not know it yet.
    tls = console_context(None, [certificate])
    try:
        async with open_socket(f"wss://{address}{PATH}", tls) as link:
            await link.send(msgspec.json.encode(question).decode())
            async with asyncio.timeout(_ANSWER_S):
                return decode_paired(await link.recv())
    except ConnectionClosed as error:
        raise _why_refused(error) from error
    except LINK_ERRORS as error:
        raise NotPairedError(f"{address}: {in_words(error)}") from error


def _why_refused(error: ConnectionClosed) -> NotPairedError:
    match error:
        case ConnectionClosed(rcvd=Close(code=code, reason=reason)) if code in _REFUSALS:
            words = f"{_REFUSALS[code]} (it says: {clean(reason)})"
            is_too_fast = code == CLOSE_TOO_MANY_LINKS
            return _TooFastError(words) if is_too_fast else NotPairedError(words)
        case _:
            return NotPairedError(f"the device did not answer: {in_words(error)}")
