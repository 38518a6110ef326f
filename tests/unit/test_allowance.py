"""What the device's owner allows, as scripts: what is refused by name, what is ended, what costs nothing."""

from __future__ import annotations

import random
from typing import Any

import msgspec
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Struct
from msgspec.structs import replace

from pi_daemon.device.actions import Action, Control, Deliver, DropUpdate, EvaluateModel, TrainModel
from pi_daemon.device.allowance import distinct_examples
from pi_daemon.device.device import Device
from pi_daemon.device.terms import EVERY_DATASET, Bounds, Rule, Terms
from pi_daemon.protocol.batching import batches_per_epoch
from pi_daemon.protocol.codec import encode
from pi_daemon.protocol.messages import (
    Abort,
    AcceptUpdate,
    Cursor,
    Evaluate,
    Evaluated,
    Ok,
    Pause,
    RefusalCode,
    Refused,
    ReleaseLease,
    Resume,
    RoundFailed,
    StartRound,
    TakeLease,
)
from pi_daemon.protocol.pairing import ConsoleRole
from pi_daemon.trainer.pipe import ModelEvaluated
from tests.support.device_script import (
    CARD,
    GRAPHS,
    MODEL,
    MODEL_ID,
    READY,
    TRAINED,
    Script,
    done,
    told,
)


def device_with(rule: Rule | None = None, **bounds: Any) -> Script:
    """A device whose controller holds the lease."""
    rules = {"digits": rule} if rule else {}
    script = Script(Device((CARD,), terms=Terms(Bounds(**bounds), rules)))
    script.open(1)
    script.say(1, TakeLease)
    return script


def ready(rule: Rule | None = None, **bounds: Any) -> Script:
    script = device_with(rule, **bounds)
    prepare(script)
    return script


def prepare(script: Script) -> None:
    script.prepare(1)
    script.device.on_received(1, GRAPHS.transfer, script.now_s)
    script.device.on_prepared(1, READY, script.now_s)


def train(script: Script, number: int = 1, **changes: Any) -> int:
    """Begin a round; its ticket."""
    script.start(1, f"start {number} {changes}", round=number, **changes)
    [action] = done(script.device.on_received(1, MODEL.transfer, script.now_s))
    assert isinstance(action, TrainModel)
    script.device.on_begun(action.ticket, script.now_s)
    return action.ticket


def end_round(script: Script, ticket: int, number: int = 1) -> None:
    script.device.on_trained(ticket, TRAINED, script.now_s)
    script.say(1, AcceptUpdate, f"accept {number}", round=number, attempt=1)


def limit(actions: list[Any]) -> str | None:
    """By which bound the command was refused."""
    [refused] = told(actions)
    assert isinstance(refused, Refused)
    assert refused.code is RefusalCode.NOT_ALLOWED
    return refused.limit


# Bounds


def test_a_round_of_too_many_batches_is_refused_by_the_name_of_the_limit() -> None:
    script = ready(max_round_batches=29)
    [refused] = told(script.start(1))
    assert refused == Refused(
        "StartRound",
        RefusalCode.NOT_ALLOWED,
        "30 batches in a round; the device's owner allows 29 (max_round_batches)",
        "max_round_batches",
    )
    assert told(script.start(1, "fewer", num_batches=29)) == []


def test_a_console_of_before_reads_such_a_refusal() -> None:
    class RefusedOfBefore(Struct, frozen=True, tag="refused"):
        cmd_id: str
        code: RefusalCode
        reason: str

    [refused] = told(ready(max_round_batches=29).start(1))
    read = msgspec.json.decode(encode(refused), type=RefusedOfBefore)
    assert read == RefusedOfBefore("StartRound", RefusalCode.NOT_ALLOWED, refused.reason)


def test_a_run_begins_no_more_rounds_than_it_may_whatever_their_numbers() -> None:
    script = ready(max_run_rounds=2)
    end_round(script, train(script))
    # The same round once more is work once more.
    ticket = train(script, attempt=2, cursor=Cursor(0, 1))
    script.say(1, Abort, round=1)
    script.device.on_controlled(Abort(cmd_id="Abort", run="run-1", fence=1, round=1), 100.0)
    assert script.device.on_trained(ticket, TRAINED, script.now_s) == [DropUpdate(ticket)]
    assert limit(script.start(1, "third", round=2)) == "max_run_rounds"


def test_a_round_that_a_console_takes_up_again_after_a_reconnect_counts_once() -> None:
    script = ready(max_run_rounds=1)
    train(script)
    script.device.on_link_closed(1, script.now_s)
    script.open(2)
    script.say(2, TakeLease, "again")
    assert told(script.start(2, "the same", attempt=2), 2) == [Ok("the same")]


def test_a_model_that_never_arrived_was_no_round() -> None:
    script = ready(max_run_rounds=1)
    script.start(1)
    script.device.on_link_closed(1, script.now_s)
    script.open(1)
    script.say(1, TakeLease, "again")
    train(script)


def test_a_run_that_has_computed_for_its_time_is_ended_in_mid_round() -> None:
    script = ready(max_run_seconds=60.0)
    ticket = train(script)
    script.now_s += 59.0
    assert done(script.device.on_tick(script.now_s)) == []
    script.now_s += 1.0
    [control] = done(script.device.on_tick(script.now_s))
    abort = Abort(cmd_id="", run="run-1", fence=1, round=1)
    assert control == Control("alice", abort)
    assert done(script.device.on_tick(script.now_s + 1)) == []
    failed = told(script.device.on_controlled(abort, script.now_s), None)
    reason = "this run has computed here for 60 s; the device's owner allows 60 (max_run_seconds)"
    assert failed == [RoundFailed("run-1", 1, 1, reason, "max_run_seconds")]
    assert script.device.on_trained(ticket, TRAINED, script.now_s) == [DropUpdate(ticket)]
    assert limit(script.start(1, "next", round=2)) == "max_run_seconds"
    assert limit(script.prepare(1, "other", batch_size=32)) == "max_run_seconds"


def test_a_trainer_that_had_to_be_killed_for_it_failed_for_the_same_reason() -> None:
    script = ready(max_run_seconds=60.0)
    ticket = train(script)
    script.now_s += 60.0
    script.device.on_tick(script.now_s)
    killed = script.device.on_training_failed(
        ticket, RefusalCode.TRAINER_FAILED, "the trainer did not stop within 5 s", script.now_s
    )
    [failed] = told(killed, None)
    assert failed.limit == "max_run_seconds"
    assert "(max_run_seconds)" in failed.reason


def test_an_operators_abort_meanwhile_is_answered() -> None:
    script = ready(max_run_seconds=60.0)
    train(script)
    script.now_s += 60.0
    [control] = done(script.device.on_tick(script.now_s))
    assert isinstance(control, Control)
    script.say(1, Abort, round=1)
    script.device.on_controlled(control.command, script.now_s)
    own = Abort(cmd_id="Abort", run="run-1", fence=1, round=1)
    assert told(script.device.on_controlled(own, script.now_s)) == [Ok("Abort")]


def test_a_pause_costs_no_time() -> None:
    script = ready(max_run_seconds=60.0)
    train(script)
    script.now_s += 30.0
    script.say(1, Pause, round=1)
    script.device.on_controlled(Pause(cmd_id="Pause", run="run-1", fence=1, round=1), script.now_s)
    script.now_s += 1_000.0
    script.device.on_tick(script.now_s)
    script.say(1, Resume, round=1)
    script.now_s += 29.0
    assert done(script.device.on_tick(script.now_s)) == []
    script.now_s += 1.0
    assert len(done(script.device.on_tick(script.now_s))) == 1


def test_an_evaluation_costs_time_and_its_model_bytes_and_is_finished() -> None:
    script = ready(max_run_seconds=60.0, max_run_received=GRAPHS.size + MODEL.size)
    fields: Any = {"round": 1, "model_id": MODEL_ID}
    script.say(1, Evaluate, "first", **fields, model=MODEL)
    script.now_s += 100.0  # while the model arrives, nothing is computed
    [first] = done(script.device.on_received(1, MODEL.transfer, script.now_s))
    script.now_s += 59.0
    assert answer(script, first) == [Evaluated("first", 1, 96, 0.5, None)]
    [second] = done(script.say(1, Evaluate, "second", **fields, model=None))
    script.now_s += 100.0
    assert answer(script, second) == [Evaluated("second", 1, 96, 0.5, None)]
    assert limit(script.say(1, Evaluate, "third", **fields, model=None)) == "max_run_seconds"


def test_the_numbers_of_evaluations_count_as_bytes_that_are_sent() -> None:
    each = 8 * (1 + 10 * 10)
    script = ready(max_run_sent=2 * each)
    fields: Any = {"round": 1, "model_id": MODEL_ID}
    script.say(1, Evaluate, "first", **fields, model=MODEL)
    [first] = done(script.device.on_received(1, MODEL.transfer, script.now_s))
    answer(script, first)
    [second] = done(script.say(1, Evaluate, "second", **fields, model=None))
    answer(script, second)
    assert limit(script.say(1, Evaluate, "third", **fields, model=None)) == "max_run_sent"


def answer(script: Script, action: Action) -> list[Any]:
    """What the console is told when the trainer has evaluated."""
    assert isinstance(action, EvaluateModel)
    outcome = ModelEvaluated(1, 96, 0.5, None)
    return told(script.device.on_evaluated(action.evaluate, outcome, script.now_s))


def test_bytes_are_refused_before_they_come_and_what_is_refused_costs_nothing() -> None:
    script = ready(max_run_received=GRAPHS.size + MODEL.size)
    big = replace(MODEL, transfer=7, size=MODEL.size + 1)
    assert limit(script.start(1, "big", model=big)) == "max_run_received"
    end_round(script, train(script))
    assert limit(script.start(1, "again", round=2)) == "max_run_received"
    assert told(script.start(1, "held", round=2, model=None)) == []


def test_an_update_that_would_be_too_much_stays_here_and_the_round_fails() -> None:
    script = ready(max_run_sent=TRAINED.update_bytes * 2 - 1)
    end_round(script, train(script))
    # The next one would have the same size: it is refused before it is trained.
    assert limit(script.start(1, "second", round=2)) == "max_run_sent"

    script = ready(max_run_sent=TRAINED.update_bytes - 1)
    actions = script.device.on_trained(train(script), TRAINED, script.now_s)
    [failed] = told(actions, None)
    reason = (
        "an update of 300 bytes after the 0 of before; the device's owner allows 299 (max_run_sent)"
    )
    assert failed == RoundFailed("run-1", 1, 1, reason, "max_run_sent")
    assert not [action for action in actions if isinstance(action, Deliver)]


def test_an_update_that_is_sent_twice_costs_twice() -> None:
    script = ready(max_run_sent=TRAINED.update_bytes)
    script.device.on_trained(train(script), TRAINED, script.now_s)
    script.device.on_link_closed(1, script.now_s)
    script.open(2)
    actions = script.say(2, TakeLease, "again")
    assert [type(message) for message in told(actions, None)] == [RoundFailed]


def test_another_run_begins_anew_and_the_same_one_goes_on() -> None:
    script = ready(max_run_rounds=1)
    end_round(script, train(script))
    script.say(1, ReleaseLease)
    script.say(1, TakeLease, "again")
    script.prepare(1, "prepare again")
    script.device.on_received(1, GRAPHS.transfer, script.now_s)
    script.device.on_prepared(3, READY, script.now_s)
    assert limit(script.start(1, "start again", round=2)) == "max_run_rounds"
    script.run, script.fence = "run-2", 2
    script.say(1, TakeLease, "other", take_over=True)
    script.prepare(1, "prepare other")
    script.device.on_received(1, GRAPHS.transfer, script.now_s)
    script.device.on_prepared(4, READY, script.now_s)
    train(script, 3)


# Rules


def test_a_dataset_is_for_the_roles_that_its_owner_names() -> None:
    script = device_with(Rule(roles=frozenset({ConsoleRole.VIEWER})))
    reason = "the device's owner does not share dataset digits with operators"
    assert told(script.prepare(1)) == [Refused("Prepare", RefusalCode.NOT_ALLOWED, reason)]


def test_a_rule_for_every_dataset_holds_where_there_is_no_other() -> None:
    nobody, everybody = Rule(roles=frozenset()), Rule()
    terms = Terms(rules={EVERY_DATASET: nobody, "digits": everybody})
    assert (terms.rule("digits"), terms.rule("mnist")) == (everybody, nobody)
    assert Terms().rule("mnist") == everybody


def test_a_shard_that_leaves_too_few_examples_is_refused_when_it_is_prepared() -> None:
    # 480 examples, of which a fifth is held out.
    assert limit(device_with(Rule(min_examples=385)).prepare(1)) == "min_examples"
    assert told(device_with(Rule(min_examples=384)).prepare(1)) == []


def test_a_round_on_too_few_different_examples_is_refused_before_it_trains() -> None:
    script = ready(Rule(min_examples=64))
    actions = script.start(1, num_batches=3)
    reason = (
        "this round would train on 48 different examples; the device's owner asks for at least "
    )
    reason += "64 (min_examples)"
    assert told(actions) == [Refused("StartRound", RefusalCode.NOT_ALLOWED, reason, "min_examples")]
    assert done(actions) == []
    assert told(script.start(1, "enough", num_batches=4)) == []


def test_a_round_over_the_end_of_an_epoch_counts_its_longer_part() -> None:
    script = ready(Rule(min_examples=64))
    # 24 batches in an epoch: two of this one, three of the next, which may meet the same examples.
    assert limit(script.start(1, "few", cursor=Cursor(0, 22), num_batches=5)) == "min_examples"
    assert told(script.start(1, "more", cursor=Cursor(0, 22), num_batches=6)) == []


def test_an_evaluation_of_too_few_examples_is_refused() -> None:
    script = ready(Rule(min_examples=97))
    fields: Any = {"round": 1, "model_id": MODEL_ID, "model": MODEL}
    assert limit(script.say(1, Evaluate, **fields)) == "min_examples"


@given(
    num_examples=st.integers(2, 60),
    batch_size=st.integers(1, 20),
    first=st.integers(0, 59),
    num_batches=st.integers(1, 200),
    seed=st.integers(0, 9),
)
def test_a_round_never_trains_on_fewer_different_examples_than_were_counted(
    num_examples: int, batch_size: int, first: int, num_batches: int, seed: int
) -> None:
    per_epoch = batches_per_epoch(num_examples, batch_size)
    first %= per_epoch
    start = round_of(Cursor(0, first), num_batches)
    counted = distinct_examples(start, batch_size, num_examples)
    generator = random.Random(seed)
    seen: set[int] = set()
    order: list[int] = []
    for batch in range(first, first + num_batches):
        if batch == first or batch % per_epoch == 0:
            order = generator.sample(range(num_examples), num_examples)
        begin = batch % per_epoch * batch_size
        seen.update(order[begin : begin + batch_size])
    assert 0 < counted <= len(seen)
    if first + num_batches <= per_epoch:
        assert counted == len(seen)


def round_of(cursor: Cursor, num_batches: int) -> StartRound:
    return StartRound(
        cmd_id="1",
        run="run-1",
        fence=1,
        round=1,
        attempt=1,
        model_id=MODEL_ID,
        model=None,
        cursor=cursor,
        num_batches=num_batches,
        torch_seed="5",
    )
