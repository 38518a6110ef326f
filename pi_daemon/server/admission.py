"""Who may hold how many connections: one address can take neither all sockets nor all links."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections import Counter
from collections.abc import Callable, Collection
from contextlib import suppress
from functools import partial
from typing import Any, Final

from websockets.asyncio.server import ServerConnection

log = logging.getLogger(__name__)

MAX_LINKS: Final = 32
MAX_LINKS_OF_ADDRESS: Final = 8
MAX_CONNECTIONS: Final = 256
"""Those that have not said hello yet included. A process may open 1024 files by default."""
MAX_CONNECTIONS_OF_ADDRESS: Final = 32


Peer = tuple[Any, ...]
"""An IP address, a port, and what IPv6 adds."""


class Admission:
    """Counts the open connections of each address.

    Where all together are too many, the oldest that is no console's link gives way to a new one:
    strangers with many addresses keep nobody out who is faster than they are.
    """

    def __init__(self) -> None:
        self._open: Counter[str] = Counter()
        self._strangers: dict[Peer, Callable[[], None]] = {}
        """Oldest first: how each is turned out."""
        self._warned: set[str] = set()
        """Of which addresses; "" of all together."""

    def enter(self, peer: Peer, turn_out: Callable[[], None]) -> bool:
        """Whether one more may be opened; it is counted then.

        `turn_out` ends it; `leave` follows by that.
        """
        address = str(peer[0])
        if self._open[address] >= MAX_CONNECTIONS_OF_ADDRESS:
            self._warn_once(address, f"too many connections from {address}: more are dropped")
            return False
        if self._open.total() >= MAX_CONNECTIONS:
            self._warn_once(
                "", "too many connections: the oldest that are no consoles' are dropped"
            )
            if not self._strangers:
                return False
            self._strangers.pop(next(iter(self._strangers)))()
        self._open[address] += 1
        self._strangers[peer] = turn_out
        return True

    def keep(self, peer: Peer) -> None:
        """It is a console's link: it gives way to nobody."""
        self._strangers.pop(peer, None)

    def leave(self, peer: Peer) -> None:
        self._strangers.pop(peer, None)
        address = str(peer[0])
        self._open[address] -= 1
        if not self._open[address]:
            del self._open[address]
            self._warned.discard(address)
        if not self._open:
            self._warned.discard("")

    def _warn_once(self, of: str, text: str) -> None:
        if of not in self._warned:
            self._warned.add(of)
            log.warning(text)


def link_refusal(links: Collection[ServerConnection], new: ServerConnection) -> str | None:
    """Why a console may not be served beside those that are; None: it may."""
    address = address_of(new.transport)
    num_same = sum(address_of(link.transport) == address for link in links)
    if num_same >= MAX_LINKS_OF_ADDRESS:
        return f"{num_same} consoles are connected already"
    if len(links) >= MAX_LINKS:
        return f"{len(links)} consoles are connected already"
    return None


class CountedListener(socket.socket):
    """A listening socket that takes no more connections than may be open.

    Here, and not where a websocket begins: under TLS that is after a handshake, which a stranger need
    never finish.
    """

    def __init__(self, host: str, port: int, admission: Admission) -> None:
        """Raises OSError: the address cannot be used."""
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        listening = socket.create_server((host, port), family=family, backlog=100)
        super().__init__(family, socket.SOCK_STREAM, fileno=listening.detach())
        self._admission = admission

    def accept(self) -> tuple[socket.socket, Any]:
        """Raises ConnectionAbortedError, which the event loop takes as nothing: it was one too many."""
        connection, peer = super().accept()
        counted = _CountedConnection(fileno=connection.detach())
        if not self._admission.enter(peer, counted.turn_out):
            counted.close()
            raise ConnectionAbortedError
        counted.on_closed = partial(self._admission.leave, peer)
        return counted, peer


class _CountedConnection(socket.socket):
    on_closed: Callable[[], None] | None = None

    def turn_out(self) -> None:
        """Whoever reads from it takes it for closed by the other side, and closes it."""
        with suppress(OSError):
            self.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        super().close()
        if self.on_closed is not None:
            self.on_closed()
            self.on_closed = None


def address_of(transport: asyncio.BaseTransport) -> str:
    """The peer's IP address; empty when it is gone already."""
    peer = transport.get_extra_info("peername")
    return str(peer[0]) if peer else ""
