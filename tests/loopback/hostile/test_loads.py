"""Work without an end, and commands without number: the device stays there for the next console."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from pathlib import Path

import psutil
import pytest
from websockets.exceptions import ConnectionClosed

from pi_daemon.protocol.messages import (
    DeviceState,
    Ok,
    Prepared,
    RefusalCode,
    ReleaseLease,
    Status,
)
from tests.support.daemons import daemon
from tests.support.hostile import (
    BATCH,
    HONEST,
    assert_refused,
    endless,
    hostile_model,
    peak_bytes,
    prepare,
    slow_on_trial,
    trials,
    with_graphs,
)
from tests.support.links import RawLink, open_link
from tests.support.rounds import prepare_command

pytestmark = pytest.mark.asyncio(loop_scope="module")

TRIAL_S = 20.0


@pytest.mark.slow
async def test_a_batch_that_never_ends_is_ended(tmp_path: Path, data: Path) -> None:
    options = ("--dataset", f"digits={data}", "--max-batch-seconds", "1")
    async with daemon(tmp_path, *options) as bob, open_link(bob.port) as link:
        assert isinstance(await link.take_lease(), Ok)
        answer = await prepare(link, endless())
        reason = "the trainer took more than 1 s for one batch"
        await assert_refused(bob, link, answer, RefusalCode.TRAINER_FAILED, reason)
        assert isinstance(await prepare(link, hostile_model(*HONEST)), Prepared)


async def test_a_batch_that_never_ends_does_not_outlast_its_lease(
    tmp_path: Path, data: Path
) -> None:
    model = endless()
    async with daemon(tmp_path, "--dataset", f"digits={data}") as bob:
        async with open_link(bob.port) as villain:
            assert isinstance(await villain.take_lease(), Ok)
            for _ in range(3):
                command = prepare_command(villain, model, batch_size=BATCH)
                await villain.send(command)
                await villain.send_blob(command.graphs, model.graphs)
            await villain.expect(Status, lambda told: told.status.state is DeviceState.PREPARING)
        async with open_link(bob.port, fence=2) as link:
            good = hostile_model(*HONEST)
            assert isinstance(await link.take_lease(take_over=True), Ok)
            assert isinstance(await prepare(link, good), Prepared)


@pytest.mark.parametrize(
    "ending",
    ["the lease is released", "the daemon is killed", "the process that tries graphs is killed"],
)
async def test_a_trial_ends_with_its_trainer(tmp_path: Path, data: Path, ending: str) -> None:
    model = slow_on_trial()
    async with (
        daemon(tmp_path, "--dataset", f"digits={data}") as bob,
        open_link(bob.port) as villain,
    ):
        assert isinstance(await villain.take_lease(), Ok)
        # The first trial's process is there before its graphs; each further one comes with them.
        assert isinstance(await prepare(villain, hostile_model(*HONEST)), Prepared)
        [serving] = trials(bob)
        command = prepare_command(villain, model, batch_size=BATCH)
        await villain.send(command)
        await villain.send_blob(command.graphs, model.graphs)
        async with asyncio.timeout(TRIAL_S):
            while not (trying := await asyncio.to_thread(serving.children)):
                pass
        match ending:
            case "the daemon is killed":
                bob.process.kill()
            case "the process that tries graphs is killed":
                serving.kill()
            case _:
                release = ReleaseLease(
                    cmd_id=villain.new_cmd_id(), run=villain.run, fence=villain.fence
                )
                assert await villain.ask(release) == Ok(release.cmd_id)
        _, alive = await asyncio.to_thread(psutil.wait_procs, [serving, *trying], TRIAL_S)
        try:
            assert alive == []
        finally:
            for process in alive:
                process.kill()


async def test_a_device_whose_trials_have_ended_goes_on_with_another_trainer(
    tmp_path: Path, data: Path
) -> None:
    """As when memory runs out and the system kills the process that tries graphs."""
    async with daemon(tmp_path, "--dataset", f"digits={data}") as bob, open_link(bob.port) as link:
        assert isinstance(await link.take_lease(), Ok)
        assert isinstance(await prepare(link, hostile_model(*HONEST)), Prepared)
        [serving] = trials(bob)
        serving.kill()
        assert isinstance(await prepare(link, hostile_model(*HONEST), batch_size=8), Prepared)


async def flood_with_commands(villain: RawLink, count: int) -> None:
    """Prepare one run after the other. Raises TimeoutError when the daemon reads no more."""
    for number in range(count):
        command = prepare_command(villain, with_graphs(b"{}"), worker_id=f"w{number}")
        async with asyncio.timeout(2):
            await villain.send(command)
            await villain.send_blob(command.graphs, b"{}")


async def listen(link: RawLink) -> None:
    while True:
        await link.receive()


async def test_commands_that_nobody_can_carry_out_in_time_pile_up_nowhere(
    tmp_path: Path, data: Path
) -> None:
    model = endless()
    async with daemon(tmp_path, "--dataset", f"digits={data}") as bob:
        async with open_link(bob.port) as villain:
            assert isinstance(await villain.take_lease(), Ok)
            first = prepare_command(villain, model, batch_size=BATCH)
            await villain.send(first)
            await villain.send_blob(first.graphs, model.graphs)
            await villain.expect(Status, lambda told: told.status.state is DeviceState.PREPARING)
            before = peak_bytes(bob.pid)
            listening = asyncio.get_running_loop().create_task(listen(villain))
            # Either nobody reads them any more, or the link is closed over their answers.
            with suppress(TimeoutError, ConnectionClosed):
                await flood_with_commands(villain, 20_000)
            listening.cancel()
            with suppress(asyncio.CancelledError, ConnectionClosed):
                await listening
            assert peak_bytes(bob.pid) - before < 4 << 20
        async with open_link(bob.port, fence=2) as link:
            assert isinstance(await link.take_lease(take_over=True), Ok)
            assert isinstance(await prepare(link, hostile_model(*HONEST)), Prepared)
