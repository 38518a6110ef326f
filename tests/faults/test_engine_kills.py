"""An engine that is killed at a chosen system call: the run is taken up, to the same model."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from fedconsole.coordinator.plan import Plan
from tests.chaos.fleet import fleet
from tests.support.chaos import chaos_proxy
from tests.support.engines import engine, is_round_finished
from tests.support.injection import injected
from tests.support.journal_check import check_run
from tests.support.runs import FinishedRun, carry, digits_plan

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400), pytest.mark.asyncio(loop_scope="module")]

ROUNDS = 3


def plan_in(place: Path) -> Plan:
    return digits_plan(rounds=ROUNDS, federate_after_n_batches=200, save_model=str(place / "m.pt"))


@pytest_asyncio.fixture(loop_scope="module")
async def undisturbed(place: Path) -> AsyncIterator[FinishedRun]:
    yield await carry(plan_in(place))


async def test_a_run_whose_engine_dies_before_its_first_round_is_taken_up(
    place: Path, undisturbed: FinishedRun
) -> None:
    async with engine(plan_in(place)) as run:
        await run.until(lambda line: line["type"] == "run.created")
        run.kill()
        run.take_up()
        assert await run.end() == 0
        run.assert_completed(undisturbed.model_id)


async def test_a_run_whose_engines_die_before_its_first_round_waits_for_a_lost_device(
    place: Path,
) -> None:
    async with fleet(place, ("alice", "bob")) as (alice, bob):
        plan = digits_plan(virtual=0, workers=(alice.address, bob.address))
        undisturbed = await carry(plan)
        async with engine(plan) as run:
            for _ in range(2):
                # The task is being captured: the machine has no event yet.
                await run.until(lambda line: line["type"] == "run.created")
                run.kill()
                run.take_up()
            bob.kill()
            await run.until(lambda line: line["type"] == "worker.lost")
            await bob.restart()
            assert await run.end() == 0
            run.assert_completed(undisturbed.model_id)


async def test_a_device_that_was_met_and_is_lost_before_it_is_ready_is_waited_for(
    place: Path,
) -> None:
    loop = asyncio.get_running_loop()
    async with fleet(place, ("alice", "bob")) as (alice, bob), chaos_proxy(bob.port) as proxy:

        def kill_at_first_answer(data: bytes) -> None:
            # To the lease: the engine has had his hello by then, and is still capturing the task.
            if b'"type":"ok"' in data and proxy.num_connections == 1:
                loop.call_soon(bob.kill)

        proxy.down.on_data = kill_at_first_answer
        async with engine(digits_plan(virtual=0, workers=(alice.address, proxy.address))) as run:
            await run.until(lambda line: line["type"] == "worker.lost")
            await bob.restart()
            assert await run.end() == 0
    assert check_run(run.folder) == []


@pytest.mark.parametrize(
    ("fault", "where"),
    [
        pytest.param("rename:signal=KILL:when=1", None, id="before-the-rename"),
        # The folder is synced after the rename, and before the row that names the file.
        pytest.param("fsync:signal=KILL:when=1", "checkpoints", id="before-the-row"),
        pytest.param("pwrite64:signal=KILL:when=1", "run.db-wal", id="in-a-commit"),
    ],
)
async def test_an_engine_that_dies_in_mid_write_loses_nothing(
    place: Path, undisturbed: FinishedRun, fault: str, where: str | None
) -> None:
    async with engine(plan_in(place)) as run:
        await run.until(is_round_finished(1))
        with injected(run.pid, fault, only=run.folder / where if where else None):
            await run.killed()
        run.take_up()
        assert await run.end() == 0
        run.assert_completed(undisturbed.model_id)


async def test_an_engine_that_dies_while_it_saves_the_model_saves_it_when_it_is_taken_up(
    place: Path, undisturbed: FinishedRun
) -> None:
    saved = place / "m.pt"
    saved.unlink()
    async with engine(plan_in(place)) as run:
        await run.until(is_round_finished(1))
        with injected(run.pid, "rename:signal=KILL", only=saved.with_name("m.pt.partial")):
            await run.killed()
        assert not saved.exists()
        run.take_up()
        assert await run.end() == 0
        run.assert_completed(undisturbed.model_id)
    assert saved.exists()
