"""What the workers of an open round's cohort answer: updates that count or do not, and failures."""

from __future__ import annotations

from msgspec.structs import replace

from fedconsole.coordinator import commands, events, facts, quorum, rounds
from fedconsole.coordinator.phases import RunPhase
from fedconsole.coordinator.state import Part, PartStatus, RunState, Update
from fedconsole.coordinator.turn import Turn


def deliver(turn: Turn, event: events.UpdateDelivered) -> None:
    round_ = turn.state.round
    part = round_.parts.get(event.worker) if round_ else None
    accept = commands.AcceptUpdate(event.worker, event.round, event.attempt)
    if round_ is not None and event.round < round_.number:
        _refuse(turn, event, too_late(event.round))
    elif round_ is None or event.round != round_.number:
        _refuse(turn, event, f"round {event.round} is not open")
    elif part is None:
        _refuse(turn, event, f"{event.worker} is not in the cohort of round {event.round}")
    elif event.model_id != round_.model_id:
        _refuse(turn, event, f"trained from model {event.model_id}, not from {round_.model_id}")
    elif part.status is PartStatus.DELIVERED:
        turn.tell(accept)
        turn.ignore()
    elif reason := _mismatch(turn.state, part, event):
        _refuse(turn, event, reason)
    else:
        update = Update(
            num_examples=event.num_examples,
            loss=event.loss,
            seconds=event.seconds,
            file=event.file,
            sha256=event.sha256,
        )
        turn.put_part(
            round_, event.worker, replace(part, status=PartStatus.DELIVERED, update=update)
        )
        turn.wait_no_more_for(event.worker)
        turn.tell(accept)
        turn.announce(
            facts.WorkerUpdate(
                event.worker, event.round, event.num_examples, event.loss, event.seconds
            )
        )
        rounds.settle(turn)


def _mismatch(state: RunState, part: Part, event: events.UpdateDelivered) -> str | None:
    """Why an update of a worker of the last round's cohort does not count; None: it does."""
    if state.open_round is None or state.phase is RunPhase.ABORTING:
        return too_late(event.round)
    if part.status is PartStatus.OUT:
        return f"{event.worker} is out of round {event.round}"
    # An older attempt had the same inputs, so its update is the same.
    if not 1 <= event.attempt <= part.attempt:
        return f"attempt {event.attempt} was not sent; the last one is {part.attempt}"
    if event.num_batches != part.num_batches:
        return f"{event.num_batches} batches instead of {part.num_batches}"
    if event.cursor != part.next_cursor:
        found, expected = event.cursor, part.next_cursor
        return (
            f"ends at epoch {found.epoch}, batch {found.batch}, "
            f"not at epoch {expected.epoch}, batch {expected.batch}"
        )
    most = part.num_batches * state.plan.batch_size
    if not 1 <= event.num_examples <= most:
        return f"num_examples is {event.num_examples}, expected 1 to {most}"
    return None


def too_late(round_number: int) -> str:
    return f"too late: round {round_number} is closed"


def _refuse(turn: Turn, event: events.UpdateDelivered | events.UpdateRejected, reason: str) -> None:
    turn.tell(commands.RefuseUpdate(event.worker, event.round, event.attempt, reason))
    turn.announce(facts.WorkerRejected(event.worker, event.round, reason))
    turn.ignore()


def reject(turn: Turn, event: events.UpdateRejected) -> None:
    """The worker is out of the round: the same inputs would give the same update."""
    _refuse(turn, event, event.reason)
    round_ = turn.state.open_round
    part = round_.parts.get(event.worker) if round_ else None
    if round_ is None or part is None or event.round != round_.number or part.has_answered:
        return
    turn.put_part(round_, event.worker, replace(part, status=PartStatus.OUT))
    turn.wait_no_more_for(event.worker)
    rounds.settle(turn)


def fail_training(turn: Turn, event: events.TrainingFailed) -> None:
    round_ = turn.state.open_round
    part = round_.parts.get(event.worker) if round_ else None
    if (
        round_ is None
        or part is None
        or (event.round, event.attempt) != (round_.number, part.attempt)
        or not part.is_working
    ):
        turn.ignore()
        return
    is_out = part.num_failures + 1 >= quorum.MAX_FAILURES
    part = replace(
        part,
        status=PartStatus.OUT if is_out else PartStatus.IDLE,
        num_failures=part.num_failures + 1,
    )
    after = f"out of round {round_.number}" if is_out else "trying again"
    turn.warn(f"training failed: {event.reason}; {after}", event.worker)
    turn.put_part(round_, event.worker, part)
    turn.wait_no_more_for(event.worker)
    turn.steer(event.worker)
    rounds.settle(turn)
