"""`pi-daemon init`, `--pair`, `pair` and `consoles`, as their owner types them."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from pi_daemon.protocol.messages import Role
from pi_daemon.trust.join import parse_join
from pi_daemon.trust.keys import in_groups, open_keys
from tests.support.daemons import daemon, owner_command, run_daemon
from tests.support.links import console_hello, open_link
from tests.support.pairing import PairedConsole, pair, paired_daemon

LOOPBACK = ("--host", "127.0.0.1")


async def ended(folder: Path, *words: str) -> tuple[int | None, str, str]:
    """Exit code, stdout and stderr of a command about the device of that name in a folder."""
    process = await run_daemon(folder, *words, "--state-dir", str(folder / "alice"))
    stdout, stderr = await process.communicate()
    return process.returncode, stdout.decode(), stderr.decode()


async def test_init_prints_the_id_once_and_again(tmp_path: Path) -> None:
    told = [await ended(tmp_path, "init") for _ in range(2)]
    keys = open_keys(tmp_path / "alice")
    assert [(code, out) for code, out, _ in told] == [(0, in_groups(keys.id) + "\n")] * 2
    assert f"pi-daemon --state-dir {tmp_path / 'alice'} --pair" in told[0][2]
    modes = {path.name: path.stat().st_mode & 0o777 for path in (tmp_path / "alice").iterdir()}
    assert (modes["key.pem"], modes["consoles"]) == (0o600, 0o700)


async def test_init_is_refused_while_the_daemon_runs(tmp_path: Path) -> None:
    async with daemon(tmp_path) as running:
        code, out, err = await ended(tmp_path, "init")
        assert (code, out) == (3, "")
        assert "stop it, give this command, and start it again" in err
        assert not (running.state_dir / "consoles").exists()


async def test_an_initialised_daemon_says_that_nobody_is_paired_and_how_to_pair(
    tmp_path: Path,
) -> None:
    await ended(tmp_path, "init")
    async with daemon(tmp_path, *LOOPBACK) as running:
        assert "listens on wss://127.0.0.1:" in running.lines[-1]
        line = await running.wait_for_line("paired with")
        pair_it = f"pi-daemon pair --state-dir {running.state_dir}"
        assert line == f"pi-daemon: paired with nobody yet; to pair a console: {pair_it}\n"
        [entry] = (tmp_path / "p" / "fedconsole" / "daemons").glob("*.json")
        assert json.loads(entry.read_bytes())["is_initialised"] is True


async def test_a_daemon_that_invites_does_not_say_how_to_invite(tmp_path: Path) -> None:
    async with daemon(tmp_path, *LOOPBACK, "--pair") as running:
        line = await running.wait_for_line("paired with")
        assert line == "pi-daemon: paired with nobody yet\n"


async def test_two_commands_pair_a_console(tmp_path: Path) -> None:
    async with paired_daemon(tmp_path) as (running, desk):
        assert parse_join(running.join).device_id == open_keys(running.state_dir).id
        async with open_link(running.port, paired=desk):
            pass
        running.process.terminate()
        await running.process.wait()
        assert not (running.state_dir / "admin.sock").exists()
    async with daemon(tmp_path, *LOOPBACK) as running:
        assert "paired with desk-1;" in await running.wait_for_line("paired with")


async def test_pair_prints_the_join_string_alone(tmp_path: Path) -> None:
    async with paired_daemon(tmp_path) as (running, _):
        admin = running.state_dir / "admin.sock"
        assert admin.stat().st_mode & 0o777 == 0o600
        code, out, err = await ended(tmp_path, "pair", "--address", "kitchen.local")
        join = parse_join(out)
        assert (code, out) == (0, f"{join}\n")
        assert join.address == f"kitchen.local:{running.port}"
        assert f"fedconsole pair '{join}'" in err
        assert "within 10 minutes and once" in err
        told = json.loads(await owner_command(running, "pair", "--json", "--viewer"))
        assert parse_join(told.pop("join")).host == "127.0.0.1"
        assert told == {"role": "viewer", "seconds": 600.0}
        code, out, err = await ended(tmp_path, "pair", "--address", "no host")
        assert (code, out) == (3, "")
        assert "--address no host: expected a host name or an IP address" in err


async def test_consoles_are_listed_and_revoked_while_the_daemon_runs(tmp_path: Path) -> None:
    async with paired_daemon(tmp_path) as (running, desk):
        async with open_link(running.port, hello=console_hello(Role.VIEWER), paired=desk):
            [line] = (await owner_command(running, "consoles", "list", "--json")).splitlines()
            shown = json.loads(line)
            assert shown.pop("paired_at").startswith("20")
            assert shown == {
                "id": desk.keys.id,
                "name": "desk-1",
                "role": "operator",
                "is_connected": True,
            }
        code, _, err = await ended(tmp_path, "consoles", "revoke", in_groups(desk.keys.id)[:9])
        assert (code, err) == (0, f"desk-1 ({in_groups(desk.keys.id)}) is revoked\n")
        code, out, err = await ended(tmp_path, "consoles", "list")
        assert (code, out, err) == (0, "", "no console is paired with this device\n")


async def test_consoles_are_listed_and_revoked_without_a_daemon(tmp_path: Path) -> None:
    async with paired_daemon(tmp_path) as (running, desk):
        pass
    table = await owner_command(running, "consoles", "list")
    assert [line.split()[0] for line in table.splitlines()] == ["NAME", "desk-1"]
    assert in_groups(desk.keys.id) in table
    assert (await ended(tmp_path, "consoles", "revoke", "desk-1"))[0] == 0
    assert await owner_command(running, "consoles", "list", "--json") == ""


async def test_a_console_that_is_not_one_or_one_of_two_is_not_revoked(tmp_path: Path) -> None:
    async with paired_daemon(tmp_path) as (running, desk):
        other = open_keys(tmp_path / "other")
        join = (await owner_command(running, "pair")).strip()
        await pair(join, other, from_address="127.0.0.2")
        for name, words in (("desk-1", "2 consoles are"), ("desk-9", "no console is")):
            code, _, err = await ended(tmp_path, "consoles", "revoke", name)
            assert code == 3
            assert f"{words} called {name}: desk-1 " in err
            assert in_groups(desk.keys.id) in err
            assert in_groups(other.id) in err


async def test_what_needs_a_daemon_or_an_identity_says_which_command_comes_first(
    tmp_path: Path,
) -> None:
    state = f"--state-dir {tmp_path / 'alice'}"
    for words in (("pair",), ("consoles", "list"), ("consoles", "revoke", "x")):
        code, _, err = await ended(tmp_path, *words)
        assert code == 3
        assert f"then pi-daemon init {state}" in err
    assert not (tmp_path / "alice").exists()
    await ended(tmp_path, "init")
    code, _, err = await ended(tmp_path, "pair")
    assert code == 3
    assert f"start it with pi-daemon {state}, then pair" in err


async def test_a_state_directory_with_a_long_path_has_its_admin_socket(tmp_path: Path) -> None:
    folder = tmp_path / ("x" * 100)
    folder.mkdir()
    async with paired_daemon(folder) as (running, _):
        assert await owner_command(running, "pair")


ASK_AS_ANOTHER = """
import os, sys
from pathlib import Path
from pi_daemon.server.admin import ListConsoles, ask
os.setgroups([]); os.setgid(int(sys.argv[2])); os.setuid(65534)
print(ask(Path(sys.argv[1]), ListConsoles()))
"""


@pytest.mark.skipif(os.getuid() != 0, reason="only root can become another user")
async def test_the_group_of_a_state_directory_may_ask_where_its_owner_lets_it(
    tmp_path: Path,
) -> None:
    async def asked_by(group: int) -> str:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", ASK_AS_ANOTHER, str(tmp_path / "alice"), str(group)),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        stdout, stderr = await process.communicate()
        return stdout.decode() or stderr.decode()

    for parent in (tmp_path, *tmp_path.parents):
        if parent.name.startswith(("pytest-", "popen-", tmp_path.name)):
            parent.chmod(0o711)
    await ended(tmp_path, "init")
    os.chown(tmp_path / "alice", -1, 60_001)
    (tmp_path / "alice").chmod(0o710)
    async with daemon(tmp_path, *LOOPBACK):
        assert "Listed(consoles=())" in await asked_by(60_001)
        assert "NoDaemonError" in await asked_by(60_002)


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda key: key.chmod(0o644), "has mode 0644: others can read this key"),
        (lambda key: key.write_bytes(b""), "holds no private key that can be read"),
        (lambda key: os.truncate(key, 100), "holds no private key that can be read"),
        (lambda key: os.chown(key, 65534, 65534), "is not a file of this user's: chown it"),
    ],
    ids=["readable by others", "empty", "truncated", "another user's"],
)
async def test_a_key_that_cannot_be_trusted_is_refused_and_mended(
    tmp_path: Path, damage: Callable[[Path], None], said: str
) -> None:
    if "user" in said and os.getuid() != 0:
        pytest.skip("only root can give a file to somebody else")
    async with paired_daemon(tmp_path) as (running, desk):
        pass
    key = running.state_dir / "key.pem"
    whole = key.read_bytes()
    damage(key)
    code, _, err = await ended(tmp_path, *LOOPBACK, "--port", "0", "--no-mdns")
    assert code == 3
    assert said in err
    key.unlink()
    key.write_bytes(whole)
    key.chmod(0o600)
    await served(tmp_path, desk)


async def test_a_certificate_of_another_key_is_made_anew(tmp_path: Path) -> None:
    async with paired_daemon(tmp_path) as (running, desk):
        pass
    other = open_keys(tmp_path / "other")
    (running.state_dir / "cert.pem").write_bytes(other.certificate_path.read_bytes())
    await served(tmp_path, desk)


@pytest.mark.parametrize("is_link", [False, True], ids=["a file", "a link to nowhere"])
async def test_an_initialised_device_whose_consoles_are_no_folder_does_not_start(
    tmp_path: Path, is_link: bool
) -> None:
    await ended(tmp_path, "init")
    consoles = tmp_path / "alice" / "consoles"
    consoles.rmdir()
    if is_link:
        consoles.symlink_to(tmp_path / "nowhere")
    else:
        consoles.touch()
    for words in (("--port", "0", "--no-mdns"), ("init",), ("consoles", "list")):
        code, out, err = await ended(tmp_path, *words)
        assert (code, out) == (3, "")
        assert f"{consoles} is not a folder, so who is paired cannot be told: put the" in err
    consoles.unlink()
    assert (await ended(tmp_path, "init"))[0] == 0


async def test_a_device_with_a_new_key_names_the_consoles_that_know_the_old_one(
    tmp_path: Path,
) -> None:
    async with paired_daemon(tmp_path) as (running, desk):
        assert not [line for line in running.lines if "identity" in line]
    key = running.state_dir / "key.pem"
    old = key.rename(tmp_path / "old.pem")
    for options in (LOOPBACK, (*LOOPBACK, "--pair")):
        async with daemon(tmp_path, *options) as running:
            [line] = [line for line in running.lines if "identity" in line]
            new = in_groups(open_keys(running.state_dir).id)
            assert f"WARNING this device has a new identity {new}; desk-1, paired with" in line
            if running.join:
                await pair(running.join, desk.keys)
    async with daemon(tmp_path, *LOOPBACK) as running:
        assert not [line for line in running.lines if "identity" in line]
    old.rename(key)
    async with daemon(tmp_path, *LOOPBACK) as running:
        assert [line for line in running.lines if "has a new identity" in line]


async def served(folder: Path, desk: PairedConsole) -> None:
    viewer = console_hello(Role.VIEWER)
    async with (
        daemon(folder, *LOOPBACK) as running,
        open_link(running.port, hello=viewer, paired=desk),
    ):
        pass
