"""A worker's part of a round: some batches of the seed's network, or nothing at all."""

from __future__ import annotations

import contextlib
import time
from pathlib import Path

import numpy as np
from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

app = ClientApp()


@app.train()
def train(message: Message, context: Context) -> Message:
    config, round_config = context.run_config, message.content["config"]
    folder, num_batches = Path(str(config["folder"])), int(config["batches"])
    partition = int(context.node_config["partition-id"])
    arrays = message.content["arrays"].to_numpy_ndarrays()
    if num_batches:
        # Not at the top: a worker without work needs no torch.
        from flower_app.training import train_batches

        num_partitions = int(context.node_config["num-partitions"])
        arrays = train_batches(
            arrays,
            folder,
            partition,
            num_partitions,
            int(round_config["server-round"]),
            num_batches,
        )
    else:
        # No two replies alike, as in real training.
        arrays = [array + np.float32(partition + 1) for array in arrays]
    with contextlib.suppress(FileExistsError), (folder / "first").open("x") as file:
        print(time.time(), file=file)
    content = {
        "arrays": ArrayRecord(arrays),
        "metrics": MetricRecord({"num-examples": 64 * max(1, num_batches)}),
    }
    return Message(content=RecordDict(content), reply_to=message)
