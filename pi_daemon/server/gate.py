"""Tells an initialised device's consoles from strangers, and lets a new one in while its owner says so.

On a device that is not initialised there is no gate: it listens on loopback only.
"""

from __future__ import annotations

import asyncio
import datetime
import logging
import ssl
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import msgspec
from websockets.asyncio.server import ServerConnection
from websockets.exceptions import ConnectionClosed

from pi_daemon.audit.auditing import Audit
from pi_daemon.protocol.errors import FrameError
from pi_daemon.protocol.limits import (
    CLOSE_CANNOT_STORE,
    CLOSE_NOT_ADMITTED,
    CLOSE_NOT_PAIRED,
    CLOSE_PROTOCOL_ERROR,
    CLOSE_TOO_MANY_LINKS,
)
from pi_daemon.protocol.messages import Hello, Role
from pi_daemon.protocol.pairing import (
    PATH,
    ConsoleRole,
    Pair,
    Paired,
    decode_pair,
    to_be_signed,
)
from pi_daemon.protocol.text import clean
from pi_daemon.server.admission import address_of
from pi_daemon.server.link import FIRST_MESSAGE_S, Link, hang_up
from pi_daemon.trust import tls
from pi_daemon.trust.consoles import FOLDER, Console, Consoles, TooManyConsolesError
from pi_daemon.trust.join import JoinString, new_secret
from pi_daemon.trust.keys import (
    Keys,
    in_groups,
    key_id,
    pem_to_der,
    require_proof,
)
from pi_daemon.trust.window import PairingWindow, Verdict

log = logging.getLogger(__name__)

MAX_GUESTS: Final = 2
"""Connections that want to pair, at a time."""


class TurnedAwayError(Exception):
    """A connection is closed; the message is the reason that its other side is told."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(reason)
        self.code = code


@dataclass(frozen=True, slots=True)
class Gate:
    device_id: str
    worker_name: str
    context: ssl.SSLContext
    """Of the port. It goes on to accept the key of a console that was revoked: the list decides."""
    consoles: Consoles
    _window: PairingWindow = field(default_factory=PairingWindow)
    _guests: list[ServerConnection] = field(default_factory=list)
    """Oldest first."""

    def invite(self, host: str, port: int, role: ConsoleRole) -> JoinString:
        """Let one console pair, within ten minutes; an earlier invitation is worth nothing now."""
        secret = new_secret()
        self._window.open(secret, role, time.monotonic())
        return JoinString(host, port, self.device_id, secret)

    def console_of(self, socket: ServerConnection) -> Console:
        """Who is at the other end.

        Raises:
            TurnedAwayError: it is no console of this device.
        """
        certificate = tls.peer_certificate(socket.transport.get_extra_info("ssl_object"))
        if certificate is None:
            raise TurnedAwayError(
                CLOSE_NOT_PAIRED, "this device is for paired consoles: pair first"
            )
        console = self.consoles.get(key_id(certificate))
        if console is None:
            raise TurnedAwayError(CLOSE_NOT_ADMITTED, "this console was revoked: pair anew")
        return console

    def drop_revoked(self, links: Iterable[Link], tasks: asyncio.TaskGroup) -> None:
        """Close the links of consoles that may not stay connected; looks at the files first."""
        self.consoles.look()
        for link in links:
            if link.console is None or link.is_over:
                continue
            if reason := self._objection(link.console):
                log.warning("%s is disconnected: %s", link.console.name, reason)
                link.is_over = True
                tasks.create_task(link.turn_away(CLOSE_NOT_ADMITTED, reason))

    def _objection(self, console: Console) -> str | None:
        """Why a console that is connected may not stay so."""
        now = self.consoles.get(console.id)
        if now is None:
            return "this console was revoked"
        if (now.role, console.role) == (ConsoleRole.VIEWER, ConsoleRole.OPERATOR):
            return "this console may only look from now on"
        return None

    async def pair(self, socket: ServerConnection, audit: Audit) -> None:
        """Hear one question, answer it, and close."""
        address = address_of(socket.transport)
        self._make_room(address)
        self._guests.append(socket)
        try:
            console = self._admit(await _question(socket), address)
            audit.paired(console.id, console.name, console.role, address)
            paired = Paired(name=self.worker_name, role=console.role)
            await socket.send(msgspec.json.encode(paired).decode())
            await socket.close()
        except TurnedAwayError as error:
            log.warning("%s may not pair: %s", address, clean(str(error)))
            audit.turned_away(address, str(error))
            await hang_up(socket, error.code, str(error))
        except ConnectionClosed:
            pass
        finally:
            self._guests.remove(socket)

    def _make_room(self, address: str) -> None:
        """Who has waited longest goes, of the same address if there is one: a neighbour who holds
        connections open keeps nobody else from pairing."""
        if len(self._guests) >= MAX_GUESTS:
            same = [guest for guest in self._guests if address_of(guest.transport) == address]
            (same or self._guests)[0].transport.abort()

    def _admit(self, question: Pair, address: str) -> Console:
        role = self._window.role
        match self._window.judge(question.secret, address, time.monotonic()):
            case Verdict.TOO_FAST:
                raise TurnedAwayError(CLOSE_TOO_MANY_LINKS, "too many tries: wait a second")
            case Verdict.CLOSED:
                raise TurnedAwayError(
                    CLOSE_NOT_PAIRED,
                    "this join string is used, or too old: `pi-daemon pair` prints another",
                )
            case Verdict.WRONG:
                raise TurnedAwayError(
                    CLOSE_NOT_ADMITTED, "the secret is wrong: copy the whole join string"
                )
        try:
            certificate = pem_to_der(question.certificate)
            signed = to_be_signed(self.device_id, question.secret)
            require_proof(certificate, signed, question.proof)
            # First what may fail: a certificate that is in the list must do in a handshake, too.
            tls.trust(self.context, certificate)
            now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
            console = self.consoles.admit(certificate, question.name, role, now, self.device_id)
        except (ValueError, ssl.SSLError) as error:
            raise TurnedAwayError(CLOSE_PROTOCOL_ERROR, str(error)) from error
        except TooManyConsolesError as error:
            raise TurnedAwayError(CLOSE_NOT_ADMITTED, str(error)) from error
        except OSError as error:
            raise TurnedAwayError(
                CLOSE_CANNOT_STORE, f"the device cannot store this: {error}"
            ) from error
        self._window.close()
        log.info("paired with %s (%s, %s)", console.name, in_groups(console.id), role)
        return console


def open_gate(state_dir: Path, keys: Keys, worker_name: str) -> Gate:
    """The device is initialised from now on.

    Raises:
        IdentityError, UnsafePathError: as `Consoles`.
    """
    consoles = Consoles(state_dir / FOLDER)
    if left := [c.name for c in consoles if c.device_id not in ("", keys.id)]:
        log.warning(
            "this device has a new identity %s; %s, paired with the old one, will refuse it: put the "
            "old key.pem back into %s, or pair them again, or revoke them",
            in_groups(keys.id),
            names_of(left),
            state_dir,
        )
    context = tls.device_context(keys, (console.der for console in consoles))
    return Gate(keys.id, worker_name, context, consoles)


def names_of(names: Sequence[str]) -> str:
    """The first few, and how many more there are."""
    return ", ".join(names[:4]) + (f" and {len(names) - 4} more" if names[4:] else "")


def guarded(
    gate: Gate | None,
    serve_link: Callable[[ServerConnection, Console | None], Awaitable[None]],
    audit: Audit,
) -> Callable[[ServerConnection], Awaitable[None]]:
    """Serve who is admitted, pair who asks for it, and turn others away; without a gate serve all.

    `serve_link` may raise TurnedAwayError, too.
    """

    async def serve(socket: ServerConnection) -> None:
        assert socket.request is not None
        try:
            if gate is None:
                await serve_link(socket, None)
            elif socket.request.path == PATH:
                await gate.pair(socket, audit)
            else:
                await serve_link(socket, gate.console_of(socket))
        except TurnedAwayError as error:
            log.warning("%s turned away: %s", address_of(socket.transport), error)
            audit.turned_away(address_of(socket.transport), str(error))
            await hang_up(socket, error.code, str(error))

    return serve


def identified(hello: Hello, console: Console) -> Hello:
    """What a console says of itself, with the name that it was paired under.

    Raises:
        TurnedAwayError: it says that it is another, or may do more than it may.
    """
    if hello.id != console.id:
        raise TurnedAwayError(CLOSE_NOT_ADMITTED, "the id in hello is not that of the certificate")
    if hello.role is Role.CONTROLLER and console.role is ConsoleRole.VIEWER:
        raise TurnedAwayError(
            CLOSE_NOT_ADMITTED, "this console may only look: pair it as operator to steer"
        )
    return msgspec.structs.replace(hello, name=console.name)


async def _question(socket: ServerConnection) -> Pair:
    try:
        async with asyncio.timeout(FIRST_MESSAGE_S):
            return decode_pair(await socket.recv())
    except TimeoutError:
        reason = f"nothing was asked within {FIRST_MESSAGE_S:g} s"
    except FrameError as error:
        reason = str(error)
    raise TurnedAwayError(CLOSE_PROTOCOL_ERROR, reason)
