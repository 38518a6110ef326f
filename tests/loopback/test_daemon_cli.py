"""`pi-daemon` as its owner meets it: what it says, how it ends."""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from tests.support.daemons import RUNTIME, daemon, run_daemon


async def ended(folder: Path, *options: str) -> tuple[int | None, str]:
    """Exit code and stderr of a daemon that does not start."""
    process = await run_daemon(folder, *options)
    _, stderr = await process.communicate()
    return process.returncode, stderr.decode()


async def test_a_daemon_without_data_says_so_and_leaves_word_while_it_runs(tmp_path: Path) -> None:
    async with daemon(tmp_path, name="bob") as bob:
        line = bob.lines[-1]
        assert line.startswith("pi-daemon bob (")
        assert line.endswith(f" listens on ws://127.0.0.1:{bob.port}, no dataset\n")
        [entry] = (tmp_path / RUNTIME / "fedconsole" / "daemons").glob("*.json")
        found = json.loads(entry.read_bytes())
        assert (found["worker_name"], found["port"], found["pid"]) == ("bob", bob.port, bob.pid)
        bob.process.terminate()
        assert await bob.process.wait() == 0
        assert not entry.exists()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
async def test_a_signal_ends_it_quietly(tmp_path: Path, number: signal.Signals) -> None:
    async with daemon(tmp_path) as running:
        running.process.send_signal(number)
        _, stderr = await running.process.communicate()
        assert (running.process.returncode, stderr) == (0, b"")


async def test_an_idle_daemon_has_loaded_no_library_of_learning(tmp_path: Path) -> None:
    async with daemon(tmp_path, "--dataset", "digits=sample", "--shard", "1/3") as running:
        maps = {Path(entry.path).name for entry in psutil.Process(running.pid).memory_maps()}
        assert not [name for name in maps if "torch" in name or "sklearn" in name]
        assert not [name for name in maps if name.startswith("_multiarray")]
        assert running.lines[-1].endswith("datasets: digits (479 examples)\n")


async def test_a_port_in_use_is_refused_in_one_line(tmp_path: Path) -> None:
    async with daemon(tmp_path) as running:
        options = ("--port", str(running.port), "--id", "bob", "--no-mdns")
        code, stderr = await ended(tmp_path, *options, "--state-dir", str(tmp_path / "bob"))
        assert (code, stderr) == (
            3,
            f"pi-daemon: port {running.port} of 127.0.0.1 is in use, perhaps by another "
            "pi-daemon: take another --port; 0 picks a free one\n",
        )


async def test_a_state_directory_in_use_is_refused(tmp_path: Path) -> None:
    async with daemon(tmp_path):
        options = ("--port", "0", "--state-dir", str(tmp_path / "alice"), "--no-mdns")
        code, stderr = await ended(tmp_path, *options)
        assert code == 3
        assert stderr.startswith("pi-daemon: another pi-daemon uses ")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--host", "0.0.0.0"), "would let anybody on the network train on this device's data"),
        (("--host", "here"), "--host here: expected an IP address"),
        (("--dataset", "digits"), "--dataset digits: expected NAME=SOURCE"),
        (("--dataset", "a=sample", "--dataset", "a=sample"), "--dataset a is given twice"),
        (("--dataset", "a=/gone"), "dataset /gone: there is no such file or folder"),
        (("--dataset", "a=sample", "--shard", "4/3"), "shard '4/3': expected INDEX/COUNT"),
        (("--max-memory", "much"), "--max-memory much: expected a size such as 512M"),
    ],
    ids=range(7),
)
async def test_an_option_that_cannot_be_is_refused_in_one_line(
    tmp_path: Path, options: tuple[str, ...], said: str
) -> None:
    state = ("--port", "0", "--no-mdns", "--state-dir", str(tmp_path / "state"))
    code, stderr = await ended(tmp_path, *state, *options)
    assert code == 3
    [line] = stderr.splitlines()
    assert line.startswith("pi-daemon: ")
    assert said in line


async def test_a_daemon_is_seen_on_mdns_until_it_says_goodbye() -> None:
    from zeroconf import ServiceStateChange
    from zeroconf.asyncio import AsyncServiceBrowser, AsyncServiceInfo, AsyncZeroconf

    from pi_daemon.discovery import SERVICE, Announcement, RegisteredDaemon

    told = RegisteredDaemon("A" * 52, "küche", "127.0.0.1", 12345, 1, is_initialised=True)
    announcement = Announcement(told)
    changes: asyncio.Queue[tuple[str, ServiceStateChange]] = asyncio.Queue()

    def on_change(name: str, state_change: ServiceStateChange, **_: object) -> None:
        if name.startswith("küche-AAAA."):
            changes.put_nowait((name, state_change))

    async with AsyncZeroconf(interfaces=["127.0.0.1"]) as zeroconf:
        browser = AsyncServiceBrowser(zeroconf.zeroconf, SERVICE, handlers=[on_change])
        announcing = asyncio.get_running_loop().create_task(announcement.run())
        async with asyncio.timeout(30):
            name, change = await changes.get()
            assert change is ServiceStateChange.Added
            info = AsyncServiceInfo(SERVICE, name)
            assert await info.async_request(zeroconf.zeroconf, 3000)
            assert (info.port, info.decoded_properties) == (
                12345,
                {"v": "1", "id": "A" * 16, "st": "idle", "pair": "1", "nm": "küche"},
            )
            announcing.cancel()
            while change is not ServiceStateChange.Removed:
                _, change = await changes.get()
        await asyncio.wait([announcing])
        await browser.async_cancel()


def test_help_is_given_without_loading_what_serves() -> None:
    program = (
        "import sys; from pi_daemon.cli.main import app\n"
        "try: app(['--help'])\n"
        "except SystemExit: pass\n"
        "print(sorted({'torch', 'numpy', 'websockets', 'zeroconf', 'cryptography'}"
        " & sys.modules.keys()), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True)
    assert done.stderr == b"[]\n"
    assert b"--max-batch-seconds" in done.stdout
