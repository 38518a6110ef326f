"""Too few workers or updates: what the operator, or the plan, makes of it."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from fedconsole.coordinator import commands, events, facts
from fedconsole.coordinator.facts import AtTimeout, QuorumOf
from fedconsole.coordinator.machine import replay
from fedconsole.coordinator.phases import IllegalRequest, RunPhase
from fedconsole.coordinator.plan import OnQuorumLoss, Plan
from fedconsole.coordinator.state import TimerKind
from fedconsole.errors import ExitCode
from tests.support.play import (
    ABORT,
    CLOSES,
    FEWER,
    PAUSE,
    RESTART,
    RESUME,
    WAIT,
    Line,
    delivers,
    ending,
    facts_in,
    fails,
    is_lost,
    is_rejected,
    joins,
    play,
    sent,
    time_is_up,
)

PLAN = Plan(virtual=2, rounds=3, federate_after_n_batches=3, batch_size=10)
BOTH = (joins("alice"), joins("bob"))
SHORT = (*BOTH, is_lost("bob"), delivers("alice"), time_is_up)
"""A round at its deadline with one update of two."""
ALONE = (*BOTH, is_lost("bob"), delivers("alice"), time_is_up, FEWER, *CLOSES)
"""A round that went on with one; the next one lacks a worker."""


def test_more_time_is_another_try_for_a_worker_whose_training_failed() -> None:
    run = play(PLAN, [*BOTH, delivers("alice"), fails("bob"), fails("bob")])
    assert run.state.phase is RunPhase.WAITING
    run = run.play([WAIT])
    assert run.told == (sent("bob", attempt=3),)
    assert run.play([delivers("bob")]).state.phase is RunPhase.CLOSING


def test_more_time_is_no_other_try_for_a_worker_whose_update_was_rejected() -> None:
    run = play(PLAN, [*BOTH, is_rejected("alice"), fails("bob"), fails("bob"), WAIT])
    assert run.told == (sent("bob", attempt=3),)


NO_MORE = events.WorkerRefused("bob", "its owner allows 2 rounds")
TOO_FEW = "too few workers are left: 1, 2 needed; out of this run: bob: its owner allows 2 rounds"


@pytest.mark.parametrize(
    "script",
    [
        [*BOTH, NO_MORE],
        [*BOTH, delivers("alice"), NO_MORE],
        [*BOTH, is_lost("bob"), delivers("alice"), time_is_up, NO_MORE],
        [*BOTH, delivers("alice"), delivers("bob"), NO_MORE, *CLOSES],
    ],
)
def test_a_run_that_cannot_have_its_quorum_any_more_ends_at_once_with_the_reason(
    script: list[Line],
) -> None:
    run = play(PLAN, script)
    assert ending(run) == (RunPhase.FAILED, ExitCode.QUORUM_LOST)
    assert run.state.ending is not None
    assert run.state.ending.reason == TOO_FEW


def test_a_worker_that_is_out_of_the_run_is_not_waited_for() -> None:
    run = play(replace(PLAN, min_updates=1), [*BOTH, NO_MORE, delivers("alice")])
    assert run.state.phase is RunPhase.CLOSING
    run = run.play(CLOSES)
    assert [c.worker for c in run.told if isinstance(c, commands.SendRound)] == ["alice"]


def test_a_plan_that_is_content_with_fewer_goes_on_without_the_one_that_is_out() -> None:
    plan = replace(PLAN, on_quorum_loss=OnQuorumLoss.FEWER)
    run = play(plan, [*BOTH, NO_MORE])
    assert run.state.phase is RunPhase.TRAINING
    assert run.play([delivers("alice")]).state.phase is RunPhase.CLOSING


def test_another_engine_asks_a_worker_that_was_out_of_the_run_again() -> None:
    again = [RESTART, *BOTH, delivers("alice"), *CLOSES]
    run = play(replace(PLAN, min_updates=1), [*BOTH, NO_MORE, *again])
    sent_to = [c.worker for c in run.told if isinstance(c, commands.SendRound)]
    assert sent_to == ["alice", "bob"]


def test_going_on_with_fewer_closes_the_round_with_the_updates_that_are_there() -> None:
    run = play(PLAN, [*SHORT, FEWER])
    assert run.state.phase is RunPhase.CLOSING
    [aggregate] = run.told
    assert isinstance(aggregate, commands.Aggregate)
    assert [update.worker for update in aggregate.updates] == ["alice"]
    assert facts_in(run.last) == [facts.RunFewer(1, 1, 2)]


def test_a_straggler_is_stopped_when_the_round_goes_on_without_it() -> None:
    run = play(PLAN, [*BOTH, delivers("alice"), time_is_up, FEWER])
    assert run.told[0] == commands.AbortWorker("bob", 1)


def test_the_next_round_needs_all_again() -> None:
    run = play(PLAN, ALONE)
    assert (run.state.phase, run.state.need) == (RunPhase.WAITING, 2)
    assert facts_in(run.last)[-1] == facts.RunQuorum(
        1, 2, QuorumOf.WORKERS, RunPhase.WAITING, AtTimeout.FAIL
    )


def test_between_rounds_the_next_one_is_opened_with_those_that_are_connected() -> None:
    run = play(PLAN, [*ALONE, FEWER])
    assert facts_in(run.last) == [
        facts.RunFewer(2, 1, 2),
        facts.RoundStarted(2, 1, ("alice",), epoch=1),
    ]
    run = run.play([delivers("alice")])
    assert run.state.phase is RunPhase.CLOSING


def test_with_nothing_to_go_on_with_the_request_is_refused() -> None:
    run = play(PLAN, [*BOTH, time_is_up])
    with pytest.raises(IllegalRequest, match="no update is there yet; wait, or abort the run"):
        run.play([FEWER])
    run = play(PLAN, [*ALONE, is_lost("alice")])
    with pytest.raises(IllegalRequest, match="no worker is connected"):
        run.play([FEWER])


def test_waiting_longer_gives_the_whole_time_once_more() -> None:
    run = play(PLAN, [*SHORT, WAIT])
    assert run.last == (
        commands.StopTimer(TimerKind.QUORUM, 3),
        commands.StartTimer(TimerKind.QUORUM, 600.0, 4),
        commands.Announce(
            facts.RunQuorum(1, 2, QuorumOf.UPDATES, RunPhase.WAITING, AtTimeout.FAIL)
        ),
    )
    run = run.play([time_is_up])
    assert ending(run) == (RunPhase.FAILED, ExitCode.QUORUM_LOST)


def test_a_run_that_lacks_its_quorum_may_be_aborted_and_keeps_its_model() -> None:
    run = play(PLAN, [*ALONE, ABORT])
    assert run.told == (commands.SaveModel("model-1"),)


@pytest.mark.parametrize("request_made", [WAIT, FEWER])
def test_only_a_run_that_waits_can_be_told_what_is_enough(request_made: object) -> None:
    run = play(PLAN, BOTH)
    with pytest.raises(IllegalRequest, match="the run is training"):
        run.play([request_made])  # type: ignore[list-item]


def test_what_was_enough_outlives_the_engine() -> None:
    run = play(PLAN, [*ALONE, FEWER, RESTART, joins("alice")])
    assert run.state.need == 1
    assert replay(run.journal) == run.state
    run = run.play([delivers("alice")])
    assert run.state.phase is RunPhase.CLOSING


def test_after_a_restart_the_operator_need_not_wait_for_those_who_were_there() -> None:
    plan = replace(PLAN, min_updates=1)
    both = (delivers("alice"), delivers("bob"))
    run = play(plan, [*BOTH, *both, *CLOSES[:-1], RESTART, *CLOSES, joins("alice")])
    assert facts_in(run.last)[-1] == facts.RunQuorum(
        1, 2, QuorumOf.WORKERS, RunPhase.WAITING, AtTimeout.FEWER
    )
    run = run.play([FEWER])
    assert facts_in(run.last) == [facts.RoundStarted(2, 1, ("alice",), epoch=1)]


# The plan decides


FEWER_PLAN = replace(PLAN, on_quorum_loss=OnQuorumLoss.FEWER)


def test_a_plan_that_is_content_with_fewer_does_not_wait() -> None:
    run = play(FEWER_PLAN, [*BOTH, is_lost("bob")])
    assert facts_in(run.last)[-1] == facts.RunQuorum(
        1, 2, QuorumOf.WORKERS, RunPhase.TRAINING, AtTimeout.FEWER
    )
    run = run.play([delivers("alice"), time_is_up])
    assert run.state.phase is RunPhase.CLOSING
    run = run.play(CLOSES)
    assert facts_in(run.last)[-2:] == [
        facts.RunFewer(2, 1, 2),
        facts.RoundStarted(2, 1, ("alice",), epoch=1),
    ]


def test_a_plan_that_is_content_with_fewer_goes_on_without_what_was_rejected() -> None:
    run = play(FEWER_PLAN, [*BOTH, delivers("alice"), is_rejected("bob")])
    assert run.state.phase is RunPhase.CLOSING


def test_a_plan_that_is_content_with_fewer_waits_while_there_is_nobody() -> None:
    run = play(FEWER_PLAN, [*BOTH, is_lost("bob"), is_lost("alice"), time_is_up])
    assert facts_in(run.last)[-1] == facts.RunQuorum(
        0, 2, QuorumOf.UPDATES, RunPhase.WAITING, AtTimeout.FAIL
    )
    run = run.play([joins("alice"), delivers("alice")])
    assert run.state.phase is RunPhase.CLOSING


def test_after_a_pause_the_new_deadline_of_a_round_that_is_short_of_workers_is_told() -> None:
    run = play(PLAN, [*BOTH, PAUSE, events.WorkerPaused("alice"), is_lost("bob"), RESUME])
    warned = facts.RunQuorum(1, 2, QuorumOf.WORKERS, RunPhase.TRAINING, AtTimeout.WAIT)
    assert facts_in(run.last) == [facts.RunResumed(1), warned]
    before = run.last[: run.last.index(commands.Announce(warned))]
    assert any(isinstance(command, commands.StartTimer) for command in before)
    run = play(PLAN, [*BOTH, PAUSE, *map(events.WorkerPaused, ("alice", "bob")), RESUME])
    assert facts_in(run.last) == [facts.RunResumed(1)]


def test_a_wait_that_was_paused_is_told_anew() -> None:
    script = [*BOTH, delivers("alice"), fails("bob"), fails("bob"), PAUSE, RESUME]
    run = play(PLAN, script)
    assert run.state.phase is RunPhase.WAITING
    waits = facts.RunQuorum(1, 2, QuorumOf.UPDATES, RunPhase.WAITING, AtTimeout.FAIL)
    assert facts_in(run.last) == [facts.RunResumed(1), waits]


# Workers that are connected, but not ready yet


def is_preparing(worker: str) -> Line:
    return events.WorkerPreparing(worker)


def waits_for(have: int, then: AtTimeout, *preparing: str) -> facts.RunQuorum:
    return facts.RunQuorum(have, 2, QuorumOf.UPDATES, RunPhase.WAITING, then, preparing)


PREPARES = (*SHORT, is_preparing("bob"))


def test_a_wait_does_not_end_while_a_missing_worker_is_made_ready() -> None:
    run = play(PLAN, PREPARES)
    assert facts_in(run.last) == [waits_for(1, AtTimeout.WAIT, "bob")]
    run = run.play([time_is_up])
    assert run.last == (
        commands.StartTimer(TimerKind.PREPARATION, 60.0, 4),
        commands.Announce(waits_for(1, AtTimeout.FAIL, "bob")),
    )
    run = run.play([joins("bob")])
    assert (run.state.phase, run.told) == (RunPhase.TRAINING, (sent("bob", attempt=2),))
    assert run.play([delivers("bob")]).state.phase is RunPhase.CLOSING


def test_a_preparation_is_waited_for_once_and_no_longer_than_it_may_take() -> None:
    run = play(PLAN, [*PREPARES, time_is_up, time_is_up])
    assert ending(run) == (RunPhase.FAILED, ExitCode.QUORUM_LOST)
    again = [is_lost("bob"), is_preparing("bob"), time_is_up, time_is_up]
    assert ending(play(PLAN, [*PREPARES, *again])) == (RunPhase.FAILED, ExitCode.QUORUM_LOST)


def test_a_prolonged_wait_ends_with_the_link_that_it_was_for() -> None:
    run = play(PLAN, [*PREPARES, is_lost("bob")])
    assert facts_in(run.last) == [waits_for(1, AtTimeout.FAIL)]
    run = play(PLAN, [*PREPARES, time_is_up, is_lost("bob")])
    assert ending(run) == (RunPhase.FAILED, ExitCode.QUORUM_LOST)


def test_a_worker_that_is_not_missed_prolongs_no_wait() -> None:
    run = play(PLAN, [*SHORT, is_lost("alice"), is_preparing("alice"), time_is_up])
    assert ending(run) == (RunPhase.FAILED, ExitCode.QUORUM_LOST)


def test_more_time_is_all_of_it_also_after_a_prolonged_wait() -> None:
    run = play(PLAN, [*PREPARES, time_is_up, WAIT])
    assert commands.StartTimer(TimerKind.QUORUM, 600.0, 5) in run.last


def test_a_run_does_not_fail_at_its_start_while_a_worker_is_made_ready() -> None:
    run = play(PLAN, [joins("alice"), is_preparing("bob"), time_is_up])
    assert run.state.phase is RunPhase.GATHERING
    assert run.play([joins("bob")]).state.phase is RunPhase.TRAINING
    assert ending(run.play([is_lost("bob")])) == (RunPhase.FAILED, ExitCode.NO_QUORUM)
    assert ending(run.play([time_is_up])) == (RunPhase.FAILED, ExitCode.NO_QUORUM)


def test_a_run_that_has_enough_workers_begins_without_the_one_that_is_made_ready() -> None:
    plan = replace(PLAN, min_updates=1)
    run = play(plan, [joins("alice"), is_preparing("bob"), time_is_up])
    assert run.state.phase is RunPhase.TRAINING


def test_a_worker_that_does_not_get_ready_holds_up_no_start_that_has_enough_others() -> None:
    slow = events.WorkerLost("bob", "not ready", was_met=True)
    run = play(replace(PLAN, min_updates=1), [joins("alice"), is_preparing("bob"), slow])
    assert run.state.phase is RunPhase.TRAINING
    assert facts.WorkerLost("bob", "bob", "not ready") in facts_in(run.last)
    assert run.play([joins("bob")]).state.members["bob"].is_connected
    run = play(PLAN, [joins("alice"), is_preparing("bob"), slow])
    assert run.state.phase is RunPhase.GATHERING
    assert run.play([joins("bob")]).state.phase is RunPhase.TRAINING


def test_after_a_restart_the_next_round_waits_for_the_worker_that_is_made_ready() -> None:
    plan = replace(PLAN, min_updates=1)
    both = (delivers("alice"), delivers("bob"))
    run = play(plan, [*BOTH, *both, *CLOSES[:-1], RESTART, *CLOSES, joins("alice")])
    run = run.play([is_preparing("bob"), time_is_up])
    assert run.state.phase is RunPhase.WAITING
    run = run.play([joins("bob")])
    assert facts_in(run.last)[-1] == facts.RoundStarted(2, 1, ("alice", "bob"), epoch=1)
