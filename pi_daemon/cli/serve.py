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
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from pi_daemon.cli import options as o
from pi_daemon.cli.configuring import chosen, full_name, settings_of
from pi_daemon.cli.refusal import refuse
from pi_daemon.cli.trust import command_line, show_join_string
from pi_daemon.protocol.limits import MAX_DATASETS, MAX_MODEL_BYTES, MAX_NAME
from pi_daemon.protocol.text import clean
from pi_daemon.server.log_flood import FloodFilter

if TYPE_CHECKING:
    from pi_daemon.protocol.messages import Capabilities, DatasetCard, Hello
    from pi_daemon.server.data_store import DataStore
    from pi_daemon.server.gate import Gate
    from pi_daemon.server.server import Server
    from pi_daemon.settings import Settings


def serve(
    ctx: typer.Context,
    config: o.Config = None,
    port: o.Port = None,
    host: o.Host = None,
    worker_name: o.WorkerName = "",
    dataset: o.Dataset = None,
    shard: o.Shard = None,
    device: o.Device = None,
    state_dir: o.StateDir = None,
    max_memory: o.MaxMemory = None,
    max_model: o.MaxModel = None,
    max_batch_seconds: o.MaxBatchSeconds = None,
    accept_data: o.AcceptData = None,
    max_bytes: o.MaxBytes = None,
    share_labels: o.ShareLabels = False,
    pair: o.Pair = False,
    no_mdns: o.NoMdns = False,
    verbose: o.Verbose = False,
    show_version: o.ShowVersion = False,
) -> None:
    """Let consoles train models on this device's data, which stays here."""
    if ctx.invoked_subcommand is not None:
        return
    if show_version:
        print(_build())
        return
    decided = chosen(
        config,
        {
            "port": port,
            "host": host,
            "id": full_name(worker_name) if worker_name else None,
            "datasets": _sources(dataset or []) or None,
            "shard": shard,
            "device": device,
            "state_dir": state_dir,
            "max_memory": max_memory,
            "max_model": max_model,
            "max_batch_seconds": max_batch_seconds,
            "accept_data": accept_data,
            "max_bytes": max_bytes,
            "share_labels": share_labels,
            "no_mdns": no_mdns,
            "verbose": verbose,
        },
    )
    _set_up_logging(decided.config.verbose)

    from pi_daemon.trust.consoles import is_initialised

    folder = decided.state_dir
    admits = pair or is_initialised(folder)
    # The other commands look into the default files, and not into one that is named here.
    own_dir = state_dir or (str(folder) if config else None)
    how_to_pair = command_line("pair", worker_name, own_dir)
    settings = settings_of(decided, _safe_host(decided.config.host, admits))
    _run(settings, folder, _Doorkeeping(admits, pair, how_to_pair))


@dataclass(frozen=True, slots=True)
class _Doorkeeping:
    admits: bool
    """Only consoles that are paired; otherwise anybody on this machine."""
    pairs: bool
    """One, as soon as it listens."""
    how_to_pair: str
    """The command that lets another one pair."""


def _run(settings: Settings, folder: Path, door: _Doorkeeping) -> None:
    from pi_daemon.identity import IdentityError, open_identity
    from pi_daemon.paths import UnsafePathError
    from pi_daemon.protocol.limits import MIN_PROTO, PROTO
    from pi_daemon.protocol.messages import Hello
    from pi_daemon.server.data_store import DataStoreError, open_data_store
    from pi_daemon.server.describing import UnusableDataError
    from pi_daemon.server.gate import open_gate
    from pi_daemon.server.server import Server

    try:
        with ExitStack() as held:
            identity = held.enter_context(open_identity(folder))
            gate = None
            if door.admits:
                gate = open_gate(folder, identity.keys, settings.worker_name)
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
                capabilities=_capabilities(settings),
                datasets=_described(settings, store),
            )
            server = Server(settings, identity, hello, store, gate)
            asyncio.run(_serve(server, hello, gate, door))
    except (IdentityError, UnsafePathError, UnusableDataError, DataStoreError) as error:
        refuse(str(error))
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            refuse(
                f"port {settings.port} of {settings.host} is in use, perhaps by another pi-daemon: "
                "take another --port; 0 picks a free one"
            )
        refuse(str(error))


async def _serve(server: Server, hello: Hello, gate: Gate | None, door: _Doorkeeping) -> None:
    from pi_daemon.discovery import reachable_address
    from pi_daemon.protocol.pairing import ConsoleRole
    from pi_daemon.server.gate import names_of

    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        loop.add_signal_handler(number, stop.set)
    held = ", ".join(f"{card.name} ({card.num_examples} examples)" for card in hello.datasets)

    def on_listening(address: str, port: int) -> None:
        shown = f"[{address}]" if ":" in address else address
        print(
            f"pi-daemon {clean(hello.name, 64)} ({hello.id[:7]}) listens on "
            f"{'wss' if gate else 'ws'}://{shown}:{port}, "
            + (f"datasets: {held}" if held else "no dataset"),
            file=sys.stderr,
            flush=True,
        )
        if gate is not None:
            shown = names_of([console.name for console in gate.consoles])
            hint = "" if door.pairs else f"; to pair a console: {clean(door.how_to_pair)}"
            print(
                f"pi-daemon: paired with {shown or 'nobody yet'}{hint}",
                file=sys.stderr,
                flush=True,
            )
            if door.pairs:
                host = reachable_address(address)
                show_join_string(gate.invite(host, port, ConsoleRole.OPERATOR))

    await server.run(stop, on_listening)


def _set_up_logging(verbose: bool) -> None:
    logging.basicConfig(
        level=logging.DEBUG if verbose else logging.INFO,
        format="%(asctime)s %(levelname)s %(message)s",
        stream=sys.stderr,
    )
    for handler in logging.getLogger().handlers:
        handler.addFilter(FloodFilter())
    # Each stray connection would log a stack trace.
    logging.getLogger("pi_daemon.websockets").setLevel(logging.CRITICAL)
    for library in ("asyncio", "zeroconf"):
        logging.getLogger(library).setLevel(logging.WARNING)


def _safe_host(host: str | None, admits: bool) -> str:
    """Where to listen: beyond this machine only where consoles have to be paired."""
    if host is None:
        return "0.0.0.0" if admits else "127.0.0.1"
    try:
        is_loopback = ipaddress.ip_address(host).is_loopback
    except ValueError:
        refuse(f"--host {host}: expected an IP address, such as 127.0.0.1 or 0.0.0.0")
    if not (admits or is_loopback):
        refuse(
            f"--host {host} would let anybody on the network train on this device's data and read "
            "what comes of it: run `pi-daemon init` first with the same --id or --state-dir, or add "
            "--pair; then only consoles that you pair get in"
        )
    return host


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
    from pi_daemon.server.describing import describe

    own = describe(settings.sources, settings.shard, settings.shares_labels)
    dealt = store.cards() if store else ()
    for card in dealt:
        if card.name in settings.sources:
            refuse(f"--dataset {card.name}: the folder of --accept-data has one of that name, too")
    if len(own) + len(dealt) > MAX_DATASETS:
        refuse(f"{len(own) + len(dealt)} datasets: a device may have {MAX_DATASETS}")
    return own + dealt


def _capabilities(settings: Settings) -> Capabilities:
    import psutil

    from pi_daemon.protocol.messages import Capabilities
    from pi_daemon.protocol.operators import OPERATORS_DIGEST

    try:
        torch = version("torch")
    except PackageNotFoundError:
        torch = None
    memory_bytes = psutil.virtual_memory().total
    return Capabilities(
        torch=torch,
        operators=OPERATORS_DIGEST if torch else None,
        machine=platform.machine(),
        num_cpus=os.cpu_count() or 1,
        memory_bytes=memory_bytes,
        max_model_bytes=settings.max_model_bytes or min(MAX_MODEL_BYTES, memory_bytes // 4),
        max_data_bytes=settings.max_data_bytes,
    )


def _build() -> str:
    return f"pi-daemon {version('fedconsole')}"
