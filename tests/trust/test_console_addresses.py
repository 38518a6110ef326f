"""What a console makes of an address: with or without TLS, and who may be there."""

from __future__ import annotations

import asyncio
import shutil
import socket
from pathlib import Path

import pytest
from websockets.exceptions import InvalidMessage

from fedconsole import paths
from fedconsole.cli.main import carry_out
from fedconsole.dialling import console_hello, dial, exchange_hellos
from fedconsole.errors import DamagedDeviceError, IdentityChangedError, NotPairedError
from fedconsole.link_failures import in_words
from fedconsole.trust import known_devices
from pi_daemon.protocol.messages import Role
from tests.support.console import (
    LOOPBACK,
    answered_by,
    end,
    listener_beyond_loopback,
    paired,
    run_on,
    why_not,
)
from tests.support.daemons import daemon
from tests.support.places import redirect
from tests.support.relay import relay
from tests.support.strangers import stranger

pytestmark = pytest.mark.timeout(400)
HOW_TO_PAIR = (
    "run pi-daemon pair there, then fedconsole pair 'fp1:...' here, with the line that it prints"
)
NO_TLS = (
    "what answers there does not speak TLS 1.3, and nothing was told to it; if it is your device, "
    "start pi-daemon --pair on it and pair with it, else look at the address"
)


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    return redirect(tmp_path, monkeypatch)


# On this machine


async def test_a_paired_device_is_known_by_its_key_at_any_port_of_this_machine(
    place: Path,
) -> None:
    """As at the end of an SSH tunnel: no device was ever met at that address."""
    async with (
        paired(place, "--dataset", "digits=sample") as (running, alice),
        relay(running.port) as tunnel,
    ):
        there = f"127.0.0.1:{tunnel.port}"
        assert await answered_by(there) == alice.id
        assert (await run_on(there))[0] == 0


async def test_an_unknown_key_at_a_port_of_this_machine_is_told_nothing(place: Path) -> None:
    async with paired(place) as (_, alice), stranger(place) as other:
        error = await why_not(other.address)
        assert isinstance(error, NotPairedError)
        assert not isinstance(error, IdentityChangedError)
        assert other.keys is not None
        assert other.keys.id in str(error)
        assert bytes(other.heard) == b""
        known_devices.forget(alice.id)
        assert isinstance(await why_not(other.address), InvalidMessage)


async def test_a_device_without_tls_is_reached_on_this_machine_beside_a_paired_one(
    place: Path,
) -> None:
    async with (
        paired(place),
        daemon(place, name="bob") as bob,
        dial(f"127.0.0.1:{bob.port}") as link,
    ):
        assert (await exchange_hellos(link, console_hello(Role.VIEWER))).name == "bob"
        assert link.device_id is None


async def test_nobody_without_tls_is_taken_for_a_paired_device(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Neither where it has that one's id, as after copying its folder, nor where it has its name."""
    async with paired(place, "--dataset", "digits=sample") as (running, alice):
        await end(running)
        shutil.copytree(running.state_dir, place / "copy", ignore=lambda *_: {"consoles"})
        copied = ("--state-dir", str(place / "copy"), "--dataset", "digits=sample")
        async with daemon(place, *copied) as impostor:
            there = f"127.0.0.1:{impostor.port}"
            words = (
                f"what answers says that it is alice ({alice.id}), which is paired with this "
                "console, and proves no key"
            )
            assert in_words(await why_not(there)) == words
            exit_code, said = await run_on(there, "--quorum-timeout", "6")
            assert (exit_code, words in said) == (5, True)
            (place / "fedconsole.toml").write_text(
                f'[[devices]]\nname = "alice"\nhost = "127.0.0.1"\nport = {impostor.port}\n'
            )
            capsys.readouterr()
            assert await asyncio.to_thread(carry_out, ["devices", "show", "alice"]) == 3
            refused = f"alice at {alice.addresses[0]} does not answer: connection refused"
            assert refused in capsys.readouterr().err


async def test_no_plain_link_is_made_where_a_device_with_a_damaged_file_could_have_been(
    place: Path,
) -> None:
    async with paired(place) as (running, alice):
        await end(running)
        (paths.known_devices_dir() / f"{alice.id}.json").write_text("{")
        # Nobody's daemon, as far as this user's folder of daemons tells.
        async with stranger(place, port=running.port, tls=False) as plain:
            assert isinstance(await why_not(alice.addresses[0]), DamagedDeviceError)
            assert bytes(plain.heard) == b""


# Elsewhere, and what else may be there


async def test_a_plain_port_where_tls_is_expected_is_said_to_be_one(place: Path) -> None:
    async with paired(place) as (running, alice):
        await end(running)
        async with daemon(place, "--port", str(running.port), name="bob"):
            words = in_words(await why_not(alice.addresses[0]))
    assert words == NO_TLS


async def test_tls_where_none_is_expected_is_said_to_be_there(place: Path) -> None:
    async with daemon(place, *LOOPBACK, "--pair") as running:
        words = in_words(await why_not(f"127.0.0.1:{running.port}"))
    assert words == f"no pi-daemon without TLS answers there; if it is initialised, {HOW_TO_PAIR}"


async def test_no_other_spelling_of_its_address_reaches_a_paired_device_without_its_key(
    place: Path,
) -> None:
    """Else whoever has its port on this machine would get a run that was meant for it."""
    async with paired(place) as (running, alice):
        address = f"localhost:{running.port}"
        assert await answered_by(address) == alice.id
        await end(running)
        async with daemon(place, "--port", str(running.port), name="bob"):
            assert in_words(await why_not(address)) == NO_TLS
        async with stranger(place, port=running.port) as impostor:
            assert isinstance(await why_not(address), IdentityChangedError)
            assert bytes(impostor.heard) == b""


async def test_an_older_tls_is_refused(place: Path) -> None:
    async with paired(place) as (running, alice):
        await end(running)
        async with stranger(place, port=running.port, newest=False) as old:
            words = in_words(await why_not(alice.addresses[0]))
            assert bytes(old.heard) == b""
    assert words == NO_TLS


async def test_at_an_address_that_no_paired_device_had_it_is_said_who_is_there_and_what_to_do(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with listener_beyond_loopback() as (_, address):
        host = address.rpartition(":")[0]
    async with (
        paired(place),
        stranger(place, host=host) as unpaired,
        await asyncio.start_server(_say_http, host, 0) as plain,
    ):
        assert unpaired.keys is not None
        with socket.create_server((host, 0)) as nobody:
            closed = f"{host}:{nobody.getsockname()[1]}"
        there = f"{host}:{unpaired.port}"
        not_paired = (
            f"the device at {there} has a key that is not paired with this console "
            f"({unpaired.keys.id}), and nothing was told to it; if it is yours, {HOW_TO_PAIR}"
        )
        refused = "connection refused; is pi-daemon running there?"
        speaks_plainly = f"{host}:{plain.sockets[0].getsockname()[1]}"
        answers = {
            there: (4, not_paired),
            speaks_plainly: (3, f"{speaks_plainly} does not answer: {NO_TLS}"),
            closed: (3, f"{closed} does not answer: {refused}"),
        }
        capsys.readouterr()
        for where, (expected, sentence) in answers.items():
            assert await asyncio.to_thread(carry_out, ["devices", "show", where]) == expected
            assert capsys.readouterr().err == f"fedconsole: {sentence}\n"
        exit_code, said = await run_on(there)
        assert (exit_code, not_paired in said) == (4, True)
        exit_code, said = await run_on(speaks_plainly, "--worker", closed, "--quorum-timeout", "6")
        assert exit_code == 5
        assert f"{speaks_plainly} ({NO_TLS})" in said
        assert f"{closed} ({refused})" in said
        assert bytes(unpaired.heard) == b""


async def _say_http(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.read(1)
    writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
    writer.close()
