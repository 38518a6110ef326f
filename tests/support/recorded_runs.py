"""A short run that the real engine session carries on devices that are made up, and whose folder is recorded.

In one process, in a second or two: many tests can look at what each moment of it would leave on a disk.
"""

from __future__ import annotations

import asyncio
import hashlib
import shutil
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

import msgspec
import pytest
import safetensors.torch
import torch

from fedconsole.coordinator import commands as c
from fedconsole.coordinator import events as e
from fedconsole.coordinator import machine
from fedconsole.coordinator.plan import Plan
from fedconsole.dialling import console_hello
from fedconsole.engine import session, work
from fedconsole.engine.delivery import deliver
from fedconsole.engine.going_back import go_back_to_whole_model, tell_lost_end
from fedconsole.engine.lookout import Lookout
from fedconsole.engine.session import Session
from fedconsole.engine.store import Line, Row, RunStore
from fedconsole.engine.worker import Job, Reports
from fedconsole.errors import ExitCode
from fedconsole.learning.capture import CapturedModel, capture
from fedconsole.learning.model_files import ModelFile
from fedconsole.learning.tasks.task import Task
from pi_daemon.learning.files import write_update
from pi_daemon.protocol import messages as m
from pi_daemon.protocol.graphs import decode_graphs
from tests.support.power_cut.recording import Recording

PLAN = Plan(
    workers=("alice:10002", "bob:10002", "charlie:10002"), rounds=4, federate_after_n_batches=3
)
LOCAL = "charlie"
"""Its updates are written as a virtual worker's trainer does it: nobody syncs them."""
BATCHES_PER_EPOCH = 10
CHUNK_BYTES = 10_000
RUN = "20261126-1200"


class Known(NamedTuple):
    """How much of a store had been committed."""

    num_events: int
    num_lines: int


@dataclass(frozen=True)
class Recorded:
    """An undisturbed run."""

    recording: Recording
    folder: Path
    events: Sequence[bytes]
    lines: Sequence[Line]
    graphs: bytes
    model_id: str


class Device:
    """In place of a link to a device: trains what is sent to it, in no time and always the same."""

    bytes_sent = bytes_received = 0

    def __init__(self, address: str, job: Job, reports: Reports, _lookout: Lookout) -> None:
        self.address = address
        self.worker_id = address
        name = address.partition(":")[0]
        self.hello = msgspec.structs.replace(
            console_hello(m.Role.CONTROLLER), id=f"device of {name}", name=name
        )
        self.has_answered = asyncio.Event()
        self._job = job
        self._reports = reports
        self._tasks: asyncio.TaskGroup | None = None

    async def run(self) -> None:
        self.has_answered.set()
        await asyncio.shield(self._job.captured)
        await asyncio.shield(self._job.names)
        self.worker_id = self._job.name_of(self.hello)
        async with asyncio.TaskGroup() as self._tasks:
            joined = e.WorkerJoined(
                worker=self.worker_id,
                address=self.address,
                device_id=self.hello.id,
                num_examples=BATCHES_PER_EPOCH * PLAN.batch_size,
            )
            self._reports.event(joined)
            await asyncio.Event().wait()  # until it is cancelled

    def send(self, command: c.WorkerCommand) -> None:
        if isinstance(command, c.SendRound):
            assert self._tasks is not None
            self._tasks.create_task(self._train(command))

    async def evaluate(self, round_number: int, model_id: str) -> m.Evaluated:
        raise AssertionError("nothing is held out")

    async def close(self) -> None:
        pass

    async def _train(self, command: c.SendRound) -> None:
        captured = await asyncio.shield(self._job.captured)
        graphs = decode_graphs(captured.graphs)
        model = ModelFile.open(self._job.models[command.model_id].path)
        seed = zlib.crc32(f"{self.worker_id}, round {command.round}".encode())
        generator = torch.Generator().manual_seed(seed)
        state = {
            tensor.name: (old := model.tensor(tensor.name))
            + 0.01 * torch.randn(old.shape, generator=generator)
            for tensor in graphs.returned
        }
        place = {"worker": self.worker_id, "round": command.round, "first": 0, "batches": 50}
        self._reports.note(Row("worker.batches", place | {"losses": [0.5] * 50}))
        path = self._job.store.new_update_path(command.round, self.worker_id)
        if self.worker_id == LOCAL:
            size, sha256 = write_update(str(path), graphs.returned, state)
        else:
            content = safetensors.torch.save(state)
            size, sha256 = len(content), hashlib.sha256(content).hexdigest()
            with path.open("xb") as file:
                for begin in range(0, size, CHUNK_BYTES):
                    file.write(content[begin : begin + CHUNK_BYTES])
                    await asyncio.sleep(0)
        epochs, batch = divmod(command.cursor.batch + command.num_batches, BATCHES_PER_EPOCH)
        update = m.Update(
            run=self._job.run_id,
            round=command.round,
            attempt=command.attempt,
            model_id=command.model_id,
            num_examples=command.num_batches * PLAN.batch_size,
            num_batches=command.num_batches,
            loss=0.5,
            seconds=0.1,
            cursor=m.Cursor(command.cursor.epoch + epochs, batch),
            parameters=m.Blob(1, size, sha256),
        )
        has_travelled = self.worker_id != LOCAL
        await deliver(
            self._job, self._reports, self.worker_id, update, path, has_travelled=has_travelled
        )


class CapturedOnce:
    """In place of `capture`, which takes seconds: every run here has the same task."""

    def __init__(self) -> None:
        self._captured: CapturedModel | None = None

    def __call__(self, task: Task, batch_size: int, seed: int = 1) -> CapturedModel:
        if self._captured is None:
            self._captured = capture(task, batch_size, seed)
        return self._captured


@contextmanager
def made_up_devices() -> Iterator[None]:
    """Meanwhile every session has these instead of links."""
    with pytest.MonkeyPatch.context() as patches:
        patches.setattr(session, "WorkerLink", Device)
        patches.setattr(work, "capture", CapturedOnce())
        yield


def record(runs: Path, *, is_folder_recorded: bool = False) -> Recorded:
    """Carry a run in a folder of runs, from its beginning or where it stopped.

    Args:
        is_folder_recorded: the run's folder is new, and its name not on the disk for certain.
    """
    folder = runs / RUN
    if not is_folder_recorded:
        folder.mkdir(exist_ok=True)
    known = known_in(folder)
    with Recording(runs) as recording:
        recording.mark(known)
        folder.mkdir(exist_ok=True)  # as `start_engine` does
        exit_code, events, lines = carry(folder, recording)
    assert exit_code is ExitCode.COMPLETED
    state = machine.replay(decode(events))
    graphs = (folder / "graphs.json").read_bytes()
    return Recorded(recording, folder, events, lines, graphs, state.model_id)


def known_in(folder: Path) -> Known:
    """What the disk holds before an engine begins."""
    if not folder.exists():
        return Known(0, 0)
    with TemporaryDirectory() as copy:
        store = RunStore(Path(shutil.copytree(folder, Path(copy) / RUN)))
        known = committed(store)
        store.close()
    return known


def committed(store: RunStore) -> Known:
    return Known(len(list(store.events())), store.last_seq)


def carry(
    folder: Path, recording: Recording | None = None
) -> tuple[ExitCode, list[bytes], list[Line]]:
    """Do what an engine process does with a folder; gives all that is in the journal then."""

    async def engine() -> tuple[ExitCode, list[bytes], list[Line]]:
        loop = asyncio.get_running_loop()
        store = RunStore(folder)
        tell_lost_end(store)
        left = go_back_to_whole_model(store)
        if recording is not None:
            store.on_change = lambda: recording.mark(committed(store))
        job = Job(
            run_id=folder.name,
            plan=PLAN,
            hello=console_hello(m.Role.CONTROLLER),
            store=store,
            captured=loop.create_future(),
            names=loop.create_future(),
        )
        try:
            exit_code = await Session(job, left).run()
        finally:
            events, lines = list(store.events()), store.lines(1, 1_000_000)
            store.close()
        return exit_code, events, lines

    return asyncio.run(engine())


def decode(events: Sequence[bytes]) -> list[e.Event]:
    return [msgspec.json.decode(event, type=e.Event) for event in events]
