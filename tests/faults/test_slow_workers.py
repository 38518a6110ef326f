"""Trainers without memory or without a processor, and engines and daemons that stand still."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from fedconsole.coordinator.plan import OnQuorumLoss, Plan
from fedconsole.engine.store import Line
from fedconsole.errors import ExitCode
from pi_daemon.protocol.messages import Hello, Role
from tests.support.cgroups import limited_memory, limited_processor
from tests.support.daemons import DaemonProcess, daemon
from tests.support.engines import engine, is_round_finished, is_training
from tests.support.freezing import frozen
from tests.support.links import console_hello, open_link
from tests.support.runs import carry, digits_plan

pytestmark = pytest.mark.timeout(400)


@dataclass(frozen=True)
class Fleet:
    alice: DaemonProcess
    bob: DaemonProcess

    def plan(self, **changes: Any) -> Plan:
        workers = tuple(f"127.0.0.1:{each.port}" for each in (self.alice, self.bob))
        plan = {"virtual": 0, "workers": workers, "rounds": 3, "federate_after_n_batches": 300}
        return digits_plan(**(plan | changes))


@pytest.fixture
async def fleet(place: Path) -> AsyncIterator[Fleet]:
    async with AsyncExitStack() as stack:
        alice, bob = [
            await stack.enter_async_context(
                daemon(place, "--dataset", "digits=sample", "--shard", shard, name=name)
            )
            for name, shard in (("alice", "1/2"), ("bob", "2/2"))
        ]
        yield Fleet(alice, bob)


@pytest.mark.slow
async def test_a_worker_with_a_tenth_of_a_core_is_a_straggler_and_holds_up_nobody(
    fleet: Fleet,
) -> None:
    with ExitStack() as limits:
        slowed: list[int] = []

        def slow_bob_down(line: Line) -> None:
            if is_training("bob")(line) and not slowed:
                [trainer] = fleet.bob.trainers()
                slowed.append(trainer.pid)
                limits.enter_context(limited_processor(trainer.pid, 0.1))

        plan = fleet.plan(
            rounds=2, min_updates=1, round_timeout_s=10.0, federate_after_n_batches=1500
        )
        run = await carry(plan, requests=slow_bob_down)
    assert run.exit_code == 0
    assert run.of_type("worker.lost") == []
    finished = run.of_type("round.finished")
    assert finished[0]["updates"] == ["alice"]
    late = [(line["worker"], line["round"]) for line in run.of_type("worker.straggler")]
    assert late == [("bob", line["round"]) for line in finished if line["updates"] == ["alice"]]


@pytest.mark.slow
async def test_a_busy_device_refuses_nobody_because_its_owner_allows_a_batch_a_second(
    place: Path,
) -> None:
    """Getting ready takes a tenth of a core half a minute; a batch computes for a millisecond."""
    options = ("--dataset", "digits=sample", "--max-batch-seconds", "1")
    async with daemon(place, *options) as alice:
        with limited_processor(alice.pid, 0.1):
            plan = digits_plan(virtual=0, workers=(f"127.0.0.1:{alice.port}",), rounds=1)
            run = await carry(plan)
    assert run.exit_code == 0
    assert run.of_type("warning") == []


async def test_a_device_without_memory_is_refused_by_name_at_the_start(fleet: Fleet) -> None:
    with limited_memory(fleet.bob.pid, 48 << 20):
        run = await carry(fleet.plan(min_updates=1))
    assert run.exit_code == ExitCode.REFUSED
    assert run.last["reason"].startswith("bob cannot take part: the trainer was killed")
    assert "memory ran out" in run.last["reason"]


@pytest.mark.slow
async def test_a_device_that_runs_out_of_memory_later_is_named_and_the_others_go_on(
    fleet: Fleet,
) -> None:
    with ExitStack() as limits:
        limited: list[int] = []

        def starve_bob(line: Line) -> None:
            if is_training("bob")(line) and not limited:
                [trainer] = fleet.bob.trainers()
                limited.append(trainer.pid)
                limits.enter_context(limited_memory(fleet.bob.pid, 48 << 20))
                # The next one gets no memory.
                trainer.kill()

        plan = fleet.plan(rounds=2, min_updates=1, round_timeout_s=30.0)
        run = await carry(plan, requests=starve_bob)
    assert run.exit_code == 0
    assert run.of_type("round.finished")[0]["updates"] == ["alice"]
    assert any("memory ran out" in line["text"] for line in run.of_type("warning"))


@pytest.mark.slow
async def test_an_engine_that_stood_still_for_longer_than_its_lease_takes_it_again(
    fleet: Fleet,
) -> None:
    undisturbed = await carry(fleet.plan())
    async with engine(fleet.plan()) as run:
        await run.until(is_training("bob"))
        with frozen(run.pid):
            await lease_is_over(fleet.alice)
            await lease_is_over(fleet.bob)
        assert await run.end() == 0
        run.assert_completed(undisturbed.model_id)


@pytest.mark.slow
async def test_an_engine_that_stood_still_over_a_deadline_takes_what_came_meanwhile(
    fleet: Fleet,
) -> None:
    plan = fleet.plan(round_timeout_s=6.0, on_quorum_loss=OnQuorumLoss.FAIL)
    undisturbed = await carry(plan)
    async with engine(plan) as run:
        await run.until(is_training("bob"))
        with frozen(run.pid):
            # Longer than the round's time.
            await lease_is_over(fleet.alice)
        assert await run.end() == 0
        run.assert_completed(undisturbed.model_id)


@pytest.mark.slow
@pytest.mark.parametrize("is_killed", [False, True])
async def test_a_run_whose_devices_were_taken_meanwhile_is_told_so_and_goes_on_after_that(
    fleet: Fleet, is_killed: bool
) -> None:
    undisturbed = await carry(fleet.plan())
    async with engine(fleet.plan()) as run, AsyncExitStack() as stack:
        await run.until(is_training("bob"))
        with frozen(run.pid):
            if is_killed:
                run.kill()
            await lease_is_over(fleet.alice)
            await lease_is_over(fleet.bob)
            other = await stack.enter_async_context(engine(fleet.plan(rounds=100_000)))
            await other.until(is_training("bob"))
        if is_killed:
            run.take_up()
        told = await run.until(lambda line: "another run has taken it" in str(line.get("text")))
        assert told["type"] == "warning"
        await other.request("stop")
        assert await other.end() == 0
        assert await run.end() == 0
        run.assert_completed(undisturbed.model_id)


@pytest.mark.slow
async def test_a_device_that_stood_still_over_a_rounds_end_takes_part_in_the_next(
    fleet: Fleet,
) -> None:
    plan = fleet.plan(
        rounds=100_000, min_updates=1, round_timeout_s=20.0, federate_after_n_batches=1500
    )
    async with engine(plan) as run:
        await run.until(is_training("bob"))
        [trainer] = fleet.bob.trainers()
        # So slow that it is not done with round 1 when round 3 begins.
        with limited_processor(trainer.pid, 0.1):
            with frozen(trainer.pid), frozen(fleet.bob.pid):
                await run.until(is_round_finished(1))
            await run.until(is_round_finished(2))
        await run.until(lambda line: line.get("updates") == ["alice", "bob"])
        await run.request("stop")
        assert await run.end() == 0
        assert run.of_type("warning") == []


async def lease_is_over(device: DaemonProcess) -> None:
    """Ask a device, as a viewer, until nobody has it."""
    while True:
        async with open_link(device.port, hello=console_hello(Role.VIEWER)) as link:
            hello = link.seen[0]
            assert isinstance(hello, Hello)
            assert hello.status is not None
            if hello.status.holder is None:
                return
