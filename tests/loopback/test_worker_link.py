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

    def event(self, event: e.Event) -> None:
        if isinstance(event, e.WorkerJoined):
            self.joined.set()
        elif isinstance(event, e.WorkerLost):
            self.lost.set()

    def note(self, row: Row) -> None:
        pass


@asynccontextmanager
async def linked(folder: Path) -> AsyncIterator[tuple[EchoDaemon, WorkerLink, Told]]:
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
    job = Job("20261122-a3f9", plan, console_hello(m.Role.CONTROLLER), store, captured, names)
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


async def test_a_device_that_does_not_get_ready_is_missed_by_name_and_joins_when_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker_link, "PREPARE_S", 0.2)
    async with linked(tmp_path) as (device, link, told):
        device.may_prepare.clear()
        running = asyncio.get_running_loop().create_task(link.run())
        async with asyncio.timeout(_WAIT_S):
            await told.lost.wait()
            assert not told.joined.is_set()
            device.may_prepare.set()
            await told.joined.wait()
        running.cancel()
        await asyncio.wait([running], timeout=_WAIT_S)
