"""The options of `fedconsole run`. Each parameter is named as its key in the configuration.

None means "not given": configuration files and defaults decide.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from msgspec.structs import fields

from fedconsole.coordinator.plan import (
    DEFAULT_EPOCHS,
    DEFAULT_FEDERATE_AFTER_N_BATCHES,
    EpochEnd,
    OnQuorumLoss,
    Optimizer,
    Plan,
    Weighting,
)

_DEFAULTS = {field.name: field.default for field in fields(Plan)} | {
    "epochs": DEFAULT_EPOCHS,
    "federate_after_n_batches": DEFAULT_FEDERATE_AFTER_N_BATCHES,
}


def _option(panel: str, *names: str, help: str, **more: Any) -> Any:  # noqa: A002
    key = names[0].removeprefix("--").replace("-", "_")
    default = _DEFAULTS.get(key, _DEFAULTS.get(f"{key}_s"))
    if default not in (None, False):
        help = f"{help} Default {default}."  # noqa: A001
    return typer.Option(*names, help=help, rich_help_panel=panel, show_default=False, **more)


_WHAT, _WHO, _LONG = "What to train", "Who takes part", "How long"
_HOW, _AVERAGE, _SHOW = "How workers train", "Rounds and quorum", "Front end"

Task = Annotated[
    str | None,
    _option(_WHAT, "--task", help="digits, mnist, ecg, ecg-rr or a Python file.", metavar="TASK"),
]
InitFrom = Annotated[
    str | None, _option(_WHAT, "--init-from", help="Start from this model.", metavar="PATH")
]
SaveModel = Annotated[
    str | None,
    _option(_WHAT, "--save-model", help="Also write the model here.", metavar="PATH"),
]
SeedSaveModel = Annotated[
    bool, _option(_WHAT, "--save_model", help="--save-model mnist_cnn.pt", hidden=True)
]
DataDir = Annotated[
    str | None,
    _option(
        _WHAT,
        "--data-dir",
        help="Folder with the test set, and with the data of virtual workers.",
        metavar="DIR",
    ),
]
Seed = Annotated[int | None, _option(_WHAT, "--seed", help="Of all randomness.")]
Cuda = Annotated[bool | None, _option(_WHAT, "--cuda", help="Evaluate and simulate on the GPU.")]

Workers = Annotated[
    list[str] | None,
    _option(_WHO, "--worker", help="A device; may be repeated.", metavar="HOST:PORT"),
]
All = Annotated[bool, _option(_WHO, "--all", help="Every device that answers.")]
Virtual = Annotated[
    int | None, _option(_WHO, "--virtual", help="Simulate workers on this machine.", metavar="N")
]
UseVirtual = Annotated[bool, _option(_WHO, "--use-virtual", help="--virtual 3", hidden=True)]
Holdout = Annotated[
    float | None,
    _option(_WHO, "--holdout", help="Share kept by workers for tests.", metavar="FRACTION"),
]

Rounds = Annotated[int | None, _option(_LONG, "--rounds", help="Rounds to run, or")]
Epochs = Annotated[int | None, _option(_LONG, "--epochs", help="passes over all data.")]
FederateAfterNBatches = Annotated[
    int | None,
    _option(_LONG, "--federate-after-n-batches", help="Batches in a round, or"),
]
LocalEpochs = Annotated[int | None, _option(_LONG, "--local-epochs", help="passes over the shard.")]
EpochEndOption = Annotated[
    EpochEnd | None,
    _option(_LONG, "--epoch-end", help="When all workers are through, or the first."),
]
StopAt = Annotated[
    str | None,
    _option(_LONG, "--stop-at", help="Stop once reached: accuracy=0.95.", metavar="METRIC=VALUE"),
]

BatchSize = Annotated[int | None, _option(_HOW, "--batch-size", help="Examples at a time.")]
TestBatchSize = Annotated[
    int | None, _option(_HOW, "--test-batch-size", help="The same in evaluation.")
]
Lr = Annotated[float | None, _option(_HOW, "--lr", help="Learning rate.")]
OptimizerOption = Annotated[Optimizer | None, _option(_HOW, "--optimizer", help="New each round.")]
Momentum = Annotated[float | None, _option(_HOW, "--momentum", help="Of sgd.")]
WeightDecay = Annotated[float | None, _option(_HOW, "--weight-decay", help="Of the optimizer.")]
Nesterov = Annotated[bool | None, _option(_HOW, "--nesterov", help="Nesterov momentum.")]

WeightingOption = Annotated[
    Weighting | None,
    _option(_AVERAGE, "--weighting", help="Workers count by examples, or alike."),
]
CohortSize = Annotated[int | None, _option(_AVERAGE, "--cohort-size", help="Workers in a round.")]
MinUpdates = Annotated[
    int | None, _option(_AVERAGE, "--min-updates", help="Updates that a round needs.")
]
RoundTimeout = Annotated[
    float | None, _option(_AVERAGE, "--round-timeout", help="Seconds for a round.")
]
OnQuorumLossOption = Annotated[
    OnQuorumLoss | None,
    _option(_AVERAGE, "--on-quorum-loss", help="With too few workers: wait, go on, or fail."),
]
QuorumTimeout = Annotated[
    float | None, _option(_AVERAGE, "--quorum-timeout", help="Seconds to wait for them.")
]
EvalEvery = Annotated[
    str | None,
    _option(_AVERAGE, "--eval-every", help="When to test.", metavar="round|epoch|N"),
]

Headless = Annotated[
    bool, _option(_SHOW, "--headless", help="For scripts: no questions, no full screen.")
]
Json = Annotated[bool, _option(_SHOW, "--json", help="One JSON object per event on stdout.")]
Plain = Annotated[
    bool | None, _option(_SHOW, "--plain", help="One sentence per event, nothing moves.")
]
Detach = Annotated[
    bool, _option(_SHOW, "--detach", help="Print the run's id and leave it running.")
]
Quiet = Annotated[bool, _option(_SHOW, "--quiet", "-q", help="Only errors and the outcome.")]
Verbose = Annotated[
    int, _option(_SHOW, "--verbose", "-v", help="Also batches; -vv everything.", count=True)
]
DryRun = Annotated[bool, _option(_SHOW, "--dry-run", help="Check plan and workers, train nothing.")]
Timeout = Annotated[float | None, _option(_SHOW, "--timeout", help="Abort after so many seconds.")]
ConfigFile = Annotated[
    Path | None, _option(_SHOW, "--config", help="Read this TOML file first.", metavar="FILE")
]
