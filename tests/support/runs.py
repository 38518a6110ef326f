"""Real runs for tests: an engine process, its lines, and requests to it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from fedconsole.coordinator.plan import Plan
from fedconsole.engine.control import ControlLink
from fedconsole.engine.launch import new_run_id, start_engine
from fedconsole.engine.store import Line


@dataclass(frozen=True)
class FinishedRun:
    run_id: str
    lines: list[Line]
    exit_code: int

    def of_type(self, line_type: str) -> list[Line]:
        return [line for line in self.lines if line["type"] == line_type]

    @property
    def last(self) -> Line:
        return self.lines[-1]

    @property
    def model_id(self) -> str:
        model_id: str = self.last["model_id"]
        return model_id


async def carry(
    plan: Plan,
    *,
    dry_run: bool = False,
    search_s: float = 0.0,
    requests: Callable[[Line], str | None] = lambda line: None,
) -> FinishedRun:
    """Start an engine, read its lines to the end, and send it the request that a line calls for."""
    run_id = new_run_id()
    engine = start_engine(run_id, plan, dry_run=dry_run, search_s=search_s)
    lines: list[Line] = []
    try:
        async with ControlLink.connect(run_id) as link:
            async for line in link.events():
                lines.append(line)
                if (request := requests(line)) is not None:
                    await link.request(request)
        exit_code = await asyncio.to_thread(engine.wait)
    finally:
        if engine.poll() is None:
            engine.kill()
            engine.wait()
    return FinishedRun(run_id, lines, exit_code)


def digits_plan(**changes: Any) -> Plan:
    """A run of a few short rounds."""
    plan: dict[str, Any] = {
        "virtual": 2,
        "rounds": 2,
        "federate_after_n_batches": 4,
        "batch_size": 32,
        "lr": 0.05,
    }
    return Plan(**(plan | changes))
