"""Carries out what the machine wants done on this desktop: average, evaluate, save. In threads."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from fedconsole.coordinator import commands as c
from fedconsole.coordinator import events as e
from fedconsole.engine.store import Row, RunStore, is_outdated
from fedconsole.engine.worker import EvaluationError, Job, Reports, Worker
from pi_daemon.protocol.errors import TensorError

if TYPE_CHECKING:
    from fedconsole.engine.work import Work


class Chores:
    """Each reports one event: what came of it.

    Raises:
        StorageError: from every method: a file of the run is gone.
    """

    def __init__(self, work: Work, job: Job, store: RunStore, reports: Reports) -> None:
        self._work = work
        self._job = job
        self._store = store
        self._reports = reports

    async def aggregate(self, command: c.Aggregate, base_id: str) -> None:
        """`base_id`: the model that the round began with."""
        base = self._job.models[base_id]
        try:
            model = await asyncio.to_thread(
                self._work.aggregate, command.round, base, command.updates
            )
        except FileNotFoundError as error:
            raise self._job.unreadable(error) from error
        except OSError as error:
            self._refused(f"the model of round {command.round}", error)
            return
        except TensorError as error:
            reason = f"an update changed on disk: {error}"
            self._reports.event(e.AggregationFailed(command.round, reason))
            return
        self._job.models[model.model_id] = model
        self._reports.event(e.ModelAggregated(command.round, model.model_id))

    async def evaluate(self, command: c.Evaluate) -> None:
        model = self._job.models[command.model_id]
        try:
            event = await asyncio.to_thread(self._work.evaluate, command.round, model)
        except FileNotFoundError as error:
            raise self._job.unreadable(error) from error
        except OSError as error:
            reason = f"cannot read the model of round {command.round}: {error}"
            self._reports.event(e.StorageFailed(reason))
            return
        except (ValueError, RuntimeError) as error:
            self._reports.event(e.EvaluationFailed(round=command.round, reason=str(error)))
            return
        self._reports.event(event)

    async def evaluate_on(self, worker: Worker, command: c.EvaluateOnWorkers) -> None:
        name = worker.worker_id
        try:
            found = await worker.evaluate(command.round, command.model_id)
        except EvaluationError as error:
            failed = e.EvaluationFailed(round=command.round, reason=str(error), worker=name)
            self._reports.event(failed)
            return
        self._reports.event(self._work.assess(command.round, found, name))

    async def save_round(self, command: c.SaveRound) -> None:
        # The average was written through to the disk: what is left is to name it in the journal.
        model = self._job.models[command.model_id]
        try:
            await asyncio.to_thread(self._work.publish, model)
        except FileNotFoundError as error:
            raise self._job.unreadable(error) from error
        except OSError as error:
            self._refused(f"the model of round {command.round}", error)
            return
        self._reports.event(e.RoundSaved(command.round, model.path.name, model.sha256))

    async def tidy(self, round_number: int) -> None:
        """Beside the next round: to delete large files takes as long as to write them. No event."""
        # First: whoever misses a file of a model that is here knows that the run has not deleted it.
        for model_id, model in list(self._job.models.items()):
            if is_outdated(model.path, round_number):
                del self._job.models[model_id]
        try:
            await asyncio.to_thread(self._store.tidy, round_number)
        except (OSError, ValueError) as error:
            self._reports.note(Row("warning", {"text": f"cannot tidy the run's folder: {error}"}))

    async def save_model(self, command: c.SaveModel) -> None:
        try:
            path = await asyncio.to_thread(self._work.save, self._job.models[command.model_id])
        except OSError as error:
            self._refused("the model", error)
        else:
            self._reports.event(e.ModelSaved(str(path)))

    def _refused(self, what: str, error: OSError) -> None:
        self._reports.event(e.StorageFailed(f"cannot write {what}: {error}"))
