"""Decides what a run does next: one event in, the next state and the commands out.

Pure: no clock, tensors, files or awaits. Timers and everything else that acts are commands.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from typing import assert_never

from msgspec.structs import replace

from fedconsole.coordinator import answers, closing, commands, events, facts, quorum, rounds
from fedconsole.coordinator.phases import Request, RunPhase, require_allowed
from fedconsole.coordinator.state import (
    Ending,
    Member,
    Outcome,
    PartStatus,
    Round,
    RoundStep,
    RunState,
    TimerKind,
)
from fedconsole.coordinator.turn import Turn
from fedconsole.errors import ExitCode
from pi_daemon.protocol.batching import batches_per_epoch
from pi_daemon.protocol.messages import Cursor

ABORT_TIMEOUT_S = 5.0

Step = tuple[RunState, tuple[commands.Command, ...]]


def start(created: events.RunCreated) -> Step:
    plan = created.plan
    turn = Turn(RunState(plan=plan, model_id=created.model_id))
    turn.announce(facts.RunCreated(plan.task, plan))
    turn.start_timer(TimerKind.GATHERING, plan.quorum_timeout_s)
    return turn.state, tuple(turn.commands)


def advance(state: RunState, event: events.Event) -> Step:
    """The state after `event` and what is to be done; `state` itself never changes.

    What a worker or a timer says out of place is counted, answered with a refusal where the worker
    waits for an answer, and changes nothing else.

    Raises:
        IllegalRequest: the operator asks for what the phase does not allow.
    """
    if isinstance(event, events.RequestEvent):
        require_allowed(request_of(event), state.phase, is_stopping=state.is_stopping)
    if state.phase.is_finished:
        return state, ()
    turn = Turn(state)
    _take(turn, event)
    return turn.state, tuple(turn.commands)


def replay(journal: Iterable[events.Event]) -> RunState:
    """The state that a journal leads to; raises as `states`."""
    *_, last = states(journal)
    return last


def states(journal: Iterable[events.Event]) -> Iterator[RunState]:
    """The state after each event of a journal.

    Raises:
        ValueError: the first event is not RunCreated.
    """
    first, *others = journal
    if not isinstance(first, events.RunCreated):
        raise ValueError(f"the journal begins with {type(first).__name__}, expected RunCreated")
    state, _ = start(first)
    yield state
    for event in others:
        state, _ = advance(state, event)
        yield state


def request_of(event: events.RequestEvent) -> Request:
    match event:
        case events.PauseRequested():
            return Request.PAUSE
        case events.ResumeRequested():
            return Request.RESUME
        case events.AbortRequested():
            return Request.ABORT
        case events.StopAfterRoundRequested():
            return Request.STOP
        case events.WaitRequested():
            return Request.WAIT
        case events.FewerRequested():
            return Request.FEWER


def _take(turn: Turn, event: events.Event) -> None:
    match event:
        case events.RunCreated():
            turn.ignore()
        case events.EngineRestarted():
            _restart(turn, event)
        case events.TimerExpired():
            _expire(turn, event)
        case events.PauseRequested():
            _pause(turn)
        case events.ResumeRequested():
            _resume(turn)
        case events.AbortRequested():
            _abort(turn, event)
        case events.StopAfterRoundRequested():
            _stop_after_round(turn)
        case events.WaitRequested():
            quorum.wait_longer(turn)
        case events.FewerRequested():
            rounds.go_on_with_fewer(turn)
        case events.WorkerPreparing():
            quorum.begin_preparing(turn, event.worker)
        case events.WorkerJoined():
            _join(turn, event)
        case events.WorkerRefused():
            _refuse_worker(turn, event)
        case events.WorkerLost():
            _lose(turn, event)
        case events.WorkerPaused():
            _acknowledge(turn, event.worker, {RunPhase.PAUSING, RunPhase.PAUSED})
        case events.WorkerAborted():
            _acknowledge(turn, event.worker, {RunPhase.ABORTING})
        case events.UpdateDelivered():
            answers.deliver(turn, event)
        case events.UpdateRejected():
            answers.reject(turn, event)
        case events.TrainingFailed():
            answers.fail_training(turn, event)
        case events.ModelAggregated():
            closing.take_aggregate(turn, event)
        case events.AggregationFailed():
            if closing.at_step(turn, event.round, RoundStep.AGGREGATING):
                turn.fail(f"round {event.round}: {event.reason}", ExitCode.RUN_FAILED)
        case events.Evaluated():
            closing.take_evaluation(turn, event)
        case events.EvaluationFailed():
            closing.fail_evaluation(turn, event)
        case events.RoundSaved():
            if closing.close_saved(turn, event):
                rounds.next_round(turn)
        case events.ModelSaved():
            if turn.state.phase is RunPhase.FINISHING and turn.state.ending:
                turn.end(turn.state.ending, event.path)
            else:
                turn.ignore()
        case events.StorageFailed():
            closing.wait_for_room(turn, event)
        case _:
            assert_never(event)


def _join(turn: Turn, event: events.WorkerJoined) -> None:
    turn.end_preparing(event.worker)
    member = turn.state.members.get(event.worker)
    if member is None:
        member = Member(
            address=event.address,
            device_id=event.device_id,
            num_examples=event.num_examples,
            num_holdout=event.num_holdout,
            batches_per_epoch=batches_per_epoch(event.num_examples, turn.state.plan.batch_size),
            cursor=Cursor(turn.state.epoch, 0),
        )
        turn.put_member(event.worker, member)
        turn.announce(facts.WorkerJoined(event.worker, event.address))
    elif problem := _change_of(member, event):
        turn.warn(f"cannot rejoin: {problem}; its part in this run is over", event.worker)
        turn.ignore()
        return
    else:
        turn.wait_no_more_for(event.worker)
        turn.put_member(event.worker, replace(member, is_connected=True, address=event.address))
        turn.announce(facts.WorkerRejoined(event.worker, event.address))
        _take_up_part(turn, event)
    here = {event.worker, event.address}
    absent = {name: reason for name, reason in turn.state.absent.items() if name not in here}
    turn.state = replace(turn.state, absent=absent, expected=turn.state.expected - here)
    round_ = turn.state.open_round
    if event.working_on is not None and (round_ is None or event.working_on != round_.number):
        # It counts no more, and a device takes no other round before it has let go of that.
        turn.tell(commands.AbortWorker(event.worker, event.working_on))
    turn.steer(event.worker)
    rounds.welcome(turn, event.worker)


def _change_of(member: Member, event: events.WorkerJoined) -> str | None:
    if event.device_id != member.device_id:
        return f"it was device {member.device_id} and is now {event.device_id}"
    before = member.num_examples, member.num_holdout
    now = event.num_examples, event.num_holdout
    if now != before:
        return f"it had {before[0]} + {before[1]} examples and now has {now[0]} + {now[1]}"
    return None


def _take_up_part(turn: Turn, event: events.WorkerJoined) -> None:
    """Decide what a worker that is back has in hand of the open round."""
    round_, phase = turn.state.open_round, turn.state.phase
    part = round_.parts.get(event.worker) if round_ else None
    if round_ is None or part is None or part.status is PartStatus.DELIVERED:
        return
    if part.status is PartStatus.OUT:
        if phase is RunPhase.WAITING:
            # The quorum depends on it: whoever mended the worker gets a new chance.
            part = replace(part, status=PartStatus.IDLE, num_failures=0)
    elif event.working_on != round_.number or phase in {RunPhase.TRAINING, RunPhase.WAITING}:
        # A device that has the round in hand goes on with it under the new attempt.
        part = replace(part, status=PartStatus.IDLE)
    elif part.is_working:
        part = replace(part, status=PartStatus.TRAINING)
    turn.put_part(round_, event.worker, part)


def _refuse_worker(turn: Turn, event: events.WorkerRefused) -> None:
    turn.end_preparing(event.worker)
    if turn.state.phase is RunPhase.GATHERING:
        turn.fail(f"{event.worker} cannot take part: {event.reason}", event.exit_code)
        return
    member = turn.state.members.get(event.worker)
    if member is None:
        turn.warn(f"cannot take part: {event.reason}", event.worker)
        return
    turn.warn(f"out of this run: {event.reason}", event.worker)
    if member.is_connected:
        turn.announce(facts.WorkerLost(event.worker, member.address, event.reason))
    turn.put_member(event.worker, replace(member, is_connected=False, refusal=event.reason))
    turn.wait_no_more_for(event.worker)
    round_ = turn.state.open_round
    part = round_.parts.get(event.worker) if round_ else None
    if round_ is not None and part is not None and not part.has_answered:
        turn.put_part(round_, event.worker, replace(part, status=PartStatus.OUT))
    rounds.settle(turn)


def _lose(turn: Turn, event: events.WorkerLost) -> None:
    was_preparing = event.worker in turn.state.preparing
    turn.end_preparing(event.worker)
    state = turn.state
    member = state.members.get(event.worker)
    if state.phase is RunPhase.GATHERING:
        met = {event.worker} if event.was_met else set()
        turn.state = replace(
            state,
            absent={**state.absent, event.worker: event.reason},
            expected=state.expected | met,
        )
    if member is not None and member.is_connected:
        turn.put_member(event.worker, replace(member, is_connected=False))
        turn.wait_no_more_for(event.worker)
        turn.announce(facts.WorkerLost(event.worker, member.address, event.reason))
        quorum.warn(turn)
    elif state.phase is RunPhase.GATHERING and event.worker not in state.absent:
        turn.announce(facts.WorkerLost(event.worker, event.worker, event.reason))
    elif state.phase is not RunPhase.GATHERING and not was_preparing:
        turn.ignore()
        return
    rounds.settle(turn)


def _acknowledge(turn: Turn, worker: str, phases: set[RunPhase]) -> None:
    if worker in turn.state.waiting_for and turn.state.phase in phases:
        turn.wait_no_more_for(worker)
        rounds.settle(turn)
    else:
        turn.ignore()


def _expire(turn: Turn, event: events.TimerExpired) -> None:
    timer = turn.state.timer
    if timer is None or timer.number != event.number:
        turn.ignore()
        return
    turn.state = replace(turn.state, timer=None)
    match timer.kind:
        case TimerKind.ROUND:
            rounds.reach_deadline(turn)
        case TimerKind.EVALUATION:
            closing.give_up_evaluations(turn)
        case TimerKind.GATHERING | TimerKind.QUORUM if quorum.prolong(turn):
            pass
        case TimerKind.GATHERING | TimerKind.QUORUM | TimerKind.PREPARATION:
            rounds.end_wait(turn)
        case TimerKind.ABORT:
            rounds.end_aborted(turn)
        case TimerKind.STORAGE:
            closing.write_again(turn)


def _pause(turn: Turn) -> None:
    """An open round's deadline stops, and begins anew on resuming; a closing round is finished."""
    turn.go(RunPhase.PAUSING)
    if not turn.state.is_closing:
        turn.stop_timer()
    turn.steer_all()
    turn.announce(facts.RunPausing(turn.round_number, turn.awaited))
    rounds.settle(turn)


def _resume(turn: Turn) -> None:
    turn.state = replace(turn.state, waiting_for=frozenset())
    turn.announce(facts.RunResumed(turn.round_number))
    if turn.state.is_closing:
        turn.go(RunPhase.CLOSING)
    elif turn.state.open_round:
        rounds.carry_on(turn)
        quorum.warn(turn)  # the deadline is another one
    else:
        rounds.next_round(turn)


def _abort(turn: Turn, event: events.AbortRequested) -> None:
    """Stop all work; a second request waits for nobody."""
    ending = Ending(Outcome.ABORTED, event.reason, ExitCode.ABORTED)
    match turn.state.phase:
        case RunPhase.FINISHING:
            turn.end(ending, model_path=None)
        case RunPhase.ABORTING:
            rounds.end_aborted(turn)
        case _:
            turn.stop_timer()
            turn.state = replace(turn.state, ending=ending, waiting_for=frozenset())
            turn.go(RunPhase.ABORTING)
            turn.steer_all()
            if turn.state.round:
                for worker in sorted(turn.state.round.evaluating):
                    turn.do(commands.AbortWorker(worker, turn.round_number))
                    turn.wait_for(worker)
            turn.announce(facts.RunAborting(turn.round_number, turn.awaited))
            if turn.state.waiting_for:
                turn.start_timer(TimerKind.ABORT, ABORT_TIMEOUT_S)
            rounds.settle(turn)


def _stop_after_round(turn: Turn) -> None:
    turn.state = replace(turn.state, is_stopping=True)
    turn.announce(facts.RunStopping(turn.round_number))
    if not turn.state.is_closing and turn.state.open_round is None:
        rounds.next_round(turn)


def _restart(turn: Turn, event: events.EngineRestarted) -> None:
    """Go on where the journal ends: delivered updates stay, all else of the last step is redone."""
    members = {
        worker: replace(member, is_connected=False, refusal=None)
        for worker, member in turn.state.members.items()
    }
    turn.state = replace(
        turn.state,
        members=members,
        waiting_for=frozenset(),
        absent={},
        expected=frozenset(),
        preparing=frozenset(),
        timer=None,
        is_regathering=True,
    )
    turn.announce(facts.RunRestarted(turn.round_number))
    round_ = turn.state.round
    match turn.state.phase:
        case RunPhase.GATHERING:
            turn.start_timer(TimerKind.GATHERING, turn.state.plan.quorum_timeout_s)
        case RunPhase.ABORTING:
            rounds.end_aborted(turn)
        case RunPhase.FINISHING:
            turn.do(commands.SaveModel(turn.state.model_id))
        case _ if round_ is None:
            rounds.next_round(turn)
        case _ if turn.state.open_round or _lacks_update(turn.state, round_, event.lost):
            rounds.reopen(turn, round_, event.lost)
        case _ if round_.number > turn.state.num_rounds:
            redone = replace(
                round_, new_model_id=None, metrics=None, evaluating=frozenset(), holdouts={}
            )
            closing.aggregate(turn, redone)
        case _:
            turn.put_round(replace(round_, step=RoundStep.CLOSED, evaluating=frozenset()))
            rounds.next_round(turn)


def _lacks_update(state: RunState, round_: Round, lost: Collection[str]) -> bool:
    """Whether a round that was being closed cannot be, because one of its updates is gone."""
    return round_.number > state.num_rounds and not round_.delivered.keys().isdisjoint(lost)
