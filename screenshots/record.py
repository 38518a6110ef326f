"""`python -m screenshots.record`: carries three real runs on three devices of this machine and keeps their lines.

One is paused once, one has another learning rate, one loses a device. The devices' own words about
themselves go to fleet.json.
"""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import msgspec

from benchmarks.runs import own_places
from fedconsole import paths
from fedconsole.coordinator.plan import Plan
from fedconsole.engine.store import Line
from fedconsole.fleet.finding import find
from fedconsole.fleet.inventory import Inventory
from fedconsole.fleet.local import local_daemons
from fedconsole.fleet.watching import Watcher
from fedconsole.headless import json_line
from pi_daemon.discovery import registered_daemons
from tests.support.runs import carry

FOLDER = Path(__file__).parent
_TELEMETRY_S = 25.0


def plan(addresses: list[str], **changes: object) -> Plan:
    own = {"rounds": 10, "federate_after_n_batches": 60, "batch_size": 32, "lr": 0.02}
    return Plan(task="digits", workers=tuple(addresses), **(own | changes))  # type: ignore[arg-type]


class PauseOnce:
    def __init__(self) -> None:
        self._has_paused = False

    def __call__(self, line: Line) -> str | None:
        if line["type"] == "run.paused":
            return "resume"
        if line["type"] == "worker.batches" and line["round"] == 5 and not self._has_paused:
            self._has_paused = True
            return "pause"
        return None


class LoseBob:
    def __init__(self) -> None:
        self._is_lost = False

    def __call__(self, line: Line) -> str | None:
        if line["type"] == "worker.batches" and line["round"] == 4 and not self._is_lost:
            self._is_lost = True
            (bob,) = (d for d in registered_daemons() if d.worker_name == "bob")
            os.kill(bob.pid, signal.SIGKILL)
        return None


async def record() -> None:
    async with local_daemons(3) as addresses:
        await keep_fleet()
        await keep("paused", plan(addresses), PauseOnce())
        await keep("other", plan(addresses, lr=0.003), lambda _line: None)
        less = plan(addresses, min_updates=2, round_timeout_s=4.0)
        await keep("degraded", less, LoseBob())


async def keep(name: str, chosen: Plan, requests: Callable[[Line], str | None]) -> None:
    run = await carry(chosen, requests=requests)
    here = str(paths.state_dir().parent)
    lines = [
        json_line(line).replace(here, "/home/you/.local/state")
        for line in run.lines
        if line["type"] != "heartbeat"
    ]
    (FOLDER / f"{name}.jsonl").write_text("\n".join(lines) + "\n")
    print(name, len(lines), run.exit_code)


async def keep_fleet() -> None:
    inventory = Inventory()
    devices = await find([], 0)
    watcher = Watcher(inventory, devices, 0, asyncio.get_running_loop().time)
    watching = asyncio.get_running_loop().create_task(watcher.run())
    await asyncio.sleep(_TELEMETRY_S)
    watching.cancel()
    rows = [
        {
            "address": record.address,
            "hello": record.hello,
            "telemetry": record.telemetry,
            "ping_s": record.ping_s,
        }
        for record in inventory.records.values()
    ]
    (FOLDER / "fleet.json").write_bytes(msgspec.json.format(msgspec.json.encode(rows)) + b"\n")


if __name__ == "__main__":
    with TemporaryDirectory(prefix="fedconsole-record-") as own, own_places(Path(own)):
        asyncio.run(record())
