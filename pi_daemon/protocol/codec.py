"""Messages to text frames and back; chunks of blobs to binary frames and back."""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final, TypeVar

import msgspec

from pi_daemon.protocol.errors import UNREADABLE, FrameError, TransferError
from pi_daemon.protocol.limits import CHUNK_BYTES, MAX_FRAME_BYTES, MAX_TRANSFERS, MIN_PROTO, PROTO
from pi_daemon.protocol.messages import Blob, FromConsole, FromDaemon, Hello

T = TypeVar("T")

_encoder = msgspec.json.Encoder()
_from_console = msgspec.json.Decoder(FromConsole)
_from_daemon = msgspec.json.Decoder(FromDaemon)

CHUNK_HEADER: Final = struct.Struct(">IQ")
"""Transfer number, then the offset of the first byte; both big-endian."""


class _Tag(msgspec.Struct):
    type: str


_tag = msgspec.json.Decoder(_Tag)
_console_types: Final = frozenset(c.__struct_config__.tag for c in FromConsole.__args__)
_daemon_types: Final = frozenset(c.__struct_config__.tag for c in FromDaemon.__args__)


@dataclass(frozen=True, slots=True)
class Unknown:
    """A well-formed message of a type that this version does not have: counted, not obeyed."""

    type: str


def encode(message: FromConsole | FromDaemon) -> str:
    """One text frame."""
    return _encoder.encode(message).decode()


def decode_from_console(frame: str | bytes) -> FromConsole | Unknown:
    """Read a text frame on the daemon's side.

    Raises:
        FrameError: not JSON, over a limit, or not a valid message of its type.
    """
    return _decode(frame, _from_console, _console_types)


def decode_from_daemon(frame: str | bytes) -> FromDaemon | Unknown:
    """Read a text frame on the console's side; raises as `decode_from_console`."""
    return _decode(frame, _from_daemon, _daemon_types)


def _decode(
    frame: str | bytes, decoder: msgspec.json.Decoder[T], known: frozenset[object]
) -> T | Unknown:
    if len(frame) > MAX_FRAME_BYTES:
        raise FrameError(f"frame of {len(frame)} bytes, at most {MAX_FRAME_BYTES} allowed")
    try:
        return decoder.decode(frame)
    except msgspec.ValidationError as error:
        # The decoder stopped at the type: what follows may be malformed still.
        try:
            name = _tag.decode(frame).type
        except UNREADABLE:
            raise FrameError(f"not a message: {error}") from error
        if name not in known:
            return Unknown(name[:64])
        raise FrameError(f"{name}: {error}") from error
    except UNREADABLE as error:
        raise FrameError(f"not a JSON message: {error}") from error


def common_version(ours: Hello, theirs: Hello) -> int | None:
    """The highest protocol version that both sides speak; None if there is none."""
    version = min(ours.proto, theirs.proto)
    return version if version >= max(ours.min_proto, theirs.min_proto) else None


def no_common_version(theirs: Hello) -> str:
    """The sentence for the peer and for people; fits a close frame."""
    side = "update this side" if theirs.min_proto > PROTO else "update the other side"
    return (
        f"no common protocol version: {MIN_PROTO}-{PROTO} here, "
        f"{theirs.min_proto}-{theirs.proto} there; {side}"
    )


def close_reason(text: str) -> str:
    """What of a text fits a close frame: 123 bytes (RFC 6455, 5.5, less two for the code)."""
    return text.encode()[:123].decode(errors="ignore")


# Binary frames


def chunk_frames(transfer: int, data: bytes | memoryview) -> Iterator[bytes]:
    """Cut a blob into binary frames, in the order in which they must be sent."""
    view = memoryview(data)
    for offset in range(0, len(view), CHUNK_BYTES):
        yield CHUNK_HEADER.pack(transfer, offset) + view[offset : offset + CHUNK_BYTES]


def read_chunk(frame: bytes) -> tuple[int, int, memoryview]:
    """Transfer number, offset and payload of a binary frame.

    Raises:
        FrameError: shorter than its header, empty, or longer than a chunk may be.
    """
    size = len(frame) - CHUNK_HEADER.size
    if not 0 < size <= CHUNK_BYTES:
        raise FrameError(f"binary frame with {size} bytes of payload, 1 to {CHUNK_BYTES} allowed")
    transfer, offset = CHUNK_HEADER.unpack_from(frame)
    return transfer, offset, memoryview(frame)[CHUNK_HEADER.size :]


@dataclass(slots=True)
class Incoming:
    """Checks one blob as its chunks arrive; where the bytes go is the caller's matter."""

    blob: Blob
    is_hashed: bool = True
    """False: the hash is the caller's matter, too."""
    received: int = 0
    _hash: hashlib._Hash = field(default_factory=hashlib.sha256)

    @property
    def is_complete(self) -> bool:
        return self.received == self.blob.size

    def feed(self, offset: int, payload: memoryview) -> None:
        """Take the next chunk. Keep the payload only after this has returned.

        Raises:
            TransferError: out of order, more than announced, or (at the end) another hash.
        """
        if offset != self.received:
            raise TransferError(f"chunk at byte {offset}, expected {self.received}")
        if self.received + len(payload) > self.blob.size:
            raise TransferError(f"more than the {self.blob.size} bytes that were announced")
        self.received += len(payload)
        if not self.is_hashed:
            return
        self._hash.update(payload)
        if self.is_complete and self._hash.hexdigest() != self.blob.sha256:
            raise TransferError("the SHA-256 of the bytes is not the one that was announced")


class IncomingTransfers:
    """The blobs under way in one direction of one link."""

    def __init__(self, *, are_hashed: bool = True) -> None:
        self._are_hashed = are_hashed
        self._open: dict[int, Incoming] = {}

    def announce(self, blob: Blob, limit_bytes: int) -> Incoming:
        """Expect a blob.

        Raises:
            TransferError: over `limit_bytes`, its number is in use, or too many are under way.
        """
        if blob.size > limit_bytes:
            raise TransferError(f"blob of {blob.size} bytes, at most {limit_bytes} allowed")
        if blob.transfer in self._open:
            raise TransferError(f"transfer {blob.transfer} is under way already")
        if len(self._open) >= MAX_TRANSFERS:
            raise TransferError(f"more than {MAX_TRANSFERS} transfers at once")
        incoming = self._open[blob.transfer] = Incoming(blob, self._are_hashed)
        return incoming

    def feed(self, frame: bytes) -> tuple[Incoming, memoryview]:
        """Check one binary frame and give its transfer and payload.

        Raises:
            FrameError, TransferError: the frame fits no announced blob.
        """
        transfer, offset, payload = read_chunk(frame)
        incoming = self._open.get(transfer)
        if incoming is None:
            raise TransferError(f"chunk of transfer {transfer}, which was not announced")
        incoming.feed(offset, payload)
        if incoming.is_complete:
            del self._open[transfer]
        return incoming, payload
