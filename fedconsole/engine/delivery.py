"""Takes an update in: its file is checked and made durable before the run hears of it."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping
from pathlib import Path

from fedconsole.coordinator.events import UpdateDelivered, UpdateRejected
from fedconsole.engine.worker import Job, Reports
from pi_daemon.protocol.errors import TensorError
from pi_daemon.protocol.messages import Update
from pi_daemon.protocol.tensors import TensorSpec


async def deliver(job: Job, reports: Reports, worker_id: str, update: Update, path: Path) -> None:
    """Check an update that lies in `path`, make it durable, and report it."""
    captured = await asyncio.shield(job.captured)
    async with job.fit_checks:
        try:
            await asyncio.to_thread(_make_durable, path, captured.returned)
        except (TensorError, FileNotFoundError) as error:
            # Files of a round that has closed meanwhile are gone.
            is_late = isinstance(error, FileNotFoundError)
            reason = f"too late: round {update.round} is closed" if is_late else str(error)
            path.unlink(missing_ok=True)
            reports.event(UpdateRejected(worker_id, update.round, update.attempt, reason))
            return
    reports.event(
        UpdateDelivered(
            worker=worker_id,
            round=update.round,
            attempt=update.attempt,
            model_id=update.model_id,
            num_examples=update.num_examples,
            num_batches=update.num_batches,
            cursor=update.cursor,
            loss=update.loss,
            seconds=update.seconds,
            file=path.name,
            sha256=update.parameters.sha256,
        )
    )


def _make_durable(path: Path, expected: Mapping[str, TensorSpec]) -> None:
    """Check an update's tensors, then make the file outlive a power cut.

    Raises:
        TensorError: the update does not fit the model.
    """
    # torch takes more than a second to import: by now the engine has it.
    from fedconsole.learning.aggregation import require_fit
    from fedconsole.learning.model_files import fsync_folder

    require_fit(path, expected)
    with path.open("rb") as file:
        os.fsync(file.fileno())
    fsync_folder(path.parent)
