"""An engine that only talks: serves the lines of a run of many workers at a steady rate.

`python -m benchmarks.console_feed RUN WORKERS LOSSES_PER_S` listens at the run's control socket until it is
killed. Each worker sends its losses once a second, several in a line, as real ones do.
"""

from __future__ import annotations

import asyncio
import json
import math
import random
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any, Final

from fedconsole.coordinator.plan import Plan
from fedconsole.engine.control import socket_path

_TICKS_PER_S: Final = 20
_BATCHES: Final = 1_000_000


def opening(run: str, workers: list[str]) -> Iterator[dict[str, Any]]:
    plan = Plan(virtual=len(workers), rounds=10, federate_after_n_batches=_BATCHES)
    yield {"type": "run.created", "task": "load", "plan": _plan_fields(plan)}
    for worker in workers:
        yield {"type": "worker.joined", "worker": worker, "address": f"{worker}.lab:10002"}
    yield {"type": "run.started", "round": 1, "waiting_for": []}
    yield {"type": "round.started", "round": 1, "attempt": 1, "cohort": workers, "epoch": 1}
    for worker in workers:
        yield {"type": "worker.phase", "worker": worker, "round": 1, "phase": "training"}


def _plan_fields(plan: Plan) -> dict[str, Any]:
    return {name: getattr(plan, name) for name in plan.__struct_fields__}


class Feed:
    def __init__(self, run: str, num_workers: int, losses_per_s: int) -> None:
        self._run = run
        self._workers = [f"w{number:04}" for number in range(num_workers)]
        self._losses_per_line = max(1, losses_per_s // num_workers)
        self._lines_per_tick = max(1, losses_per_s // self._losses_per_line // _TICKS_PER_S)
        self._random = random.Random(1)
        self._first = dict.fromkeys(self._workers, 0)
        self._seq = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            if not (request := await reader.readline()):
                return
            if json.loads(request)["request"] == "events":
                await self._stream(writer)
        except ConnectionError:
            pass
        finally:
            writer.close()

    async def _stream(self, writer: asyncio.StreamWriter) -> None:
        for fields in opening(self._run, self._workers):
            writer.write(self._line(fields))
        await writer.drain()
        turn = 0
        due = time.monotonic()
        while True:
            for _ in range(self._lines_per_tick):
                writer.write(self._line(self._batches(self._workers[turn % len(self._workers)])))
                turn += 1
            await writer.drain()
            due += 1 / _TICKS_PER_S
            await asyncio.sleep(max(0.0, due - time.monotonic()))

    def _batches(self, worker: str) -> dict[str, Any]:
        first = self._first[worker]
        self._first[worker] = (first + self._losses_per_line) % (_BATCHES - self._losses_per_line)
        level = 2.3 * math.exp(-first / 500) + 0.1
        losses = [level * self._random.uniform(0.8, 1.2) for _ in range(self._losses_per_line)]
        return {
            "type": "worker.batches",
            "worker": worker,
            "round": 1,
            "first": first,
            "batches": _BATCHES,
            "losses": losses,
        }

    def _line(self, fields: dict[str, Any]) -> bytes:
        self._seq += 1
        now = datetime.now(tz=UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        head = {"v": 1, "seq": self._seq, "time": now, "run": self._run}
        return json.dumps(head | fields, default=str).encode() + b"\n"


async def main() -> None:
    run, num_workers, losses_per_s = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    feed = Feed(run, num_workers, losses_per_s)
    server = await asyncio.start_unix_server(feed.serve, str(socket_path(run)))
    print("listening", flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main())
