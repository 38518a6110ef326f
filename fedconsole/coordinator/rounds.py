"""A round while it is open: its cohort, and what ends the wait for their answers."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from msgspec.structs import replace

from fedconsole.coordinator import closing, commands, facts, quorum, schedule
from fedconsole.coordinator.phases import RunPhase
from fedconsole.coordinator.plan import OnQuorumLoss, Plan
from fedconsole.coordinator.sampling import sample_cohort
from fedconsole.coordinator.state import (
    Ending,
    Metric,
    Outcome,
    PartStatus,
    Round,
    RunState,
    TimerKind,
)
from fedconsole.coordinator.turn import Turn
from fedconsole.errors import ExitCode

_WAITS = frozenset({TimerKind.QUORUM, TimerKind.PREPARATION})
REGATHER_S = 20.0
"""After an engine has crashed, workers have lost their link and come back within some seconds."""


# Opening


def next_round(turn: Turn) -> None:
    """Open the next round if there is one to come, enough workers, and no pause."""
    state = turn.state
    members, epoch = schedule.end_epoch(state.plan, state.members, state.epoch)
    turn.state = replace(state, members=members, epoch=epoch)
    turns = schedule.turns(state.plan, members, epoch)
    if reason := _reason_to_complete(turn.state):
        _complete(turn, reason)
    elif state.phase is RunPhase.PAUSING:
        turn.go(RunPhase.PAUSED)
        turn.announce(facts.RunPaused(turn.round_number))
    elif turn.state.is_regathering and not turn.state.are_all_connected:
        _regather(turn)
    elif turns and turn.state.have >= turn.state.need:
        _open_round(turn, turns)
    else:
        _lack_quorum(turn)


def _regather(turn: Turn) -> None:
    """Wait a while for those who were there: who comes back first must not decide who trains."""
    _wait(turn, min(REGATHER_S, turn.state.plan.quorum_timeout_s))


def _wait(turn: Turn, seconds: float) -> None:
    turn.go(RunPhase.WAITING)
    if quorum.is_in_vain(turn.state):
        turn.stop_timer()
        end_wait(turn)
        return
    if turn.state.timer is None or turn.state.timer.kind not in _WAITS:
        turn.start_timer(TimerKind.QUORUM, seconds)
    quorum.announce_wait(turn)


def go_on_with_fewer(turn: Turn) -> None:
    """This round, and no later one, is content with what is there.

    Raises:
        IllegalRequest: nothing is there.
    """
    quorum.require_some(turn.state)
    if turn.state.open_round is None:
        turn.state = replace(turn.state, is_regathering=False)
    quorum.be_content(turn)
    settle(turn)


def end_wait(turn: Turn) -> None:
    """The time for a quorum is over."""
    if turn.state.phase is RunPhase.GATHERING:
        begin_or_fail(turn)
    elif turn.state.is_regathering and turn.state.open_round is None:
        turn.state = replace(turn.state, is_regathering=False)
        next_round(turn)
    else:
        quorum.fail(turn)


def _reason_to_complete(state: RunState) -> str | None:
    plan = state.plan
    if state.round is not None and (reached := _reached(plan, state.round.metrics or {})):
        return reached
    if state.is_stopping:
        return f"stopped by the operator after round {state.num_rounds}"
    if plan.rounds is not None and state.num_rounds >= plan.rounds:
        return f"all rounds complete: {plan.rounds}"
    if plan.epochs is not None and state.epoch >= plan.epochs:
        return f"all epochs complete: {plan.epochs}"
    return None


def _reached(plan: Plan, metrics: Mapping[str, Metric]) -> str | None:
    if plan.stop_at is None:
        return None
    name, goal = plan.stop_at
    value = metrics.get(name)
    if value is None or not (value <= goal if name.endswith("loss") else value >= goal):
        return None
    return f"{name} reached {goal}: it is {value}"


def _complete(turn: Turn, reason: str) -> None:
    round_ = turn.state.round
    if round_ is not None and round_.metrics is None:
        # Only now is it known to be the last, and the last one is always evaluated.
        turn.go(RunPhase.CLOSING)
        closing.evaluate(turn, round_)
    else:
        turn.save_model(Ending(Outcome.COMPLETED, reason, ExitCode.COMPLETED))


def _open_round(turn: Turn, turns: Mapping[str, int]) -> None:
    state = turn.state
    number = state.num_rounds + 1
    cohort = sample_cohort(state.plan.seed, number, turns, state.plan.cohort_size)
    parts = {worker: schedule.make_part(state.members[worker], turns[worker]) for worker in cohort}
    turn.state = replace(state, is_regathering=False)
    turn.put_round(Round(number=number, model_id=state.model_id, parts=parts))
    turn.announce(facts.RoundStarted(number, 1, cohort, state.epoch + 1))
    carry_on(turn)


def reopen(turn: Turn, round_: Round, lost: Collection[str]) -> None:
    """Another engine carries the open round: only who has not delivered trains, from the same inputs."""
    parts = {
        worker: replace(part, status=PartStatus.IDLE, update=None)
        if worker in lost and part.update
        else part
        for worker, part in round_.parts.items()
    }
    attempt = round_.attempt + 1
    turn.put_round(
        Round(number=round_.number, model_id=round_.model_id, parts=parts, attempt=attempt)
    )
    epoch = turn.state.epoch + 1
    turn.announce(facts.RoundStarted(round_.number, attempt, tuple(parts), epoch))
    carry_on(turn)


def carry_on(turn: Turn) -> None:
    """Let the open round's workers train, with the whole time until the deadline."""
    turn.go(RunPhase.TRAINING)
    turn.start_timer(TimerKind.ROUND, turn.state.plan.round_timeout_s)
    turn.steer_all()
    settle(turn)


def welcome(turn: Turn, worker: str) -> None:
    """Go on with a worker that has come. The one that makes up the quorum of an open round which waits
    trains it again, and has its whole time for that."""
    state = turn.state
    part = state.open_round.parts.get(worker) if state.open_round else None
    trains_again = part is not None and part.is_working and state.phase is RunPhase.WAITING
    if trains_again and quorum.num_in_round(turn) >= state.need:
        carry_on(turn)
        quorum.announce_workers(turn)
    else:
        settle(turn)


# The end of a wait


def settle(turn: Turn) -> None:
    """Go on if the last event has ended a wait."""
    state = turn.state
    round_ = state.open_round
    match state.phase:
        case RunPhase.GATHERING:
            have_all_answered = state.num_connected + len(state.absent) >= state.plan.num_workers
            is_over = have_all_answered and (
                state.have >= state.need or not quorum.may_come_back(state)
            )
            if is_over or quorum.is_in_vain(state):
                begin_or_fail(turn)
        case RunPhase.TRAINING:
            is_fewer_enough = state.plan.on_quorum_loss is OnQuorumLoss.FEWER
            is_in_vain = not is_fewer_enough and quorum.why_hopeless(state) is not None
            if round_ is not None and (round_.have_all_answered or is_in_vain):
                close_or_wait(turn)
        case RunPhase.WAITING:
            if round_ is None:
                next_round(turn)
            else:
                close_or_wait(turn)
        case RunPhase.CLOSING:
            closing.settle_evaluation(turn)
        case RunPhase.PAUSING:
            if state.is_closing:
                closing.settle_evaluation(turn)
            elif not state.waiting_for:
                turn.go(RunPhase.PAUSED)
                turn.announce(facts.RunPaused(turn.round_number))
        case RunPhase.ABORTING:
            if not state.waiting_for:
                end_aborted(turn)
        case _:
            pass


def begin_or_fail(turn: Turn) -> None:
    """No more workers are waited for: start with those that are there, if they are enough."""
    state = turn.state
    if state.have >= state.need:
        _begin(turn)
        return
    missing = ", ".join(f"{name} ({reason})" for name, reason in sorted(state.absent.items()))
    turn.fail(
        f"{state.have} of {state.plan.num_workers} workers have joined, {state.need} needed; "
        f"missing: {missing or 'no answer yet from the others'}; "
        "start them, or allow fewer with --min-updates",
        ExitCode.NO_QUORUM,
    )


def _begin(turn: Turn) -> None:
    turn.stop_timer()
    if not any(member.batches_per_epoch for member in turn.state.members.values()):
        turn.fail("no worker has a batch of examples to train on", ExitCode.REFUSED)
        return
    turn.announce(facts.RunStarted(1))
    next_round(turn)


def reach_deadline(turn: Turn) -> None:
    """Name the stragglers, each once a round; whoever is lost was named already."""
    if (round_ := turn.state.open_round) is not None:
        late = {
            worker: replace(part, is_late=True)
            for worker, part in round_.parts.items()
            if turn.is_connected(worker) and not (part.has_answered or part.is_late)
        }
        turn.put_round(replace(round_, parts={**round_.parts, **late}))
        for worker in late:
            turn.announce(facts.WorkerStraggler(worker, round_.number))
    close_or_wait(turn)


def close_or_wait(turn: Turn) -> None:
    """Nobody is waited for any longer: aggregate what there is, if it is enough."""
    round_ = turn.state.open_round
    if round_ is None or turn.state.have < turn.state.need:
        _lack_quorum(turn)
        return
    turn.stop_timer()
    for worker, part in round_.parts.items():
        if part.is_working:
            turn.tell(commands.AbortWorker(worker, round_.number))
    parts = {
        worker: part if part.has_answered else replace(part, status=PartStatus.OUT)
        for worker, part in round_.parts.items()
    }
    closing.aggregate(turn, replace(round_, parts=parts))


def _lack_quorum(turn: Turn) -> None:
    plan, have, need = turn.state.plan, turn.state.have, turn.state.need
    if plan.on_quorum_loss is OnQuorumLoss.FEWER and 0 < have < need:
        quorum.be_content(turn)
        if turn.state.open_round:
            close_or_wait(turn)
        else:
            next_round(turn)
        return
    if rejected := quorum.all_missing_were_rejected(turn):
        # They are here, and would send the same again: waiting would change nothing.
        turn.fail(
            f"round {turn.round_number} has {have} usable updates, {need} needed: what "
            f"{', '.join(rejected)} sent cannot be used; a learning rate that is too high does that",
            ExitCode.QUORUM_LOST,
        )
        return
    if why := quorum.why_hopeless(turn.state):
        turn.fail(why, ExitCode.QUORUM_LOST)
        return
    if plan.on_quorum_loss is OnQuorumLoss.FAIL:
        quorum.fail(turn)
        return
    _wait(turn, plan.quorum_timeout_s)


def end_aborted(turn: Turn) -> None:
    ending = turn.state.ending
    assert ending is not None, "an abort has no reason"
    if turn.state.num_rounds:
        turn.save_model(ending)
    else:
        turn.end(ending, model_path=None)
