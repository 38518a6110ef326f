"""The journal is the run: what was written, read back and played again, decides the same."""

from __future__ import annotations

import os
import subprocess
import sys

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from fedconsole.coordinator import events
from fedconsole.coordinator.machine import advance, replay, start
from fedconsole.coordinator.phases import IllegalRequest
from fedconsole.coordinator.plan import Plan
from fedconsole.coordinator.state import RunState
from pi_daemon.protocol.messages import Cursor
from tests.support.play import (
    CLOSES,
    INITIAL_MODEL,
    PAUSE,
    RESTART,
    RESUME,
    Play,
    delivers,
    fails,
    is_aggregated,
    is_lost,
    joins,
    play,
    time_is_up,
)

WORKERS = st.sampled_from(("alice", "bob", "charlie"))
ROUNDS = st.integers(0, 2)
SMALL = st.integers(0, 3)
METRICS = st.fixed_dictionaries({"loss": st.none() | st.floats(0, 9), "accuracy": st.floats(0, 1)})
WORKER_EVENTS: st.SearchStrategy[events.Event] = st.one_of(
    st.builds(joins, WORKERS, st.sampled_from((0, 40)), SMALL, st.none() | ROUNDS),
    st.builds(events.WorkerLost, WORKERS, st.just("gone"), st.booleans()),
    st.builds(events.WorkerPaused, WORKERS),
    st.builds(events.WorkerAborted, WORKERS),
    st.builds(
        events.UpdateDelivered,
        worker=WORKERS,
        round=ROUNDS,
        attempt=SMALL,
        model_id=st.sampled_from((INITIAL_MODEL, "model-1")),
        num_examples=st.sampled_from((0, 20)),
        num_batches=SMALL,
        cursor=st.builds(Cursor, SMALL, SMALL),
        loss=st.none() | st.floats(0, 9),
        seconds=st.just(1.0),
        file=st.just("file"),
        sha256=st.just("sha"),
    ),
    st.builds(events.UpdateRejected, WORKERS, ROUNDS, SMALL, st.just("NaN")),
    st.builds(events.TrainingFailed, WORKERS, ROUNDS, SMALL, st.just("died")),
    st.builds(
        events.Evaluated,
        round=ROUNDS,
        num_examples=SMALL,
        metrics=METRICS,
        worker=st.none() | WORKERS,
    ),
    st.builds(events.ModelAggregated, ROUNDS, st.just("model-1")),
    st.builds(events.RoundSaved, ROUNDS, st.just("file"), st.just("sha")),
    st.builds(events.TimerExpired, st.integers(0, 9)),
    st.just(events.EngineRestarted()),
)
REQUESTS: st.SearchStrategy[events.Event] = st.sampled_from(
    (
        events.PauseRequested(),
        events.ResumeRequested(),
        events.AbortRequested("enough"),
        events.StopAfterRoundRequested(),
        events.WaitRequested(),
        events.FewerRequested(),
    )
)


def in_json(event: events.Event) -> events.Event:
    read: events.Event = msgspec.json.decode(msgspec.json.encode(event), type=events.Event)
    return read


def a_long_run() -> Play:
    plan = Plan(virtual=3, rounds=4, federate_after_n_batches=2, batch_size=10, min_updates=2)
    bob_joins = joins("bob", num_holdout=5)
    three = [joins("alice"), bob_joins, joins("charlie")]
    holdout = events.Evaluated(round=1, num_examples=5, metrics={"loss": 0.1}, worker="bob")
    return play(
        plan,
        [
            *three,
            *(delivers("charlie"), delivers("alice"), is_lost("bob"), bob_joins, fails("bob")),
            *(PAUSE, events.WorkerPaused("bob"), RESUME, delivers("bob")),
            *(is_aggregated, holdout, *CLOSES[1:]),
            *(is_lost("bob"), delivers("alice"), delivers("charlie"), time_is_up, *CLOSES),
            *(delivers("alice"), RESTART, joins("alice"), joins("charlie"), delivers("charlie")),
        ],
    )


@settings(max_examples=150, deadline=None)
@given(script=st.lists(WORKER_EVENTS | REQUESTS, max_size=30))
def test_a_journal_replayed_from_json_gives_the_same_state_and_commands(
    script: list[events.Event],
) -> None:
    created = events.RunCreated(Plan(virtual=2, rounds=2, batch_size=10), INITIAL_MODEL)
    live, again = start(created), start(created)
    journal: list[events.Event] = [created]
    for event in script:
        try:
            live = advance(live[0], event)
        except IllegalRequest:
            assert isinstance(event, events.RequestEvent)
            continue
        journal.append(event)
        again = advance(again[0], in_json(event))
        assert again == live
    assert replay(map(in_json, journal)) == live[0]


def test_a_long_run_replays_to_the_same_state() -> None:
    run = a_long_run()
    assert run.state.num_rounds == 2
    assert replay(map(in_json, run.journal)) == run.state


def test_a_state_survives_json() -> None:
    state = a_long_run().state
    assert msgspec.json.decode(msgspec.json.encode(state), type=RunState) == state


def test_a_run_decides_the_same_whatever_the_hash_seed_of_the_process() -> None:
    code = (
        "import msgspec; from tests.property.test_replay import a_long_run; run = a_long_run();"
        "print(msgspec.json.encode((run.state, run.commands), order='deterministic').decode())"
    )
    printed = {
        subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": "."},
            capture_output=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert len(printed) == 1
