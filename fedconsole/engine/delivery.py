"""Takes an update in: its file is checked, and made durable, before the run hears of it."""

from __future__ import annotations

import asyncio
import shutil
from contextlib import suppress
from pathlib import Path

from fedconsole.coordinator.answers import too_late
from fedconsole.coordinator.events import UpdateDelivered, UpdateRejected
from fedconsole.engine.connection import Connection
from fedconsole.engine.ledger import RETRY_S
from fedconsole.engine.store import Row
from fedconsole.engine.worker import Captured, Job, Reports
from pi_daemon.durable import sync
from pi_daemon.protocol.errors import TensorError, TransferError
from pi_daemon.protocol.messages import Update
from pi_daemon.protocol.text import clean


async def deliver_or_hang_up(
    connection: Connection,
    job: Job,
    reports: Reports,
    worker_id: str,
    update: Update,
    path: Path,
    failure: OSError | None,
) -> None:
    """Check an update that came over this connection, and report it; raises DamagedModelError as `deliver`.

    Where the bytes were spoilt on the way the connection is closed: the device keeps its update until
    that is taken, and sends it again over the next one. Where the disk refuses (`failure`: it has already),
    so it is as soon as there is room. What could not be synced is never synced again, as the kernel may have
    dropped it.
    """
    try:
        if failure is not None:
            raise failure
        await deliver(job, reports, worker_id, update, path)
    except TransferError as error:
        await connection.reject(error)
    except OSError as error:
        with suppress(OSError):
            path.unlink(missing_ok=True)
        text = (
            f"this machine cannot keep the update of round {update.round}: {_in_words(error)}; "
            "it is asked for again when there is room"
        )
        reports.note(Row("warning", {"text": text, "worker": worker_id}))
        await _wait_for_room(path.parent, update.parameters.size)
        await connection.give_up()


def _in_words(error: OSError) -> str:
    return f"{error.strerror} ({error.filename})" if error.filename else str(error.strerror)


async def _wait_for_room(folder: Path, num_bytes: int) -> None:
    """At least once as long as other attempts to write wait: not every refusal is for want of room."""
    while True:
        await asyncio.sleep(RETRY_S)
        with suppress(OSError):
            if shutil.disk_usage(folder).free > num_bytes:
                return


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

    Raises:
        TransferError: the bytes are not those that were announced. Nothing is reported: the worker
            has the update still, and sends it again on its next link.
        DamagedModelError: the model that it was trained from is gone; nothing is reported.
        OSError: the disk refuses; nothing is reported.
    """
    if update.run != job.run_id:
        path.unlink(missing_ok=True)
        text = f"it sent an update of another run: {clean(update.run, 64)}"
        reports.note(Row("warning", {"worker": worker_id, "text": text}))
        return
    captured = await asyncio.shield(job.captured)
    reason: str | None = None
    try:
        await asyncio.to_thread(_take_in, update, path, captured, has_travelled)
        if (model := job.models.get(update.model_id)) is not None:
            await asyncio.to_thread(_require_size, path, model.path, captured)
    except TransferError:
        path.unlink(missing_ok=True)
        raise
    except TensorError as error:
        reason = str(error)
    except FileNotFoundError as error:
        if path.exists() and update.model_id in job.models:
            raise job.unreadable(error) from error
        # Files of a round that has closed meanwhile are gone.
        reason = too_late(update.round)
    if reason is not None:
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


def _take_in(update: Update, path: Path, captured: Captured, has_travelled: bool) -> None:
    """
    Raises:
        TransferError: the bytes are not those that were announced.
        TensorError: they do not fit the model.
        OSError: the disk refuses.
    """
    # torch takes more than a second to import: by now the engine has it.
    from fedconsole.learning.aggregation import require_fit

    if not has_travelled:
        require_fit(path, captured.returned)
        return
    require_fit(path, captured.returned, update.parameters.sha256)
    sync(path)
    sync(path.parent)


def _require_size(path: Path, model_path: Path, captured: Captured) -> None:
    """Raises TensorError as `require_size`, FileNotFoundError when the round is closed."""
    from fedconsole.learning.aggregation import require_size

    require_size(path, model_path, captured.parameters)
