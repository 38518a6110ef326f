"""A device whose disk is full or broken, or that may open no more files: named, the others go on, it comes back."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest

from fedconsole.coordinator.plan import Plan
from fedconsole.engine.store import Line
from pi_daemon.device.receiving import SPARE_BYTES
from pi_daemon.protocol.messages import DeviceState, Role, Status
from tests.chaos.fleet import Device, fleet
from tests.support.disks import ext4_disk, fail_disk, full, mend_disk, small_disk
from tests.support.engines import engine, is_round_finished, is_training
from tests.support.injection import first_free_descriptor, set_max_files
from tests.support.journal_check import check_run
from tests.support.links import console_hello, open_link
from tests.support.runs import carry, digits_plan

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]

DISK_BYTES = SPARE_BYTES + (2 << 20)
FULL = "No space left on device"
MANY_BATCHES = 500
"""Longer than it takes to fill its disk after the first of them."""


@contextmanager
def small_work_folder(place: Path) -> Iterator[Path]:
    """Bob's, which has room for some models."""
    (place / "bob").mkdir(mode=0o700)
    with small_disk(place / "bob" / "work", DISK_BYTES) as disk:
        yield disk


@asynccontextmanager
async def alice_and_bob(place: Path) -> AsyncIterator[tuple[Device, Device]]:
    async with fleet(place, ("alice", "bob")) as (alice, bob):
        yield alice, bob
        assert "Traceback" not in "".join(bob.last_words)


def plan_for(alice: Device, bob: Device, **changes: Any) -> Plan:
    plan = {"virtual": 0, "workers": (alice.address, bob.address), "rounds": 4}
    return digits_plan(**(plan | changes))


def says_of_bob(kind: str, text: str) -> Callable[[Line], bool]:
    return lambda line: (
        (line["type"], line.get("worker")) == (kind, "bob")
        and text in (line.get("text") or line.get("reason") or "")
    )


def counts(*workers: str) -> Callable[[Line], bool]:
    return lambda line: line["type"] == "round.finished" and line["updates"] == list(workers)


async def test_a_disk_that_is_full_when_a_model_arrives_is_told_and_the_run_goes_on_with_room(
    place: Path,
) -> None:
    with small_work_folder(place) as disk:
        async with alice_and_bob(place) as (alice, bob):
            plan = plan_for(alice, bob, federate_after_n_batches=100)
            undisturbed = await carry(plan)
            pid = bob.pid
            async with engine(plan) as run:
                await run.until(is_round_finished(1))
                with full(disk):
                    await run.until(
                        says_of_bob("worker.lost", f"cannot store this: [Errno 28] {FULL}")
                    )
                assert await run.end() == 0
            assert bob.pid == pid
            run.assert_completed(undisturbed.model_id)


async def test_a_disk_that_is_full_before_the_run_is_told_by_name_and_the_device_joins_with_room(
    place: Path,
) -> None:
    with small_work_folder(place) as disk:
        async with alice_and_bob(place) as (alice, bob):
            plan = plan_for(alice, bob)
            undisturbed = await carry(plan)
            with ExitStack() as meanwhile:
                meanwhile.enter_context(full(disk))
                async with engine(plan) as run:
                    await run.until(says_of_bob("worker.lost", f"[Errno 28] {FULL}"))
                    meanwhile.close()
                    assert await run.end() == 0
            run.assert_completed(undisturbed.model_id)


async def test_a_disk_that_fills_up_while_a_device_trains_is_told_and_the_others_go_on(
    place: Path,
) -> None:
    with small_work_folder(place) as disk:
        async with alice_and_bob(place) as (alice, bob):
            plan = plan_for(
                *(alice, bob),
                rounds=100_000,
                min_updates=1,
                federate_after_n_batches=MANY_BATCHES,
            )
            async with engine(plan) as run:
                await run.until(is_training("bob"))
                with full(disk):
                    told = await run.until(says_of_bob("warning", FULL))
                    assert told["text"].startswith("training failed: ")
                    await run.until(counts("alice"))
                    # Nothing of the update is left to be in the way.
                    assert list(disk.glob("update-*")) == []
                await run.until(counts("alice", "bob"))
                await run.request("stop")
                assert await run.end() == 0
            assert check_run(run.folder) == []


async def test_a_round_that_waits_for_a_full_device_goes_on_when_more_time_is_given(
    place: Path,
) -> None:
    with small_work_folder(place) as disk:
        async with alice_and_bob(place) as (alice, bob):
            plan = plan_for(alice, bob, rounds=2, federate_after_n_batches=MANY_BATCHES)
            undisturbed = await carry(plan)
            async with engine(plan) as run:
                await run.until(is_training("bob"))
                with full(disk):
                    await run.until(says_of_bob("warning", "out of round 1"))
                    await run.until(lambda line: line.get("phase") == "waiting")
                await run.request("wait")
                assert await run.end() == 0
            run.assert_completed(undisturbed.model_id)


async def test_a_device_without_descriptors_holds_its_links_and_recovers(place: Path) -> None:
    async with alice_and_bob(place) as (alice, bob):
        plan = plan_for(alice, bob, rounds=10, federate_after_n_batches=100)
        undisturbed = await carry(plan)
        pid = bob.pid
        async with (
            engine(plan) as run,
            open_link(bob.port, hello=console_hello(Role.VIEWER)) as link,
        ):
            # On the link that is there all the time.
            is_released = asyncio.get_running_loop().create_task(
                link.expect(Status, lambda told: told.status.state is DeviceState.IDLE)
            )
            await run.until(is_round_finished(1))
            # While it works, files come and go.
            await run.request("pause")
            await run.until(lambda line: line["type"] == "run.paused")
            before = set_max_files(pid, first_free_descriptor(pid))
            await run.request("resume")
            try:
                await run.until(says_of_bob("worker.lost", "[Errno 24] Too many open files"))
            finally:
                set_max_files(pid, before)
            assert await run.end() == 0
            await is_released
        assert bob.pid == pid
        run.assert_completed(undisturbed.model_id)


async def test_a_device_whose_disk_fails_is_named_and_counts_again_when_it_is_mended(
    place: Path,
) -> None:
    with ext4_disk(place / "bob", SPARE_BYTES + (32 << 20)) as disk:
        disk.chmod(0o700)
        async with alice_and_bob(place) as (alice, bob):
            plan = plan_for(
                *(alice, bob),
                rounds=100_000,
                min_updates=1,
                federate_after_n_batches=100,
                round_timeout_s=5.0,
            )
            async with engine(plan) as run:
                await run.until(counts("alice", "bob"))
                fail_disk(disk)
                await run.until(says_of_bob("worker.lost", "Read-only file system"))
                await run.until(counts("alice"))
                trainers = bob.trainers()
                bob.kill()
                psutil.wait_procs(trainers, timeout=60)
                mend_disk(disk)
                await bob.restart()
                await run.until(counts("alice", "bob"))
                await run.request("stop")
                assert await run.end() == 0
            assert check_run(run.folder) == []
