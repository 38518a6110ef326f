"""The owner's own way to a running daemon: a socket in its state directory, for one question each.

Who can open it is the same user, or of the group that its owner lets pass through the directory (mode
0710): nothing further is asked. A question and its answer are one JSON object and a line end each.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import stat
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

import msgspec
from msgspec import Struct

from pi_daemon.discovery import RegisteredDaemon, reachable_address
from pi_daemon.protocol.pairing import ConsoleRole
from pi_daemon.server.gate import Gate
from pi_daemon.server.link import Link
from pi_daemon.trust.consoles import Consoles
from pi_daemon.trust.window import WINDOW_S

log = logging.getLogger(__name__)

_SOCKET: Final = "admin.sock"
_ANSWER_S: Final = 10.0
MAX_LINE_BYTES: Final = 64 << 10


class OpenWindow(Struct, frozen=True, tag="pair"):
    """Let one console pair."""

    role: ConsoleRole
    address: str | None = None
    """Where it finds this device; None: the device says."""


class ListConsoles(Struct, frozen=True, tag="consoles"):
    pass


class Revoke(Struct, frozen=True, tag="revoke"):
    """Admit a console no more, and disconnect it."""

    id: str


Question = OpenWindow | ListConsoles | Revoke


class Opened(Struct, frozen=True, tag="opened"):
    join: str
    seconds: float


class PairedConsole(Struct, frozen=True):
    id: str
    name: str
    role: ConsoleRole
    paired_at: str
    is_connected: bool


class Listed(Struct, frozen=True, tag="listed"):
    consoles: tuple[PairedConsole, ...]


class Revoked(Struct, frozen=True, tag="revoked"):
    """It is admitted no more, whether it was before or not."""


class Failed(Struct, frozen=True, tag="failed"):
    reason: str


Answer = Opened | Listed | Revoked | Failed

_encoder = msgspec.json.Encoder()
_questions = msgspec.json.Decoder(Question)
_answers: msgspec.json.Decoder[Answer] = msgspec.json.Decoder(Answer)


class NoDaemonError(Exception):
    """No daemon that can be asked uses this state directory."""


class Admin:
    """Answers for a running daemon; from its making on, what is asked waits for its answer."""

    def __init__(
        self,
        state_dir: Path,
        gate: Gate,
        daemon: RegisteredDaemon,
        links: Mapping[int, Link],
        tasks: asyncio.TaskGroup,
    ) -> None:
        self._gate = gate
        self._daemon = daemon
        self._links = links
        self._tasks = tasks
        self._path = state_dir / _SOCKET
        self._listening: socket.socket | None = None
        """None: it could not be made, and the daemon does the rest of its work all the same."""
        try:
            self._listening = _bound(state_dir)
        except OSError as error:
            log.error("%s cannot be made (%s): no console can pair", self._path, error)

    async def serve(self) -> None:
        """Answer until cancelled."""
        if self._listening is None:
            return
        server = await asyncio.start_unix_server(
            self._answer_one, sock=self._listening, limit=MAX_LINE_BYTES
        )
        try:
            async with server:
                await server.serve_forever()
        finally:
            with suppress(OSError):
                self._path.unlink()

    async def _answer_one(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(TimeoutError, ValueError, ConnectionError):
            async with asyncio.timeout(_ANSWER_S):
                answer = self._answer(await reader.readline())
                writer.write(_encoder.encode(answer) + b"\n")
                await writer.drain()
        writer.close()

    def _answer(self, line: bytes) -> Answer:
        try:
            question = _questions.decode(line)
        except (msgspec.MsgspecError, ValueError, RecursionError) as error:
            return Failed(f"this daemon does not know this question: {error}")
        if isinstance(question, OpenWindow):
            address = question.address or reachable_address(self._daemon.address)
            join = self._gate.invite(address, self._daemon.port, question.role)
            return Opened(str(join), WINDOW_S)
        connected = {link.console.id for link in self._links.values() if link.console}
        answer = answer_from(self._gate.consoles, question, connected)
        self._gate.drop_revoked(self._links.values(), self._tasks)
        return answer


def answer_from(
    consoles: Consoles, question: ListConsoles | Revoke, connected: Collection[str] = ()
) -> Answer:
    """What needs no running daemon."""
    if isinstance(question, ListConsoles):
        return Listed(
            tuple(
                PairedConsole(c.id, c.name, c.role, c.paired_at, c.id in connected)
                for c in consoles
            )
        )
    try:
        consoles.revoke(question.id)
    except OSError as error:
        return Failed(f"this console is admitted still: {error}")
    return Revoked()


def ask(state_dir: Path, question: Question) -> Answer:
    """Ask the daemon that uses this state directory.

    Raises:
        NoDaemonError: there is none, or it does not answer.
    """
    try:
        with socket.socket(socket.AF_UNIX) as connection, _short(state_dir) as path:
            connection.settimeout(_ANSWER_S)
            connection.connect(path)
            connection.sendall(_encoder.encode(question) + b"\n")
            with connection.makefile("rb") as lines:
                return _answers.decode(lines.readline())
    except (OSError, msgspec.MsgspecError) as error:
        raise NoDaemonError(str(error)) from error


def _bound(state_dir: Path) -> socket.socket:
    """Of an earlier daemon at most the file is left: this one has the lock of the directory."""
    (state_dir / _SOCKET).unlink(missing_ok=True)
    listening = socket.socket(socket.AF_UNIX)
    try:
        with _short(state_dir) as path:
            listening.bind(path)
        listening.listen()
        folder = state_dir.stat()
        group_may_ask = bool(folder.st_mode & stat.S_IXGRP)
        # A system service may change no groups, and need not: the directory has its own.
        if group_may_ask and (state_dir / _SOCKET).stat().st_gid != folder.st_gid:
            os.chown(state_dir / _SOCKET, -1, folder.st_gid)
        (state_dir / _SOCKET).chmod(0o660 if group_may_ask else 0o600)
    except OSError:
        listening.close()
        raise
    return listening


@contextmanager
def _short(state_dir: Path) -> Iterator[str]:
    """The socket's path by another way: a socket's own path must not be longer than 107 bytes."""
    descriptor = os.open(state_dir, os.O_PATH | os.O_DIRECTORY)
    try:
        yield f"/proc/self/fd/{descriptor}/{_SOCKET}"
    finally:
        os.close(descriptor)
