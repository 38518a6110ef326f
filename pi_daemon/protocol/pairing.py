"""The one question and its answer on `/pair`, where a console that is new brings its certificate.

Refusals close the connection: 4401 no window is open, 4403 the secret is wrong, 4429 too many tries.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Final, TypeVar

import msgspec
from msgspec import Meta, Struct

from pi_daemon.protocol.errors import FrameError
from pi_daemon.protocol.limits import MAX_NAME
from pi_daemon.protocol.values import Name

M = TypeVar("M")

PATH: Final = "/pair"
MAX_PAIR_FRAME_BYTES: Final = 8 << 10
MAX_CERTIFICATE: Final = 4 << 10
"""Characters of PEM; ours have about 600."""
MAX_PROOF_BYTES: Final = 72
"""Of ECDSA with P-256, in DER."""


class ConsoleRole(StrEnum):
    OPERATOR = "operator"
    """May steer."""
    VIEWER = "viewer"
    """May only look."""


class Pair(Struct, frozen=True, tag="pair", kw_only=True):
    """Admit this console. Sent once the device's key is known to be that of the join string."""

    secret: Annotated[str, Meta(max_length=MAX_NAME)]
    name: Name
    """A label for people: the console's host name."""
    certificate: Annotated[str, Meta(max_length=MAX_CERTIFICATE)]
    """PEM."""
    proof: Annotated[bytes, Meta(max_length=MAX_PROOF_BYTES)]
    """Of the certificate's key: it has signed `to_be_signed`."""


class Paired(Struct, frozen=True, tag="paired", kw_only=True):
    """It is admitted, and may connect from now on with that certificate."""

    name: Name
    """The worker's."""
    role: ConsoleRole


_pair = msgspec.json.Decoder(Pair)
_paired = msgspec.json.Decoder(Paired)


def to_be_signed(device_id: str, secret: str) -> bytes:
    """What a console signs to pair with this device, by this secret: no other pairing can use it."""
    return f"fedconsole pair 1 {device_id} {secret}".encode()


def decode_pair(frame: str | bytes) -> Pair:
    """Raises FrameError."""
    return _decode(frame, _pair)


def decode_paired(frame: str | bytes) -> Paired:
    """Raises FrameError."""
    return _decode(frame, _paired)


def _decode(frame: str | bytes, decoder: msgspec.json.Decoder[M]) -> M:
    if not isinstance(frame, str) or len(frame) > MAX_PAIR_FRAME_BYTES:
        raise FrameError("no message about pairing")
    try:
        return decoder.decode(frame)
    except msgspec.MsgspecError as error:
        raise FrameError(f"no message about pairing: {error}") from error
    except (RecursionError, ValueError) as error:
        raise FrameError("no message about pairing") from error
