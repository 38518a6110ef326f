"""Scripts: what consoles and the trainer do, and what the device makes of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, TypeVar

from msgspec.structs import replace

from pi_daemon.actions import (
    Action,
    Control,
    Deliver,
    DropUpdate,
    EvaluateModel,
    ForgetWorker,
    PrepareWorker,
    Receive,
    SaveFence,
    Tell,
    TrainModel,
    WarmUp,
)
from pi_daemon.device import Device
from pi_daemon.protocol.graphs import OptimizerSpec
from pi_daemon.protocol.limits import KEEP_UPDATE_S, LEASE_S
from pi_daemon.protocol.messages import (
    Abort,
    AcceptUpdate,
    Batches,
    Blob,
    Command,
    Cursor,
    DatasetCard,
    DeviceState,
    Evaluate,
    Evaluated,
    Hello,
    Ok,
    Pause,
    Prepare,
    Prepared,
    RefusalCode,
    Refused,
    RefuseUpdate,
    ReleaseLease,
    RenewLease,
    Resume,
    Role,
    RoundFailed,
    StartRound,
    Status,
    TakeLease,
)
from pi_daemon.trainer_pipe import ModelEvaluated, RoundTrained, WorkerReady

C = TypeVar("C", bound=Command)

CARD = DatasetCard("digits", (8, 8), "uint8", "int64", 480, 10, "d" * 64)
GRAPHS = Blob(1, 100, "a" * 64)
MODEL = Blob(2, 200, "b" * 64)
MODEL_ID = "c" * 64
READY = WorkerReady(1, 384, 96, 0.01, 1000)
TRAINED = RoundTrained(1, 480, 30, 0.5, 3.0, Cursor(1, 6), 300, "e" * 64)


@dataclass
class Script:
    """A device with a clock that the test moves, and two kinds of consoles."""

    device: Device = field(default_factory=lambda: Device((CARD,), 0, ""))
    now_s: float = 100.0
    run: str = "run-1"
    fence: int = 1

    def open(self, link: int, role: Role = Role.CONTROLLER, name: str = "desk-1") -> None:
        hello = Hello(1, 1, f"id of {name}", name, "boot", "test", role)
        self.device.on_link_opened(link, hello)

    def say(self, link: int, kind: type[C], cmd_id: str = "", **fields: Any) -> list[Action]:
        """Send a command of this run; `cmd_id` is the command's name unless given."""
        command = kind(cmd_id=cmd_id or kind.__name__, run=self.run, fence=self.fence, **fields)
        return self.device.on_command(link, command, self.now_s)  # type: ignore[arg-type]

    def prepare(self, link: int, cmd_id: str = "", **changes: Any) -> list[Action]:
        fields: dict[str, Any] = {
            "worker_id": "alice",
            "dataset": "digits",
            "sample_shape": (8, 8),
            "sample_dtype": "uint8",
            "num_classes": 10,
            "batch_size": 16,
            "holdout": 0.2,
            "order_seed": "7",
            "optimizer": OptimizerSpec("sgd", 0.05),
            "graphs": GRAPHS,
        }
        return self.say(link, Prepare, cmd_id, **(fields | changes))

    def start(self, link: int, cmd_id: str = "", **changes: Any) -> list[Action]:
        fields: dict[str, Any] = {
            "round": 1,
            "attempt": 1,
            "model_id": MODEL_ID,
            "model": MODEL,
            "cursor": Cursor(0, 0),
            "num_batches": 30,
            "torch_seed": "5",
        }
        return self.say(link, StartRound, cmd_id, **(fields | changes))

    @property
    def state(self) -> DeviceState:
        return self.device.status(self.now_s).state


def told(actions: list[Action], link: int | None = 1) -> list[Any]:
    """What a link is told, without the status."""
    return [
        action.message
        for action in actions
        if isinstance(action, Tell)
        and action.link == link
        and not isinstance(action.message, Status)
    ]


def done(actions: list[Action]) -> list[Action]:
    """Everything that is not talk."""
    return [action for action in actions if not isinstance(action, Tell)]


def refusals(actions: list[Action], link: int = 1) -> list[RefusalCode]:
    return [message.code for message in told(actions, link) if isinstance(message, Refused)]


def leased() -> Script:
    script = Script()
    script.open(1)
    script.say(1, TakeLease)
    return script


def prepared() -> Script:
    script = leased()
    script.prepare(1)
    script.device.on_received(1, GRAPHS.transfer, script.now_s)
    script.device.on_prepared(1, READY, script.now_s)
    assert script.state is DeviceState.READY
    return script


def training() -> Script:
    """Round 1 trains as ticket 2 and has told two losses."""
    script = prepared()
    script.start(1)
    script.device.on_received(1, MODEL.transfer, script.now_s)
    script.device.on_begun(2, script.now_s)
    script.device.on_losses(2, (0.9, None), script.now_s)
    assert script.state is DeviceState.TRAINING
    return script


def delivering() -> Script:
    script = training()
    script.device.on_trained(2, TRAINED, script.now_s)
    assert script.state is DeviceState.DELIVERING
    return script


# Leases


def test_the_first_controller_gets_the_lease_after_its_fence_is_on_disk() -> None:
    script = Script()
    script.open(1)
    actions = script.say(1, TakeLease)
    assert actions[:2] == [SaveFence(1, "run-1"), Tell(1, Ok("TakeLease"))]
    assert script.device.status(script.now_s).holder == "desk-1"


def test_a_second_controller_is_told_who_holds_the_device() -> None:
    script = leased()
    script.open(2, name="desk-2")
    script.run, script.fence = "run-2", 2
    [refused] = told(script.say(2, TakeLease), 2)
    reason = "held by desk-1 for run run-1: abort that run, or wait for its end; "
    reason += "where its engine is gone that takes 15 s"
    assert refused == Refused("TakeLease", RefusalCode.HELD, reason)


def test_a_take_over_aborts_the_old_round() -> None:
    script = training()
    script.open(2, name="desk-2")
    script.run, script.fence = "run-2", 2
    actions = script.say(2, TakeLease, take_over=True)
    assert done(actions) == [SaveFence(2, "run-2"), ForgetWorker("alice"), WarmUp()]
    assert told(actions, 2) == [Ok("TakeLease")]
    assert script.state is DeviceState.IDLE
    assert script.device.on_trained(2, TRAINED, script.now_s) == [DropUpdate(2)]


def test_the_replaced_controller_is_stale() -> None:
    script = leased()
    script.open(2, name="desk-2")
    script.run, script.fence = "run-2", 2
    script.say(2, TakeLease, take_over=True)
    script.run, script.fence = "run-1", 1
    assert refusals(script.say(1, RenewLease)) == [RefusalCode.STALE_FENCE]
    assert refusals(script.say(1, TakeLease)) == [RefusalCode.STALE_FENCE]


def test_an_expired_lease_lets_somebody_else_take_over() -> None:
    script = leased()
    script.now_s += LEASE_S
    assert told(script.device.on_tick(script.now_s), None) == []
    assert script.device.status(script.now_s).holder is None
    script.open(2, name="desk-2")
    script.run, script.fence = "run-2", 2
    assert told(script.say(2, TakeLease), 2) == [Ok("TakeLease")]


def test_a_controller_that_slept_goes_on_if_nobody_came() -> None:
    script = leased()
    script.now_s += 10 * LEASE_S
    assert told(script.say(1, RenewLease)) == [Ok("RenewLease")]
    assert script.device.status(script.now_s).holder == "desk-1"


def test_another_run_needs_a_higher_fence_than_any_before() -> None:
    script = leased()
    script.say(1, ReleaseLease)
    script.run = "run-2"
    assert refusals(script.say(1, TakeLease)) == [RefusalCode.STALE_FENCE]


def test_a_restarted_device_remembers_the_run_of_its_highest_fence() -> None:
    script = Script(Device((CARD,), 1, "run-1"))
    script.open(1)
    assert script.say(1, TakeLease)[0] == Tell(1, Ok("TakeLease"))


def test_a_viewer_may_neither_take_the_lease_nor_steer() -> None:
    script = prepared()
    script.open(2, Role.VIEWER)
    assert refusals(script.say(2, TakeLease), 2) == [RefusalCode.NOT_CONTROLLER]
    assert refusals(script.start(2), 2) == [RefusalCode.NOT_CONTROLLER]


def test_a_controller_without_the_lease_may_not_steer() -> None:
    script = prepared()
    script.open(2)
    assert refusals(script.start(2), 2) == [RefusalCode.NOT_CONTROLLER]


def test_the_end_of_a_run_forgets_everything_but_the_fence() -> None:
    script = delivering()
    actions = script.say(1, ReleaseLease)
    assert told(actions) == [Ok("ReleaseLease")]
    assert done(actions) == [ForgetWorker("alice"), DropUpdate(2)]
    status = script.device.status(script.now_s)
    assert (status.state, status.highest_fence, status.holder) == (DeviceState.IDLE, 1, None)


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


def test_no_evaluation_comes_between_the_batches_of_a_round() -> None:
    actions = training().say(1, Evaluate, round=0, model_id=MODEL_ID, model=None)
    assert refusals(actions) == [RefusalCode.WRONG_STATE]


def test_every_change_of_state_is_told_to_all_links() -> None:
    script = leased()
    [status] = [a for a in script.prepare(1) if isinstance(a, Tell)]
    assert status.link is None
    assert status.message == Status(script.device.status(script.now_s))
