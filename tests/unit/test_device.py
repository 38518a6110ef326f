"""Scripts: what consoles and the trainer do, and what the device makes of it."""

from __future__ import annotations

from typing import Any

from msgspec.structs import replace

from pi_daemon.device.actions import (
    Action,
    Deliver,
    DropUpdate,
    EvaluateModel,
    ForgetWorker,
    PrepareWorker,
    Receive,
    StopReceiving,
    Tell,
    TrainModel,
    WarmUp,
)
from pi_daemon.protocol.codec import encode
from pi_daemon.protocol.limits import KEEP_UPDATE_S, MAX_FRAME_BYTES
from pi_daemon.protocol.messages import (
    Abort,
    Batches,
    Blob,
    DeviceState,
    Evaluate,
    Evaluated,
    Ok,
    Prepared,
    RefusalCode,
    Refused,
    ReleaseLease,
    RoundFailed,
    Status,
    TakeLease,
)
from pi_daemon.trainer.pipe import ModelEvaluated
from tests.support.device_script import (
    GRAPHS,
    MODEL,
    MODEL_ID,
    READY,
    TRAINED,
    Script,
    delivering,
    done,
    leased,
    prepared,
    refusals,
    told,
    training,
)

# Preparing


def test_a_preparation_is_answered_when_the_trainer_is_ready() -> None:
    script = leased()
    assert done(script.prepare(1)) == [Receive(1, GRAPHS)]
    [action] = done(script.device.on_received(1, GRAPHS.transfer, script.now_s))
    assert isinstance(action, PrepareWorker)
    assert told(script.device.on_prepared(action.ticket, READY, script.now_s)) == [
        Prepared("Prepare", 384, 96, 0.01, 1000)
    ]


def test_a_repeated_preparation_changes_nothing() -> None:
    script = training()
    again = script.prepare(1, "again", graphs=replace(GRAPHS, transfer=9))
    assert again == [Tell(1, Prepared("again", 384, 96, 0.01, 1000))]
    assert script.state is DeviceState.TRAINING


def test_a_preparation_under_way_answers_whoever_asks_meanwhile() -> None:
    script = leased()
    script.prepare(1)
    script.device.on_received(1, GRAPHS.transfer, script.now_s)
    assert script.prepare(1, "again", graphs=replace(GRAPHS, transfer=9)) == []
    answers = told(script.device.on_prepared(1, READY, script.now_s))
    assert [answer.cmd_id for answer in answers] == ["Prepare", "again"]


def test_another_preparation_replaces_the_old_one() -> None:
    script = prepared()
    assert done(script.prepare(1, "other", batch_size=32)) == [
        ForgetWorker("alice"),
        Receive(1, GRAPHS),
    ]


def test_a_dataset_that_is_not_here_is_refused_by_name() -> None:
    [refused] = told(leased().prepare(1, dataset="mnist"))
    reason = "there is no dataset 'mnist' here, there is digits"
    assert refused == Refused("Prepare", RefusalCode.NO_DATASET, reason)


def test_a_dataset_of_other_samples_or_more_classes_is_refused() -> None:
    changes: list[dict[str, Any]] = [
        {"sample_shape": (28, 28)},
        {"sample_dtype": "float32"},
        {"num_classes": 9},
        {"num_classes": None},
    ]
    for change in changes:
        assert refusals(leased().prepare(1, **change)) == [RefusalCode.DATASET_MISMATCH]


def test_a_graph_that_the_trainer_refuses_leaves_nothing_behind() -> None:
    script = leased()
    script.prepare(1)
    script.device.on_received(1, GRAPHS.transfer, script.now_s)
    failed = script.device.on_prepare_failed(1, RefusalCode.BAD_GRAPH, "no", script.now_s)
    assert told(failed) == [Refused("Prepare", RefusalCode.BAD_GRAPH, "no")]
    assert script.state is DeviceState.IDLE


# Links


def test_training_survives_the_loss_of_its_link() -> None:
    script = training()
    assert done(script.device.on_link_closed(1, script.now_s)) == []
    script.device.on_losses(2, (0.8,), script.now_s)
    assert done(script.device.on_trained(2, TRAINED, script.now_s)) == []
    script.open(2)
    actions = script.say(2, TakeLease)
    assert told(actions, 2) == [Ok("TakeLease"), Batches("run-1", 1, 1, 0, 30, (0.9, None, 0.8))]
    [warm_up, deliver] = done(actions)
    assert warm_up == WarmUp()
    assert isinstance(deliver, Deliver)
    assert deliver.link == 2


def test_a_controller_that_comes_back_hears_of_the_failure_that_it_missed() -> None:
    script = training()
    script.device.on_link_closed(1, script.now_s)
    script.device.on_training_failed(2, RefusalCode.TRAINER_FAILED, "died", script.now_s)
    script.open(2)
    assert told(script.say(2, TakeLease), 2) == [
        Ok("TakeLease"),
        RoundFailed("run-1", 1, 1, "died"),
    ]


def test_a_model_that_was_arriving_is_forgotten_with_its_link() -> None:
    script = prepared()
    script.start(1)
    script.device.on_link_closed(1, script.now_s)
    assert script.state is DeviceState.READY
    script.open(2)
    script.say(2, TakeLease)
    assert done(script.start(2)) == [Receive(2, MODEL)]


def test_a_model_that_nobody_waits_for_any_more_is_not_kept() -> None:
    newer = Blob(3, 200, "d" * 64)

    def start_of_another_round(script: Script) -> list[Action]:
        return script.start(1, "newer", round=2, model=newer)

    def abort(script: Script) -> list[Action]:
        return script.say(1, Abort, round=1)

    def prepare_otherwise(script: Script) -> list[Action]:
        return script.prepare(1, "otherwise", order_seed="8")

    def release(script: Script) -> list[Action]:
        return script.say(1, ReleaseLease)

    def take_over(script: Script) -> list[Action]:
        script.open(2)
        script.run, script.fence = "run-2", 2
        return script.say(2, TakeLease, take_over=True)

    def the_same_run_on_another_link(script: Script) -> list[Action]:
        script.open(2)
        return script.say(2, TakeLease)

    for happens in (
        *(start_of_another_round, abort, prepare_otherwise),
        *(release, take_over, the_same_run_on_another_link),
    ):
        script = prepared()
        script.start(1)
        assert StopReceiving(1, MODEL.transfer) in happens(script), happens
        assert done(script.device.on_received(1, MODEL.transfer, script.now_s)) == []


def test_graphs_and_models_of_an_evaluation_are_not_kept_either() -> None:
    script = leased()
    script.prepare(1)
    newer = Blob(3, 100, "d" * 64)
    actions = script.prepare(1, "newer", graphs=newer)
    assert done(actions) == [
        ForgetWorker("alice"),
        StopReceiving(1, GRAPHS.transfer),
        Receive(1, newer),
    ]
    script = prepared()
    script.say(1, Evaluate, round=0, model_id=MODEL_ID, model=MODEL)
    assert StopReceiving(1, MODEL.transfer) in script.say(1, ReleaseLease)


def test_the_answer_goes_to_the_link_that_asked_last() -> None:
    script = prepared()
    script.start(1)
    script.device.on_received(1, MODEL.transfer, script.now_s)
    script.device.on_link_closed(1, script.now_s)
    script.open(2)
    script.say(2, TakeLease)
    script.start(2)
    assert told(script.device.on_begun(2, script.now_s), 2) == [Ok("StartRound")]


def test_a_kept_update_is_deleted_when_nobody_comes_for_it() -> None:
    script = delivering()
    script.device.on_link_closed(1, script.now_s)
    script.now_s += KEEP_UPDATE_S - 1
    assert done(script.device.on_tick(script.now_s)) == []
    script.now_s += 1
    assert done(script.device.on_tick(script.now_s)) == [DropUpdate(2)]


def test_a_slow_upload_does_not_age_the_update() -> None:
    script = delivering()
    script.now_s += KEEP_UPDATE_S
    assert done(script.device.on_tick(script.now_s)) == []
    script.device.on_link_closed(1, script.now_s)
    script.now_s += KEEP_UPDATE_S - 1
    assert done(script.device.on_tick(script.now_s)) == []


# Evaluation


def test_a_model_is_evaluated_and_then_held() -> None:
    script = prepared()
    actions = script.say(1, Evaluate, round=0, model_id=MODEL_ID, model=MODEL)
    assert done(actions) == [Receive(1, MODEL)]
    [action] = done(script.device.on_received(1, MODEL.transfer, script.now_s))
    assert isinstance(action, EvaluateModel)
    found = script.device.on_evaluated(
        action.evaluate, ModelEvaluated(1, 96, 0.5, ((1,),)), script.now_s
    )
    assert told(found) == [Evaluated("Evaluate", 0, 96, 0.5, ((1,),))]
    [train] = done(script.start(1, model=None))
    assert isinstance(train, TrainModel)


def test_a_table_that_no_message_holds_is_refused_by_its_size() -> None:
    for num_classes, answer in (
        (720, Evaluated),
        (724, Refused),
    ):
        script = prepared()
        evaluate = Evaluate(
            cmd_id="Evaluate", run="run-1", fence=1, round=0, model_id=MODEL_ID, model=MODEL
        )
        script.device.on_command(1, evaluate, script.now_s)
        script.device.on_received(1, MODEL.transfer, script.now_s)
        table = ((0,) * num_classes,) * num_classes
        found = ModelEvaluated(1, 96, 0.5, table)
        [said] = told(script.device.on_evaluated(evaluate, found, script.now_s))
        assert isinstance(said, answer)
        assert len(encode(said)) <= MAX_FRAME_BYTES
    reason = "the table of 724 classes takes 1,049,893 bytes, a message holds 1,048,576: "
    assert said == Refused("Evaluate", RefusalCode.TOO_LARGE, reason + "train with --holdout 0")


def test_no_evaluation_comes_between_the_batches_of_a_round() -> None:
    actions = training().say(1, Evaluate, round=0, model_id=MODEL_ID, model=None)
    assert refusals(actions) == [RefusalCode.WRONG_STATE]


def test_every_change_of_state_is_told_to_all_links() -> None:
    script = leased()
    [status] = [a for a in script.prepare(1) if isinstance(a, Tell)]
    assert status.link is None
    assert status.message == Status(script.device.status(script.now_s))
