"""A console whose own key cannot be used says so, instead of finding fault with devices that are well."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
import pytest_asyncio

from fedconsole import paths
from fedconsole.cli.main import carry_out
from fedconsole.errors import ExitCode
from fedconsole.fleet.inventory import Hindrance, Inventory, Presence, presence
from fedconsole.fleet.watching import Watcher
from fedconsole.trust import pairing
from fedconsole.trust.own_keys import own_keys
from pi_daemon.trust.join import parse_join
from tests.support.daemons import daemon
from tests.support.places import redirect

WAIT_S = 60.0
COMMANDS = (
    ("devices", "list"),
    ("devices", "show", "alice"),
    ("devices", "ping", "alice"),
    ("run", "--all", "--headless"),
    ("deal", "sample", "--all"),
    ("identity", "show"),
)


@pytest_asyncio.fixture(autouse=True)
async def alice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[None]:
    """A device that is paired with this console."""
    place = redirect(tmp_path, monkeypatch)
    monkeypatch.setenv("FEDCONSOLE_SEARCH_SECONDS", "0")
    async with daemon(place, "--host", "127.0.0.1", "--pair", name="alice") as running:
        await pairing.pair(parse_join(running.join))
        yield


def _open_to_others(key: Path) -> None:
    key.chmod(0o644)


def _empty(key: Path) -> None:
    key.write_bytes(b"")


def _truncate(key: Path) -> None:
    key.write_bytes(key.read_bytes()[:100])


def _give_away(key: Path) -> None:
    if os.getuid() != 0:
        pytest.skip("only root gives files away")
    os.chown(key, 12_345, -1)


@pytest.mark.parametrize("spoil", [_open_to_others, _empty, _truncate, _give_away])
async def test_every_command_that_needs_it_refuses_with_one_sentence(
    spoil: Callable[[Path], None], capsys: pytest.CaptureFixture[str]
) -> None:
    spoil(own_keys().key_path)
    capsys.readouterr()
    said = {}
    for words in COMMANDS:
        exit_code = await asyncio.to_thread(carry_out, list(words))
        said[words] = exit_code, capsys.readouterr().err.splitlines()[-1]
    expected = said["identity", "show"]
    assert expected[0] == ExitCode.REFUSED
    assert f"this console's own key: {paths.identity_dir() / 'key.pem'} " in expected[1]
    assert said == dict.fromkeys(COMMANDS, expected)


async def test_the_fleet_says_it_until_it_is_mended() -> None:
    key = own_keys().key_path
    key.chmod(0o644)
    inventory = Inventory()

    async def until(is_so: Callable[[], bool]) -> None:
        async with asyncio.timeout(WAIT_S):
            while not is_so():  # noqa: ASYNC110
                await asyncio.sleep(0.05)

    watching = asyncio.get_running_loop().create_task(
        Watcher(inventory, [], 0, time.monotonic).run()
    )
    try:
        await until(lambda: Hindrance.OWN_FILES in inventory.hindrances)
        assert f"chmod 600 {key}" in inventory.hindrances[Hindrance.OWN_FILES]
        key.chmod(0o600)
        await until(lambda: Hindrance.OWN_FILES not in inventory.hindrances)
        [record] = inventory.records.values()
        await until(lambda: presence(record, time.monotonic()) is Presence.ONLINE)
    finally:
        watching.cancel()
