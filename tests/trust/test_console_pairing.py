"""`fedconsole pair`, `devices` and `identity` against real daemons: how a device becomes known."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from fedconsole import paths
from fedconsole.cli.main import carry_out
from fedconsole.trust.own_keys import own_keys
from pi_daemon.trust.join import JoinString, new_secret, parse_join
from pi_daemon.trust.keys import Keys, in_groups
from tests.support.certificates import OTHER_KINDS, load_key, self_signed
from tests.support.daemons import DaemonProcess, daemon, owner_command
from tests.support.places import redirect
from tests.support.strangers import of_version_8, stranger

Capture = pytest.CaptureFixture[str]
pytestmark = pytest.mark.timeout(400)
PAIRS = ("--host", "127.0.0.1", "--pair")


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    return redirect(tmp_path, monkeypatch)


@pytest.fixture
async def alice(place: Path) -> AsyncIterator[DaemonProcess]:
    async with daemon(place, *PAIRS, "--dataset", "digits=sample") as running:
        yield running


async def answer(capsys: Capture, *arguments: str) -> tuple[int, str, str]:
    exit_code = await asyncio.to_thread(carry_out, list(arguments))
    return exit_code, *capsys.readouterr()


def kept() -> str:
    """All that this console has written."""
    return "".join(path.read_text() for path in paths.known_devices_dir().glob("*"))


async def test_a_device_is_known_after_the_two_commands_and_a_stranger_once_it_is_forgotten(
    alice: DaemonProcess, capsys: Capture
) -> None:
    join = parse_join(alice.join)
    exit_code, out, err = await answer(capsys, "pair", alice.join)
    assert (exit_code, out) == (
        0,
        f"paired with alice at {join.address} as operator; next: fedconsole run --worker {join.address}\n",
    )
    assert err == f"device   {in_groups(join.device_id)}\nconsole  {in_groups(own_keys().id)}\n"
    assert join.secret not in kept()

    _, out, _ = await answer(capsys, "devices", "-o", "json")
    [row] = json.loads(out)
    assert (row["name"], row["address"], row["id"]) == ("alice", join.address, join.device_id)
    assert (row["trust"], row["state"]) == ("paired", "idle")
    assert row["datasets"] == ["digits (1437)"]
    assert (await answer(capsys, "devices", "ping", "alice"))[0] == 0

    [console] = (await owner_command(alice, "consoles", "list", "--json")).splitlines()
    assert json.loads(console)["id"] == own_keys().id

    exit_code, _, err = await answer(capsys, "devices", "forget", "alice")
    assert (exit_code, err) == (
        2,
        f"fedconsole: this forgets alice ({join.device_id[:7]}); add --yes, as nobody can be asked\n",
    )
    exit_code, _, err = await answer(capsys, "devices", "forget", join.device_id[:9], "--yes")
    assert exit_code == 0
    assert err.startswith("alice is forgotten")
    assert await answer(capsys, "devices", "list", "-o", "json") == (0, "[]\n", "")
    exit_code, _, err = await answer(capsys, "devices", "forget", "alice")
    assert (exit_code, err) == (
        3,
        "fedconsole: no device 'alice' is paired with this console; paired: none\n",
    )


async def test_the_secret_can_come_by_a_pipe(alice: DaemonProcess, place: Path) -> None:
    done = await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-m", "fedconsole.cli.entry", "pair", "-", "-o", "json"],
        input=alice.join + "\n",
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    [row] = json.loads(done.stdout)
    assert (row["device"], row["role"]) == ("alice", "operator")
    assert parse_join(alice.join).secret not in done.stdout + done.stderr


async def test_a_string_that_was_used_pairs_nobody(alice: DaemonProcess, capsys: Capture) -> None:
    assert (await answer(capsys, "pair", alice.join))[0] == 0
    exit_code, out, err = await answer(capsys, "pair", alice.join)
    assert (exit_code, out) == (4, "")
    assert "fedconsole: this join string was used, or is older than ten minutes" in err


async def test_a_wrong_secret_is_refused_in_words(alice: DaemonProcess, capsys: Capture) -> None:
    wrong = alice.join[:-16] + "A" * 16
    exit_code, _, err = await answer(capsys, "pair", wrong)
    assert exit_code == 4
    assert "fedconsole: the device does not take this secret: copy the whole line" in err
    assert "A" * 16 not in err
    assert kept() == ""


@pytest.mark.parametrize("text", ["", "fp1:", "fp1:10.0.0.2:1:A:B", "fp9" + ":x" * 9])
async def test_what_is_no_join_string_is_a_mistake_of_usage(text: str, capsys: Capture) -> None:
    exit_code, _, err = await answer(capsys, "pair", text)
    assert exit_code == 2
    assert "this is no join string" in err or "this join string" in err


async def test_nobody_there_is_told_with_the_address(alice: DaemonProcess, capsys: Capture) -> None:
    join = parse_join(alice.join)
    elsewhere = alice.join.replace(join.address, "127.0.0.1:1")
    exit_code, _, err = await answer(capsys, "pair", elsewhere)
    assert exit_code == 4
    assert "127.0.0.1:1: connection refused; is pi-daemon running there?" in err


async def test_a_host_that_cannot_be_is_told_in_words(
    alice: DaemonProcess, capsys: Capture
) -> None:
    join = parse_join(alice.join)
    elsewhere = alice.join.replace(join.host, "x" * 200)
    exit_code, _, err = await answer(capsys, "pair", elsewhere)
    assert exit_code == 4
    assert "that is no host's name" in err


async def test_a_device_that_moved_meanwhile_is_found_by_its_id(
    alice: DaemonProcess, capsys: Capture, place: Path
) -> None:
    join = parse_join(alice.join)
    # What it announces on this machine, here given by hand: those of the tests leave their word elsewhere.
    (place / "fedconsole.toml").write_text(
        f'[[devices]]\nhost = "127.0.0.1"\nport = {alice.port}\nid = "{join.device_id}"\n'
    )
    async with stranger(place) as other:
        exit_code, out, _ = await answer(
            capsys, "pair", alice.join.replace(join.address, other.address)
        )
        assert (exit_code, bytes(other.heard)) == (0, b"")
    assert f"paired with alice at {join.address}" in out


async def test_whoever_is_in_between_at_pairing_never_sees_the_secret(
    alice: DaemonProcess, capsys: Capture, place: Path
) -> None:
    """Case 31. The one in between has a key of its own, and all else of the device."""
    join = parse_join(alice.join)
    async with stranger(place) as between:
        exit_code, _, err = await answer(
            capsys, "pair", alice.join.replace(join.address, between.address)
        )
        assert between.keys is not None
        assert between.num_connections > 0
        assert bytes(between.heard) == b"", "it was told something"
    assert exit_code == 4
    assert f"another device answers at {between.address}: {in_groups(between.keys.id)}" in err
    assert "Nothing was sent to it" in err
    assert join.secret not in err
    assert kept() == ""
    # The string is still good for the real one.
    assert (await answer(capsys, "pair", alice.join))[0] == 0


async def test_a_certificate_that_cannot_be_read_is_another_devices(
    alice: DaemonProcess, capsys: Capture, place: Path
) -> None:
    join = parse_join(alice.join)
    async with stranger(place, shows=of_version_8) as between:
        elsewhere = alice.join.replace(join.address, between.address)
        exit_code, _, err = await answer(capsys, "pair", elsewhere)
        assert bytes(between.heard) == b""
    assert exit_code == 4
    assert f"another device answers at {between.address}: a certificate that cannot be read" in err
    assert kept() == ""


def _named_pantry(keys: Keys) -> bytes:
    return self_signed(load_key(keys.key_path), name="pantry")


@pytest.mark.parametrize("kind", sorted(OTHER_KINDS.keys() - {"secp256k1"}))
async def test_a_device_with_a_key_of_another_kind_is_not_paired(
    capsys: Capture, place: Path, kind: str
) -> None:
    key = OTHER_KINDS[kind]()
    async with stranger(place, key=key) as pantry:
        assert pantry.keys is not None
        join = JoinString("127.0.0.1", pantry.port, pantry.keys.id, new_secret())
        exit_code, _, err = await answer(capsys, "pair", str(join))
        assert bytes(pantry.heard) == b""
    assert exit_code == 4
    shown = "a certificate whose key is of another kind than P-256"
    assert f"it shows {shown}. Nothing was sent to it" in err
    assert kept() == ""


async def test_a_key_that_tls_does_not_know_is_not_paired(capsys: Capture, place: Path) -> None:
    key = OTHER_KINDS["secp256k1"]()
    async with stranger(place, key=key) as pantry:
        assert pantry.keys is not None
        join = JoinString("127.0.0.1", pantry.port, pantry.keys.id, new_secret())
        exit_code, _, err = await answer(capsys, "pair", str(join))
        assert bytes(pantry.heard) == b""
    assert exit_code == 4
    assert f"{pantry.address}: the other side hung up" in err
    assert kept() == ""


async def test_a_device_whose_certificate_is_not_named_after_its_key_is_not_paired(
    capsys: Capture, place: Path
) -> None:
    """The rule by which a device admits consoles."""
    async with stranger(place, shows=_named_pantry) as pantry:
        assert pantry.keys is not None
        join = JoinString("127.0.0.1", pantry.port, pantry.keys.id, new_secret())
        exit_code, _, err = await answer(capsys, "pair", str(join))
        assert bytes(pantry.heard) == b""
    assert exit_code == 4
    assert "it shows a certificate that is not named after its key. Nothing was sent to it" in err
    assert kept() == ""


async def test_a_hostile_name_is_cleaned_before_it_is_shown_or_kept(
    place: Path, capsys: Capture
) -> None:
    """Case 22, of what a device says at pairing."""
    async with daemon(place, *PAIRS, name="\x1b[2Jbob\u202e\x07") as bob:
        exit_code, out, err = await answer(capsys, "pair", bob.join)
    assert exit_code == 0
    shown = out + err + kept()
    assert not any(sign in shown for sign in ("\x1b", "\u202e", "\x07"))


async def test_a_console_shows_who_it_is(capsys: Capture) -> None:
    exit_code, out, _ = await answer(capsys, "identity", "show")
    assert (exit_code, out) == (0, in_groups(own_keys().id) + "\n")
    _, out, _ = await answer(capsys, "identity", "show", "-o", "json")
    assert json.loads(out)[0]["console_id"] == own_keys().id


async def test_the_doctor_names_a_key_that_others_can_read_and_a_damaged_device(
    alice: DaemonProcess, capsys: Capture
) -> None:
    async def results() -> dict[str, tuple[str, str]]:
        _, out, _ = await answer(capsys, "doctor", "-o", "json")
        return {row["check"]: (row["result"], row["fix"]) for row in json.loads(out)}

    assert (await answer(capsys, "pair", alice.join))[0] == 0
    assert {(await results())[name][0] for name in ("own key", "paired devices")} == {"good"}
    own_keys().key_path.chmod(0o644)
    [path] = paths.known_devices_dir().glob("*.json")
    path.write_text("{")
    found = await results()
    assert found["own key"][0] == found["paired devices"][0] == "bad"
    assert "chmod 600" in found["own key"][1]
    assert str(path) in found["paired devices"][1]
