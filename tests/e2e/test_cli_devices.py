"""`discover` and `devices` with real daemons."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from fedconsole.cli.main import carry_out
from fedconsole.fleet import mdns
from fedconsole.fleet.device import Source
from fedconsole.fleet.local import local_daemons
from pi_daemon.discovery import registered_daemons, registry_dir
from tests.support.places import redirect

Capture = pytest.CaptureFixture[str]


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    return redirect(tmp_path, monkeypatch)


@pytest.fixture
async def daemons() -> AsyncIterator[list[str]]:
    async with local_daemons(2) as addresses:
        yield addresses


async def answer(capsys: Capture, *arguments: str) -> tuple[int, str, str]:
    exit_code = await asyncio.to_thread(carry_out, list(arguments))
    return exit_code, *capsys.readouterr()


async def test_daemons_of_this_machine_are_found_listed_shown_and_pinged(
    daemons: list[str], capsys: Capture
) -> None:
    alice, bob = daemons
    assert await answer(capsys, "discover", "--seconds", "0", "-o", "name") == (
        0,
        "alice\nbob\n",
        "",
    )

    _, out, _ = await answer(capsys, "devices", "list", "-o", "json")
    rows = json.loads(out)
    assert [(row["name"], row["address"], row["state"]) for row in rows] == [
        ("alice", alice, "idle"),
        ("bob", bob, "idle"),
    ]
    assert rows[0]["datasets"] == [f"digits ({rows[0]['cards'][0]['num_examples']})"]

    exit_code, out, _ = await answer(capsys, "devices", "show", "alice")
    assert exit_code == 0
    shown = dict(text.split(maxsplit=1) for text in out.split("\n\n")[0].splitlines())
    assert (shown["name"], shown["address"], shown["state"]) == ("alice", alice, "idle")
    assert "digits" in out.split("\n\n")[1]

    exit_code, out, _ = await answer(capsys, "devices", "ping", bob)
    assert exit_code == 0
    assert [text.startswith(f"bob at {bob}: ") for text in out.splitlines()] == [True] * 4


async def test_a_daemon_of_this_machine_is_forgotten_when_it_has_gone(capsys: Capture) -> None:
    async with local_daemons(1):
        _, out, _ = await answer(capsys, "devices", "list", "-o", "name")
        assert out.split() == ["alice"]
    exit_code, out, _ = await answer(capsys, "devices", "list", "-o", "json")
    assert (exit_code, json.loads(out)) == (0, [])
    exit_code, _, err = await answer(capsys, "devices", "show", "alice")
    assert exit_code == 3
    assert "no device 'alice'; known: none" in err


async def test_what_is_damaged_among_the_daemons_of_this_machine_is_named_and_hides_no_other(
    capsys: Capture,
) -> None:
    async with local_daemons(1):
        entry = registry_dir() / "x.json"
        entry.write_text("{")
        for command in (["devices", "list"], ["discover"]):
            exit_code, out, err = await answer(capsys, *command, "-o", "name")
            assert (exit_code, out.split(), err) == (
                *(0, ["alice"]),
                f"{entry} is damaged: delete it, and restart the pi-daemon that is missing\n",
            )


async def test_a_daemon_is_heard_on_mdns(place: Path) -> None:
    try:
        await mdns.browse(0)
    except OSError as error:
        pytest.skip(f"this machine has no multicast: {error}")
    arguments = ["--id", "앨리스", "--port", "0", "--state-dir", str(place / "state")]
    arguments += ["--host", "127.0.0.1", "--pair"]
    main = "from pi_daemon.cli.main import main; main()"
    daemon = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", main, *arguments), stderr=asyncio.subprocess.PIPE
    )
    assert daemon.stderr is not None
    try:
        while text := await daemon.stderr.readline():
            if b"listens on" in text:
                break
        (registered,) = registered_daemons()
        heard = await mdns.browse(4.0)
    finally:
        daemon.terminate()
        await daemon.communicate()
    assert [
        (device.name, device.address, device.source)
        for device in heard
        if device.device_id == registered.device_id[:16]
    ] == [("앨리스", f"127.0.0.1:{registered.port}", Source.MDNS)]
