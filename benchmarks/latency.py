"""`make bench-latency`: what 10 ms of latency cost the guide's run on MNIST, beside the same run on loopback.

Both runs have the same daemons, in turns; the second reaches them through a proxy that delays.
"""

from __future__ import annotations

import asyncio
import json
import statistics
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from benchmarks.runs import engine_run, own_places
from benchmarks.seed import mnist_folder
from benchmarks.table import Row, machine_line, print_table
from fedconsole.coordinator.plan import EpochEnd, Plan, Weighting
from fedconsole.fleet.local import local_daemons
from tests.support.chaos import chaos_proxy

NUM_WORKERS: Final = 3
LATENCY_S: Final = 0.01
"""Each way: an answer takes twice as long."""
TIMES: Final = 3
_RESULTS: Final = Path(__file__).parent / "results"


def the_guides_plan(workers: Sequence[str], folder: Path) -> Plan:
    return Plan(
        task="mnist",
        workers=tuple(workers),
        epochs=2,
        federate_after_n_batches=50,
        weighting=Weighting.UNIFORM,
        epoch_end=EpochEnd.FIRST,
        eval_every="epoch",
        data_dir=str(folder),
    )


async def run_seconds(workers: Sequence[str], folder: Path) -> tuple[float, str]:
    """From the first round to the end, without what the engine needs to start; and the model's id."""
    async with engine_run(the_guides_plan(workers, folder)) as engine:
        lines = [line async for line in engine.lines()]
    [began] = [line for line in lines if line["type"] == "run.started"]
    passed = datetime.fromisoformat(lines[-1]["time"]) - datetime.fromisoformat(began["time"])
    print(f"a run took {passed.total_seconds():.1f} s", flush=True)
    return passed.total_seconds(), lines[-1]["model_id"]


async def measure(folder: Path) -> Row:
    async with AsyncExitStack() as stack:
        near = await stack.enter_async_context(local_daemons(NUM_WORKERS, f"mnist={folder}"))
        far = []
        for address in near:
            port = int(address.rpartition(":")[2])
            proxy = await stack.enter_async_context(chaos_proxy(port))
            proxy.set(latency_s=LATENCY_S)
            far.append(proxy.address)
        # The first run has the daemons import torch: it counts for nothing.
        _, model_id = await run_seconds(near, folder)
        pairs = [
            (await run_seconds(far, folder), await run_seconds(near, folder)) for _ in range(TIMES)
        ]
    if {found for pair in pairs for _, found in pair} != {model_id}:
        raise RuntimeError("latency has changed the model")
    delayed_s, plain_s = (
        statistics.median(run[0] for run in runs) for runs in zip(*pairs, strict=True)
    )
    name = f"MNIST, the guide's run, {1000 * LATENCY_S:g} ms each way"
    return Row(name, delayed_s, plain_s, "s", "<= 1.2 x")


def main() -> None:
    folder = mnist_folder()
    print(machine := machine_line(), flush=True)
    with TemporaryDirectory(prefix="fedconsole-bench-") as place, own_places(Path(place)):
        row = asyncio.run(measure(folder))
    print_table([row])
    result = {"machine": machine, "rows": [asdict(row)]}
    (_RESULTS / "latency.json").write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
