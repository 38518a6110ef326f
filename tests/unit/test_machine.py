"""A run from its start to its end, as scripts."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec.structs import replace

from fedconsole.coordinator import commands, events, facts
from fedconsole.coordinator.machine import advance
from fedconsole.coordinator.phases import (
    IllegalRequest,
    Request,
    RunPhase,
    allowed_requests,
    phase_diagram,
    require_allowed,
)
from fedconsole.coordinator.plan import OnQuorumLoss, Plan, Weighting
from fedconsole.coordinator.state import Outcome, TimerKind
from fedconsole.errors import ExitCode
from pi_daemon.protocol.messages import Cursor
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
    is_aggregated,
    is_evaluated,
    is_lost,
    is_rejected,
    is_saved,
    joins,
    model_is_saved,
    play,
    sent,
    time_is_up,
    update_of,
)

PLAN = Plan(virtual=2, rounds=2, federate_after_n_batches=3, batch_size=10)
BOTH = (joins("alice"), joins("bob"))
BOTH_DELIVER = (delivers("alice"), delivers("bob"))


# Gathering


def test_a_run_starts_when_every_wanted_worker_has_joined() -> None:
    run = play(PLAN, [joins("bob")])
    assert run.state.phase is RunPhase.GATHERING
    run = run.play([joins("alice")])
    assert run.state.phase is RunPhase.TRAINING
    assert run.told == (sent("alice"), sent("bob"))
    assert facts_in(run.last) == [
        facts.WorkerJoined("alice", "alice:10002"),
        facts.RunStarted(1),
        facts.RoundStarted(1, 1, ("alice", "bob"), epoch=1),
    ]


def test_a_run_without_enough_workers_in_time_fails() -> None:
    run = play(PLAN, [joins("bob"), time_is_up])
    assert ending(run) == (RunPhase.FAILED, ExitCode.NO_QUORUM)


def test_min_updates_is_enough_to_start_when_time_is_up() -> None:
    run = play(replace(PLAN, min_updates=1), [joins("bob"), time_is_up])
    assert run.told == (sent("bob"),)


def test_a_worker_that_cannot_be_reached_is_not_waited_for_if_there_are_enough() -> None:
    plan = replace(PLAN, min_updates=1)
    run = play(plan, [joins("bob"), is_lost("alice:10002")])
    assert run.told == (sent("bob"),)


def test_a_run_that_cannot_reach_enough_workers_fails_at_once_and_names_them() -> None:
    run = play(PLAN, [joins("bob"), is_lost("alice:10002")])
    assert ending(run) == (RunPhase.FAILED, ExitCode.NO_QUORUM)
    assert run.state.ending is not None
    assert run.state.ending.reason == (
        "1 of 2 workers have joined, 2 needed; missing: alice:10002 (link closed); "
        "start them, or allow fewer with --min-updates"
    )
    assert facts.WorkerLost("alice:10002", "alice:10002", "link closed") in facts_in(run.last)


def test_a_worker_that_was_there_a_moment_ago_is_waited_for_at_the_start() -> None:
    run = play(PLAN, [joins("bob"), is_lost("bob")])
    assert run.state.phase is RunPhase.GATHERING
    run = run.play([is_lost("alice:10002")])
    assert run.state.phase is RunPhase.GATHERING
    assert ending(run.play([time_is_up])) == (RunPhase.FAILED, ExitCode.NO_QUORUM)


def test_a_worker_that_was_met_and_lost_before_it_joined_is_waited_for_at_the_start() -> None:
    run = play(PLAN, [joins("bob"), is_lost("alice:10002", was_met=True)])
    assert run.state.phase is RunPhase.GATHERING
    back = run.play([joins("alice")])
    assert back.told == (sent("alice"), sent("bob"))
    assert ending(run.play([time_is_up])) == (RunPhase.FAILED, ExitCode.NO_QUORUM)


def test_whoever_is_missing_after_another_engine_has_died_is_waited_for_at_the_start() -> None:
    run = play(PLAN, [RESTART, joins("bob"), is_lost("alice:10002")])
    assert run.state.phase is RunPhase.GATHERING
    assert ending(run.play([time_is_up])) == (RunPhase.FAILED, ExitCode.NO_QUORUM)


def test_an_unreachable_worker_that_joins_after_all_is_counted_once() -> None:
    plan = replace(PLAN, virtual=3, min_updates=1)
    run = play(plan, [is_lost("alice:10002"), joins("alice"), joins("bob")])
    assert run.state.phase is RunPhase.GATHERING


def test_a_refused_worker_ends_the_run_before_it_starts() -> None:
    run = play(PLAN, [joins("bob"), events.WorkerRefused("alice", "no dataset 'digits'")])
    assert ending(run) == (RunPhase.FAILED, ExitCode.REFUSED)
    assert run.state.ending is not None
    assert run.state.ending.reason == "alice cannot take part: no dataset 'digits'"


def test_workers_without_a_batch_of_examples_cannot_start_a_run() -> None:
    run = play(PLAN, [joins("alice", num_examples=0), joins("bob", num_examples=1)])
    assert ending(run) == (RunPhase.FAILED, ExitCode.REFUSED)


def test_a_worker_without_examples_is_never_in_a_cohort() -> None:
    run = play(PLAN, [joins("alice", num_examples=0), joins("bob")])
    assert run.told == (sent("bob"),)


# A round


def test_a_round_is_aggregated_in_worker_order_whatever_the_order_of_arrival() -> None:
    run = play(PLAN, [*BOTH, delivers("bob"), delivers("alice")])
    assert run.state.phase is RunPhase.CLOSING
    assert run.told == (
        commands.AcceptUpdate("alice", 1, 1),
        commands.Aggregate(
            1,
            (
                commands.CountedUpdate("alice", 30, "alice.safetensors", "sha256 of alice"),
                commands.CountedUpdate("bob", 30, "bob.safetensors", "sha256 of bob"),
            ),
        ),
    )


def test_uniform_weighting_counts_every_worker_once() -> None:
    run = play(replace(PLAN, weighting=Weighting.UNIFORM), [*BOTH, *BOTH_DELIVER])
    aggregate = run.last[-1]
    assert isinstance(aggregate, commands.Aggregate)
    assert [update.weight for update in aggregate.updates] == [1, 1]


def test_a_round_is_evaluated_saved_and_followed_by_the_next_from_the_new_model() -> None:
    run = play(PLAN, [*BOTH, *BOTH_DELIVER, is_aggregated])
    assert run.told == (commands.Evaluate(1, "model-1"),)
    run = run.play([is_evaluated()])
    assert run.told == (commands.SaveRound(1, "model-1"),)
    run = run.play([is_saved])
    assert facts_in(run.last) == [
        facts.RoundFinished(1, ("alice", "bob"), 0.5, "model-1"),
        facts.RoundStarted(2, 1, ("alice", "bob"), epoch=1),
    ]
    assert run.told[0] == commands.SendRound(
        worker="alice",
        round=2,
        attempt=1,
        model_id="model-1",
        cursor=Cursor(0, 3),
        num_batches=3,
    )


def test_a_run_completes_after_its_last_round() -> None:
    run = play(PLAN, [*BOTH, *BOTH_DELIVER, *CLOSES, *BOTH_DELIVER, *CLOSES])
    assert run.told == (commands.SaveModel("model-2"),)
    run = run.play([model_is_saved])
    assert run.last == (
        commands.Announce(
            facts.RunFinished(
                outcome=Outcome.COMPLETED,
                rounds=2,
                model_id="model-2",
                model_path="model.safetensors",
                reason="all rounds complete: 2",
                exit_code=ExitCode.COMPLETED,
            )
        ),
        commands.Finish(Outcome.COMPLETED, "all rounds complete: 2", ExitCode.COMPLETED),
    )


def test_a_finished_run_never_changes() -> None:
    run = play(PLAN, [*BOTH, ABORT, time_is_up])
    late = update_of(run.state, "alice")
    for event in (late, joins("alice"), is_lost("bob"), events.TimerExpired(2), *CLOSES):
        told = event(run.state) if callable(event) else event
        assert advance(run.state, told) == (run.state, ())
    for request in (PAUSE, RESUME, ABORT, STOP):
        with pytest.raises(IllegalRequest, match=r"the run is aborted; it has ended"):
            advance(run.state, request)


def test_the_cohort_is_sampled_from_the_connected_workers() -> None:
    plan = replace(PLAN, virtual=3, cohort_size=2)
    run = play(plan, [joins("alice"), joins("bob"), joins("charlie")])
    run = run.play([delivers("bob"), delivers("charlie"), *CLOSES])
    cohorts = [fact for fact in facts_in(run.commands) if isinstance(fact, facts.RoundStarted)]
    assert cohorts == [
        facts.RoundStarted(1, 1, ("bob", "charlie"), epoch=1),
        facts.RoundStarted(2, 1, ("alice", "charlie"), epoch=1),
    ]


# Updates


def test_a_repeated_update_is_accepted_again_and_counts_once() -> None:
    run = play(PLAN, [*BOTH, delivers("alice"), delivers("alice")])
    assert run.last == (commands.AcceptUpdate("alice", 1, 1),)
    run = run.play([delivers("bob"), delivers("alice")])
    assert run.last == (commands.AcceptUpdate("alice", 1, 1),)
    assert len([c for c in run.commands if isinstance(c, commands.Aggregate)]) == 1


def test_a_late_update_changes_nothing() -> None:
    run = play(replace(PLAN, min_updates=1), [*BOTH, delivers("alice")])
    late = update_of(run.state, "bob")
    run = run.play([time_is_up])
    before = run.state
    run = run.play([late])
    assert run.state == replace(before, num_ignored=before.num_ignored + 1)
    assert run.told == (commands.RefuseUpdate("bob", 1, 1, "too late: round 1 is closed"),)
    run = run.play([*CLOSES, late])
    assert run.told == (commands.RefuseUpdate("bob", 1, 1, "too late: round 1 is closed"),)
    assert facts_in(run.last) == [facts.WorkerRejected("bob", 1, "too late: round 1 is closed")]


def test_a_straggler_is_named_once_a_round() -> None:
    plan = replace(PLAN, min_updates=2, virtual=0, workers=("a:1", "b:1", "c:1"))
    all_three = [joins("alice"), joins("bob"), joins("charlie")]
    run = play(plan, [*all_three, delivers("alice"), is_lost("charlie"), time_is_up])
    # Charlie, who is lost, was named by that.
    assert facts.WorkerStraggler("bob", 1) in facts_in(run.last)
    # The deadline begins anew.
    run = run.play([PAUSE, events.WorkerPaused("bob"), RESUME, time_is_up])
    run = run.play([delivers("bob"), *CLOSES, time_is_up])
    assert [fact for fact in facts_in(run.commands) if isinstance(fact, facts.WorkerStraggler)] == [
        facts.WorkerStraggler("bob", 1),
        facts.WorkerStraggler("alice", 2),
        facts.WorkerStraggler("bob", 2),
    ]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"round": 2}, "round 2 is not open"),
        ({"worker": "mallory"}, "mallory is not in the cohort of round 1"),
        ({"model_id": "other"}, "trained from model other, not from model-0"),
        ({"attempt": 2}, "attempt 2 was not sent; the last one is 1"),
        ({"attempt": 0}, "attempt 0 was not sent; the last one is 1"),
        ({"num_batches": 2}, "2 batches instead of 3"),
        ({"cursor": Cursor(0, 4)}, "ends at epoch 0, batch 4, not at epoch 0, batch 3"),
        ({"num_examples": 31}, "num_examples is 31, expected 1 to 30"),
        ({"num_examples": 0}, "num_examples is 0, expected 1 to 30"),
    ],
    ids=str,
)
def test_an_update_that_does_not_fit_is_refused_by_name(
    change: dict[str, Any], reason: str
) -> None:
    run = play(PLAN, BOTH)
    before = run.state
    wrong = replace(update_of(run.state, "alice"), **change)
    run = run.play([wrong])
    assert facts_in(run.last) == [facts.WorkerRejected(wrong.worker, wrong.round, reason)]
    assert run.state == replace(before, num_ignored=1)


def test_an_update_with_unusable_tensors_is_refused_and_the_round_goes_on() -> None:
    run = play(replace(PLAN, min_updates=1), [*BOTH, is_rejected("bob")])
    assert run.told == (commands.RefuseUpdate("bob", 1, 1, "holds NaN"),)
    run = run.play([delivers("bob")])
    assert facts_in(run.last) == [facts.WorkerRejected("bob", 1, "bob is out of round 1")]
    run = run.play([delivers("alice")])
    assert run.state.phase is RunPhase.CLOSING


def test_when_all_updates_are_rejected_the_round_fails_and_the_model_stays() -> None:
    plan = replace(PLAN, on_quorum_loss=OnQuorumLoss.FAIL)
    run = play(plan, [*BOTH, is_rejected("bob"), is_rejected("alice")])
    assert ending(run) == (RunPhase.FAILED, ExitCode.QUORUM_LOST)
    assert (run.state.model_id, run.state.num_rounds) == ("model-0", 0)


# The engine's own work


def test_aggregating_that_fails_ends_the_run() -> None:
    failed = events.AggregationFailed(1, "bob.safetensors: changed on disk")
    run = play(PLAN, [*BOTH, *BOTH_DELIVER, failed])
    assert ending(run) == (RunPhase.FAILED, ExitCode.RUN_FAILED)


def test_evaluating_that_fails_ends_the_run() -> None:
    failed = events.EvaluationFailed(round=1, reason="no test set")
    run = play(PLAN, [*BOTH, *BOTH_DELIVER, is_aggregated, failed])
    assert ending(run) == (RunPhase.FAILED, ExitCode.RUN_FAILED)


def test_a_full_disk_ends_the_run_and_stops_the_workers() -> None:
    run = play(PLAN, [*BOTH, events.StorageFailed("disk full: runs/1/updates")])
    assert ending(run) == (RunPhase.FAILED, ExitCode.STORAGE)
    assert run.told[:2] == (commands.AbortWorker("alice", 1), commands.AbortWorker("bob", 1))


def test_a_round_waits_until_the_disk_takes_it() -> None:
    full = events.StorageFailed("cannot write the model of round 1: No space left on device")
    run = play(PLAN, [*BOTH, delivers("alice"), delivers("bob")])
    aggregate = run.told[-1]
    run = run.play([full])
    assert (run.state.phase, run.told) == (RunPhase.CLOSING, ())
    assert facts_in(run.last) == [
        facts.Warning(f"{full.reason}; the run waits, and tries again every 10 s", None)
    ]
    assert run.play([time_is_up]).told == (aggregate,)
    run = run.play([time_is_up, is_aggregated])
    evaluate = run.told[-1]
    run = run.play([full, time_is_up])
    assert run.told == (evaluate,)
    run = run.play([is_evaluated()])
    save = run.told[-1]
    run = run.play([full, time_is_up])
    assert run.told == (save,)
    run = run.play([is_saved])
    assert run.state.num_rounds == 1
    assert run.state.timer is not None
    assert run.state.timer.kind is TimerKind.ROUND


def test_a_step_that_was_not_asked_for_changes_nothing() -> None:
    run = play(PLAN, BOTH)
    before = run.state
    run = run.play([*CLOSES, model_is_saved])
    assert run.state == replace(before, num_ignored=4)


# The table


def test_an_illegal_request_says_what_is_possible() -> None:
    run = play(PLAN, BOTH)
    with pytest.raises(IllegalRequest) as caught:
        run.play([RESUME])
    assert str(caught.value) == (
        "cannot resume: the run is training; possible now: abort, pause, stop"
    )


@pytest.mark.parametrize(
    ("request_made", "words"),
    [
        (Request.FEWER, "cannot go on with fewer: the run is training"),
        (Request.WAIT, "cannot give more time: the run is training"),
        (Request.RESUME, "cannot resume: the run is training"),
    ],
)
def test_an_illegal_request_is_refused_in_words(request_made: Request, words: str) -> None:
    with pytest.raises(IllegalRequest, match=words):
        require_allowed(request_made, RunPhase.TRAINING, is_stopping=False)


def test_every_unfinished_phase_can_be_aborted_and_no_finished_one_asked_anything() -> None:
    for phase in RunPhase:
        requests = {str(request) for request in allowed_requests(phase, is_stopping=False)}
        assert requests == set() if phase.is_finished else "abort" in requests


def test_the_diagram_shows_every_phase_and_the_requests_in_capitals() -> None:
    diagram = phase_diagram()
    assert all(f" {phase}" in diagram for phase in RunPhase)
    assert "    training --> pausing: PAUSE\n" in diagram
