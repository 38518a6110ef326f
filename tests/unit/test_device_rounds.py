"""Rounds on a device, and their pauses and aborts, by scripted events."""

from __future__ import annotations

from typing import Any

from pi_daemon.device.actions import (
    Control,
    Deliver,
    DropUpdate,
    Receive,
    Tell,
    TrainModel,
)
from pi_daemon.protocol.messages import (
    Abort,
    AcceptUpdate,
    Batches,
    DeviceState,
    Evaluate,
    Ok,
    Pause,
    RefusalCode,
    Refused,
    RefuseUpdate,
    Resume,
    RoundFailed,
)
from tests.support.device_script import (
    MODEL,
    MODEL_ID,
    TRAINED,
    delivering,
    done,
    leased,
    prepared,
    refusals,
    told,
    training,
)

# Rounds


def test_a_round_is_acknowledged_when_training_begins() -> None:
    script = prepared()
    assert done(script.start(1)) == [Receive(1, MODEL)]
    assert script.state is DeviceState.RECEIVING
    [action] = done(script.device.on_received(1, MODEL.transfer, script.now_s))
    assert isinstance(action, TrainModel)
    assert (action.ticket, action.model_sha256) == (2, MODEL.sha256)
    assert told(script.device.on_begun(2, script.now_s)) == [Ok("StartRound")]
    losses = script.device.on_losses(2, (0.9, None), script.now_s)
    assert told(losses, None) == [Batches("run-1", 1, 1, 0, 30, (0.9, None))]
    [deliver] = done(script.device.on_trained(2, TRAINED, script.now_s))
    assert isinstance(deliver, Deliver)
    assert (deliver.link, deliver.trained) == (1, TRAINED)


def test_a_model_that_is_not_here_must_be_sent() -> None:
    assert refusals(prepared().start(1, model=None)) == [RefusalCode.NO_MODEL]


def test_a_round_before_any_preparation_is_refused() -> None:
    assert refusals(leased().start(1)) == [RefusalCode.WRONG_STATE]


def test_another_round_must_wait_for_the_one_in_training() -> None:
    assert refusals(training().start(1, "next", round=2)) == [RefusalCode.WRONG_STATE]


def test_a_command_that_is_repeated_is_answered_once_more_and_done_once() -> None:
    script = training()
    assert script.start(1) == [Tell(1, Ok("StartRound"))]


def test_a_repeated_command_under_way_is_not_started_twice() -> None:
    script = prepared()
    script.start(1)
    script.device.on_received(1, MODEL.transfer, script.now_s)
    assert script.start(1) == []
    assert told(script.device.on_begun(2, script.now_s)) == [Ok("StartRound")]


def test_a_repeated_evaluation_under_way_is_neither_refused_nor_started_twice() -> None:
    script = prepared()
    fields: dict[str, Any] = {"round": 0, "model_id": MODEL_ID, "model": MODEL}
    script.say(1, Evaluate, **fields)
    script.device.on_received(1, MODEL.transfer, script.now_s)
    assert script.say(1, Evaluate, **fields) == []


def test_the_next_attempt_of_a_round_in_training_goes_on_with_it() -> None:
    script = training()
    actions = script.start(1, "retry", attempt=2)
    assert done(actions) == []
    assert told(actions) == [Ok("retry")]
    assert told(actions, None) == [Batches("run-1", 1, 2, 0, 30, (0.9, None))]
    assert told(script.device.on_losses(2, (0.8,), script.now_s), None) == [
        Batches("run-1", 1, 2, 2, 30, (0.8,))
    ]


def test_the_next_attempt_of_a_kept_update_delivers_it_again() -> None:
    script = delivering()
    [deliver] = done(script.start(1, "retry", attempt=2, model=None))
    assert isinstance(deliver, Deliver)
    assert (deliver.start.attempt, deliver.trained) == (2, TRAINED)


def test_the_same_round_from_another_model_is_another_round() -> None:
    assert refusals(training().start(1, "other", model_id="f" * 64)) == [RefusalCode.WRONG_STATE]


def test_a_new_round_drops_the_update_that_nobody_wanted() -> None:
    assert done(delivering().start(1, "next", round=2)) == [DropUpdate(2), Receive(1, MODEL)]


def test_an_accepted_or_refused_update_is_deleted_once() -> None:
    script = delivering()
    assert done(script.say(1, AcceptUpdate, round=1, attempt=1)) == [DropUpdate(2)]
    assert script.state is DeviceState.READY
    again = script.say(1, AcceptUpdate, "again", round=1, attempt=1)
    assert again == [Tell(1, Ok("again"))]
    refuse = delivering().say(1, RefuseUpdate, round=1, attempt=1, reason="late")
    assert done(refuse) == [DropUpdate(2)]


def test_an_answer_to_an_earlier_attempt_keeps_the_update() -> None:
    script = delivering()
    script.start(1, "retry", attempt=2, model=None)
    assert done(script.say(1, RefuseUpdate, round=1, attempt=1, reason="late")) == []
    assert script.state is DeviceState.DELIVERING


def test_a_bad_model_is_not_held() -> None:
    script = prepared()
    script.start(1)
    script.device.on_received(1, MODEL.transfer, script.now_s)
    failed = script.device.on_training_failed(2, RefusalCode.BAD_MODEL, "no", script.now_s)
    assert told(failed) == [Refused("StartRound", RefusalCode.BAD_MODEL, "no")]
    assert told(failed, None) == []
    assert script.device.status(script.now_s).model_id is None


def test_a_trainer_that_dies_fails_its_round_only() -> None:
    script = training()
    reason = "the trainer was killed"
    failed = script.device.on_training_failed(2, RefusalCode.TRAINER_FAILED, reason, script.now_s)
    assert told(failed, None) == [RoundFailed("run-1", 1, 1, reason)]
    assert script.state is DeviceState.READY
    [action] = done(script.start(1, "retry", attempt=2, model=None))
    assert isinstance(action, TrainModel)


# Pause, resume, abort


def test_a_pause_is_acknowledged_when_the_trainer_has_stopped() -> None:
    script = training()
    pause = Pause(cmd_id="Pause", run="run-1", fence=1, round=1)
    assert script.say(1, Pause, round=1) == [Control("alice", pause)]
    assert script.state is DeviceState.TRAINING
    assert told(script.device.on_controlled(pause, script.now_s)) == [Ok("Pause")]
    assert script.state is DeviceState.PAUSED
    resume = Resume(cmd_id="Resume", run="run-1", fence=1, round=1)
    assert done(script.say(1, Resume, round=1)) == [Control("alice", resume)]
    assert told(script.device.on_controlled(resume, script.now_s)) == [Ok("Resume")]
    assert script.state is DeviceState.TRAINING


def test_a_round_that_is_sent_again_while_paused_goes_on() -> None:
    script = training()
    script.say(1, Pause, round=1)
    script.device.on_controlled(Pause(cmd_id="Pause", run="run-1", fence=1, round=1), script.now_s)
    [control] = done(script.start(1, "retry", attempt=2))
    assert isinstance(control, Control)
    assert isinstance(control.command, Resume)
    assert script.state is DeviceState.TRAINING


def test_a_pause_before_the_model_has_arrived_holds_the_training_back() -> None:
    script = prepared()
    script.start(1)
    assert told(script.say(1, Pause, round=1)) == [Ok("Pause")]
    train, control = done(script.device.on_received(1, MODEL.transfer, script.now_s))
    assert isinstance(train, TrainModel)
    assert isinstance(control, Control)
    assert isinstance(control.command, Pause)


def test_a_pause_of_a_finished_round_is_no_error() -> None:
    assert delivering().say(1, Pause, round=1) == [Tell(1, Ok("Pause"))]


def test_a_round_that_is_gone_can_be_neither_paused_nor_resumed() -> None:
    script = prepared()
    assert refusals(script.say(1, Pause, round=1)) == [RefusalCode.NO_STATE]
    assert refusals(script.say(1, Resume, round=1)) == [RefusalCode.NO_STATE]


def test_an_abort_is_acknowledged_when_the_trainer_has_stopped() -> None:
    script = training()
    abort = Abort(cmd_id="Abort", run="run-1", fence=1, round=1)
    assert done(script.say(1, Abort, round=1)) == [Control("alice", abort)]
    assert refusals(script.start(1, "next", round=2)) == [RefusalCode.WRONG_STATE]
    assert told(script.device.on_controlled(abort, script.now_s)) == [Ok("Abort")]
    assert script.state is DeviceState.READY


def test_an_update_that_arrives_during_an_abort_is_dropped() -> None:
    script = training()
    script.say(1, Abort, round=1)
    assert done(script.device.on_trained(2, TRAINED, script.now_s)) == [DropUpdate(2)]


def test_an_abort_before_training_refuses_the_start() -> None:
    script = prepared()
    script.start(1)
    actions = script.say(1, Abort, round=1)
    assert told(actions) == [
        Refused("StartRound", RefusalCode.WRONG_STATE, "the round was aborted"),
        Ok("Abort"),
    ]
    assert script.device.on_received(1, MODEL.transfer, script.now_s) == []


def test_an_abort_of_a_round_that_is_gone_is_no_error() -> None:
    assert prepared().say(1, Abort, round=1) == [Tell(1, Ok("Abort"))]
