from __future__ import annotations

import asyncio
import hashlib
from pathlib import Path

import pytest
import torch

from fedconsole.coordinator.events import Event, UpdateDelivered, UpdateRejected
from fedconsole.coordinator.plan import Plan
from fedconsole.dialling import console_hello
from fedconsole.engine.delivery import deliver
from fedconsole.engine.store import Row, RunStore
from fedconsole.engine.worker import Captured, Job
from fedconsole.learning.model_files import spec_of, write_model
from pi_daemon.protocol import messages as m

X = torch.arange(6, dtype=torch.float32)
RETURNED = {"x": spec_of(X)}


class Reports:
    def __init__(self) -> None:
        self.events: list[Event] = []

    def event(self, event: Event) -> None:
        self.events.append(event)

    def note(self, row: Row) -> None:
        raise AssertionError(f"a delivery notes nothing: {row}")


@pytest.fixture
async def job(tmp_path: Path) -> Job:
    loop = asyncio.get_running_loop()
    captured: asyncio.Future[Captured] = loop.create_future()
    captured.set_result(
        Captured(
            graphs=b"",
            graphs_sha256="",
            returned=RETURNED,
            dataset="digits",
            sample_shape=(8, 8),
            sample_dtype="uint8",
            num_classes=10,
        )
    )
    return Job(
        run_id="r1",
        plan=Plan(virtual=1),
        hello=console_hello(m.Role.CONTROLLER),
        store=RunStore(tmp_path / "r1"),
        captured=captured,
        names=loop.create_future(),
    )


def announced(path: Path, sha256: str) -> m.Update:
    return m.Update(
        run="r1",
        round=1,
        attempt=1,
        model_id="0" * 64,
        num_examples=32,
        num_batches=1,
        loss=0.5,
        seconds=0.1,
        cursor=m.Cursor(0, 1),
        parameters=m.Blob(1, path.stat().st_size, sha256),
    )


async def delivered(job: Job, path: Path, sha256: str, *, has_travelled: bool) -> Event:
    reports = Reports()
    update = announced(path, sha256)
    await deliver(job, reports, "alice", update, path, has_travelled=has_travelled)
    (event,) = reports.events
    return event


async def test_an_update_that_came_with_its_hash_is_delivered(job: Job) -> None:
    path = job.store.new_update_path(1, "alice")
    sha256 = write_model(path, RETURNED, lambda name: [X]).sha256
    event = await delivered(job, path, sha256, has_travelled=True)
    assert isinstance(event, UpdateDelivered)
    assert (event.file, event.sha256) == (path.name, sha256)


async def test_an_update_with_other_bytes_than_announced_is_rejected_and_deleted(job: Job) -> None:
    path = job.store.new_update_path(1, "alice")
    write_model(path, RETURNED, lambda name: [X])
    sha256 = hashlib.sha256(b"something else").hexdigest()
    assert await delivered(job, path, sha256, has_travelled=True) == UpdateRejected(
        "alice", 1, 1, "the SHA-256 of the bytes is not the one that was announced"
    )
    assert not path.exists()


async def test_an_update_whose_round_has_closed_meanwhile_is_late(job: Job) -> None:
    path = job.store.new_update_path(1, "alice")
    update = announced(Path(__file__), "0" * 64)
    reports = Reports()
    await deliver(job, reports, "alice", update, path)
    assert reports.events == [UpdateRejected("alice", 1, 1, "too late: round 1 is closed")]


async def test_an_update_that_was_written_here_needs_no_hash(job: Job) -> None:
    path = job.store.new_update_path(1, "alice")
    write_model(path, RETURNED, lambda name: [X])
    event = await delivered(job, path, "0" * 64, has_travelled=False)
    assert isinstance(event, UpdateDelivered)
