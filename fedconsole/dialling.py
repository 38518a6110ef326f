"""How fedconsole reaches a daemon: who it says it is, the websocket's settings, failures in words."""

from __future__ import annotations

import platform
import secrets
from importlib.metadata import version

from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidMessage
from websockets.frames import Close
from websockets.typing import Subprotocol

from pi_daemon.protocol.errors import FrameError
from pi_daemon.protocol.limits import MAX_FRAME_BYTES, MIN_PROTO, PROTO, SUBPROTOCOL
from pi_daemon.protocol.messages import Hello, Role
from pi_daemon.protocol.text import clean

_BOOT_ID = secrets.token_hex(8)


def console_hello(role: Role) -> Hello:
    """What this console says first. Its id lasts as long as its process."""
    return Hello(
        proto=PROTO,
        min_proto=MIN_PROTO,
        id=f"console-{_BOOT_ID}",
        name=clean(platform.node(), 64) or "desktop",
        boot_id=_BOOT_ID,
        build=f"fedconsole {version('fedconsole')}",
        role=role,
    )


def dial(address: str) -> connect:
    """Connect to HOST:PORT; used as a context manager. docs/protocol.md, section 1."""
    return connect(
        f"ws://{address}",
        subprotocols=[Subprotocol(SUBPROTOCOL)],
        compression=None,
        proxy=None,
        max_size=MAX_FRAME_BYTES,
        max_queue=16,
        open_timeout=5,
        ping_interval=5,
        ping_timeout=10,
        close_timeout=2,
        user_agent_header=None,
    )


def in_words(error: BaseException) -> str:
    """Why a device cannot be reached or was lost, for the operator."""
    match error:
        case TimeoutError():
            return "no answer in time"
        case ConnectionRefusedError():
            return "connection refused; is pi-daemon running there?"
        case ConnectionClosed(rcvd=Close(code=code, reason=reason)):
            return clean(reason) or f"closed by the device ({code})"
        case ConnectionClosed():
            return "the connection was lost"
        case InvalidHandshake() | InvalidMessage() | FrameError():
            return f"no pi-daemon answers there: {clean(str(error))}"
        case OSError(strerror=str(words)):
            return words
        case _:
            return clean(str(error)) or type(error).__name__
