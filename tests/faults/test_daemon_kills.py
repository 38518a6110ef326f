"""A daemon that is killed in each of its states and comes back: nothing counts twice, same model."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from fedconsole.coordinator.plan import Plan
from fedconsole.engine.store import Line
from tests.chaos.fleet import Device, fleet
from tests.support.engines import engine
from tests.support.runs import FinishedRun, carry, digits_plan

pytestmark = pytest.mark.timeout(400)


def is_phase(phase: str) -> Callable[[Line], bool]:
    """Bob's, in the second round."""
    return lambda line: (
        (line["type"], line.get("worker"), line.get("round"), line.get("phase"))
        == ("worker.phase", "bob", 2, phase)
    )


MOMENTS: dict[str, Callable[[Line], bool]] = {
    "prepared": lambda line: line["type"] == "worker.joined" and line["worker"] == "bob",
    "receiving": is_phase("receiving"),
    "training": lambda line: (
        line["type"] == "worker.batches" and (line["worker"], line["round"]) == ("bob", 2)
    ),
    "sending": is_phase("sending"),
    "idle": lambda line: line["type"] == "eval" and line["round"] == 2,
}


@dataclass(frozen=True)
class Fleet:
    bob: Device
    plan: Plan
    undisturbed: FinishedRun


@pytest.fixture
async def running(place: Path) -> AsyncIterator[Fleet]:
    async with fleet(place, ("alice", "bob")) as devices:
        workers = tuple(device.address for device in devices)
        plan = digits_plan(virtual=0, workers=workers, rounds=3, federate_after_n_batches=200)
        yield Fleet(devices[1], plan, await carry(plan))


@pytest.mark.slow
async def test_a_daemon_that_is_killed_in_whatever_state_changes_nothing(running: Fleet) -> None:
    for moment in MOMENTS.values():
        async with engine(running.plan) as run:
            await run.until(moment)
            running.bob.kill()
            await running.bob.restart()
            assert await run.end() == 0
            run.assert_completed(running.undisturbed.model_id)
        await running.bob.wait_until_it_listens()


@pytest.mark.slow
async def test_a_daemon_that_is_killed_while_it_is_paused_does_its_round_again(
    running: Fleet,
) -> None:
    async with engine(running.plan) as run:
        await run.until(MOMENTS["training"])
        await run.request("pause")
        await run.until(lambda line: line["type"] == "run.paused")
        running.bob.kill()
        await run.until(lambda line: line["type"] == "worker.lost")
        await running.bob.restart()
        await run.until(lambda line: line["type"] == "worker.rejoined")
        await run.request("resume")
        assert await run.end() == 0
        run.assert_completed(running.undisturbed.model_id)
