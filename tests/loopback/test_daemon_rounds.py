"""A real daemon and its real trainer train over a real websocket."""

from __future__ import annotations

import dataclasses
import itertools
import random
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import pytest_asyncio
import safetensors.torch
import torch
from msgspec.structs import replace

from pi_daemon.protocol.codec import chunk_frames
from pi_daemon.protocol.limits import CHUNK_BYTES
from pi_daemon.protocol.messages import (
    Abort,
    AcceptUpdate,
    Batches,
    Cursor,
    DeviceState,
    Evaluate,
    Evaluated,
    Hello,
    Ok,
    Pause,
    Prepared,
    RefusalCode,
    Refused,
    RenewLease,
    Resume,
    RoundFailed,
    Status,
    Update,
)
from tests.support.daemons import DaemonProcess, daemon
from tests.support.links import RawLink, open_link
from tests.support.rounds import (
    prepare,
    prepare_command,
    start_command,
    tiny_model,
    write_dataset,
)

pytestmark = pytest.mark.asyncio(loop_scope="module")

fences = itertools.count(1)
"""Each test is a run of its own on the one daemon, whose trainer stays warm."""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def alice(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[DaemonProcess]:
    folder = tmp_path_factory.mktemp("daemon")
    data = write_dataset(folder / "digits.npz")
    tiny_model()  # takes seconds, in which a link would be silent
    threes = write_dataset(folder / "threes.npz", 48, classes=(3,))
    async with daemon(
        folder, "--dataset", f"digits={data}", "--dataset", f"threes={threes}"
    ) as running:
        yield running


def losses_of(link: RawLink, attempt: int = 1) -> list[float | None]:
    """Every loss that was told for round 1, checked to be in order without gaps."""
    losses: list[float | None] = []
    for message in link.seen:
        if isinstance(message, Batches) and message.attempt == attempt:
            assert message.first == len(losses)
            losses.extend(message.losses)
    return losses


async def train(link: RawLink, **changes: Any) -> tuple[Update, bytes]:
    command = start_command(link, **changes)
    assert await link.ask(command, tiny_model().content) == Ok(command.cmd_id)
    return await link.update()


def control(link: RawLink, kind: type, round_: int = 1) -> Pause | Resume | Abort:
    return kind(cmd_id=link.new_cmd_id(), run=link.run, fence=link.fence, round=round_)


async def test_two_rounds_run_in_one_trainer(alice: DaemonProcess) -> None:
    async with open_link(alice.port, fence=next(fences)) as link:
        hello = link.seen[0]
        assert isinstance(hello, Hello)
        assert [(card.name, card.num_examples) for card in hello.datasets] == [
            ("digits", 480),
            ("threes", 48),
        ]
        assert isinstance(await link.take_lease(take_over=True), Ok)
        command = prepare_command(link)
        prepared = await link.ask(command, tiny_model().graphs)
        assert isinstance(prepared, Prepared)
        assert (prepared.cmd_id, prepared.num_examples, prepared.num_holdout) == (
            command.cmd_id,
            384,
            96,
        )
        assert prepared.memory_bytes > 0

        first, content = await train(link)
        [trainer] = alice.trainers()
        assert first == Update(
            run=link.run,
            round=1,
            attempt=1,
            model_id=tiny_model().model_id,
            num_examples=30 * 16,
            num_batches=30,
            loss=first.loss,
            seconds=first.seconds,
            cursor=Cursor(1, 6),
            parameters=first.parameters,
        )
        losses = losses_of(link)
        assert first.loss == pytest.approx(sum(loss or 0 for loss in losses) / 30)
        assert len(losses) == 30
        assert safetensors.torch.load(content).keys() == (
            safetensors.torch.load(tiny_model().content).keys()
        )
        accept = AcceptUpdate(
            cmd_id=link.new_cmd_id(), run=link.run, fence=link.fence, round=1, attempt=1
        )
        assert await link.ask(accept) == Ok(accept.cmd_id)

        second, again = await train(link, round=2, sends_model=True)
        assert (second.round, again) == (2, content)
        assert alice.trainers() == [trainer]


async def test_a_pause_changes_no_bit_of_the_update(alice: DaemonProcess) -> None:
    async with open_link(alice.port, fence=next(fences)) as link:
        await prepare(link)
        _, straight = await train(link, num_batches=400)
        abort = control(link, Abort)
        assert await link.ask(abort) == Ok(abort.cmd_id)
        start = start_command(link, num_batches=400, sends_model=False)
        assert await link.ask(start) == Ok(start.cmd_id)
        pause = control(link, Pause)
        assert await link.ask(pause) == Ok(pause.cmd_id)
        num_told = sum(len(m.losses) for m in link.seen if isinstance(m, Batches))
        status = await link.expect(Status)
        assert status.status.state is DeviceState.PAUSED
        resume = control(link, Resume)
        assert await link.ask(resume) == Ok(resume.cmd_id)
        assert sum(len(m.losses) for m in link.seen if isinstance(m, Batches)) == num_told
        _, paused = await link.update()
    assert paused == straight


async def test_a_command_that_comes_twice_is_answered_alike_and_carried_out_once(
    alice: DaemonProcess,
) -> None:
    async with open_link(alice.port, fence=next(fences)) as link:
        await prepare(link)
        start = start_command(link)
        first = await link.ask(start, tiny_model().content)
        again = replace(start, model=link.blob(tiny_model().content))
        assert await link.ask(again, tiny_model().content) == first == Ok(start.cmd_id)
        await link.update()
        abort = control(link, Abort)
        assert await link.ask(abort) == Ok(abort.cmd_id)
        assert len(losses_of(link)) == 30
        assert len([m for m in link.seen if isinstance(m, Update)]) == 1


async def test_a_worker_with_examples_of_one_class_only_trains_like_any(
    alice: DaemonProcess,
) -> None:
    async with open_link(alice.port, fence=next(fences)) as link:
        assert isinstance(await link.take_lease(take_over=True), Ok)
        command = prepare_command(link, dataset="threes")
        assert isinstance(await link.ask(command, tiny_model().graphs), Prepared)
        update, content = await train(link, num_batches=2)
        assert update.num_examples == 32
        tensors = safetensors.torch.load(content)
        assert all(torch.isfinite(tensor).all() for tensor in tensors.values())


async def test_an_abort_ends_the_round_within_a_batch(alice: DaemonProcess) -> None:
    async with open_link(alice.port, fence=next(fences)) as link:
        await prepare(link)
        start = start_command(link, num_batches=1_000_000)
        await link.ask(start, tiny_model().content)
        abort = control(link, Abort)
        assert await link.ask(abort) == Ok(abort.cmd_id)
        num_seen = len(link.seen)
        # No loss follows the acknowledgement: the next round's first one has index 0 again.
        update, _ = await train(link, round=2)
        told = [m for m in link.seen[num_seen:] if isinstance(m, Batches)]
        assert update.round == 2
        assert {m.round for m in told} == {2}


async def test_a_model_may_be_broken_off_by_an_abort_again_and_again(alice: DaemonProcess) -> None:
    async with open_link(alice.port, fence=next(fences)) as link:
        await prepare(link)
        for number in range(1, 7):
            start = start_command(link, round=number)
            await link.send(start)
            assert start.model is not None
            await link.socket.send(next(chunk_frames(start.model.transfer, b"half of it")))
            abort = control(link, Abort, number)
            assert await link.ask(abort) == Ok(abort.cmd_id)
        update, _ = await train(link, round=7)
        assert update.round == 7


async def test_models_that_are_replaced_before_they_are_whole_leave_nothing_on_the_disk(
    alice: DaemonProcess,
) -> None:
    work = alice.state_dir / "work"
    async with open_link(alice.port, fence=next(fences)) as link:
        await prepare(link)
        rest: list[bytes] = []
        for number in range(1, 7):
            content = random.Random(number).randbytes(CHUNK_BYTES + 1)
            blob = link.blob(content)
            await link.send(replace(start_command(link, round=number), model=blob))
            first, last = chunk_frames(blob.transfer, content)
            await link.socket.send(first)
            # The one before is whole now, and is not wanted any more.
            for frame in rest:
                await link.socket.send(frame)
            rest = [last]
        await link.ask(RenewLease(cmd_id=link.new_cmd_id(), run=link.run, fence=link.fence))
        graphs, arriving = sorted(work.iterdir(), key=lambda path: path.stat().st_size)
        assert graphs.read_bytes() == tiny_model().graphs
        assert arriving.stat().st_size <= CHUNK_BYTES
    # With the link goes what it brought.
    async with open_link(alice.port, fence=next(fences)) as link:
        await prepare(link)
        assert [path.name for path in work.iterdir()] == [graphs.name]


async def test_a_lost_link_in_mid_round_costs_nothing(alice: DaemonProcess) -> None:
    fence = next(fences)
    async with open_link(alice.port, fence=fence) as link:
        await prepare(link)
        start = start_command(link, num_batches=600)
        await link.ask(start, tiny_model().content)
        await link.expect(Batches)
        link.socket.transport.abort()
    async with open_link(alice.port, fence=fence) as link:
        assert isinstance(await link.take_lease(take_over=True), Ok)
        command = prepare_command(link)
        assert isinstance(await link.ask(command, tiny_model().graphs), Prepared)
        update, _ = await link.update()
        assert (update.attempt, update.num_batches) == (1, 600)
        assert len(losses_of(link)) == 600
    # It was not accepted, so it comes once more; and with the next attempt's number when asked.
    async with open_link(alice.port, fence=fence) as link:
        assert isinstance(await link.take_lease(take_over=True), Ok)
        update, content = await link.update()
        retry = start_command(link, num_batches=600, attempt=2, sends_model=False)
        assert await link.ask(retry) == Ok(retry.cmd_id)
        again, same = await link.update()
        assert (update.attempt, again.attempt) == (1, 2)
        assert content == same
        assert len(losses_of(link, attempt=2)) == 600


async def test_a_killed_trainer_fails_its_round_and_not_the_next(alice: DaemonProcess) -> None:
    async with open_link(alice.port, fence=next(fences)) as link:
        await prepare(link)
        await link.ask(start_command(link, num_batches=1_000_000), tiny_model().content)
        [trainer] = alice.trainers()
        trainer.kill()
        failed = await link.expect(RoundFailed)
        assert (failed.round, failed.attempt) == (1, 1)
        assert "was killed" in failed.reason
        update, _ = await train(link, attempt=2, sends_model=False)
        assert update.attempt == 2


async def test_a_trainer_that_is_killed_while_it_prepares_is_replaced_and_asked_again(
    alice: DaemonProcess,
) -> None:
    async with open_link(alice.port, fence=next(fences)) as link:
        assert isinstance(await link.take_lease(take_over=True), Ok)
        # Refused by a trainer that then waits, and has nothing to forget.
        junk = dataclasses.replace(tiny_model(), graphs=b"no graphs")
        refused = await link.ask(prepare_command(link, junk), junk.graphs)
        assert isinstance(refused, Refused)
        [trainer] = alice.trainers()
        trainer.suspend()
        command = prepare_command(link)
        await link.send(command)
        await link.send_blob(command.graphs, tiny_model().graphs)
        for _ in range(3):
            # Behind the graphs: by the last answer the trainer has been asked.
            await link.ask(RenewLease(cmd_id=link.new_cmd_id(), run=link.run, fence=link.fence))
        trainer.kill()
        assert isinstance(await link.answer_to(command.cmd_id), Prepared)
        await alice.wait_for_line("preparing again")


async def test_a_trainer_ends_with_its_killed_daemon(tmp_path: Path) -> None:
    data = write_dataset(tmp_path / "digits.npz")
    async with (
        daemon(tmp_path, "--dataset", f"digits={data}") as running,
        open_link(running.port) as link,
    ):
        await prepare(link)
        await link.ask(start_command(link, num_batches=1_000_000), tiny_model().content)
        [trainer] = running.trainers()
        running.process.kill()
        assert psutil.wait_procs([trainer], timeout=10) == ([trainer], [])


async def test_the_holdout_is_evaluated_with_the_model_sent(alice: DaemonProcess) -> None:
    async with open_link(alice.port, fence=next(fences)) as link:
        await prepare(link)
        evaluate = Evaluate(
            cmd_id=link.new_cmd_id(),
            run=link.run,
            fence=link.fence,
            round=0,
            model_id=tiny_model().model_id,
            model=link.blob(tiny_model().content),
        )
        found = await link.ask(evaluate, tiny_model().content)
        assert isinstance(found, Evaluated)
        assert found.num_examples == 96
        assert found.confusion is not None
        assert sum(map(sum, found.confusion)) == 96
        # The model that was evaluated need not be sent again.
        start = start_command(link, sends_model=False)
        assert await link.ask(start) == Ok(start.cmd_id)


async def test_a_model_that_is_not_the_one_announced_is_refused(alice: DaemonProcess) -> None:
    other = safetensors.torch.save(
        {
            name: tensor + torch.ones_like(tensor)
            for name, tensor in safetensors.torch.load(tiny_model().content).items()
        }
    )
    async with open_link(alice.port, fence=next(fences)) as link:
        await prepare(link)
        for content in (other, b"8 bytes of nothing", b"\x80\x04cos\nsystem\n"):
            start = replace(start_command(link), model=link.blob(content))
            refused = await link.ask(start, content)
            assert isinstance(refused, Refused)
            assert refused.code is RefusalCode.BAD_MODEL


async def test_a_second_model_in_one_trainer_is_tried_before_it_runs(alice: DaemonProcess) -> None:
    """The trial forks a process that has trained before."""
    other = tiny_model(num_hidden=9)
    async with open_link(alice.port, fence=next(fences)) as link:
        await prepare(link)
        await train(link)
        command = prepare_command(link, other, batch_size=32)
        assert isinstance(await link.ask(command, other.graphs), Prepared)
        start = start_command(link, other)
        assert await link.ask(start, other.content) == Ok(start.cmd_id)
        update, _ = await link.update()
        assert update.model_id == other.model_id


async def test_a_console_that_does_not_read_slows_nobody_and_misses_no_loss(
    alice: DaemonProcess,
) -> None:
    fence = next(fences)
    async with open_link(alice.port, fence=fence) as link, open_link(alice.port) as sleeper:
        await prepare(link)
        update, _ = await train(link, num_batches=1000)
        assert update.num_batches == len(losses_of(link)) == 1000
        await sleeper.expect(Batches, lambda m: m.first + len(m.losses) == 1000)
        told = [m for m in sleeper.seen if isinstance(m, Batches) and m.run == link.run]
        assert sum(len(m.losses) for m in told) == 1000


async def test_a_large_update_holds_no_answer_up(alice: DaemonProcess) -> None:
    large = tiny_model(num_hidden=40_000)
    async with open_link(alice.port, fence=next(fences)) as link:
        await prepare(link, large)
        start = start_command(link, large, num_batches=1)
        assert await link.ask(start, large.content) == Ok(start.cmd_id)
        update = await link.expect(Update)
        assert update.parameters.size > 10 << 20
        renew = RenewLease(cmd_id=link.new_cmd_id(), run=link.run, fence=link.fence)
        assert await link.ask(renew) == Ok(renew.cmd_id)
        assert update.parameters.transfer not in link.blobs
