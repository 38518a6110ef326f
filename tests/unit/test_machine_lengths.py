"""How much each worker trains, when an epoch and a run end, and what is evaluated."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from fedconsole.coordinator import commands, events, facts
from fedconsole.coordinator.phases import RunPhase
from fedconsole.coordinator.plan import EpochEnd, Plan
from fedconsole.coordinator.state import Confusion, Outcome
from fedconsole.errors import ExitCode
from pi_daemon.protocol.messages import Cursor
from tests.support.play import (
    Line,
    Play,
    delivers,
    facts_in,
    is_aggregated,
    is_evaluated,
    is_lost,
    is_saved,
    joins,
    play,
    time_is_up,
    update_of,
)

PLAN = Plan(virtual=2, epochs=2, federate_after_n_batches=4, batch_size=10)
LARGE, SMALL = joins("alice", num_examples=100), joins("bob", num_examples=50)
"""Ten and five batches."""

Turns = list[dict[str, tuple[int, int, int]]]


def turns_of(run: Play) -> Turns:
    """For each round sent, what each worker gets: epoch, batch, num_batches."""
    turns: Turns = []
    for command in run.commands:
        if isinstance(command, commands.SendRound):
            turns += [{}] * (command.round - len(turns))
            cursor = command.cursor
            part = (cursor.epoch, cursor.batch, command.num_batches)
            turns[-1] = {**turns[-1], command.worker: part}
    return turns


def finish_rounds(run: Play, limit: int = 20) -> Play:
    """Let the cohort answer and every round close until the run has nothing left to train."""
    for _ in range(limit):
        if run.state.phase is not RunPhase.TRAINING or run.state.round is None:
            break
        run = run.play([*(delivers(worker) for worker in run.state.round.parts), is_aggregated])
        run = run.play([is_evaluated()] if _is_asked_to_evaluate(run) else [])
        run = run.play([is_saved])
        run = run.play([is_evaluated(), is_saved] if _is_asked_to_evaluate(run) else [])
    return run


def _is_asked_to_evaluate(run: Play) -> bool:
    return any(isinstance(command, commands.Evaluate) for command in run.last)


def test_an_epoch_ends_when_every_worker_has_passed_over_its_shard() -> None:
    run = finish_rounds(play(PLAN, [LARGE, SMALL]))
    assert turns_of(run) == [
        {"alice": (0, 0, 4), "bob": (0, 0, 4)},
        {"alice": (0, 4, 4), "bob": (0, 4, 1)},
        {"alice": (0, 8, 2)},
        {"alice": (1, 0, 4), "bob": (1, 0, 4)},
        {"alice": (1, 4, 4), "bob": (1, 4, 1)},
        {"alice": (1, 8, 2)},
    ]
    assert run.state.phase is RunPhase.FINISHING


def test_with_epoch_end_first_all_train_alike_and_what_is_left_is_dropped() -> None:
    run = finish_rounds(play(replace(PLAN, epoch_end=EpochEnd.FIRST), [LARGE, SMALL]))
    assert turns_of(run) == [
        {"alice": (0, 0, 4), "bob": (0, 0, 4)},
        {"alice": (0, 4, 1), "bob": (0, 4, 1)},
        {"alice": (1, 0, 4), "bob": (1, 0, 4)},
        {"alice": (1, 4, 1), "bob": (1, 4, 1)},
    ]


def test_with_a_number_of_rounds_the_cursor_runs_on_into_the_next_epoch() -> None:
    run = finish_rounds(play(replace(PLAN, rounds=3, epochs=None), [LARGE, SMALL]))
    assert turns_of(run) == [
        {"alice": (0, 0, 4), "bob": (0, 0, 4)},
        {"alice": (0, 4, 4), "bob": (0, 4, 4)},
        {"alice": (0, 8, 4), "bob": (1, 3, 4)},
    ]
    assert run.state.members["alice"].cursor == Cursor(1, 2)


def test_local_epochs_are_whole_passes_and_end_with_the_run() -> None:
    plan = replace(PLAN, epochs=3, federate_after_n_batches=None, local_epochs=2)
    run = finish_rounds(play(plan, [LARGE, SMALL]))
    assert turns_of(run) == [
        {"alice": (0, 0, 20), "bob": (0, 0, 10)},
        {"alice": (2, 0, 10), "bob": (2, 0, 5)},
    ]


def test_local_epochs_with_a_number_of_rounds_are_all_trained() -> None:
    plan = replace(PLAN, rounds=2, epochs=None, federate_after_n_batches=None, local_epochs=2)
    run = finish_rounds(play(plan, [LARGE, SMALL]))
    assert turns_of(run)[1] == {"alice": (2, 0, 20), "bob": (2, 0, 10)}


def test_with_cohorts_every_worker_still_passes_over_its_shard_in_each_epoch() -> None:
    run = finish_rounds(play(replace(PLAN, cohort_size=1), [LARGE, SMALL]))
    trained = {"alice": 0, "bob": 0}
    for turn in turns_of(run):
        for worker, (_, _, num_batches) in turn.items():
            trained[worker] += num_batches
    assert trained == {"alice": 20, "bob": 10}


def test_a_discarded_update_does_not_move_its_workers_cursor() -> None:
    run = play(replace(PLAN, min_updates=1), [LARGE, SMALL, delivers("alice"), time_is_up])
    run = run.play([is_aggregated, is_evaluated(), is_saved])
    assert turns_of(run)[1] == {"alice": (0, 4, 4), "bob": (0, 0, 4)}


def test_a_lost_worker_does_not_hold_up_the_epoch() -> None:
    plan = replace(PLAN, min_updates=1, epochs=1, federate_after_n_batches=5)
    run = play(plan, [LARGE, SMALL, is_lost("alice"), delivers("bob"), time_is_up])
    run = run.play([is_aggregated, is_evaluated(), is_saved])
    assert run.state.phase is RunPhase.FINISHING


def test_a_worker_that_sits_out_is_not_missed_in_the_quorum() -> None:
    run = finish_rounds(play(replace(PLAN, min_updates=2), [LARGE, SMALL]))
    assert run.state.phase is RunPhase.FINISHING


# Evaluation


def evaluated_rounds(run: Play) -> list[int]:
    return [command.round for command in run.commands if isinstance(command, commands.Evaluate)]


def test_evaluation_at_epoch_ends() -> None:
    run = finish_rounds(play(replace(PLAN, eval_every="epoch"), [LARGE, SMALL]))
    assert evaluated_rounds(run) == [3, 6]


def test_evaluation_every_n_rounds_and_after_the_last() -> None:
    run = finish_rounds(play(replace(PLAN, eval_every=4), [LARGE, SMALL]))
    assert evaluated_rounds(run) == [4, 6]
    assert run.state.phase is RunPhase.FINISHING


def test_with_a_number_of_rounds_an_epoch_ends_when_the_slowest_has_passed_over() -> None:
    plan = replace(PLAN, rounds=6, epochs=None, eval_every="epoch")
    run = finish_rounds(play(plan, [LARGE, SMALL]))
    assert evaluated_rounds(run) == [3, 5, 6]


@pytest.mark.parametrize(
    ("stop_at", "stops"),
    [
        (("accuracy", 0.5), True),
        (("accuracy", 0.51), False),
        (("loss", 0.5), True),
        (("loss", 0.49), False),
    ],
)
def test_a_reached_metric_completes_the_run(stop_at: tuple[str, float], stops: bool) -> None:
    run = play(replace(PLAN, stop_at=stop_at), [LARGE, SMALL, delivers("alice"), delivers("bob")])
    run = run.play([is_aggregated, is_evaluated({"loss": 0.5, "accuracy": 0.5}), is_saved])
    assert (run.state.phase is RunPhase.FINISHING) is stops


def test_a_metric_that_does_not_exist_is_refused_at_the_first_evaluation() -> None:
    plan = replace(PLAN, stop_at=("acuracy", 0.9))
    run = play(plan, [LARGE, SMALL, delivers("alice"), delivers("bob")])
    run = run.play([is_aggregated, is_evaluated({"loss": 0.5, "accuracy": 0.5})])
    reason = "stop_at names 'acuracy'; the metrics are accuracy, loss"
    assert run.last[-1] == commands.Finish(Outcome.FAILED, reason, ExitCode.REFUSED)


def test_workers_evaluate_on_their_holdouts_and_the_round_waits_for_them() -> None:
    plan = replace(PLAN, holdout=0.2)
    both = (joins("alice", num_holdout=30), joins("bob", num_holdout=10))
    run = play(plan, [*both, delivers("alice"), delivers("bob"), is_aggregated])
    assert run.told == (
        commands.Evaluate(1, "model-1"),
        commands.EvaluateOnWorkers(1, "model-1", ("alice", "bob")),
    )
    run = run.play([is_evaluated({"loss": 1.0}), _holdout("alice", 30, 1.0)])
    assert run.state.phase is RunPhase.CLOSING
    run = run.play([_holdout("bob", 10, 0.2)])
    assert run.told == (commands.SaveRound(1, "model-1"),)
    assert run.state.round is not None
    assert run.state.round.metrics == {"loss": 1.0, "holdout_accuracy": 0.8}


def test_what_the_whole_evaluation_took_for_what_is_the_test_sets_or_the_sum_of_the_holdouts() -> (
    None
):
    plan = replace(PLAN, holdout=0.2)
    both = (joins("alice", num_holdout=30), joins("bob", num_holdout=10))
    run = play(plan, [*both, delivers("alice"), delivers("bob"), is_aggregated])
    alice = replace(_holdout("alice", 30, 1.0), confusion={"N": (20, 1), "V": (2, 7)})
    bob = replace(_holdout("bob", 10, 0.2), confusion={"N": (2, 8), "V": (0, 0)})
    by_workers = run.play([is_evaluated({}), alice, bob])
    assert _confusions(by_workers) == {
        "alice": alice.confusion,
        "bob": bob.confusion,
        None: {"N": (22, 9), "V": (2, 7)},
    }
    tested = replace(alice, worker=None, confusion={"N": (5, 0), "V": (0, 5)})
    assert _confusions(run.play([tested, alice, bob]))[None] == tested.confusion


@pytest.mark.parametrize(
    "silence",
    [
        is_lost("bob"),
        time_is_up,
        events.EvaluationFailed(round=1, reason="out of memory", worker="bob"),
    ],
)
def test_a_worker_that_does_not_evaluate_does_not_hold_up_the_round(silence: Line) -> None:
    plan = replace(PLAN, holdout=0.2)
    both = (joins("alice", num_holdout=30), joins("bob", num_holdout=10))
    run = play(plan, [*both, delivers("alice"), delivers("bob"), is_aggregated])
    run = run.play([_holdout("alice", 30, 1.0), is_evaluated({"loss": 1.0})])
    run = run.play([silence])
    assert run.told == (commands.SaveRound(1, "model-1"),)
    assert facts_in(run.commands).count(facts.Eval(1, 30, {"accuracy": 1.0}, "alice")) == 1


def test_a_loss_that_is_not_finite_makes_the_mean_unknown() -> None:
    run = play(PLAN, [LARGE, SMALL, delivers("alice")])
    run = run.play([replace(update_of(run.state, "bob"), loss=None)])
    run = run.play([is_aggregated, is_evaluated({"loss": None}), is_saved])
    assert facts.RoundFinished(1, ("alice", "bob"), None, "model-1") in facts_in(run.last)


def test_a_mean_that_overflows_is_unknown() -> None:
    run = play(PLAN, [LARGE, SMALL, delivers("alice")])
    run = run.play([replace(update_of(run.state, "bob"), loss=1e308)])
    run = run.play([is_aggregated, is_evaluated({"loss": None}), is_saved])
    assert facts.RoundFinished(1, ("alice", "bob"), None, "model-1") in facts_in(run.last)


def _holdout(worker: str, num_examples: int, accuracy: float) -> events.Evaluated:
    return events.Evaluated(
        round=1, num_examples=num_examples, metrics={"accuracy": accuracy}, worker=worker
    )


def _confusions(run: Play) -> dict[str | None, Confusion | None]:
    evaluations = (fact for fact in facts_in(run.commands) if isinstance(fact, facts.Eval))
    return {fact.worker: fact.confusion for fact in evaluations}
