"""Daemons that die and come back in the middle of a run."""

from __future__ import annotations

import asyncio
import os
import signal
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from fedconsole.engine.store import Line
from tests.support.daemons import DaemonProcess, daemon
from tests.support.places import redirect
from tests.support.runs import carry, digits_plan

pytestmark = pytest.mark.alone


async def test_a_daemon_that_is_killed_and_comes_back_does_the_round_again_and_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    redirect(tmp_path, monkeypatch)
    async with AsyncExitStack() as stack:

        async def start(name: str, shard: str, port: int = 0) -> DaemonProcess:
            options = ("--port", str(port), "--dataset", "digits=sample", "--shard", shard)
            return await stack.enter_async_context(daemon(tmp_path, *options, name=name))

        alice, bob = await start("alice", "1/2"), await start("bob", "2/2")
        returns: list[asyncio.Task[DaemonProcess]] = []

        def kill_bob_at_his_first_losses(line: Line) -> None:
            if line["type"] == "worker.batches" and line["worker"] == "bob" and not returns:
                os.kill(bob.pid, signal.SIGKILL)
                task = asyncio.get_running_loop().create_task(start("bob", "2/2", bob.port))
                returns.append(task)

        workers = tuple(f"127.0.0.1:{each.port}" for each in (alice, bob))
        plan = digits_plan(virtual=0, workers=workers, rounds=2, federate_after_n_batches=300)
        disturbed = await carry(plan, requests=kill_bob_at_his_first_losses)
        await returns[0]
        quiet = await carry(plan)

    assert disturbed.exit_code == 0
    assert [line["worker"] for line in disturbed.of_type("worker.lost")] == ["bob"]
    assert [line["worker"] for line in disturbed.of_type("worker.rejoined")] == ["bob"]
    assert [line["updates"] for line in disturbed.of_type("round.finished")] == [
        ["alice", "bob"]
    ] * 2
    assert disturbed.model_id == quiet.model_id


@pytest.mark.slow
async def test_a_round_goes_on_without_a_lost_worker_if_there_are_enough(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    redirect(tmp_path, monkeypatch)
    async with (
        daemon(tmp_path, "--dataset", "digits=sample", "--shard", "1/2") as alice,
        daemon(tmp_path, "--dataset", "digits=sample", "--shard", "2/2", name="bob") as bob,
    ):

        def kill_bob_at_his_first_losses(line: Line) -> None:
            if line["type"] == "worker.batches" and (line["worker"], line["first"]) == ("bob", 0):
                os.kill(bob.pid, signal.SIGKILL)

        workers = tuple(f"127.0.0.1:{each.port}" for each in (alice, bob))
        plan = digits_plan(
            virtual=0,
            workers=workers,
            rounds=2,
            federate_after_n_batches=300,
            min_updates=1,
            round_timeout_s=5.0,
        )
        run = await carry(plan, requests=kill_bob_at_his_first_losses)
    assert run.exit_code == 0
    assert [line["updates"] for line in run.of_type("round.finished")] == [["alice"]] * 2
