"""Opens the daemon's port: every limit of a connection, before anything is known of who is there."""

from __future__ import annotations

import logging
import ssl
from collections.abc import Awaitable, Callable, Collection
from http import HTTPStatus

from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.http11 import Request, Response
from websockets.typing import Subprotocol

from pi_daemon.liveness import DaemonConnection
from pi_daemon.protocol.limits import MAX_FRAME_BYTES, PING_S, PONG_S, SUBPROTOCOL
from pi_daemon.server.admission import Admission, CountedListener


def listen(
    serve_link: Callable[[ServerConnection], Awaitable[None]],
    host: str,
    port: int,
    paths: Collection[str],
    tls: ssl.SSLContext | None,
    admission: Admission,
) -> Server:
    """A listener to be entered; `serve_link` gets each websocket on one of the paths.

    Raises:
        OSError: the address cannot be used.
    """
    return serve(
        serve_link,
        sock=CountedListener(host, port, admission),
        ssl=tls,
        subprotocols=[Subprotocol(SUBPROTOCOL)],
        process_request=_only(paths),
        create_connection=DaemonConnection,
        origins=[None],
        compression=None,
        max_size=MAX_FRAME_BYTES,
        max_queue=16,
        # For the handshake of TLS, and once more for that of the websocket.
        open_timeout=5,
        ping_interval=PING_S,
        ping_timeout=PONG_S,
        close_timeout=2,
        server_header=None,
        logger=logging.getLogger("pi_daemon.websockets"),
    )


def _only(paths: Collection[str]) -> Callable[[ServerConnection, Request], Response | None]:
    """Refuses a handshake for another path."""

    def refuse_others(connection: ServerConnection, request: Request) -> Response | None:
        if request.path in paths:
            return None
        served = " and ".join(sorted(paths))
        return connection.respond(
            HTTPStatus.NOT_FOUND, f"pi-daemon serves only the path {served}\n"
        )

    return refuse_others
