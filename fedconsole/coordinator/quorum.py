"""Too few workers or updates: what is said of it, and what the operator may decide."""

from __future__ import annotations

from msgspec.structs import replace

from fedconsole.coordinator import facts
from fedconsole.coordinator.facts import AtTimeout, QuorumOf
from fedconsole.coordinator.phases import IllegalRequest, RunPhase
from fedconsole.coordinator.state import PartStatus, RunState, TimerKind
from fedconsole.coordinator.turn import Turn
from fedconsole.errors import ExitCode

MAX_FAILURES = 2
"""A worker whose training has failed so often is out of the round."""
PREPARE_S = 60.0
"""A Pi imports torch and tries a batch within half of that."""


def warn(turn: Turn) -> None:
    """Say when the workers that are left in an open round are too few; the deadline decides."""
    state = turn.state
    is_training = state.open_round is not None and state.phase is RunPhase.TRAINING
    if is_training and num_in_round(turn) < state.need:
        announce_workers(turn)


def num_in_round(turn: Turn) -> int:
    """Workers whose update of the open round is there, or may be before its deadline."""
    round_ = turn.state.open_round
    parts = round_.parts if round_ else {}
    return sum(
        part.status is PartStatus.DELIVERED
        or (part.status is not PartStatus.OUT and turn.is_connected(worker))
        for worker, part in parts.items()
    )


def announce_workers(turn: Turn) -> None:
    """Say how many workers an open round has, while it trains."""
    state = turn.state
    then = AtTimeout(state.plan.on_quorum_loss)
    have, of = num_in_round(turn), QuorumOf.WORKERS
    turn.announce(facts.RunQuorum(have, state.need, of, state.phase, then))


def announce_wait(turn: Turn) -> None:
    state = turn.state
    of = QuorumOf.UPDATES if state.open_round else QuorumOf.WORKERS
    have, need, then = state.have, state.need, AtTimeout.FAIL
    if state.is_regathering and state.open_round is None:
        then = AtTimeout.FEWER if have >= need else AtTimeout.WAIT
        need = len(state.members)
    preparing = preparing_now(state)
    if preparing and state.timer is not None and state.timer.kind is TimerKind.QUORUM:
        then = AtTimeout.WAIT
    turn.announce(facts.RunQuorum(have, need, of, state.phase, then, preparing))


def begin_preparing(turn: Turn, worker: str) -> None:
    if turn.is_connected(worker):
        turn.ignore()
        return
    turn.state = replace(turn.state, preparing=turn.state.preparing | {worker})
    if turn.state.phase is RunPhase.WAITING:
        announce_wait(turn)


def preparing_now(state: RunState) -> tuple[str, ...]:
    """The workers that are missed, and will be there in a moment."""
    parts = state.open_round.parts if state.open_round else None
    return tuple(
        worker
        for worker in sorted(state.preparing)
        if parts is None or (worker in parts and parts[worker].status is not PartStatus.DELIVERED)
    )


def may_come_back(state: RunState) -> bool:
    """Whether one that is absent was there before, for this engine or for one that died."""
    is_one_lost = any(not member.is_connected for member in state.members.values())
    return is_one_lost or bool(state.expected or state.preparing) or state.is_regathering


def prolong(turn: Turn) -> bool:
    """Wait once more where the time is up for workers that are connected already; whether there are any."""
    is_enough_to_begin = (
        turn.state.phase is RunPhase.GATHERING and turn.state.have >= turn.state.need
    )
    if is_enough_to_begin or not preparing_now(turn.state):
        return False
    turn.start_timer(TimerKind.PREPARATION, PREPARE_S)
    if turn.state.phase is RunPhase.WAITING:
        announce_wait(turn)
    return True


def is_in_vain(state: RunState) -> bool:
    """Whether a wait goes on for workers that were connected, and are not any more."""
    is_prolonged = state.timer is not None and state.timer.kind is TimerKind.PREPARATION
    return is_prolonged and not preparing_now(state)


def wait_longer(turn: Turn) -> None:
    """Give the others the whole time once more, and those whose training failed another try."""
    turn.start_timer(TimerKind.QUORUM, turn.state.plan.quorum_timeout_s)
    announce_wait(turn)
    if (round_ := turn.state.open_round) is None:
        return
    for worker, part in round_.parts.items():
        if part.status is PartStatus.OUT and part.num_failures >= MAX_FAILURES:
            assert turn.state.open_round is not None
            turn.put_part(
                turn.state.open_round, worker, replace(part, status=PartStatus.IDLE, num_failures=0)
            )
            turn.steer(worker)


def require_some(state: RunState) -> None:
    """Raises IllegalRequest where there is nothing to go on with."""
    if state.have == 0:
        nobody = "no update is there yet" if state.open_round else "no worker is connected"
        raise IllegalRequest(f"cannot go on with fewer: {nobody}; wait, or abort the run")


def be_content(turn: Turn) -> None:
    """This round needs no more than what is there."""
    have, need = turn.state.have, turn.state.need
    if have < need:
        turn.state = replace(turn.state, fewer=have)
        number = turn.state.num_rounds + 1
        turn.announce(facts.RunFewer(number, have, need))


def all_missing_were_rejected(turn: Turn) -> tuple[str, ...]:
    """The workers without an update in the open round, if each is connected and was rejected."""
    round_ = turn.state.open_round
    missing = {w: part for w, part in round_.parts.items() if not part.update} if round_ else {}
    are_rejected = all(
        part.status is PartStatus.OUT
        and part.num_failures < MAX_FAILURES
        and turn.is_connected(worker)
        for worker, part in missing.items()
    )
    return tuple(missing) if are_rejected else ()


def why_hopeless(state: RunState) -> str | None:
    """Why no wait can bring a quorum: too few are left that may still take part. None: it can."""
    refusals = {w: m.refusal for w, m in sorted(state.members.items()) if m.refusal is not None}
    if (round_ := state.open_round) is not None:
        num_left = sum(
            part.update is not None or w not in refusals for w, part in round_.parts.items()
        )
    else:
        num_left = state.plan.num_workers - len(refusals)
    if not refusals or num_left >= state.need:
        return None
    reasons = "; ".join(f"{worker}: {reason}" for worker, reason in refusals.items())
    return f"too few workers are left: {num_left}, {state.need} needed; out of this run: {reasons}"


def fail(turn: Turn) -> None:
    what = "updates" if turn.state.open_round else "connected workers"
    reason = f"quorum lost: {turn.state.have} {what}, {turn.state.need} needed"
    turn.fail(reason, ExitCode.QUORUM_LOST)
