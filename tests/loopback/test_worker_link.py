"""A worker's link that is lost at an awkward moment, or never gets ready: nobody waits for it for ever."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path

import pytest

from fedconsole.coordinator import commands as c
from fedconsole.coordinator import events as e
from fedconsole.coordinator.plan import Plan
from fedconsole.dialling import console_hello
from fedconsole.engine import worker_link
from fedconsole.engine.lookout import Lookout
from fedconsole.engine.store import Row, RunStore
from fedconsole.engine.worker import Captured, Job, ModelOnDisk
from fedconsole.engine.worker_link import WorkerLink
from pi_daemon.protocol import messages as m
from tests.support.echo_daemon import EchoDaemon

_WAIT_S = 30.0
_NUM_TURNS = 12
"""Of the event loop: more than the end of a link takes once the loss is known."""


@dataclass
class Told:
    """What the link reports."""

    joined: asyncio.Event = field(default_factory=asyncio.Event)
    lost: asyncio.Event = field(default_factory=asyncio.Event)
    losses: list[e.WorkerLost] = field(default_factory=list)
    refused: asyncio.Event = field(default_factory=asyncio.Event)
    warnings: asyncio.Queue[str] = field(default_factory=asyncio.Queue)

    def event(self, event: e.Event) -> None:
        if isinstance(event, e.WorkerJoined):
            self.joined.set()
        elif isinstance(event, e.WorkerLost):
            self.losses.append(event)
            self.lost.set()
        elif isinstance(event, e.WorkerRefused):
            self.refused.set()

    def note(self, row: Row) -> None:
        if row.type == "warning":
            self.warnings.put_nowait(row.fields["text"])


@asynccontextmanager
async def linked(
    folder: Path, *, is_taken_up: bool = False
) -> AsyncIterator[tuple[EchoDaemon, WorkerLink, Told]]:
    """A device, and a link to it that is not run yet."""
    loop = asyncio.get_running_loop()
    device, told = EchoDaemon("kitchen"), Told()
    await device.start()
    store = RunStore(folder)
    graphs = b"graphs"
    captured, names = loop.create_future(), loop.create_future()
    captured.set_result(
        Captured(graphs, sha256(graphs).hexdigest(), {}, (), "digits", (8, 8), "uint8", 10)
    )
    names.set_result(None)
    plan = Plan(workers=(device.address,))
    hello = console_hello(m.Role.CONTROLLER)
    job = Job("20261122-a3f9", plan, hello, store, captured, names, is_taken_up)
    job.models["model"] = ModelOnDisk(folder / "model", "model", "0" * 64, 1)
    try:
        yield device, WorkerLink(device.address, job, told, Lookout(0)), told
    finally:
        store.close()
        await device.kill()


async def test_a_command_at_any_moment_of_a_loss_is_lost_with_the_link(tmp_path: Path) -> None:
    async with linked(tmp_path) as (device, link, told):
        running = asyncio.get_running_loop().create_task(link.run())
        async with asyncio.timeout(_WAIT_S):
            await told.joined.wait()
            await device.kill()
            while not told.lost.is_set():
                link.send(c.PauseWorker("kitchen", 1))
                await asyncio.sleep(0)
        running.cancel()
        await asyncio.wait([running], timeout=_WAIT_S)
        assert running.cancelled()


@pytest.mark.parametrize("turn", range(_NUM_TURNS))
async def test_a_link_that_is_lost_while_it_is_cancelled_ends(tmp_path: Path, turn: int) -> None:
    async with linked(tmp_path) as (device, link, told):
        running = asyncio.get_running_loop().create_task(link.run())
        async with asyncio.timeout(_WAIT_S):
            await told.joined.wait()
        assert device._server is not None
        for connection in device._server.connections:
            connection.transport.abort()
        for _ in range(turn):
            await asyncio.sleep(0)
        running.cancel()
        done, _ = await asyncio.wait([running], timeout=_WAIT_S)
        assert done, "it goes on"


@pytest.mark.parametrize("step", ["may_answer", "may_prepare"])
async def test_a_device_that_does_not_get_ready_is_missed_by_name_and_joins_when_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    monkeypatch.setattr(worker_link, "PREPARE_S", 0.2)
    async with linked(tmp_path) as (device, link, told):
        is_allowed: asyncio.Event = getattr(device, step)
        is_allowed.clear()
        running = asyncio.get_running_loop().create_task(link.run())
        async with asyncio.timeout(_WAIT_S):
            await told.lost.wait()
            assert not told.joined.is_set()
            is_allowed.set()
            await told.joined.wait()
        running.cancel()
        await asyncio.wait([running], timeout=_WAIT_S)


async def test_a_device_without_room_is_missed_with_its_reason_and_joins_when_it_has_some(
    tmp_path: Path,
) -> None:
    async with linked(tmp_path) as (device, link, told):
        device.lack = "the device cannot store this: No space left on device"
        running = asyncio.get_running_loop().create_task(link.run())
        async with asyncio.timeout(_WAIT_S):
            await told.lost.wait()
            assert told.losses[0] == e.WorkerLost("kitchen", device.lack, was_met=True)
            device.lack = ""
            await told.joined.wait()
        running.cancel()
        await asyncio.wait([running], timeout=_WAIT_S)


async def test_a_device_that_another_run_took_meanwhile_is_waited_for(tmp_path: Path) -> None:
    async with linked(tmp_path) as (device, link, told):
        running = asyncio.get_running_loop().create_task(link.run())
        async with asyncio.timeout(_WAIT_S):
            await told.joined.wait()
            told.joined.clear()
            await device.kill()
            device.fence, device.holder = 7, "another"
            await device.start()
            assert await told.warnings.get() == "another run has taken it: another run"
            assert [await device.fences.get() for _ in range(3)] == [1, 1, 8]
            device.holder = None
            await told.joined.wait()
        assert told.warnings.empty()
        assert not told.refused.is_set()
        running.cancel()
        await asyncio.wait([running], timeout=_WAIT_S)


async def test_a_device_that_another_run_takes_before_it_is_ready_is_waited_for(
    tmp_path: Path,
) -> None:
    async with linked(tmp_path) as (device, link, told):
        device.is_fenced = True
        running = asyncio.get_running_loop().create_task(link.run())
        async with asyncio.timeout(_WAIT_S):
            assert await told.warnings.get() == "another run has taken it: the fence is over"
            device.is_fenced = False
            await told.joined.wait()
        assert not told.refused.is_set()
        running.cancel()
        await asyncio.wait([running], timeout=_WAIT_S)


@pytest.mark.parametrize("is_taken_up", [False, True])
async def test_a_new_run_does_not_wait_for_a_device_that_another_has_and_one_taken_up_does(
    tmp_path: Path, is_taken_up: bool
) -> None:
    async with linked(tmp_path, is_taken_up=is_taken_up) as (device, link, told):
        device.holder = "another"
        running = asyncio.get_running_loop().create_task(link.run())
        async with asyncio.timeout(_WAIT_S):
            if is_taken_up:
                await told.warnings.get()
                device.holder = None
                await told.joined.wait()
            else:
                await told.refused.wait()
        running.cancel()
        await asyncio.wait([running], timeout=_WAIT_S)
