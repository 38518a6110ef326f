"""A websocket connection that ends by itself when its other side is gone; both sides use it.

The library's own keepalive cannot tell: its pings wait behind what is unsent, and so does its `close`.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from typing import Final

from websockets.asyncio.client import ClientConnection
from websockets.asyncio.connection import Connection
from websockets.asyncio.server import ServerConnection
from websockets.exceptions import InvalidMessage

from pi_daemon.protocol.limits import MAX_FRAME_BYTES, SILENCE_S

_LOOK_S: Final = 1.0
_CLOSE_S: Final = 3.0
"""The library waits 2 s for the other side's close, once its own is sent."""
_UNSENT_BYTES: Final = 128 << 10
"""In the kernel: a second of a link of 1 Mbit/s. What it takes, no abort or renewal can overtake."""

_MAX_UNREAD_BYTES: Final = 4 * MAX_FRAME_BYTES
"""In this process. Who sends waits at a few kB: a frame of each task that does, and pongs, are all there is."""

_STRANGER_BYTES: Final = 128 << 10
"""The request for a websocket, a hello or a question to pair, and what closes it, with room."""


class _LiveConnection(Connection):
    """Every byte counts as a sign of life: on a slow link a chunk takes longer than its sender may be
    silent, and pings get through in the direction that is not busy."""

    _look: asyncio.TimerHandle | None = None
    _give_up: asyncio.TimerHandle | None = None
    _heard_s = 0.0
    _why_given_up: OSError | None = None
    """What ended the connection, if this side did."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        transport.get_extra_info("socket").setsockopt(
            socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, _UNSENT_BYTES
        )
        self._heard_s = self.loop.time()
        self._look_again()

    def data_received(self, data: bytes) -> None:
        self._heard_s = self.loop.time()
        super().data_received(data)
        # Each ping is answered at once, also where the other side reads none of the answers.
        if self.transport.get_write_buffer_size() > _MAX_UNREAD_BYTES:
            self._abort(ConnectionError("what is sent is not read"))

    def connection_lost(self, exc: Exception | None) -> None:
        for timer in (self._look, self._give_up):
            if timer is not None:
                timer.cancel()
        super().connection_lost(self._why_given_up or exc)
        # The library aborts what a failing `send` finds; asyncio fails at that where bytes were unsent.
        self.transport.abort = lambda: None  # type: ignore[method-assign]

    async def close(self, code: int = 1000, reason: str = "") -> None:
        """As in the library, but over after 3 s also where nothing can be sent."""
        if self._give_up is None:
            self._give_up = self.loop.call_later(_CLOSE_S, self.transport.abort)
        await super().close(code, reason)

    def _look_again(self) -> None:
        if not self.transport.is_reading():
            # This side is busy with what has come.
            self._heard_s = self.loop.time()
        if self.loop.time() - self._heard_s < SILENCE_S:
            self._look = self.loop.call_later(_LOOK_S, self._look_again)
            return
        self._abort(TimeoutError(f"nothing was heard for {SILENCE_S:g} s"))

    def _abort(self, why: OSError) -> None:
        self._why_given_up = why
        self.transport.abort()


class ConsoleConnection(_LiveConnection, ClientConnection):
    """The console's end."""

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        # Of a daemon that refuses the console's certificate the library says that it did not answer.
        if isinstance(exc, ssl.SSLError) and isinstance(
            self.protocol.handshake_exc, InvalidMessage
        ):
            self.protocol.handshake_exc = exc


class DaemonConnection(_LiveConnection, ServerConnection):
    """The daemon's end. Of a stranger it looks at a few bytes: to answer pings takes its time from consoles."""

    _may_come_bytes: int | None = _STRANGER_BYTES

    def let_in(self) -> None:
        """It is a console of this device."""
        self._may_come_bytes = None

    def data_received(self, data: bytes) -> None:
        if self._may_come_bytes is not None:
            self._may_come_bytes -= len(data)
            if self._may_come_bytes < 0:
                self.transport.abort()
                return
        super().data_received(data)
