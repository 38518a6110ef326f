"""Rounds without local work against websockets that move the same bytes: what the engine adds."""

from __future__ import annotations

import asyncio
import statistics
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from benchmarks import large_task, raw, small_task
from benchmarks.runs import cpu_seconds, echo_workers, engine_run, own_places, processes
from benchmarks.table import Row, alternate
from fedconsole.coordinator.plan import Plan
from pi_daemon.protocol.limits import CHUNK_BYTES

NUM_WORKERS = 3
SMALL_TASK = str(Path(small_task.__file__))
LARGE_TASK = str(Path(large_task.__file__))
LARGE_TASK_BYTES = 99_994_328
NEVER = 10**9


@dataclass(frozen=True)
class Federated:
    """Rounds from the second on."""

    round_seconds: float
    """From the end of one round to the end of the next, mean."""
    cpu_seconds: float
    """Of the engine, in a round."""
    all_cpu_seconds: float
    """Of the engine and the workers."""
    num_bytes: int
    """On the wire in a round, both ways, with every message."""


def run(folder: Path) -> list[Row]:
    with own_places(folder):
        return [
            *_rows("1.72 MB", SMALL_TASK, 1_724_320, num_rounds=200, rounds_mark=">= 50"),
            *_rows("100 MB", LARGE_TASK, LARGE_TASK_BYTES, num_rounds=8, rounds_mark=">= 0.83"),
        ]


def _rows(size: str, task: str, num_bytes: int, num_rounds: int, rounds_mark: str) -> list[Row]:
    """
    Args:
        num_bytes: the model's tensors together.
    """
    num_messages = _faster(num_bytes)
    ours, plain = alternate(
        lambda: asyncio.run(federated(task, num_rounds)),
        lambda: statistics.median(raw_seconds(num_bytes, num_messages, num_rounds)[1:]),
        times=3,
    )
    seconds = statistics.median(run.round_seconds for run in ours)
    cpu = statistics.median(run.cpu_seconds for run in ours)
    reference = statistics.median(plain)
    wire = statistics.median(run.num_bytes for run in ours)
    at_least = 2 * num_bytes * NUM_WORKERS
    name = f"{size} x {NUM_WORKERS} workers, no work:"
    return [
        Row(f"{name} rounds", 1 / seconds, 1 / reference, "1/s", rounds_mark),
        Row(f"{name} a round", seconds, reference, "s", ""),
        Row(f"{name} the engine's CPU in a round", cpu, None, "s", ""),
        Row(f"{name} bytes on the wire", wire / 1e6, at_least / 1e6, "MB", "<= 1.02 x"),
    ]


async def federated(
    task: str, num_rounds: int, on_round: Callable[[int], None] = lambda pid: None
) -> Federated:
    ends: list[float] = []
    cpu: list[float] = []
    all_cpu: list[float] = []
    num_bytes: list[int] = []
    with echo_workers(task, NUM_WORKERS) as workers:
        workers.say_go()
        plan = Plan(
            task=task,
            workers=tuple(workers.addresses),
            rounds=num_rounds,
            federate_after_n_batches=1,
            eval_every=NEVER,
        )
        async with engine_run(plan) as engine:
            async for line in engine.lines():
                if line["type"] == "round.finished":
                    ends.append(datetime.fromisoformat(line["time"]).timestamp())
                    cpu.append(cpu_seconds(engine.pid))
                    all_cpu.append(cpu[-1] + workers.cpu_seconds())
                    num_bytes.append(line["bytes_sent"] + line["bytes_received"])
    rest = num_rounds - 1
    return Federated(
        (ends[-1] - ends[0]) / rest,
        (cpu[-1] - cpu[0]) / rest,
        (all_cpu[-1] - all_cpu[0]) / rest,
        sum(num_bytes[1:]) // rest,
    )


def raw_seconds(num_bytes: int, num_messages: int, num_rounds: int) -> list[float]:
    """Seconds of each round: `num_bytes` to each worker in equal messages, and back."""
    message = bytes(num_bytes // num_messages)
    with processes(["benchmarks.raw", str(num_messages)], NUM_WORKERS) as workers:
        return asyncio.run(raw.rounds(workers.addresses, message, num_messages, num_rounds))


def _faster(num_bytes: int) -> int:
    """In how many messages the bytes travel faster: the engine's chunks, or one."""
    candidates = (1, -(-num_bytes // CHUNK_BYTES))
    return min(candidates, key=lambda n: statistics.median(raw_seconds(num_bytes, n, 5)))
