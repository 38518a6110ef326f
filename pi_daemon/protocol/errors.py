"""What can be wrong with what a peer sent.

ProtocolError
├── FrameError      a frame that cannot be read, or is over a limit
├── TransferError   chunks of a blob that do not fit what was announced
└── TensorError     a tensor file that is malformed or not the expected one
"""

from __future__ import annotations

from typing import Final

import msgspec

UNREADABLE: Final = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
"""What msgspec raises for bytes that do not hold what they should."""


class ProtocolError(ValueError):
    """The peer broke the protocol; the message says how. The link is closed with 4400."""


class FrameError(ProtocolError):
    """A frame is no message: not JSON, unknown shape, over a limit, text where binary belongs."""


class TransferError(ProtocolError):
    """A chunk is out of order, of an unknown transfer, over the size, or the hash differs."""


class TensorError(ProtocolError):
    """Tensor bytes are malformed, or their names, shapes or dtypes are not the expected ones."""
