"""How much memory the engine takes for the updates of many workers, beyond what it takes before."""

from __future__ import annotations

import asyncio
from pathlib import Path

from benchmarks.runs import EngineRun, echo_workers, engine_run, own_places
from benchmarks.table import Row
from benchmarks.wire import LARGE_TASK, LARGE_TASK_BYTES, NEVER
from fedconsole.coordinator.plan import Plan

_ROUNDS = 2
_SAMPLE_S = 0.02


def run(folder: Path) -> list[Row]:
    """Needs room in `folder` for one update of each of 30 workers: 3 GB."""
    rows = []
    with own_places(folder):
        for num_workers in (3, 30):
            resident, own = asyncio.run(growth(num_workers))
            name = f"engine's memory over its warm start, 100 MB x {num_workers} workers"
            rows += [
                Row(f"{name}: peak", resident / LARGE_TASK_BYTES, None, "models", "<= 3"),
                Row(f"{name}: without file pages", own / LARGE_TASK_BYTES, None, "models", ""),
            ]
    return rows


async def growth(num_workers: int) -> tuple[int, int]:
    """Bytes by which the engine's resident memory grows in the rounds, with and without file pages."""
    with echo_workers(LARGE_TASK, num_workers) as workers:
        plan = Plan(
            task=LARGE_TASK,
            workers=tuple(workers.addresses),
            rounds=_ROUNDS,
            federate_after_n_batches=1,
            eval_every=NEVER,
        )
        async with engine_run(plan) as engine:
            await asyncio.to_thread(workers.wait_until_asked)
            resident = _memory(engine.pid, "VmRSS")
            peak = resident
            own = peak_own = _memory(engine.pid, "RssAnon")
            # From here on the peak counts anew: proc(5), "clear_refs".
            Path(f"/proc/{engine.pid}/clear_refs").write_text("5")
            workers.say_go()
            async with asyncio.TaskGroup() as tasks:
                reading = tasks.create_task(_read(engine))
                while not reading.done():
                    await asyncio.sleep(_SAMPLE_S)
                    peak = _memory(engine.pid, "VmHWM") or peak
                    peak_own = max(peak_own, _memory(engine.pid, "RssAnon"))
    return peak - resident, peak_own - own


async def _read(engine: EngineRun) -> None:
    async for _ in engine.lines():
        pass


def _memory(pid: int, name: str) -> int:
    """Bytes, of a line in /proc/PID/status; 0 once the process has ended."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(f"{name}:"):
            return 1024 * int(line.split()[1])
    return 0
