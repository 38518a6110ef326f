"""Virtual workers: the daemon's own trainer, run on the desktop without sockets.

A few trainer processes share one warm import of torch, and each serves many workers in turn. What
they compute is what devices with the same shards would.
"""

from __future__ import annotations

import asyncio
import os
from typing import assert_never

from fedconsole.coordinator import commands as c
from fedconsole.coordinator import events as e
from fedconsole.engine.delivery import deliver
from fedconsole.engine.store import Row
from fedconsole.engine.worker import Captured, EvaluationError, Job, Reports
from fedconsole.paths import data_dir
from pi_daemon.protocol import messages as m
from pi_daemon.trainer_pipe import BatchLosses, WorkerReady, WorkerSpec
from pi_daemon.trainer_process import (
    RoundAbortedError,
    TrainerExitedError,
    TrainerProcess,
    TrainerRefusal,
    start_trainers,
)

_NAMES = ("alice", "bob", "charlie")
_RESTART_S = 1.0


def virtual_name(index: int) -> str:
    """The first three are called as in every demonstration; then "virtual-0004" and so on."""
    return _NAMES[index] if index < len(_NAMES) else f"virtual-{index + 1:04d}"


class TrainerPool:
    """The trainer processes of one run; worker number n uses trainer n modulo their number."""

    def __init__(self, num_workers: int, device: str) -> None:
        self._device = device
        self._num_trainers = min(num_workers, os.cpu_count() or 1)
        self._trainers: list[TrainerProcess] = []
        self._lock = asyncio.Lock()

    async def trainer(self, index: int) -> TrainerProcess:
        """The trainer of a worker; started, or started anew if it has ended."""
        async with self._lock:
            if not self._trainers:
                self._trainers = await start_trainers(self._num_trainers, device=self._device)
            place = index % self._num_trainers
            if self._trainers[place].exit_reason is not None:
                (self._trainers[place],) = await start_trainers(device=self._device)
            return self._trainers[place]

    async def close(self) -> None:
        """End the trainers at once: nothing of theirs is needed any more."""
        for trainer in self._trainers:
            trainer.kill("is not needed any more")
        await asyncio.gather(*(trainer.exited() for trainer in self._trainers))


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
        self._trainer: TrainerProcess | None = None
        self._tasks: asyncio.TaskGroup | None = None
        self._is_closing = False

    async def run(self) -> None:
        # Before the task is captured: both import torch, and there is more than one core.
        await self._pool.trainer(self._index)
        captured = await asyncio.shield(self._job.captured)
        async with asyncio.TaskGroup() as self._tasks:
            while not self._is_closing:
                trainer = await self._pool.trainer(self._index)
                try:
                    ready = await trainer.prepare(self._spec(captured))
                except TrainerRefusal as refusal:
                    self._reports.event(e.WorkerRefused(self.worker_id, str(refusal)))
                    return
                except TrainerExitedError as error:
                    reason = str(error)
                else:
                    self._join(trainer, ready)
                    reason = f"its trainer {await trainer.exited()}"
                self._trainer = None
                if not self._is_closing:
                    self._reports.event(e.WorkerLost(self.worker_id, reason))
                    await asyncio.sleep(_RESTART_S)

    def send(self, command: c.WorkerCommand) -> None:
        if self._trainer is not None and self._tasks is not None:
            self._tasks.create_task(self._carry_out(self._trainer, command))

    async def evaluate(self, round_number: int, model_id: str) -> m.Evaluated:
        if (trainer := self._trainer) is None:
            raise EvaluationError("its trainer has ended")
        model = self._job.models[model_id]
        spec = self._spec(self._job.captured.result())
        try:
            found = await trainer.evaluate(spec, str(model.path), model.model_id)
        except (TrainerRefusal, TrainerExitedError) as error:
            raise EvaluationError(str(error)) from error
        return m.Evaluated("", round_number, found.num_examples, found.loss, found.confusion)

    async def close(self) -> None:
        self._is_closing = True

    def _join(self, trainer: TrainerProcess, ready: WorkerReady) -> None:
        self._trainer = trainer
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

    def _spec(self, captured: Captured) -> WorkerSpec:
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

    async def _carry_out(self, trainer: TrainerProcess, command: c.WorkerCommand) -> None:
        try:
            match command:
                case c.SendRound():
                    await self._train(trainer, command)
                case c.PauseWorker():
                    await trainer.pause(self.worker_id)
                    self._reports.event(e.WorkerPaused(self.worker_id))
                case c.ResumeWorker():
                    await trainer.resume(self.worker_id)
                case c.AbortWorker():
                    await trainer.abort(self.worker_id)
                    self._reports.event(e.WorkerAborted(self.worker_id))
                case c.AcceptUpdate() | c.RefuseUpdate():
                    pass  # the trainer wrote the very file that the run keeps or drops
                case _:
                    assert_never(command)
        except TrainerExitedError:
            pass  # reported by `run`

    async def _train(self, trainer: TrainerProcess, command: c.SendRound) -> None:
        model = self._job.models[command.model_id]
        path = self._job.store.new_update_path(command.round, self.worker_id)
        try:
            done = await trainer.train(
                self._spec(self._job.captured.result()),
                model_path=str(model.path),
                model_id=model.model_id,
                update_path=str(path),
                cursor=command.cursor,
                num_batches=command.num_batches,
                torch_seed=self._job.torch_seed(command),
                on_begun=lambda: self._note("worker.phase", round=command.round, phase="training"),
                on_losses=lambda losses: self._take_losses(command, losses),
            )
        except RoundAbortedError:
            return
        except TrainerRefusal as refusal:
            failed = e.TrainingFailed(self.worker_id, command.round, command.attempt, str(refusal))
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
        await deliver(self._job, self._reports, self.worker_id, update, path)

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
