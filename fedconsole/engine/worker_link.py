"""A worker on a device: connects to its daemon, prepares it, carries rounds, comes back when lost.

It decides nothing about the run: what happens is reported, what the machine commands is sent.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any, TypeGuard

from fedconsole.coordinator import commands as c
from fedconsole.coordinator import events as e
from fedconsole.coordinator.quorum import PREPARE_S
from fedconsole.dialling import dial
from fedconsole.engine.connection import CommandRefused, Connection, LinkClosed, Listener
from fedconsole.engine.delivery import deliver_or_hang_up
from fedconsole.engine.device_notes import DeviceNotes, Kind
from fedconsole.engine.lookout import Lookout, Search, delays, is_overdue
from fedconsole.engine.orders import Orders, release
from fedconsole.engine.store import Row
from fedconsole.engine.worker import (
    EvaluationError,
    Job,
    Refusal,
    Reports,
    require_classes,
    require_suitable,
)
from fedconsole.errors import DamagedModelError, ExitCode, FedconsoleError, IdentityChangedError
from fedconsole.link_failures import LINK_ERRORS, in_words
from pi_daemon.protocol import messages as m
from pi_daemon.protocol.errors import ProtocolError
from pi_daemon.protocol.limits import RENEW_S
from pi_daemon.protocol.text import clean

_TAKEN = frozenset({m.RefusalCode.HELD, m.RefusalCode.STALE_FENCE})


class WorkerLink:
    """One device, over as many connections as it takes."""

    def __init__(self, address: str, job: Job, reports: Reports, lookout: Lookout) -> None:
        self.address = address
        """Where it was met last; at first, where it should be."""
        self.worker_id = address
        """The address, until the job has given a name that is unique in the run."""
        self.hello: m.Hello | None = None
        self._hello_s = time.monotonic()
        """When it came; before that, when it was first waited for."""
        self._has_joined = False
        self.has_answered = asyncio.Event()
        """Set by the first hello, and by the first failure to get one."""
        self._job = job
        self._reports = reports
        self._search = Search(lookout, address)
        self._fence: int | None = None
        self._is_taken = False
        """By another run, which has been told."""
        self._is_rejected = False
        """The last connection was given up for what came on it: it was there, and will not join soon."""
        self._connection: Connection | None = None
        """Once the worker is ready for rounds."""
        self._backoff = delays()
        self._leased: Connection | None = None
        """From the moment on when the device is this run's."""
        self._orders: Orders | None = None
        """As long as `_connection`."""
        self._deliveries: asyncio.TaskGroup | None = None
        """Outlives connections: an update that has arrived is not lost with its sender."""
        self._bytes_before = (0, 0)
        self._impostor: IdentityChangedError | None = None
        """Who has answered in its place since it was there last."""
        self._is_closing = False
        self.notes = DeviceNotes(job, self._note)

    @property
    def bytes_sent(self) -> int:
        return self._bytes_before[0] + (self._connection.bytes_sent if self._connection else 0)

    @property
    def bytes_received(self) -> int:
        return self._bytes_before[1] + (self._connection.bytes_received if self._connection else 0)

    async def run(self) -> None:
        self._hello_s = time.monotonic()
        address = self.address
        async with asyncio.TaskGroup() as self._deliveries:
            while True:
                began_s = time.monotonic()
                try:
                    await self._connect_once(address)
                except Refusal as refusal:
                    self._refuse(refusal, ExitCode.REFUSED)
                    return
                except DamagedModelError:
                    raise  # on this machine: it is no failure of the link
                except (*LINK_ERRORS, LinkClosed) as error:
                    failure = self._worst(error)
                if self._is_closing or _is_cancelled():
                    return
                if self.hello is not None and self._job.names.done():
                    self._take_name(self.hello)
                is_missing = is_overdue(failure, self._hello_s, began_s) or (
                    self._is_rejected and self._job.names.done()
                )
                if self._is_hopeless(failure, is_missing):
                    self._refuse(failure, failure.exit_code)
                    return
                if self._has_joined or is_missing:
                    was_met = self.hello is not None
                    reason = in_words(failure)
                    self._reports.event(e.WorkerLost(self.worker_id, reason, was_met))
                    self.has_answered.set()
                address = await self._search.next(address, self.address, next(self._backoff))

    def _worst(self, failure: Exception) -> Exception:
        """An impostor that hangs up afterwards is one still."""
        if isinstance(failure, IdentityChangedError):
            self._impostor = failure
        elif not isinstance(failure, FedconsoleError):
            return self._impostor or failure
        return failure

    def _is_hopeless(self, failure: Exception, is_missing: bool) -> TypeGuard[FedconsoleError]:
        """Whether only the operator can mend what keeps this worker from joining. One that has joined
        may be mended while the run goes on; one that has moved may be found where it is now."""
        if isinstance(failure, IdentityChangedError):
            return is_missing and self._search.is_exhausted and not self._has_joined
        return isinstance(failure, FedconsoleError) and not self._has_joined

    def _refuse(self, reason: Exception, exit_code: ExitCode) -> None:
        self._reports.event(e.WorkerRefused(self.worker_id, clean(str(reason)), exit_code))
        self.has_answered.set()

    def send(self, command: c.WorkerCommand) -> None:
        """Without a connection nothing happens: the loss has been reported already."""
        if self._orders is not None:
            self._orders.give(command)

    async def evaluate(self, round_number: int, model_id: str) -> m.Evaluated:
        if self._orders is None:
            raise EvaluationError("not connected")
        try:
            found = await self._orders.evaluate(round_number, model_id)
        except (CommandRefused, LinkClosed) as error:
            raise EvaluationError(in_words(error)) from error
        require_classes(found, self._job.captured.result().num_classes)
        return found

    async def close(self) -> None:
        self._is_closing = True
        if (connection := self._leased) is not None:
            await release(connection, self._head)
            await connection.close()

    # One connection

    async def _connect_once(self, address: str) -> None:
        self._is_rejected = False
        try:
            async with dial(address, self._search.wanted_at(address)) as websocket:
                connection = Connection(websocket, self._listener())
                try:
                    await self._serve(connection, address)
                finally:
                    self._is_rejected = connection.was_given_up
                    if self._connection is not None and not self._is_rejected:
                        self._backoff = delays()
                    self._bytes_before = (self.bytes_sent, self.bytes_received)
                    self._connection = self._leased = self._orders = None
        except BaseExceptionGroup as group:
            # Whatever else a lost link brings about, the first error is the reason.
            raise group.exceptions[0] from None

    async def _serve(self, connection: Connection, address: str) -> None:
        theirs = await connection.greet(self._job.hello)
        if self.hello is not None and theirs.id != self.hello.id:
            raise LinkClosed(f"another device answers at {address} now")
        self._job.claim(address, theirs, self.address)
        self.address, self.hello, self._impostor = address, theirs, None
        self._search.device_id = theirs.id
        self._hello_s = time.monotonic()
        self.has_answered.set()
        if self._job.names.done():
            self._take_name(theirs)  # what it tells comes as soon as it is leased
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(connection.listen())
            try:
                prepared = await self._prepare(connection)
            except Refusal:
                await release(connection, self._head)
                raise
            self._connection = connection
            self._orders = Orders(
                connection, self.worker_id, self._job, self._reports, self.notes, self._head
            )
            tasks.create_task(self._orders.run(tasks))
            status = connection.status
            assert status is not None
            working_on = status.round if status.run == self._job.run_id else None
            if working_on is None:
                self.notes.train_anew()
            self._warn_of_other_torch(theirs)
            self._has_joined = True
            self._reports.event(
                e.WorkerJoined(
                    worker=self.worker_id,
                    address=self.address,
                    device_id=theirs.id,
                    num_examples=prepared.num_examples,
                    num_holdout=prepared.num_holdout,
                    working_on=working_on,
                )
            )
            while True:
                await asyncio.sleep(RENEW_S)
                try:
                    await connection.ask(lambda i: m.RenewLease(**self._head(i)), m.Ok)
                except CommandRefused as error:
                    raise LinkClosed(f"the device has left this run: {error}") from error

    def _take_name(self, hello: m.Hello) -> None:
        self.worker_id = self._job.name_of(hello)
        if (told := self._job.told.pop(self.worker_id, None)) is not None:
            self.notes.go_on_from(*told)

    async def _prepare(self, connection: Connection) -> m.Prepared:
        """Take the lease and make the device ready for rounds."""
        assert self.hello is not None
        status = connection.status
        assert status is not None
        if self._fence is None:
            self._fence = status.highest_fence + 1
        try:
            # At once: the device starts its trainer by it, while the task is still being captured.
            with self._missed_if_slow():
                await connection.ask(lambda i: m.TakeLease(**self._head(i)), m.Ok)
        except CommandRefused as error:
            if error.code in _TAKEN and (self._has_joined or self._job.is_taken_up):
                raise self._wait_for_another_run(error) from error
            raise Refusal(str(error)) from error
        self._leased, self._is_taken = connection, False
        captured = await asyncio.shield(self._job.captured)
        await asyncio.shield(self._job.names)
        self._take_name(self.hello)
        require_suitable(self.hello, captured, self._job)
        self._reports.event(e.WorkerPreparing(self.worker_id))
        plan = self._job.plan
        blob = connection.announce(len(captured.graphs), captured.graphs_sha256)
        try:
            with self._missed_if_slow():
                prepared, _ = await asyncio.gather(
                    connection.ask(
                        lambda i: m.Prepare(
                            **self._head(i),
                            worker_id=self.worker_id,
                            dataset=captured.dataset,
                            sample_shape=captured.sample_shape,
                            sample_dtype=captured.sample_dtype,
                            num_classes=captured.num_classes,
                            batch_size=plan.batch_size,
                            holdout=plan.holdout,
                            order_seed=str(self._job.order_seed(self.worker_id)),
                            optimizer=self._job.optimizer,
                            graphs=blob,
                        ),
                        m.Prepared,
                    ),
                    connection.send_bytes(blob, captured.graphs),
                )
        except CommandRefused as error:
            if error.code in _TAKEN:
                raise self._wait_for_another_run(error) from error
            raise Refusal(str(error)) from error
        self._job.prepared[self.worker_id] = prepared
        return prepared

    def _wait_for_another_run(self, error: CommandRefused) -> LinkClosed:
        """It took the device while this run's engine stood still, was gone or captured its task; told once."""
        self._fence = None
        if not self._is_taken:
            self._is_taken = True
            self._note("warning", text=f"another run has taken it: {error}")
        return LinkClosed(str(error))

    @contextmanager
    def _missed_if_slow(self) -> Iterator[None]:
        """Who has enough others does not wait any longer; it joins as soon as it is ready."""
        missing = asyncio.get_running_loop().call_later(PREPARE_S, self._miss)
        try:
            yield
        finally:
            missing.cancel()

    def _miss(self) -> None:
        if self.hello is not None and self._job.names.done():
            self._take_name(self.hello)
        reason = f"it is connected, and not ready after {PREPARE_S:g} s"
        self._reports.event(e.WorkerLost(self.worker_id, reason, was_met=True))

    def _warn_of_other_torch(self, theirs: m.Hello) -> None:
        there = theirs.capabilities.torch if theirs.capabilities else None
        if there is not None and there != (here := version("torch")):
            text = f"torch {clean(there)} there, {here} here: last bits may differ between workers"
            self._note("warning", text=text)

    def _head(self, cmd_id: str) -> dict[str, Any]:
        """The fields of every command."""
        return {"cmd_id": cmd_id, "run": self._job.run_id, "fence": self._fence}

    # What the daemon tells

    def _listener(self) -> Listener:
        return Listener(
            status=self.notes.take_status,
            batches=self.notes.take_batches,
            round_failed=self._take_failure,
            telemetry=self.notes.take_telemetry,
            log=self.notes.take_log,
            update_path=self._update_path,
            update=self._take_update,
        )

    def _note(self, line_type: str, **fields: Any) -> None:
        self._reports.note(Row(line_type, {"worker": self.worker_id, **fields}))

    def _take_failure(self, connection: Connection, failed: m.RoundFailed) -> None:
        if not self.notes.admit(Kind.STATE):
            return
        self.notes.train_anew()
        reason = clean(failed.reason)
        if failed.limit is None:
            self._reports.event(
                e.TrainingFailed(self.worker_id, failed.round, failed.attempt, reason)
            )
        elif self._orders is not None:
            self._orders.leave(Refusal(reason))
        # Else it comes back over its limit: what it is asked next is refused.

    def _update_path(self, update: m.Update) -> Path:
        """Where the bytes of an update are to land.

        Raises:
            ProtocolError: nobody has asked for so many, or for one of that size; the link ends.
        """
        if self._job.captured.done():
            most = self._job.captured.result().max_update_bytes
            if update.parameters.size > most:
                size = update.parameters.size
                raise ProtocolError(f"update of {size} bytes, at most {most} allowed")
        if not self.notes.admit(Kind.UPDATE):
            raise ProtocolError("more updates than this run has asked for")
        return self._job.store.new_update_path(update.round, self.worker_id)

    def _take_update(
        self, connection: Connection, update: m.Update, path: Path, failure: OSError | None
    ) -> None:
        assert self._deliveries is not None
        if not self._has_joined:
            # A run that is being taken up does not know whose it is: it comes again under the new attempt.
            path.unlink(missing_ok=True)
            return
        self._deliveries.create_task(
            deliver_or_hang_up(
                connection, self._job, self._reports, self.worker_id, update, path, failure
            )
        )


def _is_cancelled() -> bool:
    """A group of tasks that fails and is cancelled at the same time tells of the failure alone."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0
