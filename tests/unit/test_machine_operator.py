"""What the operator asks of a run, and a new engine that takes it up."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from fedconsole.coordinator import commands, events, facts
from fedconsole.coordinator.phases import IllegalRequest, RunPhase
from fedconsole.coordinator.plan import OnQuorumLoss, Plan
from fedconsole.coordinator.state import Outcome, TimerKind
from fedconsole.errors import ExitCode
from tests.support.play import (
    ABORT,
    CLOSES,
    PAUSE,
    RESTART,
    RESUME,
    STOP,
    delivers,
    ending,
    facts_in,
    fails,
    is_aggregated,
    is_evaluated,
    is_lost,
    is_saved,
    joins,
    model_is_saved,
    play,
    sent,
    time_is_up,
)

PLAN = Plan(virtual=2, rounds=3, federate_after_n_batches=3, batch_size=10)
BOTH = (joins("alice"), joins("bob"))
BOTH_DELIVER = (delivers("alice"), delivers("bob"))
ONE_ROUND = (*BOTH_DELIVER, *CLOSES)
BOTH_PAUSED = (events.WorkerPaused("alice"), events.WorkerPaused("bob"))
BOTH_ABORTED = (events.WorkerAborted("alice"), events.WorkerAborted("bob"))


# Pause


def test_a_pause_stops_the_deadline_and_every_worker() -> None:
    run = play(PLAN, [*BOTH, PAUSE])
    assert run.last == (
        commands.StopTimer(TimerKind.ROUND, 2),
        commands.PauseWorker("alice", 1),
        commands.PauseWorker("bob", 1),
        commands.Announce(facts.RunPausing(1, ("alice", "bob"))),
    )
    run = run.play([events.WorkerPaused("bob")])
    assert run.state.phase is RunPhase.PAUSING
    run = run.play([events.WorkerPaused("alice")])
    assert run.state.phase is RunPhase.PAUSED
    assert facts_in(run.last) == [facts.RunPaused(1)]


def test_resuming_lets_the_workers_go_on_with_the_whole_time_until_the_deadline() -> None:
    run = play(PLAN, [*BOTH, PAUSE, *BOTH_PAUSED, RESUME])
    assert run.last == (
        commands.Announce(facts.RunResumed(1)),
        commands.StartTimer(TimerKind.ROUND, 600.0, 3),
        commands.ResumeWorker("alice", 1),
        commands.ResumeWorker("bob", 1),
    )
    assert run.state.phase is RunPhase.TRAINING


def test_resuming_before_all_have_stopped_resumes_all() -> None:
    run = play(PLAN, [*BOTH, PAUSE, events.WorkerPaused("bob"), RESUME])
    assert run.told == (commands.ResumeWorker("alice", 1), commands.ResumeWorker("bob", 1))
    before = run.state
    run = run.play([events.WorkerPaused("alice")])
    assert run.state == replace(before, num_ignored=1)


def test_a_pause_does_not_wait_for_the_lost_nor_for_those_that_deliver() -> None:
    run = play(PLAN, [*BOTH, PAUSE, delivers("alice"), is_lost("bob")])
    assert run.state.phase is RunPhase.PAUSED


def test_updates_that_came_while_pausing_close_the_round_on_resuming() -> None:
    run = play(PLAN, [*BOTH, PAUSE, *BOTH_DELIVER])
    assert run.state.phase is RunPhase.PAUSED
    run = run.play([RESUME])
    assert run.state.phase is RunPhase.CLOSING


def test_a_worker_whose_state_is_gone_does_the_round_again_on_resuming() -> None:
    run = play(PLAN, [*BOTH, PAUSE, *BOTH_PAUSED, is_lost("bob"), joins("bob")])
    assert run.told == ()
    run = run.play([RESUME])
    assert run.told == (commands.ResumeWorker("alice", 1), sent("bob", attempt=2))


def test_a_worker_that_cannot_resume_gets_the_round_again() -> None:
    run = play(PLAN, [*BOTH, PAUSE, *BOTH_PAUSED, RESUME, fails("bob")])
    assert run.told == (sent("bob", attempt=2),)


def test_a_worker_that_comes_back_training_is_paused() -> None:
    run = play(PLAN, [*BOTH, is_lost("bob"), PAUSE, events.WorkerPaused("alice")])
    run = run.play([joins("bob", working_on=1)])
    assert run.told == (commands.PauseWorker("bob", 1),)
    run = run.play([events.WorkerPaused("bob"), RESUME])
    assert run.told == (commands.ResumeWorker("alice", 1), commands.ResumeWorker("bob", 1))


def test_a_pause_while_a_round_closes_begins_when_it_is_saved() -> None:
    run = play(PLAN, [*BOTH, *BOTH_DELIVER, PAUSE, is_aggregated, is_evaluated()])
    assert run.state.phase is RunPhase.PAUSING
    run = run.play([is_saved])
    assert facts_in(run.last) == [
        facts.RoundFinished(1, ("alice", "bob"), 0.5, "model-1"),
        facts.RunPaused(1),
    ]
    run = run.play([RESUME])
    assert facts_in(run.last)[-1] == facts.RoundStarted(2, 1, ("alice", "bob"), epoch=1)


def test_a_pause_that_is_taken_back_while_a_round_closes_leaves_no_trace() -> None:
    run = play(PLAN, [*BOTH, *BOTH_DELIVER, PAUSE, RESUME, *CLOSES])
    assert facts_in(run.last)[-1] == facts.RoundStarted(2, 1, ("alice", "bob"), epoch=1)


def test_waiting_for_workers_can_be_paused() -> None:
    run = play(PLAN, [*BOTH, *BOTH_DELIVER, is_lost("bob"), *CLOSES, PAUSE])
    assert (run.state.phase, run.state.timer) == (RunPhase.PAUSED, None)
    run = run.play([joins("bob"), RESUME])
    assert run.state.phase is RunPhase.TRAINING


def test_a_run_that_has_only_its_last_round_to_save_completes_instead_of_pausing() -> None:
    plan = replace(PLAN, rounds=1)
    run = play(plan, [*BOTH, *BOTH_DELIVER, PAUSE, *CLOSES])
    assert run.state.phase is RunPhase.FINISHING


# Abort


def test_an_abort_waits_for_the_workers_and_keeps_the_last_complete_round() -> None:
    run = play(PLAN, [*BOTH, *ONE_ROUND, ABORT])
    assert run.last == (
        commands.StopTimer(TimerKind.ROUND, 3),
        commands.AbortWorker("alice", 2),
        commands.AbortWorker("bob", 2),
        commands.Announce(facts.RunAborting(2, ("alice", "bob"))),
        commands.StartTimer(TimerKind.ABORT, 5.0, 4),
    )
    run = run.play(BOTH_ABORTED)
    assert run.told == (commands.SaveModel("model-1"),)
    run = run.play([model_is_saved])
    assert run.last[-1] == commands.Finish(
        Outcome.ABORTED, "aborted by the operator", ExitCode.ABORTED
    )


def test_an_abort_without_a_complete_round_saves_nothing() -> None:
    run = play(PLAN, [*BOTH, ABORT, *BOTH_ABORTED])
    assert ending(run) == (RunPhase.ABORTED, ExitCode.ABORTED)


def test_an_abort_does_not_wait_longer_than_its_time() -> None:
    run = play(PLAN, [*BOTH, ABORT, time_is_up])
    assert ending(run) == (RunPhase.ABORTED, ExitCode.ABORTED)


def test_a_second_abort_waits_for_nobody() -> None:
    run = play(PLAN, [*BOTH, ABORT, ABORT])
    assert ending(run) == (RunPhase.ABORTED, ExitCode.ABORTED)


@pytest.mark.parametrize("num_steps", [0, 1, 2])
def test_an_abort_in_the_middle_of_closing_keeps_the_round_before(num_steps: int) -> None:
    run = play(PLAN, [*BOTH, *ONE_ROUND, *BOTH_DELIVER, *CLOSES[:num_steps], ABORT])
    assert run.told == (commands.SaveModel("model-1"),)


def test_an_abort_while_gathering_ends_the_run() -> None:
    run = play(PLAN, [joins("alice"), ABORT])
    assert ending(run) == (RunPhase.ABORTED, ExitCode.ABORTED)


def test_an_abort_stops_workers_that_evaluate() -> None:
    plan = replace(PLAN, holdout=0.5)
    both = (joins("alice", num_holdout=50), joins("bob"))
    run = play(plan, [*both, *BOTH_DELIVER, is_aggregated, ABORT])
    assert run.told == (commands.AbortWorker("alice", 1),)
    assert run.state.phase is RunPhase.ABORTING


def test_a_worker_that_comes_back_during_an_abort_is_stopped() -> None:
    run = play(PLAN, [*BOTH, is_lost("bob"), ABORT, joins("bob", working_on=1)])
    assert run.told == (commands.AbortWorker("bob", 1),)
    run = run.play([events.WorkerAborted("alice")])
    assert run.state.phase is RunPhase.ABORTING
    run = run.play([events.WorkerAborted("bob")])
    assert run.state.phase is RunPhase.ABORTED


def test_an_update_that_comes_during_an_abort_is_refused() -> None:
    run = play(PLAN, [*BOTH, ABORT, delivers("alice")])
    assert run.told == (commands.RefuseUpdate("alice", 1, 1, "too late: round 1 is closed"),)


def test_an_abort_while_the_model_is_saved_does_not_wait_for_the_disk() -> None:
    run = play(replace(PLAN, rounds=1), [*BOTH, *ONE_ROUND, ABORT])
    assert ending(run) == (RunPhase.ABORTED, ExitCode.ABORTED)


# Stop after the round


def test_a_stop_completes_the_run_after_the_current_round() -> None:
    run = play(PLAN, [*BOTH, STOP, *ONE_ROUND, model_is_saved])
    assert run.last[-1] == commands.Finish(
        Outcome.COMPLETED, "stopped by the operator after round 1", ExitCode.COMPLETED
    )


def test_a_stop_is_not_asked_for_twice() -> None:
    run = play(PLAN, [*BOTH, STOP])
    with pytest.raises(IllegalRequest) as caught:
        run.play([STOP])
    assert str(caught.value) == (
        "cannot stop after this round: the run is training and stops after this round; "
        "possible now: abort, pause"
    )
    run = run.play([PAUSE, RESUME, *ONE_ROUND, model_is_saved])
    assert run.state.num_rounds == 1


def test_a_stop_between_rounds_completes_the_run_at_once() -> None:
    run = play(PLAN, [*BOTH, *BOTH_DELIVER, PAUSE, *CLOSES, STOP])
    assert run.told == (commands.SaveModel("model-1"),)


def test_a_stop_evaluates_the_last_round_if_that_was_not_due() -> None:
    plan = replace(PLAN, eval_every=2)
    run = play(plan, [*BOTH, *BOTH_DELIVER, is_aggregated, STOP, is_saved])
    assert run.told == (commands.Evaluate(1, "model-1"),)
    run = run.play([is_evaluated(), is_saved])
    assert run.told == (commands.SaveModel("model-1"),)
    finished = [f for f in facts_in(run.commands) if isinstance(f, facts.RoundFinished)]
    assert len(finished) == 1


# A new engine


def test_a_new_engine_keeps_what_was_delivered_and_sends_the_rest_again() -> None:
    run = play(PLAN, [*BOTH, delivers("alice"), RESTART])
    assert run.state.num_connected == 0
    assert run.last == (
        commands.Announce(facts.RunRestarted(1)),
        commands.Announce(facts.RoundStarted(1, 2, ("alice", "bob"), epoch=1)),
        commands.StartTimer(TimerKind.ROUND, 600.0, 3),
    )
    run = run.play(BOTH)
    assert run.told == (sent("bob", attempt=2),)
    run = run.play([delivers("bob")])
    assert run.state.phase is RunPhase.CLOSING


def test_a_new_engine_aggregates_again_what_was_not_saved() -> None:
    run = play(PLAN, [*BOTH, *BOTH_DELIVER])
    aggregate = run.last[-1]
    run = run.play([is_aggregated, is_evaluated(), RESTART])
    assert run.told == (aggregate,)


def test_a_new_engine_goes_on_with_a_paused_run_when_the_workers_are_back() -> None:
    run = play(PLAN, [*BOTH, *BOTH_DELIVER, PAUSE, *CLOSES, RESTART])
    assert run.state.phase is RunPhase.WAITING
    run = run.play(BOTH)
    assert facts_in(run.last)[-1] == facts.RoundStarted(2, 1, ("alice", "bob"), epoch=1)


def test_a_new_engine_gathers_again() -> None:
    run = play(PLAN, [joins("alice"), RESTART])
    assert run.last == (
        commands.Announce(facts.RunRestarted(0)),
        commands.StartTimer(TimerKind.GATHERING, 600.0, 2),
    )
    run = run.play([joins("bob")])
    assert run.state.phase is RunPhase.GATHERING
    run = run.play([joins("alice")])
    assert run.state.phase is RunPhase.TRAINING


def test_a_new_engine_lets_a_worker_train_again_whose_update_is_lost() -> None:
    run = play(PLAN, [*BOTH, delivers("alice"), events.EngineRestarted(lost=("alice",)), *BOTH])
    assert run.commands.count(sent("alice", attempt=2)) == 1
    assert run.commands.count(sent("bob", attempt=2)) == 1
    run = run.play(BOTH_DELIVER)
    assert run.state.phase is RunPhase.CLOSING


@pytest.mark.parametrize("policy", OnQuorumLoss)
def test_a_new_engine_waits_for_all_before_the_next_round(policy: OnQuorumLoss) -> None:
    plan = replace(PLAN, min_updates=1, on_quorum_loss=policy)
    run = play(plan, [*BOTH, *ONE_ROUND, *BOTH_DELIVER, *CLOSES[:-1], RESTART, *CLOSES])
    assert run.state.phase is RunPhase.WAITING
    run = run.play([joins("alice")])
    assert (run.state.phase, run.told) == (RunPhase.WAITING, ())
    run = run.play([joins("bob")])
    assert facts_in(run.last)[-1] == facts.RoundStarted(3, 1, ("alice", "bob"), epoch=1)


def test_a_new_engine_goes_on_without_those_who_do_not_come_back_in_time() -> None:
    plan = replace(PLAN, min_updates=1)
    run = play(plan, [*BOTH, *ONE_ROUND, *BOTH_DELIVER, *CLOSES[:-1], RESTART, *CLOSES])
    run = run.play([joins("alice"), time_is_up])
    assert facts_in(run.last)[-1] == facts.RoundStarted(3, 1, ("alice",), epoch=1)


def test_a_new_engine_that_nobody_comes_back_to_waits_as_long_as_any_run() -> None:
    run = play(PLAN, [*BOTH, *ONE_ROUND, *BOTH_DELIVER, *CLOSES[:-1], RESTART, *CLOSES])
    run = run.play([time_is_up])
    assert run.state.phase is RunPhase.WAITING
    run = run.play([time_is_up])
    assert ending(run) == (RunPhase.FAILED, ExitCode.QUORUM_LOST)


def test_a_new_engine_ends_an_abort_and_saves_a_model_that_was_not_saved() -> None:
    run = play(PLAN, [*BOTH, ABORT, RESTART])
    assert ending(run) == (RunPhase.ABORTED, ExitCode.ABORTED)
    run = play(replace(PLAN, rounds=1), [*BOTH, *ONE_ROUND, RESTART])
    assert run.told == (commands.SaveModel("model-1"),)
