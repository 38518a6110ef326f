"""Carries out what the machine commands of a worker, over one connection.

What comes of it is reported; that the connection is lost reports whoever listens on it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final, TypeVar, assert_never

from fedconsole.coordinator import commands as c
from fedconsole.coordinator import events as e
from fedconsole.engine.connection import CommandRefused, Connection, LinkClosed
from fedconsole.engine.device_notes import DeviceNotes
from fedconsole.engine.steering import steering_message
from fedconsole.engine.store import Row
from fedconsole.engine.worker import Job, Refusal, Reports
from pi_daemon.protocol import messages as m
from pi_daemon.protocol.text import clean

_RELEASE_S: Final = 2.0

A = TypeVar("A", bound=m.Answer)
Head = Callable[[str], dict[str, Any]]
"""cmd_id -> the fields of every command."""


async def release(connection: Connection, head: Head) -> None:
    """Give the device back, if it can be told in time."""
    with suppress(CommandRefused, LinkClosed, TimeoutError):
        async with asyncio.timeout(_RELEASE_S):
            await connection.ask(lambda i: m.ReleaseLease(**head(i)), m.Ok)


class Orders:
    """Those that come while the worker is connected and ready; they end with its connection."""

    def __init__(
        self,
        connection: Connection,
        worker_id: str,
        job: Job,
        reports: Reports,
        notes: DeviceNotes,
        head: Head,
    ) -> None:
        self._connection = connection
        self._worker_id = worker_id
        self._job = job
        self._reports = reports
        self._notes = notes
        self._head = head
        self._given: asyncio.Queue[c.WorkerCommand | Refusal] = asyncio.Queue()
        self._sending: asyncio.Task[None] | None = None
        self._aborting: asyncio.Task[None] | None = None
        """The last abort; the device takes nothing new before it has answered that."""

    def give(self, command: c.WorkerCommand) -> None:
        self._given.put_nowait(command)

    def leave(self, refusal: Refusal) -> None:
        """Give the device back: its owner allows this run no more."""
        self._given.put_nowait(refusal)

    async def run(self, tasks: asyncio.TaskGroup) -> None:
        """To be one of the connection's tasks: a group that is ending takes no task from outside.

        Raises:
            Refusal: as it was given to `leave`.
        """
        while True:
            match await self._given.get():
                case Refusal() as refusal:
                    await self._leave(refusal)
                case command:
                    self._begin(command, tasks)

    def _begin(self, command: c.WorkerCommand, tasks: asyncio.TaskGroup) -> None:
        if isinstance(command, c.AbortWorker) and self._sending is not None:
            self._sending.cancel()
        task = tasks.create_task(self._carry_out(command))
        match command:
            case c.SendRound(num_batches=num_batches):
                self._sending = task
                self._notes.grant_round(num_batches)
            case c.AbortWorker():
                self._aborting = task

    async def _carry_out(self, command: c.WorkerCommand) -> None:
        """Raises Refusal: the device's owner allows this run no more."""
        try:
            await self._ask(command)
        except LinkClosed:
            pass  # reported by whoever listens
        except CommandRefused as error:
            reason = clean(str(error))
            match command:
                case c.SendRound() if error.limit is not None:
                    await self._leave(Refusal(reason))
                case c.SendRound(round=number, attempt=attempt):
                    self._fail(number, attempt, reason)
                case c.ResumeWorker(round=number):
                    self._fail(number, 0, reason)
                case c.AbortWorker():
                    self._reports.event(e.WorkerAborted(self._worker_id))
                case c.PauseWorker():
                    self._reports.event(e.WorkerPaused(self._worker_id))
                case c.AcceptUpdate() | c.RefuseUpdate():
                    pass  # the device has forgotten the update already
                case _:
                    assert_never(command)

    async def _leave(self, refusal: Refusal) -> None:
        """Raises Refusal. What a run has used only grows: the device would refuse again."""
        await release(self._connection, self._head)
        raise refusal

    def _fail(self, round_number: int, attempt: int, reason: str) -> None:
        self._reports.event(e.TrainingFailed(self._worker_id, round_number, attempt, reason))

    async def _ask(self, command: c.WorkerCommand) -> None:
        match command:
            case c.SendRound():
                await self._send_round(command)
            case _:
                await self._connection.ask(lambda i: steering_message(command, self._head(i)), m.Ok)
        match command:
            case c.PauseWorker():
                self._reports.event(e.WorkerPaused(self._worker_id))
            case c.AbortWorker():
                self._reports.event(e.WorkerAborted(self._worker_id))

    async def _send_round(self, command: c.SendRound) -> None:
        def start(cmd_id: str, blob: m.Blob | None) -> m.Command:
            return m.StartRound(
                **self._head(cmd_id),
                round=command.round,
                attempt=command.attempt,
                model_id=command.model_id,
                model=blob,
                cursor=command.cursor,
                num_batches=command.num_batches,
                torch_seed=str(self._job.torch_seed(command)),
            )

        await self._ask_with_model(command.model_id, start, m.Ok)

    async def evaluate(self, round_number: int, model_id: str) -> m.Evaluated:
        """Raises CommandRefused, LinkClosed."""

        def command(cmd_id: str, blob: m.Blob | None) -> m.Command:
            head = self._head(cmd_id)
            return m.Evaluate(**head, round=round_number, model_id=model_id, model=blob)

        return await self._ask_with_model(model_id, command, m.Evaluated)

    async def _ask_with_model(
        self, model_id: str, command: Callable[[str, m.Blob | None], m.Command], kind: type[A]
    ) -> A:
        """Ask for something that needs a model, and send it where the device lacks it.

        Raises:
            CommandRefused, LinkClosed: as `Connection.ask`.
            DamagedModelError: the model is gone.
        """
        if self._aborting is not None:
            # A straggler obeys after its batch, which may be a long one.
            await asyncio.wait([self._aborting])
        connection = self._connection
        if connection.status is not None and connection.status.model_id == model_id:
            try:
                return await connection.ask(lambda i: command(i, None), kind)
            except CommandRefused as error:
                if error.code is not m.RefusalCode.NO_MODEL:
                    raise
        model = self._job.models[model_id]
        blob = connection.announce(model.size, model.sha256)
        try:
            answer, _ = await asyncio.gather(
                connection.ask(lambda i: command(i, blob), kind), connection.send_file(blob, model)
            )
        except FileNotFoundError as error:
            raise self._job.unreadable(error) from error
        except OSError as error:
            text = f"cannot read the model {model.path}: {error.strerror}; it is sent again"
            self._reports.note(Row("warning", {"text": text, "worker": self._worker_id}))
            await connection.give_up()
            raise LinkClosed(text) from error
        return answer
