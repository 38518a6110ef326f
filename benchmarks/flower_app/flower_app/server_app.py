"""Federated averaging by Flower's own strategy; writes down when each round ended."""

from __future__ import annotations

import time
from itertools import pairwise
from pathlib import Path

import numpy as np
from flwr.app import ArrayRecord, Context, MetricRecord, RecordDict
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg


def _linear(*sizes: int) -> list[tuple[int, ...]]:
    return [shape for inner, outer in pairwise(sizes) for shape in ((outer, inner), (outer,))]


SHAPES = {
    "cnn": [(20, 1, 5, 5), (20,), (50, 20, 5, 5), (50,), *_linear(800, 500, 10)],
    "large": _linear(64, 1024, 2048, 4096, 2048, 2048, 900, 10),
}
"""The seed's network, 1.72 MB in float32, and that of benchmarks/large_task.py, 100 MB."""

app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    config = context.run_config
    times = Path(str(config["folder"])) / "rounds"

    num_replies: list[int] = []

    def count(replies: list[RecordDict], weighted_by: str) -> MetricRecord:
        num_replies.append(len(replies))
        return MetricRecord()

    def stamp(server_round: int, arrays: ArrayRecord) -> None:
        if num_replies != [cohort] * server_round:
            raise RuntimeError(
                f"workers that did their part, by round: {num_replies}, not {cohort}"
            )
        with times.open("a") as file:
            print(time.time(), file=file)

    workers, cohort = int(config["workers"]), int(config["cohort"])
    strategy = FedAvg(
        fraction_train=cohort / workers,
        fraction_evaluate=0.0,
        min_train_nodes=cohort,
        min_available_nodes=workers,
        train_metrics_aggr_fn=count,
    )
    # Small random numbers: Flower stores what is equal only once, and zeros would all be equal.
    random = np.random.default_rng(1)
    arrays = [
        random.uniform(-0.03, 0.03, shape).astype(np.float32)
        for shape in SHAPES[str(config["model"])]
    ]
    strategy.start(
        grid=grid,
        initial_arrays=ArrayRecord(arrays),
        num_rounds=int(config["rounds"]),
        evaluate_fn=stamp,
    )
