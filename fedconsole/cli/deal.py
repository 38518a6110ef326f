"""`fedconsole deal`: cut a dataset, and send each device its shard."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fedconsole.cli.devices import ConfigFile, find_all
from fedconsole.cli.output import Output, OutputOption, Row, print_rows, say
from fedconsole.errors import RefusedError, RunFailedError, StorageError, UsageError

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

    from fedconsole.fleet.dealing import Dealt, OnProgress
    from fedconsole.fleet.shards import Shard
    from fedconsole.fleet.viewer import Greeting

_NAMED_S = 10.0
"""To answer, for devices that were named: they are waited for, and may be busy."""
_COLUMNS = ("worker", "address", "outcome", "num_examples", "bytes", "bytes_sent", "sha256")
_DRY_COLUMNS = ("worker", "address", "num_examples", "bytes", "sha256")


def deal(
    source: Annotated[
        str, typer.Argument(help="What to cut: as pi-daemon's --dataset NAME=SOURCE takes it.")
    ],
    name: Annotated[
        str | None,
        typer.Option(help="Of the dataset on the devices.", show_default="as the source is called"),
    ] = None,
    workers: Annotated[
        list[str] | None,
        typer.Option("--worker", metavar="HOST:PORT", help="A device; may be repeated."),
    ] = None,
    all_workers: Annotated[
        bool, typer.Option("--all", help="Every device that answers and takes data, by name.")
    ] = False,
    shard: Annotated[
        str,
        typer.Option(metavar="PLAN", help="even, dirichlet:ALPHA:SEED, or record (whole ones)."),
    ] = "even",
    replace: Annotated[
        bool, typer.Option("--replace", help="Replace other data of that name on the devices.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Cut and show the shards; send nothing.")
    ] = False,
    json: Annotated[bool, typer.Option("--json", help="One JSON object a line.")] = False,
    output: OutputOption = Output.TABLE,
    config: ConfigFile = None,
) -> None:
    """Send shards of a dataset to devices whose owners allow it (pi-daemon --accept-data DIR).

    A transfer that was cut goes on where it was: deal again.

    Example: fedconsole deal data/mnist --name mnist --all
    """
    import asyncio

    from fedconsole.fleet.shards import write_shards
    from fedconsole.headless import json_line

    if bool(workers) == all_workers:
        raise UsageError("name the devices with --worker HOST:PORT, or take all with --all")
    name = _dataset_name(name, source)
    greetings = asyncio.run(_greetings(workers or [], config))
    with _temporary_folder() as folder:
        shards = write_shards(source, shard, len(greetings), folder)
        rows = [_row(g, s, name) for g, s in zip(greetings, shards, strict=True)]
        if not dry_run:
            results = asyncio.run(_deal_all(greetings, shards, name, replace=replace))
            for row, dealt in zip(rows, results, strict=True):
                row |= asdict(dealt)
    if json:
        for row in rows:
            print(json_line(row))
    else:
        if output is Output.TABLE:
            rows = [row | {"sha256": row["sha256"][:12]} for row in rows]
        print_rows(rows, _DRY_COLUMNS if dry_run else _COLUMNS, output)
    if not dry_run:
        _require_success(rows)


@contextmanager
def _temporary_folder() -> Iterator[Path]:
    """A folder for shards, locked while it is used; those of deals that were killed are deleted.

    Raises:
        StorageError: there is no place for it.
    """
    import shutil
    from tempfile import TemporaryDirectory, gettempdir

    prefix = "fedconsole-deal-"
    try:
        for path in Path(gettempdir()).glob(f"{prefix}*"):
            with suppress(OSError), _locked(path):
                shutil.rmtree(path)
        folder = TemporaryDirectory(prefix=prefix)
    except OSError as error:
        raise StorageError(f"no temporary folder: {error.strerror}; set TMPDIR to one") from error
    with folder as name, _locked(Path(name)):
        yield Path(name)


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Raises OSError: it is in use, or another user's."""
    import fcntl

    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        if os.fstat(descriptor).st_uid != os.getuid():
            raise PermissionError(f"{folder} is another user's")
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        os.close(descriptor)


def _dataset_name(given: str | None, source: str) -> str:
    from pi_daemon.protocol.values import DATASET_NAME

    # The task that trains on the sample looks for data of this name.
    name = given or ("digits" if source == "sample" else Path(source).resolve().stem)
    if not re.search(DATASET_NAME, name):
        raise UsageError(
            f"--name {name!r}: expected 1 to 64 letters, digits, dots, dashes and underscores, "
            "and no dot first"
        )
    return name


async def _greetings(workers: list[str], config: Path | None) -> list[Greeting]:
    """The devices that each get a shard, in this order: all that are named, or all that take data.

    Raises:
        UsageError: a device is named twice, or an address is none.
        NotPairedError: one that is named is not paired, or not the one that was.
        RefusedError: no device takes data.
    """
    from fedconsole.config import load
    from fedconsole.fleet.device import Device, Source, parse_address
    from fedconsole.fleet.viewer import greet_all

    if workers:
        named = [Device(a, a, Source.CONFIG) for a in map(parse_address, workers)]
        greetings = await greet_all(named, _NAMED_S)
        first: dict[str, Greeting] = {}
        for greeting in greetings:
            if greeting.failure is not None:
                raise greeting.failure
            device_id = greeting.hello.id if greeting.hello else greeting.device.address
            other = first.setdefault(device_id, greeting).device.address
            if first[device_id] is not greeting:
                raise UsageError(
                    f"{other} and {greeting.device.address} are one device: name it once"
                )
        return greetings
    settings = load({}, config)
    found = await find_all(settings.devices, settings.front_end().search_seconds)
    greetings = []
    for greeting in await greet_all(found):
        if reason := _why_not(greeting):
            say(f"left out: {_label(greeting)} at {greeting.device.address}: {reason}")
        else:
            greetings.append(greeting)
    if not greetings:
        raise RefusedError(
            "no device takes data; its owner may start pi-daemon with --accept-data DIR"
        )
    return sorted(greetings, key=lambda g: (_label(g), g.device.address))


def _why_not(greeting: Greeting) -> str:
    """Why a device is left out of all; "" if it is not."""
    if greeting.hello is None:
        return greeting.reason
    able = greeting.hello.capabilities
    return "" if able and able.max_data_bytes else "it takes no data"


async def _deal_all(
    greetings: Sequence[Greeting], shards: Sequence[Shard], name: str, *, replace: bool
) -> list[Dealt]:
    """Deal to all at once; one that fails stops no other."""
    import asyncio

    from fedconsole.fleet.dealing import deal as deal_one

    labels = [_label(greeting) for greeting in greetings]
    with _progress(labels, [shard.size for shard in shards]) as tellers:
        return await asyncio.gather(
            *(
                deal_one(
                    *(g.device.address, name, shard),
                    device_id=g.hello.id if g.hello and g.is_proven else None,
                    replace=replace,
                    on_progress=tell,
                )
                for g, shard, tell in zip(greetings, shards, tellers, strict=True)
            )
        )


@contextmanager
def _progress(labels: Sequence[str], sizes: Sequence[int]) -> Iterator[list[OnProgress]]:
    """Shows on stderr how many bytes each device has: bars, or a line for each quarter."""
    from fedconsole.headless import shows_bars

    if not shows_bars():
        yield [_lines(label, size) for label, size in zip(labels, sizes, strict=True)]
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

    with Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=24),
        DownloadColumn(binary_units=True),
        TransferSpeedColumn(),
        console=Console(stderr=True, markup=False, highlight=False, emoji=False),
        transient=True,
    ) as bars:
        tasks = [
            bars.add_task(label, total=size) for label, size in zip(labels, sizes, strict=True)
        ]
        yield [partial(_draw, bars, task) for task in tasks]


def _draw(bars: Progress, task: TaskID, num_bytes: int) -> None:
    bars.update(task, completed=num_bytes)


def _lines(label: str, size: int) -> OnProgress:
    said = -1

    def tell(num_bytes: int) -> None:
        nonlocal said
        quarter = 4 * num_bytes // size
        if quarter != said:
            said = quarter
            say(f"{label}: {num_bytes} of {size} bytes ({100 * num_bytes // size} %)")

    return tell


def _row(greeting: Greeting, shard: Shard, name: str) -> dict[str, Any]:
    return {
        "worker": _label(greeting),
        "address": greeting.device.address,
        "dataset": name,
        "num_examples": shard.num_examples,
        "bytes": shard.size,
        "sha256": shard.sha256,
    }


def _label(greeting: Greeting) -> str:
    """The worker's own name; its address as long as it does not answer."""
    from pi_daemon.protocol.text import clean

    return clean(greeting.hello.name, 64) if greeting.hello else greeting.device.name


def _require_success(rows: Sequence[Row]) -> None:
    """Raises RefusedError or RunFailedError, naming every device that has not got its shard."""
    from fedconsole.fleet.dealing import Outcome

    bad = [row for row in rows if row["outcome"] in (Outcome.REFUSED, Outcome.FAILED)]
    if not bad:
        return
    reasons = "; ".join(f"{row['worker']}: {row['reason']}" for row in bad)
    is_all_refused = all(row["outcome"] is Outcome.REFUSED for row in rows)
    error = RefusedError if is_all_refused else RunFailedError
    raise error(f"{len(bad)} of {len(rows)} shards not dealt: {reasons}")
