"""Random walks through the run machine, by workers and operators that are often wrong."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule
from msgspec.structs import replace

from fedconsole.coordinator import commands, events
from fedconsole.coordinator.machine import advance, replay, request_of, start
from fedconsole.coordinator.phases import IllegalRequest, RunPhase, allowed_requests
from fedconsole.coordinator.plan import EpochEnd, OnQuorumLoss, Plan, Weighting
from fedconsole.coordinator.state import RunState, TimerKind
from pi_daemon.protocol.messages import Cursor
from tests.support.books import Books, evaluated
from tests.support.play import joins

NUM_EXAMPLES = {"alice": 100, "bob": 50, "charlie": 41, "dave": 0}
NUM_HOLDOUT = {"alice": 10, "bob": 0, "charlie": 5, "dave": 0}
BATCHES_PER_EPOCH = {"alice": 10, "bob": 5, "charlie": 4, "dave": 0}
WORKERS = st.sampled_from(sorted(NUM_EXAMPLES))
REQUESTS: dict[str, events.Event] = {
    "pause": events.PauseRequested(),
    "resume": events.ResumeRequested(),
    "abort": events.AbortRequested(),
    "stop": events.StopAfterRoundRequested(),
    "wait": events.WaitRequested(),
    "fewer": events.FewerRequested(),
}


def one_in(number: int) -> st.SearchStrategy[bool]:
    """True that rarely. Hypothesis prefers the ends of a range, so none of them counts."""
    return st.integers(0, number).map(lambda drawn: drawn == number // 2)


@st.composite
def plans(draw: st.DrawFn) -> Plan:
    num_workers = len(NUM_EXAMPLES)
    cohort_size = draw(st.none() | st.integers(1, num_workers))
    rounds = draw(st.none() | st.integers(1, 4))
    local_epochs = draw(st.none() | st.integers(1, 2))
    return Plan(
        virtual=num_workers,
        rounds=rounds,
        epochs=draw(st.integers(1, 3)) if rounds is None else None,
        local_epochs=local_epochs,
        federate_after_n_batches=draw(st.integers(1, 7)) if local_epochs is None else None,
        batch_size=10,
        weighting=draw(st.sampled_from(Weighting)),
        epoch_end=draw(st.sampled_from(EpochEnd)),
        cohort_size=cohort_size,
        min_updates=draw(st.none() | st.integers(1, cohort_size or num_workers)),
        on_quorum_loss=draw(st.sampled_from(OnQuorumLoss)),
        eval_every=draw(st.sampled_from(("round", "epoch", 1, 2, 3))),
        holdout=draw(st.sampled_from((0.0, 0.1))),
        stop_at=draw(st.none() | st.just(("accuracy", 0.9))),
    )


def update_for(sent: commands.SendRound) -> events.UpdateDelivered:
    """What a well-behaved worker returns; its last batch is one example short."""
    epochs, batch = divmod(sent.cursor.batch + sent.num_batches, BATCHES_PER_EPOCH[sent.worker])
    return events.UpdateDelivered(
        worker=sent.worker,
        round=sent.round,
        attempt=sent.attempt,
        model_id=sent.model_id,
        num_examples=sent.num_batches * 10 - 1,
        num_batches=sent.num_batches,
        cursor=Cursor(sent.cursor.epoch + epochs, batch),
        loss=0.5,
        seconds=1.0,
        file=f"{sent.worker}-{sent.round}-{sent.attempt}",
        sha256="sha",
    )


class Walk(RuleBasedStateMachine):
    state: RunState

    @initialize(plan=plans(), are_all_present=st.sampled_from((True, True, False)))
    def begin(self, plan: Plan, are_all_present: bool) -> None:
        self.books = Books(plan, BATCHES_PER_EPOCH)
        self.updates: list[events.UpdateDelivered] = []
        created = events.RunCreated(plan, "model-0")
        self.journal: list[events.Event] = [created]
        self.state, first = start(created)
        self.books.take(None, created, self.state, first)
        if are_all_present:
            self.all_join(None)

    def tell(self, event: events.Event) -> None:
        before = self.state
        if isinstance(event, events.RequestEvent) and (
            request_of(event) not in allowed_requests(before.phase, is_stopping=before.is_stopping)
            or (isinstance(event, events.FewerRequested) and before.have == 0)
        ):
            with pytest.raises(IllegalRequest):
                advance(before, event)
            return
        self.state, told = advance(before, event)
        self.journal.append(event)
        if before.phase.is_finished:
            assert (self.state, told) == (before, ())
            return
        self.books.take(before, event, self.state, told)

    # Workers

    @rule(worker=WORKERS, working_on=st.none() | st.integers(1, 4))
    def join(self, worker: str, working_on: int | None) -> None:
        self.connect(worker, working_on)

    @rule(working_on=st.none() | st.integers(1, 4))
    def all_join(self, working_on: int | None) -> None:
        for worker in sorted(set(NUM_EXAMPLES) - self.books.connected):
            self.connect(worker, working_on)

    def connect(self, worker: str, working_on: int | None) -> None:
        if not self.state.phase.is_finished:
            self.books.connected.add(worker)
        self.tell(joins(worker, NUM_EXAMPLES[worker], NUM_HOLDOUT[worker], working_on))

    @rule(worker=WORKERS)
    def is_made_ready(self, worker: str) -> None:
        self.tell(events.WorkerPreparing(worker))

    @rule(worker=WORKERS)
    def another_device_joins_under_the_name(self, worker: str) -> None:
        if worker in self.state.members:
            self.tell(replace(joins(worker, NUM_EXAMPLES[worker]), device_id="other"))

    @rule(worker=WORKERS, was_met=st.booleans())
    def lose(self, worker: str, was_met: bool) -> None:
        if not self.state.phase.is_finished:
            self.books.connected.discard(worker)
        self.tell(events.WorkerLost(worker, "link closed", was_met))

    @rule(worker=WORKERS)
    def deliver(self, worker: str) -> None:
        """What the worker was asked for last, in whichever round that was."""
        attempts = [sent for (name, _), sent in self.books.sent.items() if name == worker]
        if attempts:
            self.deliver_for(attempts[-1][-1])

    @rule()
    def all_come_back_and_deliver(self) -> None:
        self.all_join(None)
        self.all_deliver()

    def all_deliver(self, but: str | None = None) -> None:
        round_ = self.state.open_round
        for worker in round_.parts if round_ else ():
            attempts = self.books.sent.get((worker, self.state.num_rounds + 1))
            if attempts and worker != but:
                self.deliver_for(attempts[-1])

    def deliver_for(self, sent: commands.SendRound) -> None:
        update = update_for(sent)
        self.updates.append(update)
        self.tell(update)

    @precondition(lambda self: self.updates)
    @rule(data=st.data())
    def repeat_an_update(self, data: st.DataObject) -> None:
        self.tell(data.draw(st.sampled_from(self.updates)))

    @precondition(lambda self: self.books.sent)
    @rule(data=st.data())
    def deliver_something_else(self, data: st.DataObject) -> None:
        attempts = data.draw(st.sampled_from(list(self.books.sent.values())[-3:]))
        update = update_for(attempts[-1])
        wrong = data.draw(
            st.sampled_from(
                (
                    replace(update, worker="mallory"),
                    replace(update, worker="alice"),
                    replace(update, round=update.round + 1),
                    replace(update, attempt=update.attempt + 1),
                    replace(update, attempt=0),
                    replace(update, model_id="other"),
                    replace(update, num_batches=update.num_batches + 1),
                    replace(update, cursor=Cursor(update.cursor.epoch, update.cursor.batch + 1)),
                )
            )
        )
        self.tell(wrong)

    @rule(worker=WORKERS, age=st.integers(0, 1), attempt=st.integers(1, 3))
    def fail(self, worker: str, age: int, attempt: int) -> None:
        self.tell(events.TrainingFailed(worker, self.state.num_rounds + 1 - age, attempt, "died"))

    @rule(worker=WORKERS, age=st.integers(0, 1))
    def reject(self, worker: str, age: int) -> None:
        self.tell(events.UpdateRejected(worker, self.state.num_rounds + 1 - age, 1, "NaN"))

    @rule(worker=WORKERS)
    def acknowledge_pause(self, worker: str) -> None:
        self.tell(events.WorkerPaused(worker))

    @rule(worker=WORKERS)
    def acknowledge_abort(self, worker: str) -> None:
        self.tell(events.WorkerAborted(worker))

    @rule()
    def all_acknowledge(self) -> None:
        for worker in sorted(self.state.waiting_for):
            self.tell(events.WorkerPaused(worker))
            self.tell(events.WorkerAborted(worker))

    @rule(num_rounds=st.integers(1, 3))
    def all_goes_well(self, num_rounds: int) -> None:
        for _ in range(num_rounds):
            self.all_deliver()
            self.the_engine_works()

    @rule(worker=WORKERS)
    def one_misses_the_deadline(self, worker: str) -> None:
        self.all_deliver(but=worker)
        if self.state.phase is RunPhase.TRAINING:
            self.time_is_up()
        self.the_engine_works()

    # The engine

    @precondition(lambda self: self.books.work)
    @rule()
    def finish_work(self) -> None:
        self.tell(self.books.work.pop(0))

    def the_engine_works(self) -> None:
        while self.books.work:
            self.finish_work()
            for worker in sorted(self.state.round.evaluating if self.state.round else ()):
                self.evaluate_on_worker(worker, is_able=True)

    @rule(worker=WORKERS, is_able=st.booleans())
    def evaluate_on_worker(self, worker: str, is_able: bool) -> None:
        number = self.state.round.number if self.state.round else 1
        if is_able:
            self.tell(evaluated(number, 0.5, worker))
        else:
            self.tell(events.EvaluationFailed(round=number, reason="busy", worker=worker))

    @rule(number=st.integers(0, 5))
    def report_work_that_was_not_asked_for(self, number: int) -> None:
        # What the disk has refused is asked for again: it is still wanted.
        timer = self.state.timer
        is_wanted = timer is not None and timer.kind is TimerKind.STORAGE
        if not (self.books.work or is_wanted):
            self.tell(events.ModelAggregated(number, "model-x"))
            self.tell(events.RoundSaved(number, "file", "sha"))
            self.tell(evaluated(number, 0.95))

    @rule(is_deadline=st.booleans(), is_unlucky=one_in(10))
    def a_timer_expires(self, is_deadline: bool, is_unlucky: bool) -> None:
        if is_unlucky or (is_deadline and self.state.phase is RunPhase.TRAINING):
            self.time_is_up()

    def time_is_up(self) -> None:
        if self.books.timer is not None:
            number, self.books.timer = self.books.timer, None
            self.tell(events.TimerExpired(number))

    @rule(number=st.integers(0, 20))
    def a_stopped_timer_expires(self, number: int) -> None:
        if number != self.books.timer:
            self.tell(events.TimerExpired(number))

    @rule(is_unlucky=one_in(10), lost=st.none() | WORKERS)
    def the_engine_restarts(self, is_unlucky: bool, lost: str | None) -> None:
        if is_unlucky and not self.state.phase.is_finished:
            self.books.restart(lost)
            self.tell(events.EngineRestarted(lost=(lost,) if lost else ()))

    @rule(is_unlucky=one_in(50))
    def the_disk_is_full(self, is_unlucky: bool) -> None:
        if is_unlucky:
            self.books.lose_work()
            self.tell(events.StorageFailed("disk full"))

    @rule(request=st.sampled_from(("pause", "resume")))
    def the_operator_asks(self, request: str) -> None:
        self.tell(REQUESTS[request])

    @precondition(lambda self: self.state.phase is RunPhase.WAITING)
    @rule(request=st.sampled_from(("wait", "fewer")))
    def the_operator_says_what_is_enough(self, request: str) -> None:
        self.tell(REQUESTS[request])

    @rule(is_unlucky=one_in(10))
    def the_operator_stops_after_the_round(self, is_unlucky: bool) -> None:
        if is_unlucky:
            self.tell(REQUESTS["stop"])

    @rule(is_unlucky=one_in(30))
    def the_operator_aborts(self, is_unlucky: bool) -> None:
        if is_unlucky:
            self.tell(REQUESTS["abort"])

    def teardown(self) -> None:
        """When everyone goes quiet, timers alone end the run; and its journal leads to its end."""
        if not hasattr(self, "books"):
            return
        if self.state.phase in {RunPhase.PAUSING, RunPhase.PAUSED}:
            self.tell(REQUESTS["resume"])
        for _ in range(20):
            if self.state.phase.is_finished:
                break
            if self.books.work:
                self.finish_work()
            else:
                assert self.books.timer is not None
                self.time_is_up()
        assert self.state.phase.is_finished
        lines = [msgspec.json.encode(event) for event in self.journal]
        assert replay(msgspec.json.decode(line, type=events.Event) for line in lines) == self.state


Walk.TestCase.settings = settings(
    max_examples=300,
    stateful_step_count=50,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)
TestWalk = Walk.TestCase
