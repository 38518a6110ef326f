from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
import torch
from msgspec.structs import replace

from fedconsole.coordinator.events import Event, UpdateDelivered, UpdateRejected
from fedconsole.engine.delivery import deliver
from fedconsole.engine.store import Row
from fedconsole.engine.worker import Job, ModelOnDisk
from fedconsole.errors import DamagedModelError
from fedconsole.learning.model_files import spec_of, write_model
from pi_daemon.protocol import messages as m
from pi_daemon.protocol.errors import TransferError
from tests.support.jobs import a_job

X = torch.arange(6, dtype=torch.float32)
RETURNED = {"x": spec_of(X)}
PICKLE = b"\x80\x04cos\nsystem\n(S'true'\ntR."


class Reports:
    def __init__(self) -> None:
        self.events: list[Event] = []
        self.rows: list[Row] = []

    def event(self, event: Event) -> None:
        self.events.append(event)

    def note(self, row: Row) -> None:
        self.rows.append(row)


@pytest.fixture
async def job(tmp_path: Path) -> Job:
    return a_job(tmp_path / "r1", RETURNED, parameters=("x",))


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


async def test_an_update_with_other_bytes_than_announced_is_deleted_and_blamed_on_the_link(
    job: Job,
) -> None:
    path = job.store.new_update_path(1, "alice")
    write_model(path, RETURNED, lambda name: [X])
    sha256 = hashlib.sha256(b"something else").hexdigest()
    reports = Reports()
    with pytest.raises(TransferError, match="is not the one that was announced"):
        await deliver(job, reports, "alice", announced(path, sha256), path)
    assert reports.events == []
    assert not path.exists()


async def test_an_update_whose_round_has_closed_meanwhile_is_late(job: Job) -> None:
    path = job.store.new_update_path(1, "alice")
    update = announced(Path(__file__), "0" * 64)
    reports = Reports()
    await deliver(job, reports, "alice", update, path)
    assert reports.events == [UpdateRejected("alice", 1, 1, "too late: round 1 is closed")]


async def test_a_model_that_is_gone_is_no_fault_of_its_update(job: Job, tmp_path: Path) -> None:
    model = tmp_path / "model"
    job.models["0" * 64] = ModelOnDisk(model, "0" * 64, "0" * 64, 0)
    path = job.store.new_update_path(1, "alice")
    sha256 = write_model(path, RETURNED, lambda name: [X]).sha256
    reports = Reports()
    with pytest.raises(DamagedModelError, match=f"^cannot go on: {model} is gone; .* resume r1$"):
        await deliver(job, reports, "alice", announced(path, sha256), path)
    assert reports.events == []


async def test_an_update_that_was_written_here_needs_no_hash(job: Job) -> None:
    path = job.store.new_update_path(1, "alice")
    write_model(path, RETURNED, lambda name: [X])
    event = await delivered(job, path, "0" * 64, has_travelled=False)
    assert isinstance(event, UpdateDelivered)


async def test_an_update_of_another_run_is_thrown_away_with_a_warning(job: Job) -> None:
    path = job.store.new_update_path(1, "alice")
    sha256 = write_model(path, RETURNED, lambda name: [X]).sha256
    reports = Reports()
    await deliver(job, reports, "alice", replace(announced(path, sha256), run="r2"), path)
    assert reports.events == []
    assert [row.fields["text"] for row in reports.rows] == ["it sent an update of another run: r2"]
    assert not path.exists()


@pytest.mark.parametrize(("factor", "is_taken"), [(1.0, True), (900.0, True), (1e6, False)])
async def test_an_update_that_blows_the_model_up_is_rejected(
    job: Job, tmp_path: Path, factor: float, is_taken: bool
) -> None:
    model = tmp_path / "model"
    written = write_model(model, RETURNED, lambda name: [X])
    job.models["0" * 64] = ModelOnDisk(model, "0" * 64, written.sha256, written.size)
    path = job.store.new_update_path(1, "alice")
    sha256 = write_model(path, RETURNED, lambda name: [X * factor]).sha256
    event = await delivered(job, path, sha256, has_travelled=True)
    if is_taken:
        assert isinstance(event, UpdateDelivered)
    else:
        # 0 to 5 have a root mean square of 3.03.
        assert event == UpdateRejected(
            "alice",
            1,
            1,
            "its parameters are too large: their root mean square is 3.03e+06, "
            "at most 3.03e+03 allowed",
        )
    assert path.exists() is is_taken


async def test_a_pickle_is_rejected_without_being_unpickled(
    job: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise AssertionError("something is unpickled")

    for name in ("pickle.load", "pickle.loads", "pickle.Unpickler", "torch.load"):
        monkeypatch.setattr(name, fail)
    path = job.store.new_update_path(1, "alice")
    path.write_bytes(PICKLE)
    sha256 = hashlib.sha256(PICKLE).hexdigest()
    event = await delivered(job, path, sha256, has_travelled=True)
    assert isinstance(event, UpdateRejected)
    assert event.reason.startswith("tensor header of ")
    assert not path.exists()
