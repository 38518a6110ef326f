"""Devices that come back elsewhere, that share an identity, or that are lost while a run gathers."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import time
from collections.abc import Callable
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from fedconsole.cli.main import carry_out
from fedconsole.engine.store import Line
from fedconsole.errors import ExitCode
from fedconsole.fleet import mdns
from fedconsole.fleet.inventory import Hindrance, Inventory
from fedconsole.fleet.watching import Watcher
from fedconsole.trust import pairing
from pi_daemon.discovery import registered_daemons
from pi_daemon.trust.join import parse_join
from tests.support.chaos import chaos_proxy
from tests.support.daemons import RUNTIME, DaemonProcess, daemon
from tests.support.networks import Network, alice_and_bob, assert_counted_once
from tests.support.places import redirect
from tests.support.runs import carry, digits_plan


@pytest.fixture
def place(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    return redirect(tmp_path_factory.mktemp("m"), monkeypatch)


@pytest.mark.slow
async def test_a_device_that_comes_back_at_another_address_is_found_by_its_id(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The engine looks where these daemons leave word of themselves.
    (place / RUNTIME).mkdir(mode=0o700)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(place / RUNTIME))
    async with AsyncExitStack() as stack:

        async def start(name: str, shard: str, port: int = 0) -> DaemonProcess:
            options = ("--port", str(port), "--dataset", "digits=sample", "--shard", shard)
            return await stack.enter_async_context(daemon(place, *options, name=name))

        alice, bob = await start("alice", "1/2"), await start("bob", "2/2")
        returns: list[asyncio.Task[list[DaemonProcess]]] = []

        async def move() -> list[DaemonProcess]:
            """His old address is another device's before he has a new one."""
            return [await start("carol", "2/2", bob.port), await start("bob", "2/2")]

        def move_bob_at_his_first_losses(line: Line) -> None:
            if line["type"] == "worker.batches" and line["worker"] == "bob" and not returns:
                os.kill(bob.pid, signal.SIGKILL)
                returns.append(asyncio.get_running_loop().create_task(move()))

        workers = tuple(f"127.0.0.1:{each.port}" for each in (alice, bob))
        plan = digits_plan(virtual=0, workers=workers, rounds=2, federate_after_n_batches=300)
        run = await carry(plan, requests=move_bob_at_his_first_losses)
        [carol, moved] = await returns[0]
    assert run.exit_code == 0
    assert carol.port == bob.port
    [rejoined] = run.of_type("worker.rejoined")
    assert (rejoined["worker"], rejoined["address"]) == ("bob", f"127.0.0.1:{moved.port}")
    assert_counted_once(run)


@pytest.mark.timeout(400)
async def test_a_device_that_comes_back_at_another_port_is_found_by_its_announcement(
    place: Path,
) -> None:
    await require_multicast()
    async with AsyncExitStack() as stack:

        async def start(name: str, shard: str) -> DaemonProcess:
            # They leave word in a folder of their own, where this engine does not look.
            options = ("--host", "127.0.0.1", "--pair", "--dataset", "digits=sample")
            device = daemon(place, *options, "--shard", shard, name=name, is_announced=True)
            return await stack.enter_async_context(device)

        alice, bob = await start("alice", "1/2"), await start("bob", "2/2")
        for each in (alice, bob):
            await pairing.pair(parse_join(each.join))
        returns: list[asyncio.Task[DaemonProcess]] = []

        def move_bob_at_his_first_losses(line: Line) -> None:
            if line["type"] == "worker.batches" and line["worker"] == "bob" and not returns:
                os.kill(bob.pid, signal.SIGKILL)
                returns.append(asyncio.get_running_loop().create_task(start("bob", "2/2")))

        workers = tuple(f"127.0.0.1:{each.port}" for each in (alice, bob))
        plan = digits_plan(virtual=0, workers=workers, rounds=2, federate_after_n_batches=300)
        run = await carry(plan, search_s=1.5, requests=move_bob_at_his_first_losses)
        moved = await returns[0]
    assert run.exit_code == 0
    [rejoined] = run.of_type("worker.rejoined")
    assert (rejoined["worker"], rejoined["address"]) == ("bob", f"127.0.0.1:{moved.port}")
    assert_counted_once(run)


async def require_multicast() -> None:
    try:
        await mdns.browse(0)
    except OSError as error:
        pytest.skip(f"needs multicast: {error}")


async def test_two_devices_with_one_identity_are_refused_by_both_addresses(place: Path) -> None:
    options = ("--dataset", "digits=sample")
    async with daemon(place, *options) as alice:
        shutil.copytree(place / "alice", place / "copy")
        async with daemon(place, *options, name="copy") as copy:
            addresses = [f"127.0.0.1:{each.port}" for each in (alice, copy)]
            run = await carry(digits_plan(virtual=0, workers=tuple(addresses)))
    assert run.exit_code == ExitCode.REFUSED
    reason = run.last["reason"]
    assert all(address in reason for address in addresses)
    assert "have one identity, as after copying an SD card" in reason


async def test_a_copied_identity_takes_no_place_of_the_original_and_is_told(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (place / RUNTIME).mkdir(mode=0o700)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(place / RUNTIME))
    inventory = Inventory()

    async def until(is_so: Callable[[], bool]) -> None:
        async with asyncio.timeout(30):
            while not is_so():  # noqa: ASYNC110
                await asyncio.sleep(0.05)

    watcher = Watcher(inventory, (), 0, time.monotonic)
    watching = asyncio.get_running_loop().create_task(watcher.run())
    async with daemon(place) as alice:
        shutil.copytree(place / "alice", place / "copy")
        async with daemon(place, name="copy") as copy:
            both = f"127.0.0.1:{alice.port} (alice) and 127.0.0.1:{copy.port} (copy)"
            assert f"alice at 127.0.0.1:{alice.port} has this daemon's identity" in copy.lines[0]
            assert await asyncio.to_thread(carry_out, ["discover"]) == 0
            assert f"the devices at {both} have one identity" in capsys.readouterr().err
            await until(lambda: inventory.hindrances.get(Hindrance.ONE_IDENTITY) == both)
        [left] = registered_daemons()
        assert (left.worker_name, left.port) == ("alice", alice.port)
        await until(lambda: Hindrance.ONE_IDENTITY not in inventory.hindrances)
    watching.cancel()


@pytest.mark.slow
async def test_a_device_whose_link_breaks_while_the_run_gathers_is_waited_for(place: Path) -> None:
    loop = asyncio.get_running_loop()
    async with alice_and_bob(place) as (alice, bob), chaos_proxy(bob.port) as proxy:

        def break_off(data: bytes) -> None:
            if b'"hello"' in data and proxy.num_connections < 3:
                loop.call_soon(proxy.reset)

        proxy.down.on_data = break_off
        run = await carry(Network(alice, bob, proxy).plan(rounds=1))
    assert run.exit_code == 0
    assert proxy.num_resets == 2
    assert run.of_type("worker.lost") == []
    assert_counted_once(run)
