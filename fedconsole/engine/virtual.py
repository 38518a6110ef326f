"""Virtual workers: the daemon's own trainer, run on the desktop without sockets.

A few trainer processes, one for each core, share one warm import of torch and take whatever worker
is next. What they compute is what devices with the same shards would.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Final, assert_never

from fedconsole.coordinator import commands as c
from fedconsole.coordinator import events as e
from fedconsole.engine.delivery import deliver
from fedconsole.engine.store import Row
from fedconsole.engine.worker import Captured, EvaluationError, Job, Reports
from fedconsole.paths import data_dir
from pi_daemon.protocol import messages as m
from pi_daemon.trainer.pipe import BatchLosses, RoundTrained, WorkerReady, WorkerSpec
from pi_daemon.trainer.process import (
    RoundAbortedError,
    TrainerExitedError,
    TrainerProcess,
    TrainerRefusal,
    start_trainers,
)

_NAMES = ("alice", "bob", "charlie")
_RESTART_S: Final = 1.0
_REQUESTS_PER_TRAINER: Final = 2
"""One is carried out and the next one waits in the pipe: a trainer never waits for the engine."""


def virtual_name(index: int) -> str:
    """The first three are called as in every demonstration; then "virtual-0004" and so on."""
    return _NAMES[index] if index < len(_NAMES) else f"virtual-{index + 1:04d}"


class TrainerPool:
    """The trainer processes of one run, dealt out to whoever has waited longest."""

    def __init__(self, num_workers: int, device: str) -> None:
        self._device = device
        self._num_trainers = min(num_workers, os.cpu_count() or 1)
        self._trainers: list[TrainerProcess] = []
        self._starting = asyncio.Lock()
        self._places: asyncio.Queue[int] = asyncio.Queue()
        """Each a trainer's index, as often as it may be asked at a time."""
        for place in range(self._num_trainers * _REQUESTS_PER_TRAINER):
            self._places.put_nowait(place % self._num_trainers)
        self._is_closed = False

    async def start(self) -> None:
        """Start the trainers, unless they are; what is asked of them next waits less."""
        async with self._starting:
            if not self._trainers:
                self._trainers = await start_trainers(self._num_trainers, device=self._device)

    @asynccontextmanager
    async def trainer(self) -> AsyncIterator[TrainerProcess]:
        """A trainer, to be asked one thing; started anew if it has ended.

        Raises:
            TrainerExitedError: the pool is closed.
        """
        index = await self._places.get()
        try:
            async with self._starting:
                if self._is_closed:
                    raise TrainerExitedError("the trainers are not needed any more")
                if self._trainers[index].exit_reason is not None:
                    (self._trainers[index],) = await start_trainers(device=self._device)
            yield self._trainers[index]
        finally:
            self._places.put_nowait(index)

    async def close(self) -> None:
        """End the trainers at once: nothing of theirs is needed any more."""
        self._is_closed = True
        for trainer in self._trainers:
            trainer.kill("is not needed any more")
        await asyncio.gather(*(trainer.exited() for trainer in self._trainers))


@dataclass(eq=False, slots=True)
class _RoundInHand:
    """A round on its way through the pool."""

    task: asyncio.Task[None] | None = None
    may_begin: asyncio.Event = field(default_factory=asyncio.Event)
    trainer: TrainerProcess | None = None
    """Where it is trained now."""


class VirtualWorker:
    """One worker on this machine, with its shard of the task's training data."""

    bytes_sent = 0
    bytes_received = 0

    def __init__(self, index: int, job: Job, reports: Reports, pool: TrainerPool) -> None:
        self.worker_id = virtual_name(index)
        self.address = f"virtual:{index + 1}"
        self._index = index
        self._job = job
        self._reports = reports
        self._pool = pool
        self._tasks: asyncio.TaskGroup | None = None
        self._spec: WorkerSpec | None = None
        """None until it is known which data to train on."""
        self._round = _RoundInHand()
        """The newest one."""

    async def run(self) -> None:
        # Before the task is captured: both import torch, and there is more than one core.
        await self._pool.start()
        spec = self._spec = self._make_spec(await asyncio.shield(self._job.captured))
        async with asyncio.TaskGroup() as self._tasks:
            while True:
                try:
                    async with self._pool.trainer() as trainer:
                        ready = await trainer.prepare(spec)
                    break
                except TrainerRefusal as refusal:
                    self._reports.event(e.WorkerRefused(self.worker_id, str(refusal)))
                    return
                except TrainerExitedError as error:
                    self._reports.event(e.WorkerLost(self.worker_id, str(error)))
                    await asyncio.sleep(_RESTART_S)
            self._join(ready)
            await asyncio.Event().wait()  # until it is cancelled

    def send(self, command: c.WorkerCommand) -> None:
        if self._tasks is None:
            return  # it has not joined
        match command:
            case c.SendRound():
                self._round = round_ = _RoundInHand()
                round_.may_begin.set()
                round_.task = self._tasks.create_task(self._train(round_, command))
            case c.PauseWorker() | c.ResumeWorker() | c.AbortWorker():
                self._tasks.create_task(self._steer(self._round, command))
            case c.AcceptUpdate() | c.RefuseUpdate():
                pass  # the trainer wrote the very file that the run keeps or drops
            case _:
                assert_never(command)

    async def evaluate(self, round_number: int, model_id: str) -> m.Evaluated:
        if self._spec is None:
            raise EvaluationError("it has not joined")
        model = self._job.models[model_id]
        try:
            async with self._pool.trainer() as trainer:
                found = await trainer.evaluate(self._spec, str(model.path), model.model_id)
        except (TrainerRefusal, TrainerExitedError) as error:
            self._require_readable(model_id)
            raise EvaluationError(str(error)) from error
        return m.Evaluated("", round_number, found.num_examples, found.loss, found.confusion)

    async def close(self) -> None:
        """Nothing to release: the pool is closed after the workers."""

    def _join(self, ready: WorkerReady) -> None:
        self._job.prepared[self.worker_id] = m.Prepared(
            cmd_id="",
            num_examples=ready.num_examples,
            num_holdout=ready.num_holdout,
            batch_seconds=ready.batch_seconds,
            memory_bytes=ready.memory_bytes,
        )
        self._reports.event(
            e.WorkerJoined(
                worker=self.worker_id,
                address=self.address,
                device_id=self.address,
                num_examples=ready.num_examples,
                num_holdout=ready.num_holdout,
            )
        )

    def _make_spec(self, captured: Captured) -> WorkerSpec:
        plan = self._job.plan
        return WorkerSpec(
            worker_id=self.worker_id,
            dataset=captured.dataset,
            source=training_source(captured.dataset, plan.data_dir),
            shard=f"{self._index + 1}/{plan.virtual}",
            sample_shape=captured.sample_shape,
            sample_dtype=captured.sample_dtype,
            num_classes=captured.num_classes,
            batch_size=plan.batch_size,
            holdout=plan.holdout,
            order_seed=self._job.order_seed(self.worker_id),
            optimizer=self._job.optimizer,
            graphs_path=str(self._job.store.graphs_path),
            graphs_sha256=captured.graphs_sha256,
        )

    async def _steer(
        self, round_: _RoundInHand, command: c.PauseWorker | c.ResumeWorker | c.AbortWorker
    ) -> None:
        """Carry a command out where the round is: at a trainer, or still waiting for one."""
        trainer = round_.trainer
        try:
            match command:
                case c.PauseWorker():
                    round_.may_begin.clear()
                    if trainer is not None:
                        await trainer.pause(self.worker_id)
                    if round_.task is not None and not round_.task.done():
                        self._note("worker.phase", round=command.round, phase="paused")
                    self._reports.event(e.WorkerPaused(self.worker_id))
                case c.ResumeWorker():
                    round_.may_begin.set()
                    if trainer is not None:
                        await trainer.resume(self.worker_id)
                        self._note("worker.phase", round=command.round, phase="training")
                case c.AbortWorker():
                    if trainer is not None:
                        await trainer.abort(self.worker_id)
                    elif round_.task is not None:
                        round_.task.cancel()
                    self._reports.event(e.WorkerAborted(self.worker_id))
        except TrainerExitedError:
            pass  # the round fails with it, and that is reported

    async def _train(self, round_: _RoundInHand, command: c.SendRound) -> None:
        path = self._job.store.new_update_path(command.round, self.worker_id)
        try:
            async with self._pool.trainer() as trainer:
                await round_.may_begin.wait()
                round_.trainer = trainer
                try:
                    done = await self._train_at(trainer, command, str(path))
                finally:
                    round_.trainer = None
        except RoundAbortedError:
            return
        except (TrainerRefusal, TrainerExitedError) as error:
            self._require_readable(command.model_id)
            failed = e.TrainingFailed(self.worker_id, command.round, command.attempt, str(error))
            self._reports.event(failed)
            return
        self._note("worker.phase", round=command.round, phase="waiting")
        update = m.Update(
            run=self._job.run_id,
            round=command.round,
            attempt=command.attempt,
            model_id=command.model_id,
            num_examples=done.num_examples,
            num_batches=done.num_batches,
            loss=done.loss,
            seconds=done.seconds,
            cursor=done.cursor,
            parameters=m.Blob(0, done.update_bytes, done.update_sha256),
        )
        # A power cut ends the trainers as well: what it takes with it is trained again.
        try:
            await deliver(
                self._job, self._reports, self.worker_id, update, path, has_travelled=False
            )
        except OSError as error:
            self._require_readable(command.model_id)
            reason = f"cannot read the update: {error}"
            self._reports.event(
                e.TrainingFailed(self.worker_id, command.round, command.attempt, reason)
            )

    def _require_readable(self, model_id: str) -> None:
        """Where a trainer has failed it may be for want of the model; raises StorageError then."""
        model = self._job.models.get(model_id)
        if model is None:
            return  # its rounds are over
        try:
            model.path.open("rb").close()
        except OSError as error:
            raise self._job.unreadable(error) from error

    async def _train_at(
        self, trainer: TrainerProcess, command: c.SendRound, path: str
    ) -> RoundTrained:
        assert self._spec is not None
        model = self._job.models[command.model_id]
        return await trainer.train(
            self._spec,
            model_path=str(model.path),
            model_id=model.model_id,
            update_path=path,
            cursor=command.cursor,
            num_batches=command.num_batches,
            torch_seed=self._job.torch_seed(command),
            on_begun=lambda: self._note("worker.phase", round=command.round, phase="training"),
            on_losses=lambda losses: self._take_losses(command, losses),
        )

    def _take_losses(self, command: c.SendRound, losses: BatchLosses) -> None:
        self._note(
            "worker.batches",
            round=command.round,
            first=losses.first,
            batches=command.num_batches,
            losses=losses.losses,
        )

    def _note(self, line_type: str, **fields: object) -> None:
        self._reports.note(Row(line_type, {"worker": self.worker_id, **fields}))


def training_source(dataset: str, given: str | None) -> str:
    """Where a dataset's training part lies on the desktop, as in `--dataset NAME=SOURCE`.

    In the folder of `--data-dir`: NAME.npz, NAME.safetensors or a folder NAME, else the folder
    itself. `digits` is the built-in sample.
    """
    if dataset == "digits" and given is None:
        return "sample"
    folder = data_dir(given)
    for path in (folder / f"{dataset}.npz", folder / f"{dataset}.safetensors", folder / dataset):
        if path.exists():
            return str(path)
    return str(folder)
