"""What each command listens on: nothing beyond this machine, unless a device was initialised for it.

Each line below is a command that is really carried out, while the sockets of every process of the test are
looked at. One process takes several options where they do not exclude each other; together the lines have
every option of every command, and every setting of the environment, or a test fails.
"""

from __future__ import annotations

import asyncio
import ssl
from pathlib import Path

import psutil
import pytest
import typer
from websockets.exceptions import InvalidHandshake

from fedconsole.cli.main import app as fedconsole_app
from fedconsole.config import KEYS
from pi_daemon.cli.main import app as daemon_app
from pi_daemon.trust.keys import open_keys
from pi_daemon.trust.tls import console_context
from tests.support.daemons import daemon
from tests.support.open_sockets import (
    FEDCONSOLE,
    LOOK_S,
    PI_DAEMON,
    all_of,
    carry_out,
    carry_out_all,
    commands_of,
    looked,
    looking,
    options_in,
    processes_in,
    sockets_of,
)
from tests.support.pairing import closing, open_socket, pair, paired_daemon
from tests.support.places import redirect
from tests.support.terminal import terminal

MDNS_PORT = 5353
"""Who announces or searches opens it on all addresses; nobody else may."""


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("EDITOR", "true")
    place = redirect(tmp_path, monkeypatch)
    (place / "c.toml").touch()
    (place / "beats.csv").write_text(",".join(["0.5"] * 187 + ["1"]) + "\n")
    return place


# What is carried out. An exit code other than 0 stands before its line; where a line ends in `until`, it is
# repeated until it prints that. {PLACE} is the test's folder, {RUNS} are two runs that are stored there, {JOIN}
# and {ADDRESS} are a device's.

DAEMONS = (
    (),
    ("--host", "127.0.0.2", "--no-mdns"),
    (
        *("--port", "0", "--id", "alice", "--state-dir", "alice", "--config", "c.toml"),
        *("--dataset", "digits=sample", "--shard", "1/3", "--share-labels", "--device", "cpu"),
        *("--max-memory", "1G", "--max-model", "10M", "--max-batch-seconds", "60"),
        *("--accept-data", "dealt", "--max-bytes", "1M", "--verbose"),
    ),
)
"""That are not initialised."""
OWNER = """\
--version
init --id bob --state-dir {PLACE}/bob
pair --id alice --state-dir {PLACE}/alice --viewer --address 127.0.0.1 --json
consoles list --id alice --state-dir {PLACE}/alice --json
consoles revoke --id alice --state-dir {PLACE}/alice desk-1
audit --last 1 --json --id alice --state-dir {PLACE}/alice
install --dry-run --root {PLACE}/card
uninstall --root {PLACE}/card
3: data import wfdb records --to a.npz --lead 0 --records 100 --rr --force
data import csv beats.csv --to b.npz --force
"""
"""What a device's owner does beside the daemon that runs."""
WITHOUT_A_DEVICE = """\
--version
--lang ko --color never version
--show-completion
[01]: --install-completion
completion bash
identity show --output json
config path
config show --origin --output json --config c.toml
config check --config c.toml
config edit --config c.toml
2: --no-screen-reader
"""
ON_A_DEVICE = """\
pair {JOIN} --output json
discover --seconds 0 --output json --config c.toml
devices --output json --config c.toml
devices list --output json --config c.toml
devices show alice --output json --config c.toml
devices ping alice --config c.toml
deal sample --worker {ADDRESS} --name digits --shard even --json
deal sample --all --name digits --shard even --replace --dry-run --output json --config c.toml
run --worker {ADDRESS} --rounds 60 --federate-after-n-batches 1 --batch-size 8 --detach
logs latest --json until round.started
pause latest
3: quorum latest wait
resume latest & attach latest --json & attach latest --plain --verbose & attach latest --quiet & logs latest --follow
3: abort latest --after-round
runs list --output json
runs show latest --output json
runs export latest --json
runs export latest --csv
runs export latest --markdown
runs export latest --svg
runs export latest --model out.safetensors
screenshot latest --screen live --size 80x24 --out live.svg --seq 5
devices forget alice --yes
runs rm latest --yes
"""
"""What a console does with a device, in this order."""
RUNS = {
    "most options": """\
run --task digits --virtual 2 --rounds 2 --federate-after-n-batches 1 --batch-size 8 --lr 0.1 \
--momentum 0.5 --weight-decay 0.01 --nesterov --optimizer sgd --seed 2 --weighting uniform \
--cohort-size 2 --min-updates 1 --holdout 0.1 --test-batch-size 100 --round-timeout 60 \
--on-quorum-loss fail --quorum-timeout 60 --eval-every 1 --headless --json --save-model \
m.safetensors --timeout 300 --config c.toml
run --virtual 1 --epochs 1 --local-epochs 1 --epoch-end all --plain --verbose --stop-at \
accuracy=0.01 --init-from m.safetensors --save_model
runs compare {RUNS} --output json
""",
    "the options of 2020": "run --use-virtual --rounds 1 --federate-after-n-batches 1 --quiet",
    "no run": """\
5: run --all --rounds 1 --headless
3: run --virtual 1 --task mnist --data-dir {PLACE} --rounds 1 --dry-run
[03]: run --virtual 1 --rounds 1 --cuda --dry-run
""",
    "demo": "demo --workers 1 --headless --json",
    "plain demo": "demo --workers 1 --plain --verbose",
    "quiet demo": "demo --workers 2 --quiet",
}
TAKEN_UP = ("--json", "--plain --verbose", "--quiet --headless", "--detach")
ON_A_TERMINAL = {
    "--mouse --lang en": "Fleet",
    "--no-mouse --lang ko": "장치",
    "--screen-reader": "1",
}
SETTINGS = {
    "run --headless": "task=digits virtual=2 rounds=1 federate_after_n_batches=1 batch_size=8 "
    "test_batch_size=100 lr=0.1 optimizer=sgd momentum=0.5 nesterov=true weight_decay=0.01 "
    "holdout=0.1 weighting=uniform cohort_size=2 min_updates=1 seed=2 round_timeout=60 "
    "on_quorum_loss=fail quorum_timeout=60 eval_every=1 save_model=m.safetensors cuda=false "
    "plain=true timeout=300 search_seconds=0",
    "run": "virtual=1 epochs=1 local_epochs=1 epoch_end=all stop_at=accuracy=0.01 "
    "init_from=m.safetensors",
    "3: run --dry-run": "task=mnist data_dir=. virtual=1 rounds=1",
    "5: run": "workers=127.0.0.1:1 rounds=1 quorum_timeout=1",
}
"""Of the environment, there in capitals and after FEDCONSOLE_, for each of some lines."""
SETTINGS_OF_THE_SCREEN = "lang=en theme=fed-light glyphs=ascii mouse=false bell=false"
OTHER_VARIABLES = ("NO_COLOR=1", "FORCE_COLOR=1", "CLICOLOR=0", "TERM=dumb", "CI=1", "VISUAL=true")
SEARCHING = """\
discover --seconds 0.5
doctor --output json
devices list
"""


# That the lines are all


def test_every_option_of_the_device_is_tried() -> None:
    served = {name for options in DAEMONS for name in options_in(daemon_app, " ".join(options))}
    tried = {name for line in OWNER.splitlines() for name in options_in(daemon_app, line)}
    # --pair is what the tests of initialised daemons begin with.
    assert served | tried | {"--pair"} == all_of(daemon_app)


def test_every_option_of_the_console_is_tried() -> None:
    lines = "\n".join([WITHOUT_A_DEVICE, ON_A_DEVICE, *RUNS.values(), SEARCHING]).splitlines()
    lines = [part for line in lines for part in line.split(" & ")]
    lines += [f"resume latest {options}" for options in TAKEN_UP]
    lines += [*ON_A_TERMINAL, "runs replay latest --speed 60"]
    tried = {name for line in lines for name in options_in(fedconsole_app, line)}
    assert tried == all_of(fedconsole_app)


def test_every_setting_of_the_environment_is_tried() -> None:
    lines = (*SETTINGS.values(), SETTINGS_OF_THE_SCREEN)
    tried = {name for line in lines for name in environment(line)}
    assert tried == {f"FEDCONSOLE_{key.upper()}" for key in KEYS}


def environment(settings: str) -> dict[str, str]:
    pairs = (pair.partition("=") for pair in settings.split())
    return {f"FEDCONSOLE_{key.upper()}": value for key, _, value in pairs}


# The device


@pytest.mark.parametrize("options", DAEMONS)
async def test_a_daemon_that_is_not_initialised_listens_on_loopback(
    place: Path, options: tuple[str, ...]
) -> None:
    async with (
        looking(place) as found,
        daemon(place, *options, is_announced="--no-mdns" not in options) as running,
    ):
        assert psutil.Process(running.pid).net_connections("tcp")
    assert found == set()


async def test_only_an_initialised_daemon_announces_and_opens_the_port_for_it(place: Path) -> None:
    initialised = ("--host", "127.0.0.1", "--pair")
    async with (
        daemon(place, is_announced=True) as alice,
        daemon(place, *initialised, name="bob", is_announced=True) as bob,
    ):
        # Alice began earlier: whatever she opened would be open as well by then.
        async with asyncio.timeout(60):
            while not sockets_of(bob.pid):  # noqa: ASYNC110
                await asyncio.sleep(LOOK_S)
        assert {port for _, _, port in sockets_of(bob.pid)} == {MDNS_PORT}
        assert sockets_of(alice.pid) == set()


async def test_an_initialised_daemon_listens_for_the_consoles_that_it_knows(place: Path) -> None:
    async with daemon(place, "--pair") as alice:
        assert {where[1:] for where in sockets_of(alice.pid)} == {("0.0.0.0", alice.port)}
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
    (place / "card" / "etc").mkdir(parents=True)
    async with paired_daemon(place), looking(place) as found:
        await carry_out_all(PI_DAEMON, OWNER, PLACE=str(place))
    assert found == set()


# The console


@pytest.mark.parametrize(("module", "app"), [(PI_DAEMON, daemon_app), (FEDCONSOLE, fedconsole_app)])
async def test_the_help_of_each_command_listens_on_nothing_public(
    place: Path, module: str, app: typer.Typer
) -> None:
    lines = [f"{command} --help".strip() for command in commands_of(app)]
    groups = [" & ".join(lines[i : i + 4]) for i in range(0, len(lines), 4)]
    async with looking(place) as found:
        await carry_out_all(module, "\n".join(groups))
    assert found == set()


async def test_what_needs_no_device_listens_on_nothing_public(place: Path) -> None:
    async with looking(place) as found:
        await carry_out_all(FEDCONSOLE, WITHOUT_A_DEVICE)
    assert found == set()


@pytest.mark.timeout(600)
async def test_what_a_console_does_with_a_device_opens_nothing_public(place: Path) -> None:
    options = ("--host", "127.0.0.1", "--pair", "--accept-data", "dealt")
    async with looking(place) as found, daemon(place, *options) as alice:
        address = f"127.0.0.1:{alice.port}"
        *before, last = ON_A_DEVICE.splitlines()
        await carry_out_all(FEDCONSOLE, "\n".join(before), JOIN=alice.join, ADDRESS=address)
        async with terminal("runs", "replay", "latest", "--speed", "60") as replay:
            await replay.shows("replay")
            await looked(place)
        await carry_out(FEDCONSOLE, last)
    assert found == set()


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("what", RUNS)
async def test_a_run_and_its_engine_listen_on_nothing_public(place: Path, what: str) -> None:
    async with looking(place) as found:
        await carry_out_all(FEDCONSOLE, RUNS[what], PLACE=str(place))
    assert found == set()


@pytest.mark.slow
@pytest.mark.timeout(600)
async def test_no_setting_of_the_environment_opens_anything_public(place: Path) -> None:
    async with looking(place) as found:
        for line, settings in SETTINGS.items():
            await carry_out(FEDCONSOLE, line, environment(settings))
    assert found == set()


async def test_no_other_variable_opens_anything_public(place: Path) -> None:
    async with looking(place) as found:
        for variable in OTHER_VARIABLES:
            name, _, value = variable.partition("=")
            for line in ("devices list", "config edit", "doctor"):
                await carry_out(FEDCONSOLE, f"[01]: {line}", {name: value})
    assert found == set()


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("options", TAKEN_UP)
async def test_a_run_that_is_taken_up_listens_on_nothing_public(place: Path, options: str) -> None:
    async with looking(place) as found:
        await carry_out(
            FEDCONSOLE, "run --virtual 1 --rounds 200 --federate-after-n-batches 1 --detach"
        )
        await carry_out(FEDCONSOLE, "logs latest --json until round.finished")
        [engine] = [p for p in processes_in(place) if "fedconsole.engine" in p.cmdline()]
        engine.kill()
        psutil.wait_procs([engine])
        await carry_out(FEDCONSOLE, f"resume latest {options}")
        if options == "--detach":
            await carry_out(FEDCONSOLE, "abort latest")
    assert found == set()


@pytest.mark.parametrize("options", ON_A_TERMINAL)
async def test_the_full_screen_listens_on_nothing_public(place: Path, options: str) -> None:
    async with looking(place) as found, terminal(*options.split()) as opened:
        await opened.shows("fedconsole", ON_A_TERMINAL[options])
    assert found == set()


async def test_the_full_screen_as_the_environment_wants_it_listens_on_nothing_public(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in environment(SETTINGS_OF_THE_SCREEN).items():
        monkeypatch.setenv(name, value)
    async with looking(place) as found, terminal() as opened:
        await opened.shows("fedconsole", "Fleet")
    assert found == set()


async def test_what_searches_opens_the_port_of_mdns_and_nothing_else(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FEDCONSOLE_SEARCH_SECONDS", "0.5")
    async with looking(place) as found:
        await carry_out_all(FEDCONSOLE, SEARCHING)
        async with terminal() as opened:
            await opened.shows("fedconsole", "Fleet")
            await looked(place)
    assert {port for _, _, port in found} <= {MDNS_PORT}
