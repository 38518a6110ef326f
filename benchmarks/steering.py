"""How soon the operator is obeyed: pause and abort with ten devices in the middle of a round."""

from __future__ import annotations

import asyncio
import subprocess
from datetime import datetime
from pathlib import Path
from typing import Final

from benchmarks.runs import own_places
from benchmarks.table import Row
from fedconsole.coordinator.plan import Plan
from fedconsole.engine.control import ControlLink
from fedconsole.engine.launch import new_run_id, start_engine
from fedconsole.engine.store import Line
from fedconsole.fleet.local import local_daemons

_NUM_DEVICES: Final = 10
_BATCHES: Final = 1_000_000
"""Of a round that does not end by itself."""
_SEEN_BATCHES: Final = 100
"""Of each device before the operator acts: a batch is shorter than a line's time can tell."""


def run(folder: Path) -> list[Row]:
    with own_places(folder):
        return asyncio.run(_measure())


async def _measure() -> list[Row]:
    async with local_daemons(_NUM_DEVICES) as addresses:
        plan = Plan(workers=tuple(addresses), rounds=1, federate_after_n_batches=_BATCHES)
        run = new_run_id()
        engine = start_engine(run, plan)
        try:
            lines = await _steer(run)
        finally:
            engine.kill()
            await asyncio.to_thread(_reap, engine)
    batch_s = _batch_seconds(lines)
    paused_s = _seconds_until_all(lines, "run.pausing", "run.paused")
    aborted_s = _seconds_until_all(lines, "run.aborting", "run.finished")
    name = f"{_NUM_DEVICES} devices"
    return [
        Row(f"{name}: a batch", batch_s, None, "s", ""),
        Row(f"{name}: pause to the last acknowledgement", paused_s, None, "s", ""),
        Row(f"{name}: abort to its end", aborted_s, None, "s", f"<= {batch_s:.3f} + 0.5"),
    ]


async def _steer(run: str) -> list[Line]:
    """Pause when all train, resume, and abort when all train again; the run's lines."""
    lines: list[Line] = []
    begun: dict[str, int] = {}
    training: set[str] = set()
    requests = ["abort", "pause"]
    is_pausing = False
    async with ControlLink.connect(run) as link:
        async for line in link.events():
            lines.append(line)
            match line["type"]:
                case "run.paused":
                    await link.request("resume")
                case "run.resumed":
                    is_pausing = False
                case "worker.batches" if not is_pausing:
                    first = begun.setdefault(line["worker"], line["first"])
                    if line["first"] - first >= _SEEN_BATCHES:
                        training.add(line["worker"])
            if len(training) == _NUM_DEVICES and requests:
                begun.clear()
                training.clear()
                is_pausing = True
                await link.request(requests.pop())
    return lines


def _batch_seconds(lines: list[Line]) -> float:
    """Mean time of a batch of one device while all train, from the lines before the pause."""
    first: dict[str, Line] = {}
    seconds = []
    for line in lines:
        if line["type"] == "run.pausing":
            break
        if line["type"] != "worker.batches":
            continue
        begun = first.setdefault(line["worker"], line)
        if (num := line["first"] - begun["first"]) > 0:
            seconds.append((_time(line) - _time(begun)) / num)
    return sum(seconds) / len(seconds) if seconds else float("nan")


def _seconds_until_all(lines: list[Line], begun: str, ended: str) -> float:
    (start,) = (line for line in lines if line["type"] == begun)
    (end,) = (line for line in lines if line["type"] == ended)
    return _time(end) - _time(start)


def _time(line: Line) -> float:
    return datetime.fromisoformat(line["time"]).timestamp()


def _reap(engine: subprocess.Popen[bytes]) -> None:
    engine.wait()
