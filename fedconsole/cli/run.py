"""`fedconsole run`: choose the workers, make the plan, start the engine, show the run."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import typer

from fedconsole.cli import options as o
from fedconsole.cli.output import Output, Row, print_rows, say
from fedconsole.errors import NoQuorumError, RefusedError, UsageError
from pi_daemon.protocol.text import clean

if TYPE_CHECKING:
    import subprocess

    from fedconsole.config import Config
    from fedconsole.fleet.device import Device
    from fedconsole.headless import Screen
    from fedconsole.sentences import Line

_SEED_VIRTUAL = 3
_SEED_MODEL = "mnist_cnn.pt"
_PREFLIGHT_COLUMNS = (
    "worker",
    "address",
    "ok",
    "num_examples",
    "batch_seconds",
    "memory_bytes",
    "torch",
    "machine",
    "reason",
    "worries",
)


def run(
    ctx: typer.Context,
    task: o.Task = None,
    init_from: o.InitFrom = None,
    save_model: o.SaveModel = None,
    seed_save_model: o.SeedSaveModel = False,
    data_dir: o.DataDir = None,
    seed: o.Seed = None,
    cuda: o.Cuda = None,
    workers: o.Workers = None,
    all_workers: o.All = False,
    virtual: o.Virtual = None,
    use_virtual: o.UseVirtual = False,
    holdout: o.Holdout = None,
    rounds: o.Rounds = None,
    epochs: o.Epochs = None,
    federate_after_n_batches: o.FederateAfterNBatches = None,
    local_epochs: o.LocalEpochs = None,
    epoch_end: o.EpochEndOption = None,
    stop_at: o.StopAt = None,
    batch_size: o.BatchSize = None,
    test_batch_size: o.TestBatchSize = None,
    lr: o.Lr = None,
    optimizer: o.OptimizerOption = None,
    momentum: o.Momentum = None,
    weight_decay: o.WeightDecay = None,
    nesterov: o.Nesterov = None,
    weighting: o.WeightingOption = None,
    cohort_size: o.CohortSize = None,
    min_updates: o.MinUpdates = None,
    round_timeout: o.RoundTimeout = None,
    on_quorum_loss: o.OnQuorumLossOption = None,
    quorum_timeout: o.QuorumTimeout = None,
    eval_every: o.EvalEvery = None,
    headless: o.Headless = False,
    json: o.Json = False,
    plain: o.Plain = None,
    detach: o.Detach = False,
    quiet: o.Quiet = False,
    verbose: o.Verbose = 0,
    dry_run: o.DryRun = False,
    timeout: o.Timeout = None,
    config: o.ConfigFile = None,
) -> int:
    """Train on the workers' data, and show it.

    Example: fedconsole run --task digits --virtual 3 --rounds 10
    """
    # Typer reads the options from the signature; by their keys they join the other sources.
    return _run(ctx.params)


def _run(options: dict[str, Any]) -> int:
    from fedconsole.cli.console import open_new_run, wants_full_screen
    from fedconsole.config import KEYS, load
    from fedconsole.headless import choose_screen

    given = {key: value for key, value in options.items() if key in KEYS}
    given["workers"] = options["workers"] or None
    if options["use_virtual"] and given["virtual"] is None:
        given["virtual"] = _SEED_VIRTUAL
    if options["seed_save_model"] and given["save_model"] is None:
        given["save_model"] = _SEED_MODEL
    settings = load(given, options["config"])
    if options["all_workers"] or not (settings.workers or settings.virtual):
        found = choose_workers(settings, ask=not options["all_workers"])
        settings = load(given | {"workers": found}, options["config"])
    dry_run, json = options["dry_run"], options["json"]
    if options["detach"]:
        return _detach(settings, dry_run=dry_run)
    front_end = settings.front_end()
    is_plain_talk = options["headless"] or dry_run or front_end.timeout is not None
    if not is_plain_talk and wants_full_screen(
        json, front_end.plain, options["quiet"], options["verbose"]
    ):
        return open_new_run(settings)
    screen: Screen = PreflightScreen()
    if json or not dry_run:
        verbosity = -1 if options["quiet"] else options["verbose"]
        screen = choose_screen(json=json, plain=front_end.plain, verbosity=verbosity)
    return _follow(settings, screen, dry_run=dry_run, timeout_s=front_end.timeout)


def _follow(settings: Config, screen: Screen, *, dry_run: bool, timeout_s: float | None) -> int:
    import asyncio

    from fedconsole.cli.follow import start_and_follow
    from fedconsole.engine.launch import WhileWaiting, start_engine

    def start(run: str, _: WhileWaiting) -> subprocess.Popen[bytes]:
        search_s = settings.front_end().search_seconds
        return start_engine(run, settings.plan(), dry_run=dry_run, search_s=search_s)

    return asyncio.run(start_and_follow(start, screen, timeout_s=timeout_s))


def _detach(settings: Config, *, dry_run: bool) -> int:
    from fedconsole.engine.launch import new_run_id, start_engine

    if dry_run:
        raise UsageError("--detach and --dry-run exclude each other; leave one out")
    run_id = new_run_id()
    start_engine(run_id, settings.plan(), search_s=settings.front_end().search_seconds)
    print(run_id)
    return 0


class PreflightScreen:
    """What a dry run found, as a table on stdout."""

    def __init__(self) -> None:
        self._rows: list[Row] = []
        self._end: Line = {}

    def show(self, line: Line) -> None:
        match line["type"]:
            case "preflight":
                self._rows.append({column: line.get(column) for column in _PREFLIGHT_COLUMNS})
            case "run.finished":
                self._end = line

    def close(self) -> None:
        self._rows.sort(key=lambda row: str(row["worker"]))
        print_rows(self._rows, _PREFLIGHT_COLUMNS, Output.TABLE)
        if reason := self._end.get("reason"):
            say(f"fedconsole: {reason}")


def choose_workers(settings: Config, *, ask: bool) -> tuple[str, ...]:
    """Addresses of devices that have the task's data: all, or those that a person picks.

    Raises:
        NoQuorumError: no device answers.
        RefusedError: none of those that answer has the data.
    """
    import asyncio

    from fedconsole.cli.devices import find_all
    from fedconsole.fleet.viewer import Greeting, greet_all

    async def look() -> list[Greeting]:
        say("looking for devices")
        return await greet_all(
            await find_all(settings.devices, settings.front_end().search_seconds)
        )

    datasets = {}
    for greeting in asyncio.run(look()):
        if greeting.hello is None:
            _leave_out(greeting.device, greeting.reason)
        else:
            datasets[greeting.device] = {card.name for card in greeting.hello.datasets}
    if not datasets:
        raise NoQuorumError(
            "no workers; no device answered in this network; name one with --worker HOST:PORT, "
            "or simulate some with --virtual 3"
        )
    devices = _with_dataset(datasets, settings.check().task)
    if ask and sys.stdin.isatty() and sys.stderr.isatty():
        devices = _pick(devices)
    return tuple(device.address for device in devices)


def _with_dataset(datasets: Mapping[Device, set[str]], task: str) -> list[Device]:
    """The devices that have the task's dataset.

    Raises:
        RefusedError: none has it.
    """
    first, *others = datasets.values()
    # The engine loads the task, too, and refuses what is wrong with it or with all devices alike.
    if all(names == first for names in others) or (wanted := _dataset_of(task)) is None:
        return list(datasets)
    for device, names in datasets.items():
        if wanted not in names:
            has = clean(", ".join(sorted(names))) or "none"
            _leave_out(device, f"it has no dataset {wanted!r} (it has: {has})")
    devices = [device for device, names in datasets.items() if wanted in names]
    if not devices:
        raise RefusedError(
            f"no device has the dataset {wanted!r}: "
            f"start pi-daemon there with --dataset {wanted}=SOURCE"
        )
    return devices


def _leave_out(device: Device, reason: str) -> None:
    say(f"left out: {device.name} at {device.address}: {reason}")


def _dataset_of(task: str) -> str | None:
    """The name of a task's dataset; None: the task cannot be loaded."""
    import subprocess

    # In a process of its own: a task imports torch, and a front end does not.
    program = (
        "import sys; from fedconsole.learning.tasks.loading import load_task; "
        "print(load_task(sys.argv[1]).dataset)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, task], capture_output=True, text=True, check=False
    )
    return done.stdout.splitlines()[-1] if done.returncode == 0 else None


def _pick(devices: list[Device]) -> list[Device]:
    for number, device in enumerate(devices, start=1):
        say(f"{number:3}  {device.name}  {device.address}")
    while True:
        answer = typer.prompt("Train on which, such as 1,3", default="all", err=True)
        try:
            return pick(devices, answer)
        except UsageError as error:
            say(str(error))


def pick(devices: list[Device], answer: str) -> list[Device]:
    """The devices that an answer such as "1,3" or "all" names.

    Raises:
        UsageError: it names none, or one that is not there.
    """
    if answer.strip() == "all":
        return devices
    numbers = answer.replace(",", " ").split()
    if not numbers or not all(n.isdecimal() and 1 <= int(n) <= len(devices) for n in numbers):
        raise UsageError(f"{answer!r} is not all, nor numbers from 1 to {len(devices)}")
    return [devices[number - 1] for number in sorted({int(n) for n in numbers})]
