"""Takes an update in: its file is checked, and made durable, before the run hears of it."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from pathlib import Path

from fedconsole.coordinator.events import UpdateDelivered, UpdateRejected
from fedconsole.engine.worker import Job, Reports
from pi_daemon.durable import sync
from pi_daemon.protocol.errors import TensorError
from pi_daemon.protocol.messages import Update
from pi_daemon.protocol.tensors import TensorSpec


async def deliver(
    job: Job,
    reports: Reports,
    worker_id: str,
    update: Update,
    path: Path,
    *,
    has_travelled: bool = True,
) -> None:
    """Check an update that lies in `path`, and report it.

    Args:
        has_travelled: its bytes came over a link: their hash is still to be checked, and they are
            to outlive a power cut, because their sender forgets them.
    """
    captured = await asyncio.shield(job.captured)
    try:
        await asyncio.to_thread(_take_in, update, path, captured.returned, has_travelled)
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


def _take_in(
    update: Update, path: Path, expected: Mapping[str, TensorSpec], has_travelled: bool
) -> None:
    """
    Raises:
        TensorError: the bytes are not those that were announced, or do not fit the model.
    """
    # torch takes more than a second to import: by now the engine has it.
    from fedconsole.learning.aggregation import require_fit

    if not has_travelled:
        require_fit(path, expected)
        return
    require_fit(path, expected, update.parameters.sha256)
    sync(path)
    sync(path.parent)
