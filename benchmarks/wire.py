"""Rounds without local work against websockets that move the same bytes: what the engine adds."""

from __future__ import annotations

import asyncio
import statistics
import time
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


@dataclass(frozen=True, slots=True)
class Rounds:
    """Of one run, from its second round on."""

    seconds: float
    """From the end of a round to the end of the next."""
    cpu_seconds: float
    """Of all processes, in a round."""


@dataclass(frozen=True, slots=True)
class FederatedRounds(Rounds):
    engine_cpu_seconds: float
    num_bytes: int
    """Both ways, with every message, without the frames of websockets and TCP."""


def run(folder: Path) -> list[Row]:
    with own_places(folder):
        return [
            *_rows("1.72 MB", SMALL_TASK, 1_724_320, num_rounds=200, mark=">= 50"),
            *_rows("100 MB", LARGE_TASK, LARGE_TASK_BYTES, num_rounds=8, mark=">= 0.83"),
        ]


def _rows(size: str, task: str, num_bytes: int, num_rounds: int, mark: str) -> list[Row]:
    """
    Args:
        num_bytes: the model's tensors together.
        mark: for rounds in a second.
    """
    num_messages = _faster(num_bytes)
    ours, plain = alternate(
        lambda: asyncio.run(federated(task, num_rounds)),
        lambda: plain_rounds(num_bytes, num_messages, num_rounds),
        times=3,
    )
    seconds, reference = (statistics.median(r.seconds for r in rs) for rs in (ours, plain))
    cpu, plain_cpu = (statistics.median(r.cpu_seconds for r in rs) for rs in (ours, plain))
    engine_cpu = statistics.median(rounds.engine_cpu_seconds for rounds in ours)
    wire = statistics.median(rounds.num_bytes for rounds in ours)
    name = f"{size} x {NUM_WORKERS}, no work:"
    return [
        Row(f"{name} rounds", 1 / seconds, 1 / reference, "1/s", mark),
        Row(f"{name} a round", seconds, reference, "s", ""),
        Row(f"{name} CPU of all in a round", cpu, plain_cpu, "s", ""),
        Row(f"{name} CPU of the engine", engine_cpu, None, "s", ""),
        Row(
            f"{name} on the wire", wire / 1e6, 2 * num_bytes * NUM_WORKERS / 1e6, "MB", "<= 1.02 x"
        ),
    ]


async def federated(task: str, num_rounds: int, *, secure: bool = False) -> FederatedRounds:
    ends: list[float] = []
    engine_cpu: list[float] = []
    cpu: list[float] = []
    num_bytes: list[int] = []
    with echo_workers(task, NUM_WORKERS, secure=secure) as workers:
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
                    engine_cpu.append(cpu_seconds(engine.pid))
                    cpu.append(engine_cpu[-1] + workers.cpu_seconds())
                    num_bytes.append(line["bytes_sent"] + line["bytes_received"])
    rest = num_rounds - 1
    return FederatedRounds(
        seconds=(ends[-1] - ends[0]) / rest,
        cpu_seconds=(cpu[-1] - cpu[0]) / rest,
        engine_cpu_seconds=(engine_cpu[-1] - engine_cpu[0]) / rest,
        num_bytes=sum(num_bytes[1:]) // rest,
    )


def plain_rounds(num_bytes: int, num_messages: int, num_rounds: int) -> Rounds:
    """`num_bytes` to each worker in equal messages, and back."""
    message = bytes(num_bytes // num_messages)
    with processes(["benchmarks.raw", str(num_messages)], NUM_WORKERS) as workers:
        before = time.process_time() + workers.cpu_seconds()
        seconds = asyncio.run(raw.rounds(workers.addresses, message, num_messages, num_rounds))
        cpu = time.process_time() + workers.cpu_seconds() - before
    return Rounds(statistics.median(seconds[1:]), cpu / num_rounds)


def _faster(num_bytes: int) -> int:
    """In how many messages the bytes travel faster: the engine's chunks, or one."""
    candidates = (1, -(-num_bytes // CHUNK_BYTES))
    return min(candidates, key=lambda n: plain_rounds(num_bytes, n, 5).seconds)
