"""Every limit of the protocol. Both sides check them before they allocate anything."""

from __future__ import annotations

from typing import Final

PROTO: Final = 1
"""The newest protocol version spoken here."""
MIN_PROTO: Final = 1
"""The oldest protocol version still understood here."""

SUBPROTOCOL: Final = "fedconsole.v1"
PORT: Final = 10002

MAX_COUNT: Final = 2**53 - 1
"""JavaScript and many JSON libraries hold integers exactly only up to this."""
MAX_FRAME_BYTES: Final = 1 << 20
"""One websocket frame, text or binary. The websockets library's own default."""
CHUNK_BYTES: Final = 256 << 10
"""Payload of one binary frame: small enough that an abort between two chunks is not felt."""

MAX_GRAPHS_BYTES: Final = 16 << 20
"""Training and evaluation graph together; a transformer layer takes about 12 kB."""
MAX_MODEL_BYTES: Final = 4 << 30
"""One model or update. A device may announce less in its `hello`."""
MAX_TENSOR_HEADER_BYTES: Final = 8 << 20
MAX_TENSORS: Final = 20_000
MAX_DIMENSIONS: Final = 12

MAX_TEXT: Final = 4_096
"""Characters of a text field meant for people: a reason, a log line."""
MAX_NAME: Final = 128
"""Characters of a name or an id."""
MAX_BATCHES: Final = 1_000_000
"""Batches in one round: a device keeps the loss of each until the update is accepted."""
MAX_LOSSES: Final = 4_096
"""Batch losses in one frame."""
MAX_CLASSES: Final = 1_024
MAX_DATASETS: Final = 64
MAX_TRANSFERS: Final = 4
"""Blobs under way in one direction of one link."""

PING_S: Final = 5.0
PONG_S: Final = 20.0
"""Time for a pong: on a link of 1 Mbit/s that is busy with a model a ping waits for seconds. A side
that has misread a length takes all that comes, pings too, for the rest of one frame."""
SILENCE_S: Final = 12.0
"""A link on which nothing was heard for so long is given up; two pings may be late."""

LEASE_S: Final = 15.0
"""A controller that is silent for longer may be replaced by another."""
MAX_FENCE_STEP: Final = 1_000
"""From one holder's fence to the next one's: nobody can use them all up."""
RENEW_S: Final = 5.0
KEEP_UPDATE_S: Final = 600.0
"""How long a device keeps an update that its controller has not acknowledged."""

CLOSE_PROTOCOL_ERROR: Final = 4400
CLOSE_NOT_PAIRED: Final = 4401
"""No certificate was shown, or no pairing window is open."""
CLOSE_NOT_ADMITTED: Final = 4403
"""Not, or no longer, among the consoles of the device; a wrong secret; a viewer that would steer."""
CLOSE_NO_COMMON_VERSION: Final = 4406
CLOSE_TOO_MANY_LINKS: Final = 4429
CLOSE_CANNOT_STORE: Final = 4507
