"""`fedconsole deal` to real daemons: what arrives, what a cut costs, and training on it afterwards."""

from __future__ import annotations

import asyncio
import json
import os
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fedconsole.cli.main import carry_out
from pi_daemon.protocol.limits import CHUNK_BYTES
from tests.support.daemons import RUNTIME, DaemonProcess, daemon
from tests.support.links import open_link
from tests.support.places import redirect
from tests.support.relay import relay

Capture = pytest.CaptureFixture[str]

MAIN = "from fedconsole.cli.main import main; main()"
NUM_BYTES = 12_000_000


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    redirect(tmp_path, monkeypatch)
    # The daemons of this test are found in the registry of the place, and no others.
    (tmp_path / RUNTIME).mkdir(mode=0o700)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / RUNTIME))
    return tmp_path


@pytest.fixture
def source(place: Path) -> str:
    """Noise of 12 MB, in four recordings of unequal length."""
    x = np.random.default_rng(1).integers(0, 255, (NUM_BYTES // 1000, 1000), dtype=np.uint8)
    record = np.repeat([101, 102, 103, 104], [6_000, 3_000, 2_000, 1_000])
    path = place / "noise.npz"
    np.savez(path, x=x, y=np.arange(len(x)) % 3, record=record)
    return str(path)


def accepts(place: Path, name: str) -> tuple[str, str]:
    return "--accept-data", str(place / f"{name}-data")


@pytest.fixture
async def alice(place: Path) -> AsyncIterator[DaemonProcess]:
    async with daemon(place, *accepts(place, "alice")) as running:
        yield running


async def answer(capsys: Capture, *arguments: str) -> tuple[int, list[dict[str, Any]], str]:
    """Exit code, lines of JSON and stderr of a `deal`."""
    exit_code = await asyncio.to_thread(carry_out, ["deal", *arguments, "--json"])
    out, err = capsys.readouterr()
    return exit_code, [json.loads(line) for line in out.splitlines()], err


async def train(*options: str) -> tuple[int, list[dict[str, Any]]]:
    """Exit code and lines of a `run`."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", MAIN, "run", "--headless", "--json", *options),
        stdout=asyncio.subprocess.PIPE,
    )
    out, _ = await process.communicate()
    assert process.returncode is not None
    return process.returncode, [json.loads(line) for line in out.splitlines()]


async def part_of(place: Path, port: int, num_bytes: int) -> None:
    """Wait until so much of a dataset lies on alice's disk; the daemon's pongs are the clock."""
    async with asyncio.timeout(60), open_link(port) as link:
        while not any(
            part.stat().st_size >= num_bytes for part in (place / "alice-data").glob(".*")
        ):
            await (await link.socket.ping())


def address(port: int) -> tuple[str, str]:
    return "--worker", f"127.0.0.1:{port}"


async def test_dealt_digits_are_trained_on(place: Path, capsys: Capture) -> None:
    async with AsyncExitStack() as daemons:
        for name in ("bob", "alice"):
            await daemons.enter_async_context(daemon(place, *accepts(place, name), name=name))
        await daemons.enter_async_context(daemon(place, name="carol"))
        exit_code, rows, err = await answer(capsys, "sample", "--all")
        assert exit_code == 0
        assert "left out: carol" in err
        assert [(row["worker"], row["outcome"], row["num_examples"]) for row in rows] == [
            ("alice", "stored", 718),
            ("bob", "stored", 719),
        ]
        options = ("--task", "digits", "--rounds", "1", "--federate-after-n-batches", "5")
        workers = [option for row in rows for option in ("--worker", row["address"])]
        exit_code, lines = await train(*options, *workers)
        [finished] = [line for line in lines if line["type"] == "round.finished"]
        assert (exit_code, finished["updates"]) == (0, ["alice", "bob"])


async def test_the_table_names_each_worker_and_the_device_shows_its_card(
    alice: DaemonProcess, source: str, capsys: Capture
) -> None:
    arguments = ["deal", source, *address(alice.port), "--shard", "record"]
    assert await asyncio.to_thread(carry_out, [*arguments, "--dry-run"]) == 0
    dry, err = capsys.readouterr()
    assert dry.split("\n")[1].split()[:3] == ["alice", f"127.0.0.1:{alice.port}", "12000"]
    assert err == ""
    assert await asyncio.to_thread(carry_out, arguments) == 0
    out, err = capsys.readouterr()
    assert out.split("\n")[1].split()[:4] == ["alice", f"127.0.0.1:{alice.port}", "stored", "12000"]
    # A line for each quarter, when the first chunk in it has gone.
    assert [line.rpartition("(")[2][:1] for line in err.splitlines()] == ["0", "2", "5", "7", "1"]
    assert await asyncio.to_thread(carry_out, ["devices", "show", "alice"]) == 0
    [_, row] = capsys.readouterr().out.split("\n\n")[1].strip().splitlines()
    assert row.split()[:6] == ["noise", "12000", "3", "1000", "uint8", "int64"]


async def test_what_is_there_is_not_sent_again_nor_replaced_unasked(
    alice: DaemonProcess, source: str, capsys: Capture
) -> None:
    deal = (source, "--name", "beats", *address(alice.port))
    _, [first], _ = await answer(capsys, *deal)
    _, [second], _ = await answer(capsys, *deal)
    assert (first["outcome"], first["bytes_sent"]) == ("stored", first["bytes"])
    assert (second["outcome"], second["bytes_sent"]) == ("already there", 0)
    other = ("sample", "--name", "beats", *address(alice.port))
    exit_code, [third], err = await answer(capsys, *other)
    assert (exit_code, third["outcome"]) == (3, "refused")
    assert err.splitlines()[-1] == (
        "fedconsole: 1 of 1 shards not dealt: alice: "
        "there is a dataset beats with other content: deal with --replace"
    )
    exit_code, [fourth], _ = await answer(capsys, *other, "--replace")
    assert (exit_code, fourth["outcome"]) == (0, "stored")


async def test_one_worker_that_fails_does_not_stop_the_others(
    alice: DaemonProcess, source: str, place: Path, capsys: Capture
) -> None:
    async with daemon(place, name="bob") as bob:
        gone = ("--worker", "127.0.0.1:1")
        exit_code, rows, err = await answer(
            capsys, source, *address(alice.port), *address(bob.port), *gone
        )
        assert (exit_code, [row["outcome"] for row in rows]) == (1, ["stored", "refused", "failed"])
        assert err.splitlines()[-1] == (
            "fedconsole: 2 of 3 shards not dealt: bob: it takes no data: its owner may start "
            "pi-daemon with --accept-data DIR; 127.0.0.1:1: connection refused; "
            "is pi-daemon running there?"
        )


async def test_a_cut_link_is_taken_up_where_it_was(
    alice: DaemonProcess, source: str, capsys: Capture
) -> None:
    async with relay(alice.port) as between:
        # The first connection only greets.
        between.limits = [1 << 20, 4_000_000, 5_000_000]
        exit_code, [row], _ = await answer(capsys, source, *address(between.port))
    assert (exit_code, row["outcome"], row["reason"]) == (0, "stored", "")
    # Of each cut, the chunk that it cut through comes again.
    assert len(between.passed) == 4
    assert row["bytes"] < sum(between.passed) < row["bytes"] + 4 * CHUNK_BYTES


async def test_a_killed_daemon_is_waited_for(place: Path, source: str, capsys: Capture) -> None:
    async with daemon(place, *accepts(place, "alice")) as first, relay(first.port) as between:
        between.limits, between.cuts = [1 << 20, 6_000_000], False
        dealing = asyncio.get_running_loop().create_task(
            answer(capsys, source, *address(between.port))
        )
        await part_of(place, first.port, 5_000_000)
        first.process.kill()
        await first.process.wait()
        same_port = ("--port", str(first.port))
        async with daemon(place, *same_port, *accepts(place, "alice")):
            exit_code, [row], _ = await dealing
    assert (exit_code, row["outcome"], row["reason"]) == (0, "stored", "")
    assert between.passed[-1] < row["bytes"] - 4_900_000


async def test_a_killed_deal_is_taken_up_by_the_next(
    alice: DaemonProcess,
    place: Path,
    source: str,
    capsys: Capture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    shards = place / "shards"
    shards.mkdir()
    monkeypatch.setenv("TMPDIR", str(shards))
    monkeypatch.setattr(tempfile, "tempdir", None)  # asked for once in a process
    async with relay(alice.port) as between:
        between.limits, between.cuts = [1 << 20, 8_000_000], False
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", MAIN, "deal", source, *address(between.port)),
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.DEVNULL,
        )
        await part_of(place, alice.port, 7_000_000)
        # Another one leaves the shards alone that this one sends.
        assert (await answer(capsys, source, "--dry-run", *address(alice.port)))[0] == 0
        assert len(list(shards.iterdir())) == 1
        process.kill()
        await process.wait()
    exit_code, [row], _ = await answer(capsys, source, *address(alice.port))
    assert (exit_code, row["outcome"], row["reason"]) == (0, "stored", "")
    assert not list(shards.iterdir())
    assert row["bytes_sent"] < row["bytes"] - 7_000_000 + CHUNK_BYTES


@pytest.mark.parametrize(
    ("arguments", "exit_code", "said"),
    [
        ([], 2, "name the devices with --worker HOST:PORT, or take all with --all"),
        (["--all"], 3, "no device takes data"),
        (["--name", "../up", "--all"], 2, "--name '../up': expected 1 to 64 letters"),
        (["--worker", "127.0.0.1:1", "--shard", "half"], 2, "--shard half: expected even, "),
        (["--worker", "127.0.0.1:1", "--worker", "127.0.0.1:1"], 2, "are one device: name it once"),
    ],
)
async def test_a_deal_that_cannot_be_is_refused_in_one_line(
    arguments: list[str], exit_code: int, said: str, capsys: Capture
) -> None:
    found, rows, err = await answer(capsys, "sample", *arguments)
    assert (found, rows) == (exit_code, [])
    [line] = err.splitlines()
    assert line.startswith("fedconsole: ")
    assert said in line


DATA = Path(os.environ.get("FEDCONSOLE_DATA", Path(__file__).parents[3] / "shared" / "data"))


@pytest.mark.slow
@pytest.mark.skipif(not (DATA / "mnist").is_dir(), reason="MNIST is not here (FEDCONSOLE_DATA)")
async def test_mnist_is_dealt_and_trained_on_as_the_old_guide_did(
    place: Path, capsys: Capture
) -> None:
    async with (
        daemon(place, *accepts(place, "alice")) as alice,
        daemon(place, *accepts(place, "bob"), name="bob") as bob,
    ):
        workers = [*address(alice.port), *address(bob.port)]
        exit_code, rows, _ = await answer(capsys, str(DATA / "mnist"), "--name", "mnist", *workers)
        assert (exit_code, [row["num_examples"] for row in rows]) == (0, [30_000, 30_000])
        options = ("--task", "mnist", "--rounds", "1", "--federate-after-n-batches", "2")
        data = ("--data-dir", str(DATA / "mnist"))
        exit_code, lines = await train(*options, *data, *workers)
        assert (exit_code, lines[-1]["outcome"]) == (0, "completed")
