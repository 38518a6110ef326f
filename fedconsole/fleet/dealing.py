"""Deals shards of a dataset to devices whose owners allow it: each is sent once, and a transfer that
was cut goes on where it was. docs/protocol.md, "Dealing data".
"""

from __future__ import annotations

import asyncio
import hashlib
import itertools
import secrets
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

from websockets.exceptions import ConnectionClosed
from websockets.frames import Close

from fedconsole.dialling import Link, console_hello, dial, exchange_hellos
from fedconsole.errors import FedconsoleError
from fedconsole.fleet.shards import Shard
from fedconsole.link_failures import LINK_ERRORS, in_words
from pi_daemon.protocol import messages as m
from pi_daemon.protocol.codec import (
    CHUNK_HEADER,
    close_reason,
    decode_from_daemon,
    encode,
)
from pi_daemon.protocol.errors import ProtocolError
from pi_daemon.protocol.limits import CHUNK_BYTES, CLOSE_PROTOCOL_ERROR, RENEW_S
from pi_daemon.protocol.text import clean

_FIRST_OWN_CODE: Final = 4000
"""Of the close codes that an application gives (RFC 6455, 7.4.2)."""
_RELEASE_S: Final = 2.0
_WAITS_S: Final = (0.5, 1.0, 2.0, 4.0, 8.0)
"""Before each new try: a daemon that is started anew takes some seconds."""


class Outcome(StrEnum):
    STORED = "stored"
    ALREADY_THERE = "already there"
    REFUSED = "refused"
    """By the device or its owner."""
    FAILED = "failed"
    """It could not be reached, or was lost."""


@dataclass(frozen=True, slots=True)
class Dealt:
    outcome: Outcome
    bytes_sent: int = 0
    """Of the shard; less than its size when the device had some of it."""
    reason: str = ""


OnProgress = Callable[[int], None]
"""Told how many bytes of the shard the device has."""


class _Refused(Exception):
    """The device answered `refused`; the message is its reason, cleaned."""


async def deal(
    address: str,
    name: str,
    shard: Shard,
    *,
    device_id: str | None = None,
    replace: bool,
    on_progress: OnProgress,
) -> Dealt:
    """Bring a shard to a device, as its dataset `name`. Tries again when the link is cut. Never raises.

    Args:
        device_id: whose key must be proved; None: any known device may answer.
    """
    dealing = _Dealing(name, shard, replace, on_progress)
    waits = iter(_WAITS_S)
    while True:
        try:
            async with dial(address, device_id) as websocket:
                outcome = await dealing.carry_out(websocket)
                return Dealt(outcome, dealing.bytes_sent)
        except _Refused as error:
            return Dealt(Outcome.REFUSED, dealing.bytes_sent, str(error))
        except LINK_ERRORS as error:
            wait_s = next(waits, None)
            if wait_s is None or not dealing.has_begun or _is_final(error):
                return Dealt(Outcome.FAILED, dealing.bytes_sent, in_words(error))
        await asyncio.sleep(wait_s)


class _Dealing:
    """What is known of one transfer, from link to link."""

    def __init__(self, name: str, shard: Shard, replace: bool, on_progress: OnProgress) -> None:
        self.bytes_sent = 0
        self._name = name
        self._shard = shard
        self._replace = replace
        self._on_progress = on_progress
        self._fence: int | None = None

    @property
    def has_begun(self) -> bool:
        return self._fence is not None

    async def carry_out(self, websocket: Link) -> Outcome:
        """Raises _Refused, and whatever ends a link."""
        status = await _require_able(websocket)
        if self._fence is None:
            self._fence = status.highest_fence + 1
        # Named by its content: whoever deals it again, also after a crash, need not wait for the lease.
        link = _Commands(websocket, f"deal-{self._shard.sha256[:16]}", self._fence)
        background = [
            asyncio.get_running_loop().create_task(work) for work in (link.listen(), link.renew())
        ]
        try:
            await link.ask(m.TakeLease, trains=False)
            outcome = await self._bring(link)
            await link.ask(m.ReleaseLease)
        except (_Refused, asyncio.CancelledError):
            # The next one to steer the device need not wait for the lease to expire.
            with suppress(_Refused, ConnectionClosed, ProtocolError, TimeoutError):
                await asyncio.wait_for(link.ask(m.ReleaseLease), _RELEASE_S)
            raise
        finally:
            for task in background:
                task.cancel()
            await asyncio.gather(*background, return_exceptions=True)
        return outcome

    async def _bring(self, link: _Commands) -> Outcome:
        shard = self._shard
        answer = await link.ask(
            m.OfferData,
            name=self._name,
            size=shard.size,
            sha256=shard.sha256,
            replace=self._replace,
        )
        if not isinstance(answer, m.DataOffset) or not 0 <= answer.offset <= shard.size:
            raise ProtocolError(f"answer {answer} to an offer of {shard.size} bytes")
        self._on_progress(answer.offset)
        if answer.card is not None:
            return Outcome.STORED if self.bytes_sent else Outcome.ALREADY_THERE
        digest = await asyncio.to_thread(_sha256_from, shard, answer.offset)
        rest = m.Blob(1, shard.size - answer.offset, digest)
        stored = await link.command(m.PutData, sha256=shard.sha256, offset=answer.offset, rest=rest)
        with shard.path.open("rb") as file:
            file.seek(answer.offset)
            # A refusal in the middle makes the rest needless.
            while not stored.done() and (chunk := file.read(CHUNK_BYTES)):
                offset = file.tell() - len(chunk) - answer.offset
                await link.send(CHUNK_HEADER.pack(rest.transfer, offset) + chunk)
                self.bytes_sent += len(chunk)
                self._on_progress(file.tell())
        await stored
        return Outcome.STORED


class _Commands:
    """Commands and their answers on one connection."""

    def __init__(self, websocket: Link, run: str, fence: int) -> None:
        self._websocket = websocket
        self._run = run
        self._fence = fence
        self._prefix = secrets.token_hex(4)
        self._numbers = itertools.count(1)
        self._answers: dict[str, asyncio.Future[m.Answer]] = {}

    async def ask(self, kind: type[m.Command], **fields: Any) -> m.Answer:
        """Give a command and await its answer.

        Raises:
            _Refused: the device says no.
            ConnectionClosed, ProtocolError: the link ended first.
        """
        return await (await self.command(kind, **fields))

    async def command(self, kind: type[m.Command], **fields: Any) -> asyncio.Future[m.Answer]:
        """Give a command; its answer comes later, raising as `ask`."""
        cmd_id = f"{self._prefix}-{next(self._numbers)}"
        answer: asyncio.Future[m.Answer] = asyncio.get_running_loop().create_future()
        # Nobody is left to hear of a link's end when its sender has met it first.
        answer.add_done_callback(lambda done: done.cancelled() or done.exception())
        self._answers[cmd_id] = answer
        command = kind(cmd_id=cmd_id, run=self._run, fence=self._fence, **fields)
        await self.send(encode(command))  # type: ignore[arg-type]
        return answer

    async def send(self, frame: str | bytes) -> None:
        await self._websocket.send(frame)

    async def renew(self) -> None:
        """Keep the lease while a large shard is on its way."""
        with suppress(_Refused, ConnectionClosed, ProtocolError):
            while True:
                await asyncio.sleep(RENEW_S)
                await self.ask(m.RenewLease)

    async def listen(self) -> None:
        """Hand out the answers until the link ends; whoever waits then is told how."""
        try:
            while True:
                self._take(decode_from_daemon(await self._websocket.recv()))
        except (ConnectionClosed, ProtocolError) as error:
            while self._answers:
                self._answers.popitem()[1].set_exception(error)
            await self._websocket.close(CLOSE_PROTOCOL_ERROR, close_reason(str(error)))

    def _take(self, message: object) -> None:
        match message:
            case m.Refused(cmd_id=cmd_id, reason=reason) if cmd_id in self._answers:
                self._answers.pop(cmd_id).set_exception(_Refused(clean(reason)))
            case m.Ok() | m.DataOffset() | m.DataStored() if message.cmd_id in self._answers:
                self._answers.pop(message.cmd_id).set_result(message)
            case _:
                pass  # what a device tells of itself


async def _require_able(websocket: Link) -> m.DeviceStatus:
    """Exchange hellos with a device that may take data now.

    Raises:
        _Refused: it is busy, or its owner allows no data to be dealt.
        LINK_ERRORS: as `dialling.exchange_hellos`.
    """
    theirs = await exchange_hellos(websocket, console_hello(m.Role.CONTROLLER))
    if theirs.status is None or theirs.capabilities is None:
        raise ProtocolError("it is no device: its hello has no status")
    if theirs.capabilities.max_data_bytes == 0:
        raise _Refused("it takes no data: its owner may start pi-daemon with --accept-data DIR")
    status = theirs.status
    if status.state not in (m.DeviceState.IDLE, m.DeviceState.READY):
        # An engine that lost its link may come back: its round is not thrown away for this.
        run = clean(status.run or "a run", 64)
        raise _Refused(f"it is {status.state} for {run}: wait for its end, or abort it")
    return status


def _is_final(error: Exception) -> bool:
    """Whether another try would end alike: the daemon has said why it does not go on."""
    match error:
        case ConnectionClosed(rcvd=Close(code=code)):
            # Lower ones are the library's: a ping that was not answered, a daemon that ends.
            return code >= _FIRST_OWN_CODE
        case _:
            return isinstance(error, ProtocolError | FedconsoleError)


def _sha256_from(shard: Shard, offset: int) -> str:
    with shard.path.open("rb") as file:
        file.seek(offset)
        return hashlib.file_digest(file, "sha256").hexdigest()
