"""Workers that are lost, come back, fail or are too few."""

from __future__ import annotations

from msgspec.structs import replace

from fedconsole.coordinator import commands, events, facts
from fedconsole.coordinator.facts import AtTimeout, QuorumOf
from fedconsole.coordinator.phases import RunPhase
from fedconsole.coordinator.plan import Plan
from fedconsole.coordinator.state import Ending, Outcome, PartStatus, TimerKind
from fedconsole.errors import ExitCode
from tests.support.play import (
    CLOSES,
    delivers,
    ending,
    facts_in,
    fails,
    is_lost,
    joins,
    play,
    sent,
    time_is_up,
    update_of,
)

PLAN = Plan(virtual=2, rounds=2, federate_after_n_batches=3, batch_size=10)
BOTH = (joins("alice"), joins("bob"))
BOTH_DELIVER = (delivers("alice"), delivers("bob"))


# Lost workers


def test_a_delivered_update_survives_the_loss_of_its_sender() -> None:
    run = play(PLAN, [*BOTH, delivers("alice"), is_lost("alice"), delivers("bob")])
    aggregate = run.last[-1]
    assert isinstance(aggregate, commands.Aggregate)
    assert [update.worker for update in aggregate.updates] == ["alice", "bob"]


def test_a_lost_worker_is_waited_for_until_the_deadline() -> None:
    run = play(replace(PLAN, min_updates=1), [*BOTH, is_lost("bob"), delivers("alice")])
    assert run.state.phase is RunPhase.TRAINING
    run = run.play([time_is_up])
    assert run.state.phase is RunPhase.CLOSING


def test_a_worker_that_comes_back_gets_the_same_round_again() -> None:
    run = play(PLAN, [*BOTH, is_lost("bob"), joins("bob")])
    assert run.told == (sent("bob", attempt=2),)


def test_a_worker_that_comes_back_with_an_update_is_asked_for_it_under_the_new_attempt() -> None:
    # What it sends by itself may have been refused before the run was taken up.
    run = play(PLAN, [*BOTH, is_lost("bob"), joins("bob", working_on=1)])
    assert run.told == (sent("bob", attempt=2),)


def test_an_update_of_an_older_attempt_counts() -> None:
    run = play(PLAN, BOTH)
    kept = update_of(run.state, "bob")
    run = run.play([is_lost("bob"), joins("bob"), kept])
    assert run.told == (commands.AcceptUpdate("bob", 1, 1),)


def test_a_worker_that_comes_back_after_delivering_is_sent_nothing() -> None:
    run = play(PLAN, [*BOTH, delivers("bob"), is_lost("bob"), joins("bob")])
    assert run.told == ()


def test_nothing_is_sent_to_a_worker_that_is_not_connected() -> None:
    run = play(PLAN, [*BOTH, is_lost("bob"), delivers("bob")])
    assert run.told == ()


def test_another_device_under_the_same_name_does_not_take_the_place() -> None:
    run = play(PLAN, [*BOTH, is_lost("bob")])
    other = replace(joins("bob"), device_id="other")
    before = run.state
    run = run.play([other])
    assert run.state == replace(before, num_ignored=1)
    text = "cannot rejoin: it was device device of bob and is now other"
    assert facts_in(run.last) == [facts.Warning(f"{text}; its part in this run is over", "bob")]


def test_a_worker_whose_shard_has_changed_does_not_come_back() -> None:
    run = play(PLAN, [*BOTH, is_lost("bob"), joins("bob", num_examples=90)])
    assert not run.state.members["bob"].is_connected


def test_a_late_worker_takes_part_from_the_next_round_on() -> None:
    plan = replace(PLAN, min_updates=1)
    run = play(plan, [joins("alice"), time_is_up, joins("bob")])
    assert run.told == ()
    run = run.play([delivers("alice"), *CLOSES])
    assert facts_in(run.last)[-1] == facts.RoundStarted(2, 1, ("alice", "bob"), epoch=1)


def test_a_failed_training_is_tried_once_more() -> None:
    run = play(PLAN, [*BOTH, fails("bob")])
    assert run.told == (sent("bob", attempt=2),)
    run = run.play([fails("bob")])
    assert run.told == ()
    assert run.state.round is not None
    assert run.state.round.parts["bob"].status is PartStatus.OUT


def test_a_failure_of_an_older_attempt_changes_nothing() -> None:
    run = play(PLAN, BOTH)
    old = events.TrainingFailed("bob", 1, 1, "trainer died")
    run = run.play([is_lost("bob"), joins("bob")])
    before = run.state
    run = run.play([old])
    assert (run.state, run.last) == (replace(before, num_ignored=1), ())


# Quorum


def test_a_round_closes_at_its_deadline_with_enough_updates_and_stops_the_straggler() -> None:
    run = play(replace(PLAN, min_updates=1), [*BOTH, delivers("alice"), time_is_up])
    assert run.told == (
        commands.AbortWorker("bob", 1),
        commands.Aggregate(
            1, (commands.CountedUpdate("alice", 30, "alice.safetensors", "sha256 of alice"),)
        ),
    )


def test_a_round_with_too_few_updates_waits_and_goes_on_with_the_missing_one() -> None:
    run = play(PLAN, [*BOTH, is_lost("bob"), delivers("alice"), time_is_up])
    assert run.state.phase is RunPhase.WAITING
    assert run.last == (
        commands.StartTimer(TimerKind.QUORUM, 600.0, 3),
        commands.Announce(
            facts.RunQuorum(1, 2, QuorumOf.UPDATES, RunPhase.WAITING, AtTimeout.FAIL)
        ),
    )
    run = run.play([joins("bob")])
    assert run.told == (sent("bob", attempt=2),)
    run = run.play([delivers("bob")])
    assert run.state.phase is RunPhase.CLOSING


def test_a_missing_worker_that_is_back_has_the_whole_time_of_the_round() -> None:
    run = play(PLAN, [*BOTH, is_lost("bob"), delivers("alice"), time_is_up, joins("bob")])
    assert run.state.phase is RunPhase.TRAINING
    assert run.last[-3:] == (
        commands.StopTimer(TimerKind.QUORUM, 3),
        commands.StartTimer(TimerKind.ROUND, PLAN.round_timeout_s, 4),
        commands.Announce(
            facts.RunQuorum(2, 2, QuorumOf.WORKERS, RunPhase.TRAINING, AtTimeout.WAIT)
        ),
    )
    run = run.play([time_is_up])
    assert run.state.phase is RunPhase.WAITING, "it is a straggler now, and waited for as any"
    run = run.play([time_is_up])
    assert ending(run) == (RunPhase.FAILED, ExitCode.QUORUM_LOST)


def test_a_link_that_comes_and_goes_gives_a_straggler_no_more_time() -> None:
    run = play(PLAN, [*BOTH, delivers("alice"), time_is_up])
    timer = run.state.timer
    run = run.play([is_lost("alice"), joins("alice")])
    assert (run.state.phase, run.state.timer) == (RunPhase.WAITING, timer)


def test_a_worker_that_is_back_is_not_enough_where_more_are_missing() -> None:
    plan = replace(PLAN, virtual=3)
    lost = [is_lost("bob"), is_lost("carol")]
    run = play(plan, [*BOTH, joins("carol"), delivers("alice"), *lost, time_is_up, joins("bob")])
    assert run.state.phase is RunPhase.WAITING
    run = run.play([joins("carol")])
    assert run.state.phase is RunPhase.TRAINING


def test_a_worker_that_was_out_gets_a_new_chance_when_the_quorum_depends_on_it() -> None:
    run = play(PLAN, [*BOTH, delivers("alice"), fails("bob"), fails("bob")])
    assert run.state.phase is RunPhase.WAITING
    run = run.play([is_lost("bob"), joins("bob")])
    assert run.told == (sent("bob", attempt=3),)


def test_a_quorum_that_does_not_come_back_fails_the_run() -> None:
    run = play(PLAN, [*BOTH, delivers("alice"), time_is_up, time_is_up])
    assert ending(run) == (RunPhase.FAILED, ExitCode.QUORUM_LOST)
    assert run.told[0] == commands.AbortWorker("bob", 1)
    assert run.state.ending == Ending(
        Outcome.FAILED, "quorum lost: 1 updates, 2 needed", ExitCode.QUORUM_LOST
    )


def test_no_round_is_opened_with_fewer_connected_workers_than_the_quorum() -> None:
    run = play(PLAN, [*BOTH, *BOTH_DELIVER, is_lost("bob"), *CLOSES])
    assert run.state.phase is RunPhase.WAITING
    assert facts_in(run.last)[-1] == facts.RunQuorum(
        1, 2, QuorumOf.WORKERS, RunPhase.WAITING, AtTimeout.FAIL
    )
    run = run.play([joins("bob")])
    assert facts_in(run.last)[-1] == facts.RoundStarted(2, 1, ("alice", "bob"), epoch=1)


def test_waiting_for_workers_ends_in_time_although_some_come_and_go() -> None:
    run = play(PLAN, [*BOTH, *BOTH_DELIVER, is_lost("bob"), *CLOSES])
    timer = run.state.timer
    run = run.play([is_lost("alice"), joins("alice")])
    assert run.state.timer == timer
    run = run.play([time_is_up])
    assert ending(run) == (RunPhase.FAILED, ExitCode.QUORUM_LOST)


def test_a_stopped_timer_changes_nothing() -> None:
    run = play(PLAN, BOTH)
    assert run.state.timer is not None
    old = events.TimerExpired(run.state.timer.number)
    run = run.play([*BOTH_DELIVER, *CLOSES])
    before = run.state
    run = run.play([old])
    assert (run.state, run.last) == (replace(before, num_ignored=1), ())


def test_a_loss_that_leaves_too_few_is_announced_before_the_deadline() -> None:
    run = play(PLAN, [joins("alice"), joins("bob"), is_lost("bob")])
    assert facts_in(run.last)[-1] == facts.RunQuorum(
        1, 2, QuorumOf.WORKERS, RunPhase.TRAINING, AtTimeout.WAIT
    )
    enough = play(replace(PLAN, min_updates=1), [joins("alice"), joins("bob"), is_lost("bob")])
    assert not any(isinstance(fact, facts.RunQuorum) for fact in facts_in(enough.last))


def test_a_round_whose_missing_workers_were_rejected_is_not_waited_for() -> None:
    rejected = [events.UpdateRejected(worker, 1, 1, "NaN") for worker in ("alice", "bob")]
    run = play(PLAN, [joins("alice"), joins("bob"), *rejected])
    assert ending(run) == (RunPhase.FAILED, ExitCode.QUORUM_LOST)
    assert run.state.ending is not None
    assert "what alice, bob sent cannot be used" in run.state.ending.reason
    # One that is lost may come back and answer: that is waited for.
    run = play(PLAN, [joins("alice"), joins("bob"), rejected[0], is_lost("bob"), time_is_up])
    assert run.state.phase is RunPhase.WAITING
