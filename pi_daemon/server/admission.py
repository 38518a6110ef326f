"""Who may hold how many connections: one address can take neither all sockets nor all links."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections import Counter
from collections.abc import Callable, Collection
from functools import partial
from typing import Any, Final

from websockets.asyncio.server import ServerConnection

log = logging.getLogger(__name__)

MAX_LINKS: Final = 32
MAX_LINKS_OF_ADDRESS: Final = 8
MAX_CONNECTIONS: Final = 256
"""Those that have not said hello yet included. A process may open 1024 files by default."""
MAX_CONNECTIONS_OF_ADDRESS: Final = 32


class Admission:
    """Counts the open connections of each address."""

    def __init__(self) -> None:
        self._open: Counter[str] = Counter()
        self._full: set[str] = set()
        """Addresses that have been warned of."""

    def enter(self, address: str) -> bool:
        """Whether one more may be opened; it is counted then."""
        if self._open.total() >= MAX_CONNECTIONS or (
            self._open[address] >= MAX_CONNECTIONS_OF_ADDRESS
        ):
            if address not in self._full:
                self._full.add(address)
                log.warning("too many connections from %s: more are dropped", address)
            return False
        self._open[address] += 1
        return True

    def leave(self, address: str) -> None:
        self._open[address] -= 1
        if not self._open[address]:
            del self._open[address]
            self._full.discard(address)


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
        address = str(peer[0])
        if not self._admission.enter(address):
            connection.close()
            raise ConnectionAbortedError
        counted = _CountedConnection(fileno=connection.detach())
        counted.on_closed = partial(self._admission.leave, address)
        return counted, peer


class _CountedConnection(socket.socket):
    on_closed: Callable[[], None] | None = None

    def close(self) -> None:
        super().close()
        if self.on_closed is not None:
            self.on_closed()
            self.on_closed = None


def address_of(transport: asyncio.BaseTransport) -> str:
    """The peer's IP address; empty when it is gone already."""
    peer = transport.get_extra_info("peername")
    return str(peer[0]) if peer else ""
