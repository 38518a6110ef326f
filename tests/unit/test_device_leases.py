"""Who may steer a device, by scripted events."""

from __future__ import annotations

from pi_daemon.device.actions import (
    Deliver,
    DropUpdate,
    Fence,
    ForgetWorker,
    SaveFence,
    Tell,
    WarmUp,
)
from pi_daemon.device.device import Device
from pi_daemon.protocol.limits import LEASE_S, MAX_FENCE_STEP
from pi_daemon.protocol.messages import (
    DeviceState,
    Ok,
    RefusalCode,
    Refused,
    ReleaseLease,
    RenewLease,
    Role,
    TakeLease,
)
from tests.support.device_script import (
    CARD,
    GRAPHS,
    MODEL,
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

# Leases


def test_the_first_controller_gets_the_lease_after_its_fence_is_on_disk() -> None:
    script = Script()
    script.open(1)
    actions = script.say(1, TakeLease)
    assert actions[:2] == [SaveFence(Fence(1, "run-1")), Tell(1, Ok("TakeLease"))]
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
    # What the old run leaves makes room for the fence.
    assert done(actions) == [ForgetWorker("alice"), SaveFence(Fence(2, "run-2")), WarmUp()]
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


def test_nobody_can_use_up_all_fences() -> None:
    script = Script()
    script.open(1)
    for fence in (2**53 - 1, 2 + MAX_FENCE_STEP):
        script.fence = fence
        actions = script.say(1, TakeLease)
        assert refusals(actions) == [RefusalCode.STALE_FENCE]
        assert not any(isinstance(action, SaveFence) for action in actions)
    script.fence = 1
    assert told(script.say(1, TakeLease), 1) == [Ok("TakeLease")]


def keyed() -> Script:
    """The console whose key is KEY-1 has round 1 of run-1 trained, and was lost before the update went."""
    script = Script()
    script.open(1, key="KEY-1")
    script.say(1, TakeLease)
    script.prepare(1)
    script.device.on_received(1, GRAPHS.transfer, script.now_s)
    script.device.on_prepared(1, READY, script.now_s)
    script.start(1)
    script.device.on_received(1, MODEL.transfer, script.now_s)
    script.device.on_begun(2, script.now_s)
    script.device.on_link_closed(1, script.now_s)
    script.device.on_trained(2, TRAINED, script.now_s)
    return script


def test_a_run_is_not_another_consoles_by_its_name_and_a_higher_fence() -> None:
    script = keyed()
    # Of one host's name, too: only the key counts.
    script.open(2, key="KEY-2")
    assert refusals(script.say(2, TakeLease, "same fence"), 2) == [RefusalCode.STALE_FENCE]
    script.fence = 2
    [refused] = told(script.say(2, TakeLease), 2)
    reason = "held by desk-1 for run run-1: abort that run, or wait for its end; "
    reason += "where its engine is gone that takes 15 s"
    assert refused == Refused("TakeLease", RefusalCode.HELD, reason)
    assert script.device.status(script.now_s).highest_fence == 1


def test_a_run_is_its_consoles_also_in_a_later_process() -> None:
    script = keyed()
    script.open(2, name="desk-1 since renamed", key="KEY-1")
    script.fence = 2
    save, warm_up, deliver = done(script.say(2, TakeLease))
    assert (save, warm_up) == (SaveFence(Fence(2, "run-1", "KEY-1")), WarmUp())
    assert isinstance(deliver, Deliver)
    assert (deliver.link, deliver.trained) == (2, TRAINED)


def test_a_run_of_one_name_gets_the_device_from_another_console_and_nothing_of_its_run() -> None:
    for seconds, take_over in ((LEASE_S, False), (0, True)):
        script = keyed()
        script.open(2, key="KEY-2")
        script.fence = 2
        script.now_s += seconds
        actions = script.say(2, TakeLease, take_over=take_over)
        assert done(actions) == [
            ForgetWorker("alice"),
            DropUpdate(2),
            SaveFence(Fence(2, "run-1", "KEY-2")),
            WarmUp(),
        ]
        assert told(actions, 2) == [Ok("TakeLease")]
        assert script.state is DeviceState.IDLE
        script.open(3, key="KEY-1")
        script.fence = 1
        assert refusals(script.say(3, TakeLease), 3) == [RefusalCode.STALE_FENCE]


def test_a_restarted_device_remembers_whose_run_has_its_highest_fence() -> None:
    script = Script(Device((CARD,), Fence(1, "run-1", "KEY-1")))
    script.open(1, key="KEY-2")
    assert refusals(script.say(1, TakeLease)) == [RefusalCode.STALE_FENCE]
    script.open(2, key="KEY-1")
    assert script.say(2, TakeLease)[0] == Tell(2, Ok("TakeLease"))


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
    script = Script(Device((CARD,), Fence(1, "run-1")))
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
