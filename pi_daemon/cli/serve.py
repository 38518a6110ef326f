"""`pi-daemon` itself: reads the owner's options, describes the data, serves until it is told to end."""

from __future__ import annotations

import asyncio
import errno
import ipaddress
import logging
import os
import platform
import signal
import sys
import uuid
from contextlib import ExitStack
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final, Literal

import typer

from pi_daemon.cli.refusal import parse_size, refuse
from pi_daemon.protocol.limits import MAX_DATASETS, MAX_MODEL_BYTES, MAX_NAME, PORT
from pi_daemon.protocol.text import clean

if TYPE_CHECKING:
    from pi_daemon.data_store import DataStore
    from pi_daemon.identity import Identity
    from pi_daemon.protocol.messages import Capabilities, DatasetCard, Hello
    from pi_daemon.settings import Settings

DEFAULT_MAX_BYTES: Final = 1 << 30
"""Of dealt data: room for any of the usual sets, on a card that holds the system as well."""
MEMORY_SHARE: Final = 0.8
"""Of the device's memory, what the trainer gets unless the owner says otherwise."""


def serve(
    ctx: typer.Context,
    port: Annotated[
        int, typer.Option("--port", "-p", min=0, max=65535, help="0 picks a free one.")
    ] = PORT,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    worker_name: Annotated[
        str,
        typer.Option("--id", metavar="NAME", help="This worker's name.", show_default="host name"),
    ] = "",
    dataset: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=SOURCE",
            help="Data to train on: `sample`, a .npz or .safetensors file with x and y, a folder of "
            "IDX files, a heartbeat .csv, or a folder of WFDB records. Repeatable.",
        ),
    ] = None,
    shard: Annotated[
        str | None,
        typer.Option(help="Own only a part: 1/3, dirichlet:0.3:1/3:SEED, or record:NAME,NAME."),
    ] = None,
    device: Annotated[Literal["cpu", "cuda"], typer.Option(help="Where to train.")] = "cpu",
    state_dir: Annotated[
        str | None,
        typer.Option(help="Key and work files.", show_default="one for each name"),
    ] = None,
    max_memory: Annotated[
        str | None,
        typer.Option(
            metavar="SIZE", help="Of the trainer, such as 512M.", show_default="80 % of all"
        ),
    ] = None,
    max_model: Annotated[
        str | None, typer.Option(metavar="SIZE", help="Largest model to accept, such as 100M.")
    ] = None,
    max_batch_seconds: Annotated[
        float, typer.Option(min=1, help="A batch that takes longer ends the trainer.")
    ] = 600.0,
    accept_data: Annotated[
        str | None,
        typer.Option(
            metavar="DIR",
            help="Let consoles deal data into this folder; what is there is served, too.",
        ),
    ] = None,
    max_bytes: Annotated[
        str | None,
        typer.Option(metavar="SIZE", help="Of all that is dealt.", show_default="1G"),
    ] = None,
    share_labels: Annotated[
        bool, typer.Option("--share-labels", help="Tell consoles how many examples each class has.")
    ] = False,
    insecure: Annotated[
        bool, typer.Option("--insecure", help="Listen beyond this machine, to anybody.")
    ] = False,
    no_mdns: Annotated[bool, typer.Option("--no-mdns", help="Do not announce on mDNS.")] = False,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Log more.")] = False,
    show_version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
) -> None:
    """Let consoles train models on this device's data, which stays here."""
    if ctx.invoked_subcommand is not None:
        return
    if show_version:
        print(_build())
        return
    _set_up_logging(verbose)
    _require_safe_host(host, insecure)
    sources = _sources(dataset or [])
    max_data_bytes = 0
    if accept_data is not None:
        max_data_bytes = parse_size("--max-bytes", max_bytes) or DEFAULT_MAX_BYTES
    elif max_bytes is not None:
        refuse("--max-bytes is the limit of what is dealt: it needs --accept-data DIR")

    import psutil

    from pi_daemon.settings import Settings

    total_bytes = psutil.virtual_memory().total
    settings = Settings(
        worker_name=_name(worker_name),
        host=host,
        port=port,
        sources=sources,
        shard=shard,
        shares_labels=share_labels,
        accept_dir=accept_data,
        device=device,
        max_memory_bytes=parse_size("--max-memory", max_memory) or int(total_bytes * MEMORY_SHARE),
        max_batch_s=max_batch_seconds,
        announces=not no_mdns,
    )
    max_model_bytes = parse_size("--max-model", max_model)
    _run(settings, state_dir, _capabilities(total_bytes, max_model_bytes, max_data_bytes))


def _run(settings: Settings, state_dir: str | None, capabilities: Capabilities) -> None:
    from pi_daemon.data_store import DataStoreError, open_data_store
    from pi_daemon.describing import UnusableDataError
    from pi_daemon.identity import IdentityError, open_identity
    from pi_daemon.paths import UnsafePathError, default_state_dir
    from pi_daemon.protocol.limits import MIN_PROTO, PROTO
    from pi_daemon.protocol.messages import Hello

    folder = Path(state_dir) if state_dir else default_state_dir(settings.worker_name)
    try:
        with ExitStack() as held:
            identity = held.enter_context(open_identity(folder))
            store = None
            if settings.accept_dir is not None:
                store = held.enter_context(
                    open_data_store(Path(settings.accept_dir), settings.shares_labels)
                )
            hello = Hello(
                proto=PROTO,
                min_proto=MIN_PROTO,
                id=identity.device_id,
                name=settings.worker_name,
                boot_id=uuid.uuid4().hex,
                build=_build(),
                capabilities=capabilities,
                datasets=_described(settings, store),
            )
            asyncio.run(_serve(settings, identity, hello, store))
    except (IdentityError, UnsafePathError, UnusableDataError, DataStoreError) as error:
        refuse(str(error))
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            refuse(
                f"port {settings.port} of {settings.host} is in use, perhaps by another pi-daemon: "
                "take another --port; 0 picks a free one"
            )
        refuse(str(error))


async def _serve(
    settings: Settings, identity: Identity, hello: Hello, store: DataStore | None
) -> None:
    from pi_daemon.server import Server

    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        loop.add_signal_handler(number, stop.set)
    held = ", ".join(f"{card.name} ({card.num_examples} examples)" for card in hello.datasets)

    def on_listening(address: str, port: int) -> None:
        shown = f"[{address}]" if ":" in address else address
        print(
            f"pi-daemon {clean(hello.name, 64)} ({identity.short_id}) listens on ws://{shown}:{port}, "
            + (f"datasets: {held}" if held else "no dataset"),
            file=sys.stderr,
            flush=True,
        )

    await Server(settings, identity, hello, store).run(stop, on_listening)


def _set_up_logging(verbose: bool) -> None:
    logging.basicConfig(
        level=logging.DEBUG if verbose else logging.INFO,
        format="%(asctime)s %(levelname)s %(message)s",
        stream=sys.stderr,
    )
    # Each stray connection would log a stack trace.
    logging.getLogger("pi_daemon.websockets").setLevel(logging.CRITICAL)
    for library in ("asyncio", "zeroconf"):
        logging.getLogger(library).setLevel(logging.WARNING)


def _require_safe_host(host: str, insecure: bool) -> None:
    try:
        is_loopback = ipaddress.ip_address(host).is_loopback
    except ValueError:
        refuse(f"--host {host}: expected an IP address, such as 127.0.0.1 or 0.0.0.0")
    if is_loopback:
        return
    if not insecure:
        refuse(
            f"--host {host} would let anybody on the network train on this device's data and read "
            "what comes of it: add --insecure if that is what you want"
        )
    logging.warning(
        "INSECURE: anybody who reaches %s can steer this device and read its updates", host
    )


def _name(worker_name: str) -> str:
    name = worker_name or platform.node() or "worker"
    if len(name) > MAX_NAME:
        refuse(f"--id has {len(name)} characters, at most {MAX_NAME} are allowed")
    return name


def _sources(datasets: list[str]) -> dict[str, str]:
    sources: dict[str, str] = {}
    for dataset in datasets:
        name, equals, source = dataset.partition("=")
        if not (name and equals and source) or len(name) > MAX_NAME:
            refuse(f"--dataset {dataset}: expected NAME=SOURCE, such as digits=sample")
        if name in sources:
            refuse(f"--dataset {name} is given twice")
        sources[name] = source
    return sources


def _described(settings: Settings, store: DataStore | None) -> tuple[DatasetCard, ...]:
    """The cards of the owner's datasets and of those that were dealt."""
    from pi_daemon.describing import describe

    own = describe(settings.sources, settings.shard, settings.shares_labels)
    dealt = store.cards() if store else ()
    for card in dealt:
        if card.name in settings.sources:
            refuse(f"--dataset {card.name}: the folder of --accept-data has one of that name, too")
    if len(own) + len(dealt) > MAX_DATASETS:
        refuse(f"{len(own) + len(dealt)} datasets: a device may have {MAX_DATASETS}")
    return own + dealt


def _capabilities(
    memory_bytes: int, max_model_bytes: int | None, max_data_bytes: int
) -> Capabilities:
    from pi_daemon.protocol.messages import Capabilities
    from pi_daemon.protocol.operators import OPERATORS_DIGEST

    try:
        torch = version("torch")
    except PackageNotFoundError:
        torch = None
    return Capabilities(
        torch=torch,
        operators=OPERATORS_DIGEST if torch else None,
        machine=platform.machine(),
        num_cpus=os.cpu_count() or 1,
        memory_bytes=memory_bytes,
        max_model_bytes=max_model_bytes or min(MAX_MODEL_BYTES, memory_bytes // 4),
        max_data_bytes=max_data_bytes,
    )


def _build() -> str:
    return f"pi-daemon {version('fedconsole')}"
