"""Carries one run: feeds what happens to the machine, journals it, does what the machine commands.

One class, as all of it is about the order of these three; what each takes is in modules of its own.
"""

from __future__ import annotations

import asyncio
import gc
import sys
from collections.abc import Coroutine, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final, assert_never

import msgspec

from fedconsole.coordinator import commands as c
from fedconsole.coordinator import events as e
from fedconsole.coordinator import facts, machine
from fedconsole.coordinator.phases import Request
from fedconsole.coordinator.state import Outcome, RunState, TimerKind
from fedconsole.engine.chores import Chores
from fedconsole.engine.fact_lines import FactLines, created_row
from fedconsole.engine.ledger import RETRY_S, Ledger
from fedconsole.engine.lookout import Lookout
from fedconsole.engine.preflight import Problem, preflight
from fedconsole.engine.store import Row
from fedconsole.engine.virtual import TrainerPool, VirtualWorker
from fedconsole.engine.worker import Job, Worker, unique_names
from fedconsole.engine.worker_link import WorkerLink
from fedconsole.errors import ExitCode, RefusedError, StorageError, UsageError

if TYPE_CHECKING:
    from fedconsole.engine.work import Work

_HEARTBEAT_S: Final = 30.0
_STOOD_STILL_S: Final = 1.0
"""A timer that comes so late: this process, or its machine, was stopped, asleep or swapped out."""
_CATCH_UP_S: Final = 10.0
_NAMING_S: Final = 10.0
"""Devices that have not said hello by then are named when they come."""

_REQUESTS: Final[dict[str, e.RequestEvent]] = {
    "pause": e.PauseRequested(),
    "resume": e.ResumeRequested(),
    "abort": e.AbortRequested(),
    "stop": e.StopAfterRoundRequested(),
    "wait": e.WaitRequested(),
    "fewer": e.FewerRequested(),
}


class Session:
    """One run from its first event to its last. Used once."""

    def __init__(
        self,
        job: Job,
        left: RunState | None,
        *,
        is_dry_run: bool = False,
        search_s: float = 0.0,
    ) -> None:
        """
        Args:
            left: where another engine has left the run, by its journal; None: before its first event.
            search_s: how long to listen for announcements of a lost device; 0: no multicast.
        """
        self._left = left
        self._job = job
        self._is_dry_run = is_dry_run
        self._plan = job.plan
        self._store = job.store
        self._state: RunState | None = None
        """None until the task is captured."""
        self._events: asyncio.Queue[e.Event | None] = asyncio.Queue()
        """None only wakes the pump, to find that the run has ended."""
        self._lookout = Lookout(search_s)
        self._links = [
            WorkerLink(address, job, self, self._lookout) for address in job.plan.workers
        ]
        self._pool = TrainerPool(job.plan.virtual, "cuda" if job.plan.cuda else "cpu")
        self._workers: list[Worker] = [
            *self._links,
            *(VirtualWorker(n, job, self, self._pool) for n in range(job.plan.virtual)),
        ]
        self._timer: asyncio.TimerHandle | None = None
        self._loop = asyncio.get_running_loop()
        self._ledger = Ledger(self._store, self._do)
        self._lines = FactLines(self._workers, self._store, self._loop.time)
        self._finish: c.Finish | None = None
        self._is_aborted_early = asyncio.Event()
        """Before the machine was there."""
        self._gives_up = asyncio.Event()
        """Set when an abort cannot be written either."""

    async def run(self) -> ExitCode:
        """Carry the run to its end; the last line of the journal is `run.finished` then.

        Where the journal of another engine ends without that line, the run goes on from there.

        Raises:
            FedconsoleError: the run has stopped where it was, without a last line: the journal cannot be
                written, or what another engine began cannot be taken up.
        """
        self._job.is_taken_up = self._store.last_seq > 0
        if not self._job.is_taken_up:
            self._store.commit(created_row(self._plan))
        async with asyncio.TaskGroup() as self._tasks:
            workers = [self._tasks.create_task(worker.run()) for worker in self._workers]
            background = [
                self._tasks.create_task(self._beat()),
                self._tasks.create_task(self._lookout.run()),
            ]
            finish = await self._carry()
            for task in background:
                task.cancel()
            # A worker's release takes seconds where the network is gone: all at the same time.
            await asyncio.gather(*(worker.close() for worker in self._workers))
            for task in workers:
                task.cancel()
            await self._pool.close()
        with suppress(OSError, ValueError):
            self._store.drop_updates(self.num_rounds + 1)
        return finish.exit_code

    async def _carry(self) -> c.Finish:
        left = self._left
        capturing = asyncio.to_thread(self._capture)
        try:
            work = await (capturing if left else self._unless_aborted(capturing))
            if work is None:
                return self._end_early("aborted while its task was captured", ExitCode.ABORTED)
            if left is None:
                initial = await asyncio.to_thread(work.write_initial_model)
        except RefusedError as error:
            if self._job.is_taken_up:
                raise
            return self._end_early(str(error), error.exit_code)
        self._chores = Chores(work, self._job, self._store, self)
        if left is not None:
            await self._take_up(work, left)
        else:
            self._job.models[initial.model_id] = initial
            self._job.captured.set_result(work.captured)
            await self._name_workers()
            if self._is_dry_run:
                return await self._preflight()
            self._store.keep_updates(())
            created = e.RunCreated(self._plan, initial.model_id)
            self._take([created], *machine.start(created))
            if self._job.is_taken_up:
                self._restart(self._state_now, lost=())
        while self._finish is None:
            await self._advance(await self._next_events())
        return self._finish

    async def _unless_aborted(self, capturing: Coroutine[Any, Any, Work]) -> Work | None:
        """Let the operator not wait for it: its thread ends by itself, before this process does."""
        # Not of the group: what it raises is this caller's to handle.
        captured = self._loop.create_task(capturing)
        aborted = self._loop.create_task(self._is_aborted_early.wait())
        await asyncio.wait({captured, aborted}, return_when=asyncio.FIRST_COMPLETED)
        aborted.cancel()
        if captured.done():
            return captured.result()
        captured.cancel()
        return None

    async def _take_up(self, work: Work, state: RunState) -> None:
        """Go on where another engine stopped, with the model of its last complete round.

        Raises:
            RefusedError: the task is not what it was.
            StorageError: that model cannot be read.
        """
        if state.phase.is_finished:
            ending = state.ending
            assert ending is not None
            self._finish = c.Finish(ending.outcome, ending.reason, ending.exit_code)
            return
        model = await asyncio.to_thread(work.find_model, state.num_rounds, state.model_id)
        self._job.models[model.model_id] = model
        updates = state.round.delivered if state.round else {}
        self._store.keep_updates({update.file for update in updates.values()})
        lost = await asyncio.to_thread(work.lost_updates, updates)
        if state.open_round is not None:
            self._job.told = self._store.losses_told(state.open_round.number)
        # Names decide who trains on what in which order: they stay.
        self._job.worker_ids |= {
            w.address: w.worker_id for w in self._workers if w not in self._links
        }
        self._job.worker_ids |= {member.device_id: name for name, member in state.members.items()}
        self._job.names.set_result(None)
        self._job.captured.set_result(work.captured)
        self._restart(state, lost)

    def _restart(self, state: RunState, lost: tuple[str, ...]) -> None:
        restarted = e.EngineRestarted(lost)
        self._take([restarted], *machine.advance(state, restarted))

    async def _next_events(self) -> list[e.Event]:
        """Everything that has happened since the last time; waits until something has."""
        events = [await self._events.get()]
        while not self._events.empty():
            events.append(self._events.get_nowait())
        return [event for event in events if event is not None]

    @property
    def _state_now(self) -> RunState:
        assert self._state is not None, "the machine has not been started"
        return self._state

    async def _preflight(self) -> c.Finish:
        """Find out whether each worker could take part, and end."""
        problems: list[Problem] = []
        async for row, problem in preflight(self._workers, self._job, self._events):
            self._store.commit(row)
            if problem is not None:
                problems.append(problem)
        if problems:
            # The first one, unless the operator has had enough.
            return self._end_early(*max(problems, key=lambda p: p[1] is ExitCode.ABORTED))
        return self._end_early("every worker is ready", ExitCode.COMPLETED)

    def _end_early(self, reason: str, exit_code: ExitCode) -> c.Finish:
        """End a run that the machine never had."""
        outcome = {
            ExitCode.COMPLETED: Outcome.COMPLETED,
            ExitCode.ABORTED: Outcome.ABORTED,
        }.get(exit_code, Outcome.FAILED)
        finished = facts.RunFinished(
            outcome=outcome,
            rounds=0,
            model_id="",
            model_path=None,
            reason=reason,
            exit_code=exit_code,
        )
        row = self._lines.row(finished)
        assert row is not None
        self._store.commit(row)
        self._finish = c.Finish(outcome, reason, exit_code)
        return self._finish

    def _capture(self) -> Work:
        # torch takes more than a second: links are made and answered meanwhile. What it makes in
        # that time stays, and a tenth of the time would go into looking for garbage among it.
        gc.disable()
        try:
            from fedconsole.engine.work import Work

            return Work(self._plan, self._store)
        finally:
            gc.enable()

    async def _name_workers(self) -> None:
        """Give every device that is there its name in the run, whatever their order of arrival."""
        with suppress(TimeoutError):
            async with asyncio.timeout(_NAMING_S):
                for link in self._links:
                    await link.has_answered.wait()
        hellos = [link.hello for link in self._links if link.hello is not None]
        virtual = {w.address: w.worker_id for w in self._workers if w not in self._links}
        names = unique_names({hello.id: hello.name for hello in hellos}, virtual.values())
        self._job.worker_ids |= virtual | names
        self._job.names.set_result(None)

    @property
    def num_rounds(self) -> int:
        """Complete ones."""
        return self._state.num_rounds if self._state else 0

    # From outside

    def request(self, name: str) -> None:
        """Carry out one of the operator's requests.

        Raises:
            FedconsoleError: there is no such request, or the run cannot do that now.
        """
        event = _REQUESTS.get(name)
        if event is None:
            raise UsageError(f"no request {name!r}; there are {', '.join(_REQUESTS)}")
        if self._state is not None:
            try:
                self._take([event], *machine.advance(self._state, event), at_once=True)
            except StorageError:
                if name == "abort":
                    self._gives_up.set()
                raise
        elif name == "abort":
            self._is_aborted_early.set()
            self.event(event)  # the machine's first, as soon as it is there
        else:
            is_second = name == "resume" and self._job.is_taken_up
            why = "it is resumed already" if is_second else "its task is still being captured"
            raise RefusedError(f"cannot {Request(name).in_words}: {why}")

    def standstill(self) -> str | None:
        """Why the run stands still, where its disk is why."""
        timer = self._state.timer if self._state else None
        if timer is not None and timer.kind is TimerKind.STORAGE:
            return f"round {self.num_rounds + 1} cannot be saved"
        return self._store.refusal

    def event(self, event: e.Event) -> None:
        self._events.put_nowait(event)

    def note(self, row: Row) -> None:
        if self._finish is not None:
            return  # nothing follows `run.finished`
        self._ledger.note(row)

    async def _beat(self) -> None:
        while True:
            await asyncio.sleep(_HEARTBEAT_S)
            self.note(Row("heartbeat", {"text": "the engine is alive"}))

    # The machine's decisions

    async def _advance(self, events: Sequence[e.Event]) -> None:
        """Take events in order, but as one.

        While the journal cannot be written the run stands still, at most until the operator aborts it.

        Raises:
            StorageError: it cannot be written, and the operator has had enough.
        """
        while True:
            try:
                return self._take_in(events)
            except StorageError as error:
                if self._gives_up.is_set():
                    raise
                # The log is on the same disk.
                with suppress(OSError):
                    print(f"{error}; trying again every {RETRY_S:g} s", file=sys.stderr)
                with suppress(TimeoutError):
                    await asyncio.wait_for(self._gives_up.wait(), RETRY_S)

    def _take_in(self, events: Sequence[e.Event]) -> None:
        state = self._state_now
        taken: list[e.Event] = []
        commands: list[c.Command] = []
        for event in events:
            if state.phase.is_finished:
                break
            state, more = machine.advance(state, event)
            taken.append(event)
            commands += more
        self._take(taken, state, commands)

    def _take(
        self,
        events: Sequence[e.Event],
        state: RunState,
        commands: Sequence[c.Command],
        *,
        at_once: bool = False,
    ) -> None:
        """Journal events with what becomes public of them; then do what the machine commands."""
        rows = self._lines.rows(commands)
        encoded = [msgspec.json.encode(event) for event in events]
        before, self._state = self._state, state
        try:
            self._ledger.take(rows, encoded, commands, at_once=at_once)
        except StorageError:
            self._state = before
            raise

    def _do(self, command: c.Command) -> None:
        match command:
            case c.Announce(fact=facts.RoundFinished(round=number)):
                # Only now: until its end is on disk a round may have to be done again.
                self._spawn(self._chores.tidy(number))
            case c.Announce():
                pass  # journalled with the event
            case c.StartTimer(seconds=seconds, number=number):
                self._stop_timer()
                expired = e.TimerExpired(number)
                due_s = self._loop.time() + seconds
                self._timer = self._loop.call_later(seconds, self._expire, expired, due_s)
            case c.StopTimer():
                self._stop_timer()
            case c.Aggregate():
                assert self._state_now.round is not None
                self._spawn(self._chores.aggregate(command, self._state_now.round.model_id))
            case c.Evaluate():
                self._spawn(self._chores.evaluate(command))
            case c.EvaluateOnWorkers(workers=workers):
                for worker in map(self._worker, workers):
                    self._spawn(self._chores.evaluate_on(worker, command))
            case c.SaveRound():
                self._spawn(self._chores.save_round(command))
            case c.SaveModel():
                self._spawn(self._chores.save_model(command))
            case c.Finish():
                self._finish = command
                self._events.put_nowait(None)
            case (
                c.SendRound()
                | c.PauseWorker()
                | c.ResumeWorker()
                | c.AbortWorker()
                | c.AcceptUpdate()
                | c.RefuseUpdate()
            ):
                self._worker(command.worker).send(command)
            case _:
                assert_never(command)

    def _expire(self, expired: e.TimerExpired, due_s: float) -> None:
        if self._loop.time() - due_s < _STOOD_STILL_S:
            self.event(expired)
        else:
            # It is not the workers who are late: what they have sent meanwhile is read first.
            self._timer = self._loop.call_later(_CATCH_UP_S, self.event, expired)

    def _worker(self, worker_id: str) -> Worker:
        return next(worker for worker in self._workers if worker.worker_id == worker_id)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        self._tasks.create_task(work)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
