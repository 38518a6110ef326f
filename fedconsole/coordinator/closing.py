"""A round whose wait is over: aggregated, evaluated if due, saved."""

from __future__ import annotations

import math
from collections.abc import Mapping

from msgspec.structs import replace

from fedconsole.coordinator import commands, events, facts, schedule
from fedconsole.coordinator.phases import RunPhase
from fedconsole.coordinator.plan import Plan, Weighting
from fedconsole.coordinator.state import (
    Confusion,
    HoldoutResult,
    Metric,
    Round,
    RoundStep,
    RunState,
    TimerKind,
    Update,
)
from fedconsole.coordinator.turn import Turn
from fedconsole.errors import ExitCode

STORAGE_RETRY_S = 10.0
_STEPS_ON_DISK = frozenset({RoundStep.AGGREGATING, RoundStep.EVALUATING, RoundStep.SAVING})


def aggregate(turn: Turn, round_: Round) -> None:
    turn.go(RunPhase.CLOSING)
    turn.put_round(replace(round_, step=RoundStep.AGGREGATING))
    _order_aggregate(turn, round_)


def _order_aggregate(turn: Turn, round_: Round) -> None:
    updates = tuple(
        commands.CountedUpdate(worker, _weight(turn.state.plan, update), update.file, update.sha256)
        for worker, update in sorted(round_.delivered.items())
    )
    turn.do(commands.Aggregate(round_.number, updates))


def _weight(plan: Plan, update: Update) -> int:
    return update.num_examples if plan.weighting is Weighting.EXAMPLES else 1


def at_step(turn: Turn, round_number: int, step: RoundStep) -> Round | None:
    """The round, if it is at this step of its closing; else the event is ignored."""
    round_ = turn.state.round
    if (
        round_ is None
        or (round_.number, round_.step) != (round_number, step)
        or turn.state.phase not in {RunPhase.CLOSING, RunPhase.PAUSING}
    ):
        turn.ignore()
        return None
    return round_


def take_aggregate(turn: Turn, event: events.ModelAggregated) -> None:
    if round_ := at_step(turn, event.round, RoundStep.AGGREGATING):
        round_ = replace(round_, new_model_id=event.model_id)
        if _is_evaluation_due(turn.state, round_):
            evaluate(turn, round_)
        else:
            _save(turn, round_)


def _is_evaluation_due(state: RunState, round_: Round) -> bool:
    plan = state.plan
    match plan.eval_every:
        case "round":
            return True
        case "epoch":
            moved = schedule.move_cursors(state.members, round_.parts)
            return schedule.end_epoch(plan, moved, state.epoch)[1] > state.epoch
        case num_rounds:
            return round_.number % num_rounds == 0


def evaluate(turn: Turn, round_: Round) -> None:
    state = turn.state
    model_id = round_.new_model_id
    assert model_id is not None, "a round is evaluated before it is aggregated"
    workers = tuple(
        worker
        for worker, member in sorted(state.members.items())
        if member.is_connected and member.num_holdout and worker not in round_.holdouts
    )
    turn.put_round(replace(round_, step=RoundStep.EVALUATING, evaluating=frozenset(workers)))
    turn.do(commands.Evaluate(round_.number, model_id))
    if workers:
        turn.do(commands.EvaluateOnWorkers(round_.number, model_id, workers))
        turn.start_timer(TimerKind.EVALUATION, state.plan.round_timeout_s)


def take_evaluation(turn: Turn, event: events.Evaluated) -> None:
    round_ = at_step(turn, event.round, RoundStep.EVALUATING)
    if round_ is None:
        return
    if event.worker is None:
        goal = turn.state.plan.stop_at
        if goal and goal[0] not in event.metrics and not goal[0].startswith("holdout_"):
            known = ", ".join(sorted(event.metrics))
            turn.fail(f"stop_at names {goal[0]!r}; the metrics are {known}", ExitCode.REFUSED)
            return
        round_ = replace(
            round_,
            metrics=event.metrics,
            num_test_examples=event.num_examples,
            confusion=event.confusion,
        )
    elif event.worker in round_.evaluating:
        result = HoldoutResult(
            num_examples=event.num_examples, metrics=event.metrics, confusion=event.confusion
        )
        round_ = replace(
            round_,
            evaluating=round_.evaluating - {event.worker},
            holdouts={**round_.holdouts, event.worker: result},
        )
        turn.announce(
            facts.Eval(
                event.round, event.num_examples, event.metrics, event.worker, event.confusion
            )
        )
    else:
        turn.ignore()
        return
    turn.put_round(round_)
    settle_evaluation(turn)


def fail_evaluation(turn: Turn, event: events.EvaluationFailed) -> None:
    round_ = at_step(turn, event.round, RoundStep.EVALUATING)
    if round_ is None:
        return
    if event.worker is None:
        turn.fail(f"evaluation of round {event.round}: {event.reason}", ExitCode.RUN_FAILED)
    elif event.worker in round_.evaluating:
        turn.warn(f"evaluation failed: {event.reason}", event.worker)
        turn.wait_no_more_for(event.worker)
        settle_evaluation(turn)
    else:
        turn.ignore()


def give_up_evaluations(turn: Turn) -> None:
    """Go on without the workers that have not answered in time."""
    round_ = turn.state.round
    if round_ is not None:
        for worker in sorted(round_.evaluating):
            turn.warn("no evaluation in time", worker)
        turn.put_round(replace(round_, evaluating=frozenset()))
    settle_evaluation(turn)


def settle_evaluation(turn: Turn) -> None:
    round_ = turn.state.round
    if round_ is None or round_.step is not RoundStep.EVALUATING:
        return
    if round_.metrics is not None and not round_.evaluating:
        turn.stop_timer()
        metrics = {**round_.metrics, **_holdout_means(round_.holdouts)}
        num_held_out = sum(result.num_examples for result in round_.holdouts.values())
        num_examples = round_.num_test_examples or num_held_out
        confusion = round_.confusion or _sum(round_.holdouts)
        turn.announce(facts.Eval(round_.number, num_examples, metrics, confusion=confusion))
        _save(turn, replace(round_, metrics=metrics))


def _holdout_means(holdouts: Mapping[str, HoldoutResult]) -> dict[str, Metric]:
    """Over the workers, weighted by examples; None where one of them has none."""
    results = [result for _, result in sorted(holdouts.items())]
    names = sorted({name for result in results for name in result.metrics})
    return {
        f"holdout_{name}": _mean(
            [(result.metrics.get(name), result.num_examples) for result in results]
        )
        for name in names
    }


def _sum(holdouts: Mapping[str, HoldoutResult]) -> Confusion | None:
    matrices = [r.confusion for r in holdouts.values() if r.confusion is not None]
    if not matrices:
        return None
    return {
        name: tuple(map(sum, zip(*(matrix[name] for matrix in matrices), strict=True)))
        for name in matrices[0]
    }


def _mean(weighted: list[tuple[Metric, int]]) -> Metric:
    total, weight = 0.0, 0
    for value, share in weighted:
        if value is None:
            return None
        total, weight = total + value * share, weight + share
    # Large ones overflow: what is not finite is no number of the journal's JSON.
    return total / weight if weight and math.isfinite(total) else None


def _save(turn: Turn, round_: Round) -> None:
    assert round_.new_model_id is not None, "a round is saved before it is aggregated"
    turn.put_round(replace(round_, step=RoundStep.SAVING))
    turn.do(commands.SaveRound(round_.number, round_.new_model_id))


def wait_for_room(turn: Turn, event: events.StorageFailed) -> None:
    """A round whose closing the disk refuses stays where it is until that works, or the operator aborts."""
    round_ = turn.state.round
    if round_ is None or round_.step not in _STEPS_ON_DISK:
        turn.fail(event.reason, ExitCode.STORAGE)
    else:
        turn.warn(f"{event.reason}; the run waits, and tries again every {STORAGE_RETRY_S:g} s")
        turn.start_timer(TimerKind.STORAGE, STORAGE_RETRY_S)


def write_again(turn: Turn) -> None:
    round_ = turn.state.round
    if round_ is None:
        return
    if round_.step is RoundStep.AGGREGATING:
        _order_aggregate(turn, round_)
    elif round_.step is RoundStep.EVALUATING:
        evaluate(turn, round_)
    elif round_.step is RoundStep.SAVING:
        _save(turn, round_)


def close_saved(turn: Turn, event: events.RoundSaved) -> bool:
    """The round is complete, now and only now: cursors, model and count move on.

    False: the event was out of place.
    """
    round_ = at_step(turn, event.round, RoundStep.SAVING)
    if round_ is None:
        return False
    state = turn.state
    if round_.number > state.num_rounds:
        assert round_.new_model_id is not None
        turn.state = replace(
            state,
            members=schedule.move_cursors(state.members, round_.parts),
            model_id=round_.new_model_id,
            num_rounds=round_.number,
            fewer=None,
        )
        updates = sorted(round_.delivered.items())
        loss = _mean([(update.loss, _weight(state.plan, update)) for _, update in updates])
        turn.announce(
            facts.RoundFinished(
                round_.number,
                tuple(worker for worker, _ in updates),
                loss,
                round_.new_model_id,
            )
        )
    turn.put_round(replace(round_, step=RoundStep.CLOSED))
    return True
