"""Whether each worker could take part in a run, found out by making it ready, without training."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import suppress
from typing import Final

from fedconsole.coordinator import events as e
from fedconsole.coordinator.quorum import PREPARE_S
from fedconsole.engine.store import Line, Row
from fedconsole.engine.worker import Job, Worker
from fedconsole.engine.worker_link import WorkerLink
from fedconsole.errors import ExitCode

_MEASURED_S: Final = 3.0
"""A device tells its health every 2 s; another kind of worker may never."""

Problem = tuple[str, ExitCode]


async def preflight(
    workers: Sequence[Worker], job: Job, events: asyncio.Queue[e.Event | None]
) -> AsyncIterator[tuple[Row, Problem | None]]:
    """A `preflight` line for each worker as it answers, and what is wrong with it, if anything."""
    waiting = list(workers)
    deadline = asyncio.get_running_loop().time() + PREPARE_S
    while waiting:
        try:
            async with asyncio.timeout_at(deadline):
                event = await events.get()
        except TimeoutError:
            for worker in waiting:
                yield _answer(worker, job, ("no answer in time", ExitCode.NO_QUORUM))
            return
        match event:
            case e.WorkerJoined(worker=name):
                problem = None
            case e.WorkerRefused(worker=name, reason=reason, exit_code=code):
                problem = reason, code
            case e.WorkerLost(worker=name, reason=reason):
                problem = reason, ExitCode.NO_QUORUM
            case e.AbortRequested():
                text = "aborted by the operator"
                yield Row("log", {"text": text}), (text, ExitCode.ABORTED)
                return
            case _:
                continue
        found = next((worker for worker in waiting if worker.worker_id == name), None)
        if found is not None:
            waiting.remove(found)
            if problem is None and isinstance(found, WorkerLink):
                with suppress(TimeoutError):
                    await asyncio.wait_for(found.notes.has_measured.wait(), _MEASURED_S)
            yield _answer(found, job, problem)


def _answer(worker: Worker, job: Job, problem: Problem | None) -> tuple[Row, Problem | None]:
    fields: Line = {
        "worker": worker.worker_id,
        "address": worker.address,
        "ok": problem is None,
        "reason": problem[0] if problem else None,
    }
    if (prepared := job.prepared.get(worker.worker_id)) is not None:
        fields |= {
            "num_examples": prepared.num_examples,
            "num_holdout": prepared.num_holdout,
            "batch_seconds": prepared.batch_seconds,
            "memory_bytes": prepared.memory_bytes,
        }
    if isinstance(worker, WorkerLink) and worker.hello is not None:
        capabilities = worker.hello.capabilities
        fields |= {
            "torch": capabilities.torch if capabilities else None,
            "machine": capabilities.machine if capabilities else None,
            "dataset": job.captured.result().dataset,
            "worries": worker.notes.worries,
        }
    if problem is not None:
        problem = f"{worker.worker_id} cannot take part: {problem[0]}", problem[1]
    return Row("preflight", fields), problem
