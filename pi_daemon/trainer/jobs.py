"""Carries out what the device wants of its trainer, and tells it what came of it."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

from pi_daemon.audit.auditing import Audit
from pi_daemon.device import actions
from pi_daemon.device.actions import Action
from pi_daemon.device.device import Device
from pi_daemon.device.work import worker_spec
from pi_daemon.protocol.messages import Abort, Pause, Prepare, RefusalCode, Resume
from pi_daemon.protocol.text import clean
from pi_daemon.server.data_store import DataStore
from pi_daemon.settings import Settings
from pi_daemon.trainer.pipe import BatchLosses, ModelEvaluated, WorkerSpec
from pi_daemon.trainer.process import RoundAbortedError, TrainerExitedError, TrainerRefusal
from pi_daemon.trainer.warm import WarmTrainer, failure
from pi_daemon.trainer.work_files import WorkFiles

log = logging.getLogger(__name__)


class TrainerJobs:
    def __init__(
        self,
        device: Device,
        trainer: WarmTrainer,
        files: WorkFiles,
        settings: Settings,
        store: DataStore | None,
        audit: Audit,
        do: Callable[[list[Action]], None],
    ) -> None:
        """`do` carries out what the device wants next."""
        self._device = device
        self._trainer = trainer
        self._files = files
        self._settings = settings
        self._store = store
        self._audit = audit
        self._do = do

    async def prepare(self, action: actions.PrepareWorker) -> None:
        device, ticket = self._device, action.ticket
        worker = self._worker(action.prepare)

        def is_wanted() -> bool:
            return device.is_wanted(ticket)

        try:
            self._files.keep_only(action.prepare.graphs.sha256)
            try:
                ready = await self._trainer.ask(lambda t: t.prepare(worker), is_wanted)
            except TrainerExitedError as error:  # by chance, or of what it was asked for?
                log.warning("preparing again: %s", clean(str(error)))
                ready = await self._trainer.ask(lambda t: t.prepare(worker), is_wanted)
        except (TrainerRefusal, TrainerExitedError, OSError) as error:
            self._do(device.on_prepare_failed(ticket, *failure(error), time.monotonic()))
        else:
            self._do(device.on_prepared(ticket, ready, time.monotonic()))

    async def train(self, action: actions.TrainModel) -> None:
        device, ticket, start = self._device, action.ticket, action.start

        def on_begun() -> None:
            self._do(device.on_begun(ticket, time.monotonic()))

        def on_losses(told: BatchLosses) -> None:
            self._do(device.on_losses(ticket, told.losses, time.monotonic()))

        worker = self._worker(action.prepare)
        try:
            self._files.keep_only(action.prepare.graphs.sha256, action.model_sha256)
            self._files.need_room_for_update(action.model_sha256)
            trained = await self._trainer.ask(
                lambda trainer: trainer.train(
                    worker,
                    model_path=str(self._files.path(action.model_sha256)),
                    model_id=start.model_id,
                    update_path=str(self._files.update(ticket)),
                    cursor=start.cursor,
                    num_batches=start.num_batches,
                    torch_seed=int(start.torch_seed),
                    on_begun=on_begun,
                    on_losses=on_losses,
                )
            )
        except RoundAbortedError:
            self._files.drop_update(ticket)
        except (TrainerRefusal, TrainerExitedError, OSError) as error:
            # A part of it may be there: on a full disk that is in the way of the next.
            self._files.drop_update(ticket)
            log.warning("round %s failed: %s", start.round, clean(str(error)))
            self._do(device.on_training_failed(ticket, *failure(error), time.monotonic()))
        else:
            self._audit.trained(start, trained)
            self._do(device.on_trained(ticket, trained, time.monotonic()))

    async def evaluate(self, action: actions.EvaluateModel) -> None:
        worker = self._worker(action.prepare)
        path = str(self._files.path(action.model_sha256))
        outcome: ModelEvaluated | tuple[RefusalCode, str]
        try:
            self._files.keep_only(action.prepare.graphs.sha256, action.model_sha256)
            outcome = await self._trainer.ask(
                lambda trainer: trainer.evaluate(worker, path, action.evaluate.model_id)
            )
        except (TrainerRefusal, TrainerExitedError, OSError) as error:
            outcome = failure(error)
        self._do(self._device.on_evaluated(action.evaluate, outcome, time.monotonic()))

    async def control(self, action: actions.Control) -> None:
        worker_id, command = action.worker_id, action.command
        try:
            match command:
                case Abort():
                    await self._trainer.stop(lambda trainer: trainer.abort(worker_id))
                case Pause():
                    await self._trainer.ask(lambda trainer: trainer.pause(worker_id))
                case Resume():
                    await self._trainer.ask(lambda trainer: trainer.resume(worker_id))
        except TrainerExitedError:
            # Its training has failed with it, and the device was told so.
            pass
        self._do(self._device.on_controlled(command, time.monotonic()))

    async def forget(self, worker_id: str) -> None:
        await self._trainer.stop(lambda trainer: trainer.forget(worker_id))

    def _worker(self, prepare: Prepare) -> WorkerSpec:
        source, shard = self._settings.sources.get(prepare.dataset), self._settings.shard
        if source is None:
            assert self._store is not None  # dealt, and therefore a shard already
            source, shard = str(self._store.path_of(prepare.dataset)), None
        graphs_path = self._files.path(prepare.graphs.sha256)
        return worker_spec(prepare, source, shard, str(graphs_path))
