"""A run as its workers see it, with its task captured, and no engine around it."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from pathlib import Path

from fedconsole.coordinator.plan import Plan
from fedconsole.dialling import console_hello
from fedconsole.engine.store import RunStore
from fedconsole.engine.worker import Captured, Job
from pi_daemon.protocol.messages import Role
from pi_daemon.protocol.tensors import TensorSpec


def a_job(
    folder: Path, returned: Mapping[str, TensorSpec] | None = None, parameters: tuple[str, ...] = ()
) -> Job:
    """Its id is the folder's name; the names of its workers are not known yet."""
    loop = asyncio.get_running_loop()
    captured: asyncio.Future[Captured] = loop.create_future()
    captured.set_result(
        Captured(
            graphs=b"",
            graphs_sha256="",
            returned=returned or {},
            parameters=parameters,
            dataset="digits",
            sample_shape=(8, 8),
            sample_dtype="uint8",
            num_classes=10,
        )
    )
    return Job(
        run_id=folder.name,
        plan=Plan(virtual=1),
        hello=console_hello(Role.CONTROLLER),
        store=RunStore(folder),
        captured=captured,
        names=loop.create_future(),
    )
