from __future__ import annotations

from pi_daemon.protocol.limits import MAX_LOSSES
from pi_daemon.protocol.messages import (
    Batches,
    DeviceState,
    DeviceStatus,
    FromDaemon,
    Ok,
    Status,
    Telemetry,
)
from pi_daemon.server.link import Backlog


def batches(first: int, *losses: float, attempt: int = 1) -> Batches:
    return Batches("run-1", 1, attempt, first, 100, losses)


def status(state: DeviceState) -> Status:
    return Status(DeviceStatus(state, 1))


def telemetry(load: float) -> Telemetry:
    return Telemetry(None, None, 1, 2, 3, load)


def waiting(*messages: FromDaemon) -> list[FromDaemon]:
    backlog = Backlog()
    for message in messages:
        backlog.put(message)
    return [backlog.pop() for _ in range(len(backlog))]


def test_losses_in_a_row_wait_as_one_message() -> None:
    assert waiting(batches(0, 0.9), telemetry(1), batches(1, 0.8, 0.7)) == [
        batches(0, 0.9, 0.8, 0.7),
        telemetry(1),
    ]


def test_losses_of_another_attempt_or_after_a_gap_wait_apart() -> None:
    apart = [batches(0, 0.9), batches(0, 0.9, attempt=2), batches(2, 0.7, attempt=2)]
    assert waiting(*apart) == apart


def test_joined_losses_stay_within_the_limit_of_a_message() -> None:
    full = batches(0, *[0.5] * MAX_LOSSES)
    assert waiting(full, batches(MAX_LOSSES, 0.4)) == [full, batches(MAX_LOSSES, 0.4)]


def test_only_the_newest_status_and_telemetry_wait() -> None:
    assert waiting(
        telemetry(1), status(DeviceState.IDLE), Ok("1"), telemetry(2), status(DeviceState.READY)
    ) == [Ok("1"), telemetry(2), status(DeviceState.READY)]


def test_an_answer_never_waits_before_the_losses_that_came_before_it() -> None:
    assert waiting(batches(0, 0.9), batches(1, 0.8), Ok("pause")) == [
        batches(0, 0.9, 0.8),
        Ok("pause"),
    ]
