"""What each command listens on: nothing beyond this machine, unless a device was initialised for it."""

from __future__ import annotations

import asyncio
import ipaddress
import socket
import ssl
import sys
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import psutil
import pytest
import typer
from websockets.exceptions import InvalidHandshake

from fedconsole.cli.main import app as fedconsole_app
from fedconsole.errors import ExitCode
from pi_daemon.cli.main import app as daemon_app
from pi_daemon.trust.keys import open_keys
from pi_daemon.trust.tls import console_context
from tests.support.daemons import daemon, environment
from tests.support.pairing import closing, open_socket, pair, paired_daemon
from tests.support.places import redirect
from tests.support.terminal import terminal

MDNS_PORT = 5353
"""Who announces or searches opens it on all addresses; nobody else may."""
LOOK_S = 0.05


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    return redirect(tmp_path, monkeypatch)


def public_sockets(pid: int) -> set[tuple[str, str, int]]:
    """Program, address and port of what a process and its children listen on beyond this machine."""
    found = set()
    with suppress(psutil.NoSuchProcess):
        parent = psutil.Process(pid)
        for process in (parent, *parent.children(recursive=True)):
            with suppress(psutil.NoSuchProcess):
                found |= {(process.name(), *where) for where in _listening(process)}
    return found


def _listening(process: psutil.Process) -> Iterator[tuple[str, int]]:
    for one in process.net_connections("inet"):
        listens = one.status == psutil.CONN_LISTEN or (
            one.type == socket.SOCK_DGRAM and not one.raddr and one.laddr
        )
        if listens and not ipaddress.ip_address(one.laddr.ip).is_loopback:
            yield one.laddr.ip, one.laddr.port


def options_of(app: typer.Typer, *words: str) -> set[str]:
    """The first name of each option that a command shows."""
    command: Any = typer.main.get_command(app)
    for word in words:
        command = command.commands[word]
    return {p.opts[0] for p in command.params if p.opts[0].startswith("--")} - {"--help"}


# The daemon

DAEMON_OPTIONS: dict[str, tuple[str, ...]] = {
    "--port": ("--port", "0"),
    "--host": ("--host", "127.0.0.2"),
    "--id": ("--id", "alice"),
    "--dataset": ("--dataset", "digits=sample"),
    "--shard": ("--dataset", "digits=sample", "--shard", "1/3"),
    "--device": ("--device", "cpu"),
    "--state-dir": (),
    "--config": ("--config", "empty.toml"),
    "--max-memory": ("--max-memory", "1G"),
    "--max-model": ("--max-model", "10M"),
    "--max-batch-seconds": ("--max-batch-seconds", "60"),
    "--accept-data": ("--accept-data", "dealt"),
    "--max-bytes": ("--accept-data", "dealt", "--max-bytes", "1M"),
    "--share-labels": ("--share-labels",),
    "--no-mdns": (),
    "--verbose": ("--verbose",),
}
OWNERS_COMMANDS: list[tuple[str, ...]] = [
    ("init",),
    ("pair", "--json"),
    ("consoles", "list"),
    ("consoles", "revoke", "desk-1"),
    ("audit",),
    ("install", "--dry-run"),
    ("uninstall", "--root", "card"),
    ("data", "import", "wfdb", "records", "--to", "a.npz"),
    ("data", "import", "csv", "beats.csv", "--to", "b.npz"),
]
OF_A_STATE = {"init", "pair", "consoles", "audit"}
BY_ITSELF = {"--pair", "--version"}
"""Tested below, and no daemon at all."""


def test_every_option_of_the_daemon_is_tried() -> None:
    assert options_of(daemon_app) == DAEMON_OPTIONS.keys() | BY_ITSELF


@pytest.mark.parametrize("option", DAEMON_OPTIONS)
async def test_a_daemon_that_is_not_initialised_listens_on_loopback(
    place: Path, option: str
) -> None:
    (place / "empty.toml").touch()
    async with daemon(place, *DAEMON_OPTIONS[option]) as running:
        assert psutil.Process(running.pid).net_connections("tcp")
        assert public_sockets(running.pid) == set()


async def test_only_an_initialised_daemon_announces_and_opens_the_port_for_it(place: Path) -> None:
    initialised = ("--host", "127.0.0.1", "--pair")
    async with (
        daemon(place, is_announced=True) as alice,
        daemon(place, *initialised, name="bob", is_announced=True) as bob,
    ):
        # Alice began earlier: whatever she opened would be open as well by then.
        async with asyncio.timeout(60):
            while not public_sockets(bob.pid):  # noqa: ASYNC110
                await asyncio.sleep(LOOK_S)
        assert {port for _, _, port in public_sockets(bob.pid)} == {MDNS_PORT}
        assert public_sockets(alice.pid) == set()


async def test_an_initialised_daemon_listens_for_the_consoles_that_it_knows(place: Path) -> None:
    async with daemon(place, "--pair") as alice:
        assert {where[1:] for where in public_sockets(alice.pid)} == {("0.0.0.0", alice.port)}
        stranger, desk = open_keys(place / "stranger"), open_keys(place / "desk")
        local = alice.join.split(":")
        known = await pair(":".join([local[0], "127.0.0.1", *local[2:]]), desk)
        with pytest.raises((OSError, InvalidHandshake, EOFError)):
            async with open_socket(alice.port):
                pass
        with pytest.raises(ssl.SSLError, match="ALERT_UNKNOWN_CA"):
            async with open_socket(alice.port, console_context(stranger, [known.device])):
                pass
        async with open_socket(alice.port, console_context(None, [known.device])) as link:
            assert (await closing(link))[0] == 4401


async def test_the_owners_commands_listen_on_nothing_public(place: Path) -> None:
    assert commands_of(daemon_app) == {named(daemon_app, words) for words in OWNERS_COMMANDS}
    async with paired_daemon(place):
        for words in OWNERS_COMMANDS:
            state = ("--state-dir", str(place / "alice")) if words[0] in OF_A_STATE else ()
            assert await seen("pi_daemon.cli.main", *words, *state) == set(), words


# The console

RUN = (
    *("run", "--virtual", "2", "--federate-after-n-batches", "1", "--batch-size", "8"),
    *("--lr", "0.1", "--momentum", "0.5", "--weight-decay", "0.01", "--nesterov", "--seed", "2"),
    *("--weighting", "uniform", "--cohort-size", "2", "--min-updates", "1", "--holdout", "0.1"),
    *("--test-batch-size", "100", "--round-timeout", "60", "--on-quorum-loss", "fail"),
    *("--quorum-timeout", "60", "--eval-every", "1", "--task", "digits", "--optimizer", "sgd"),
)
CONSOLE_COMMANDS: dict[str, list[tuple[str, ...]]] = {
    "run": [
        (*RUN, "--rounds", "2", "--headless", "--json", "--save-model", "m", "--timeout", "60"),
        ("run", "--virtual", "1", "--rounds", "1", "--plain", "--init-from", "m", "--verbose"),
        (
            "run",
            "--virtual",
            "1",
            "--local-epochs",
            "1",
            "--epochs",
            "1",
            "--quiet",
            "--epoch-end",
            "all",
        ),
        (
            "run",
            "--virtual",
            "1",
            "--rounds",
            "1",
            "--dry-run",
            "--data-dir",
            ".",
            "--config",
            "c.toml",
        ),
        ("run", "--virtual", "1", "--rounds", "1", "--stop-at", "accuracy=0.1", "--detach"),
        ("run", "--all", "--rounds", "1", "--headless"),
        ("run", "--worker", "127.0.0.1:1", "--rounds", "1", "--headless", "--cuda"),
    ],
    "demo": [
        ("demo", "--workers", "1", "--headless", "--json"),
        ("demo", "--workers", "1", "--plain", "--verbose"),
        ("demo", "--workers", "2", "--quiet"),
    ],
    "discover": [("discover", "--seconds", "1", "--output", "json", "--config", "c.toml")],
    "doctor": [("doctor", "--output", "table", "--config", "c.toml"), ("doctor",)],
}

SEARCHING = {"discover", "doctor"}
"""Ask on mDNS."""


@pytest.mark.parametrize("command", CONSOLE_COMMANDS)
def test_every_option_of_the_console_is_tried(command: str) -> None:
    tried = {word for words in CONSOLE_COMMANDS[command] for word in words if word[:2] == "--"}
    hidden = {"--save_model", "--use-virtual"}
    assert options_of(fedconsole_app, command) - hidden <= tried


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("command", CONSOLE_COMMANDS)
async def test_a_command_of_the_console_and_its_engine_listen_on_nothing_public(
    place: Path, command: str
) -> None:
    (place / "c.toml").touch()
    for words in CONSOLE_COMMANDS[command]:
        found = await seen("fedconsole.cli.entry", *words)
        assert {port for _, _, port in found} <= ({MDNS_PORT} if command in SEARCHING else set())


STEPS: list[tuple[str, ...]] = [
    ("identity", "show"),
    ("pair", "JOIN"),
    ("devices", "list"),
    ("devices", "show", "alice"),
    ("devices", "ping", "alice"),
    ("deal", "sample", "--worker", "ADDRESS"),
    (
        "run",
        "--worker",
        "ADDRESS",
        "--rounds",
        "1",
        "--federate-after-n-batches",
        "1",
        "--headless",
    ),
    ("runs", "list"),
    ("runs", "show"),
    ("runs", "export", "latest", "--csv"),
    ("logs", "latest"),
    ("attach", "latest", "--plain"),
    ("pause", "latest"),
    ("resume", "latest"),
    ("abort", "latest"),
    ("quorum", "latest", "wait"),
    ("screenshot", "--out", "live.svg"),
    ("runs", "rm", "latest", "--yes"),
    ("config", "path"),
    ("config", "show"),
    ("config", "check"),
    ("config", "edit"),
    ("completion", "bash"),
    ("version",),
    ("devices", "forget", "alice", "--yes"),
]
"""What a console does with a device, in this order."""
ON_A_TERMINAL = {"runs replay", "runs compare"}
"""Only show what is stored: the first on the full screen, the second of two runs."""


def test_every_command_of_the_console_is_tried() -> None:
    tried = {named(fedconsole_app, words) for words in STEPS}
    assert commands_of(fedconsole_app) == tried | CONSOLE_COMMANDS.keys() | ON_A_TERMINAL


@pytest.mark.timeout(600)
async def test_what_a_console_does_with_a_device_opens_nothing_public(place: Path) -> None:
    options = ("--host", "127.0.0.1", "--pair", "--accept-data", "dealt")
    async with daemon(place, *options) as alice:
        put = {"JOIN": alice.join, "ADDRESS": f"127.0.0.1:{alice.port}"}
        for words in STEPS:
            found = await seen("fedconsole.cli.entry", *(put.get(word, word) for word in words))
            assert found == set(), words


async def test_the_full_screen_listens_on_nothing_public(place: Path) -> None:
    async with terminal() as opened:
        await opened.shows("fedconsole", "Fleet")
        assert public_sockets(opened.process.pid) == set()


def commands_of(app: typer.Typer) -> set[str]:
    def leaves(command: Any, path: str) -> Iterator[str]:
        inner = getattr(command, "commands", {})
        for name, each in inner.items():
            yield from leaves(each, f"{path} {name}")
        if not inner:
            yield path.strip()

    return set(leaves(typer.main.get_command(app), ""))


def named(app: typer.Typer, words: Sequence[str]) -> str:
    """Which command a command line gives."""
    [name] = [n for n in commands_of(app) if n.split() == list(words[: len(n.split())])]
    return name


async def seen(module: str, *words: str) -> set[tuple[str, str, int]]:
    """All that a command listens on beyond this machine, from its start to its end."""
    found: set[tuple[str, str, int]] = set()
    async with running_command(module, *words) as process:
        ended = asyncio.get_running_loop().create_task(process.communicate())
        while not ended.done():
            found |= public_sockets(process.pid)
            await asyncio.wait([ended], timeout=LOOK_S)
        assert process.returncode != ExitCode.USAGE, ended.result()[1].decode()
    return found


@asynccontextmanager
async def running_command(module: str, *words: str) -> AsyncIterator[asyncio.subprocess.Process]:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", module, *words),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env=environment(Path.cwd() / "r"),
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.terminate()
        await process.communicate()
