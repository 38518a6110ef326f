"""What a console keeps of trust, as files: its own key, and the devices that it is paired with."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import msgspec
import pytest
from msgspec.structs import replace

from fedconsole import paths
from fedconsole.errors import DamagedDeviceError, RefusedError, StorageError
from fedconsole.trust import known_devices
from fedconsole.trust.folders import locked
from fedconsole.trust.known_devices import MAX_ADDRESSES, KnownDevice, KnownDevices
from fedconsole.trust.own_keys import own_keys
from pi_daemon.protocol.pairing import ConsoleRole
from tests.support.places import redirect

ALICE, BOB = "ALICE" + "A" * 47, "BOB" + "B" * 49


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    return redirect(tmp_path, monkeypatch)


def known(device_id: str = ALICE, name: str = "alice", *addresses: str) -> KnownDevice:
    return KnownDevice(
        id=device_id,
        name=name,
        role=ConsoleRole.OPERATOR,
        paired_at="2026-01-01T00:00:00+00:00",
        certificate="-----BEGIN CERTIFICATE-----",
        addresses=addresses or ("10.0.0.2:9",),
    )


def test_without_files_nobody_is_known_and_nothing_is_made() -> None:
    assert known_devices.load() == KnownDevices(())
    assert not paths.known_devices_dir().exists()


def test_a_device_is_stored_privately_and_read_as_it_was() -> None:
    known_devices.remember(known())
    assert list(known_devices.load().all) == [known()]
    [path] = paths.known_devices_dir().iterdir()
    assert path.name == f"{ALICE}.json"
    assert (path.stat().st_mode & 0o777, path.parent.stat().st_mode & 0o777) == (0o600, 0o700)


def test_a_device_is_found_by_id_name_and_address_and_by_the_beginning_of_its_id() -> None:
    both = KnownDevices((known(), known(BOB, "bob", "10.0.0.3:9", "10.0.0.2:9")))
    alice, bob = both.all
    assert both.by_id(ALICE) == both.by_id(ALICE[:16]) == alice
    assert both.by_id(None) is both.by_id("") is both.by_id("ALIC") is both.by_id("Z" * 52) is None
    assert both.at("10.0.0.2:9") == alice, "where it answered last"
    assert both.at("10.0.0.3:9") == bob
    here = KnownDevices((known(ALICE, "alice", "127.0.0.1:9"), known(BOB, "bob", "[::1]:9")))
    assert [here.at("localhost:9"), here.at("[0:0::1]:9"), here.at("localhost:8")] == [
        *here.all,
        None,
    ]
    assert both.named("bob") == both.named("10.0.0.3:9") == both.named("bob-bbbbb") == [bob]
    assert both.named("") == both.named("ALIC") == []


def test_an_id_that_fits_two_is_nobodys() -> None:
    twins = KnownDevices((known(ALICE[:-1] + "A"), known(ALICE[:-1] + "B")))
    assert twins.by_id(ALICE[:16]) is None
    assert len(twins.named(ALICE[:16])) == 2


def test_the_address_where_it_answered_comes_first_and_old_ones_go_in_the_end() -> None:
    known_devices.remember(known())
    for number in range(MAX_ADDRESSES + 2):
        known_devices.met(ALICE, f"10.0.1.{number}:9")
    known_devices.met(ALICE, "10.0.1.5:9")
    [alice] = known_devices.load().all
    assert alice.addresses == tuple(f"10.0.1.{n}:9" for n in (5, 9, 8, 7, 6, 4, 3, 2))


def test_a_device_that_is_paired_anew_keeps_its_addresses() -> None:
    known_devices.remember(known())
    known_devices.remember(known(ALICE, "kitchen", "10.0.0.7:9"))
    assert list(known_devices.load().all) == [known(ALICE, "kitchen", "10.0.0.7:9", "10.0.0.2:9")]


def test_a_device_that_was_forgotten_stays_so_when_it_is_met() -> None:
    known_devices.remember(known())
    known_devices.forget(ALICE)
    known_devices.met(ALICE, "10.0.0.9:9")
    known_devices.forget(ALICE)
    assert known_devices.load().all == []


def test_a_device_that_is_forgotten_while_it_is_met_stays_so() -> None:
    known_devices.remember(known())
    folder = paths.known_devices_dir()
    with ThreadPoolExecutor() as others:
        with locked(folder):
            meeting = others.submit(known_devices.met, ALICE, "10.0.0.9:9")
            # It has read that the device is known, and waits for the folder.
            while not is_waited_for(folder):
                assert not meeting.done()
            (folder / f"{ALICE}.json").unlink()
        meeting.result()
    assert known_devices.load().all == []


def is_waited_for(folder: Path) -> bool:
    locks = Path("/proc/locks").read_text().splitlines()
    return any("-> FLOCK" in line and f":{folder.stat().st_ino} " in line for line in locks)


def test_a_device_is_forgotten_only_when_nobody_else_writes() -> None:
    known_devices.remember(known())
    folder = paths.known_devices_dir()
    with ThreadPoolExecutor() as others:
        with locked(folder):
            forgetting = others.submit(known_devices.forget, ALICE)
            while not is_waited_for(folder):
                assert not forgetting.done()
            assert list(known_devices.load().all) == [known()]
        forgetting.result()
    assert known_devices.load().all == []


def test_a_device_that_is_forgotten_while_all_are_read_spoils_no_other() -> None:
    known_devices.remember(known())
    # Listed, and gone when it is opened.
    (paths.known_devices_dir() / f"{BOB}.json").symlink_to("nowhere")
    assert list(known_devices.load().all) == [known()]


def test_a_device_that_cannot_be_forgotten_is_told_with_the_reason() -> None:
    known_devices.remember(known())
    (paths.known_devices_dir() / f"{BOB}.json").mkdir()
    with pytest.raises(StorageError, match=f"device {BOB} cannot be forgotten: .*{BOB}.json"):
        known_devices.forget(BOB)


@pytest.mark.parametrize("damage", [b"", b"{}", b"\xff", b"[1"])
def test_a_damaged_file_is_named_with_what_to_do_and_the_others_are_known(damage: bytes) -> None:
    known_devices.remember(known())
    known_devices.remember(known(BOB, "bob"))
    path = paths.known_devices_dir() / f"{ALICE}.json"
    path.write_bytes(damage)
    found = known_devices.load()
    assert list(found.all) == [known(BOB, "bob")]
    assert list(found.damaged) == [ALICE]
    found.require_whole(BOB)
    with pytest.raises(DamagedDeviceError, match=f"{path} is damaged: delete it, and pair that"):
        found.require_whole(ALICE[:16])
    known_devices.remember(known())
    assert known_devices.load().damaged == {}


def test_a_device_without_an_address_is_damaged() -> None:
    known_devices.remember(known())
    path = paths.known_devices_dir() / f"{ALICE}.json"
    path.write_bytes(msgspec.json.encode(replace(known(), addresses=())))
    assert str(known_devices.load().damaged[ALICE]).startswith(f"{path} is damaged: delete it")


@pytest.mark.timeout(60)
def test_a_fifo_in_the_place_of_a_device_is_told() -> None:
    known_devices.remember(known())
    path = paths.known_devices_dir() / f"{BOB}.json"
    os.mkfifo(path)
    found = known_devices.load()
    assert [device.id for device in found.all] == [ALICE]
    assert str(found.damaged[BOB]) == (
        f"cannot read {path}: {path.name} is no regular file; mend that, or delete it and pair that "
        "device anew"
    )


def test_a_file_under_the_name_of_another_device_is_damaged() -> None:
    known_devices.remember(known())
    folder = paths.known_devices_dir()
    (folder / f"{ALICE}.json").rename(folder / f"{BOB}.json")
    found = known_devices.load()
    assert (list(found.all), list(found.damaged)) == ([], [BOB])


def test_a_folder_that_others_can_enter_is_refused() -> None:
    known_devices.remember(known())
    paths.known_devices_dir().chmod(0o755)
    with pytest.raises(RefusedError, match=r"has mode 0755, expected 0700.*chmod 700"):
        known_devices.load()


def test_a_key_that_others_can_read_is_refused_with_what_to_do() -> None:
    keys = own_keys()
    assert own_keys() == keys
    keys.key_path.chmod(0o644)
    with pytest.raises(RefusedError, match=f"console's own key: .*chmod 600 {keys.key_path}"):
        own_keys()


def test_two_processes_that_begin_at_once_make_one_key() -> None:
    program = "from fedconsole.trust.own_keys import own_keys; print(own_keys().id)"
    begun = [
        subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
        for _ in range(4)
    ]
    assert {process.communicate()[0] for process in begun} == {own_keys().id + "\n"}


@pytest.mark.parametrize("shell", ["zsh", "bash"])
def test_a_shell_is_offered_no_name_that_it_would_carry_out(shell: str) -> None:
    """zsh evaluates what Typer offers it: a backslash takes the one before the dollar sign away."""
    harmful = [r"\$(touch pwned)", "`touch pwned`", "$(touch pwned)", "a;touch pwned", "--yes", "*"]
    for number, name in enumerate([*harmful, "kitchen-1", "부엌"]):
        known_devices.remember(known(str(number) + "A" * 51, name))
    asking = {
        "_FEDCONSOLE_COMPLETE": f"complete_{shell}",
        "_TYPER_COMPLETE_ARGS": "fedconsole devices show ",
        "COMP_WORDS": "fedconsole devices show ",
        "COMP_CWORD": "3",
    }
    offered = subprocess.run(
        [sys.executable, "-m", "fedconsole.cli.entry"],
        env=os.environ | asking,
        capture_output=True,
        text=True,
        check=False,
    ).stdout
    assert re.findall(r"[^\s\"]*touch[^\s\"]*|--yes|\*\"", offered) == []
    assert "kitchen-1" in offered
    assert "부엌" in offered
