"""Whom an initialised daemon lets in, and as what. After each test it serves its paired console still."""

from __future__ import annotations

import asyncio
import itertools
import json
import re
import socket
import ssl
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from msgspec.structs import replace
from websockets.exceptions import ConnectionClosed

from pi_daemon.protocol.codec import encode
from pi_daemon.protocol.limits import (
    CLOSE_NOT_ADMITTED,
    CLOSE_NOT_PAIRED,
    CLOSE_PROTOCOL_ERROR,
    CLOSE_TOO_MANY_LINKS,
)
from pi_daemon.protocol.messages import FromConsole, Hello, Ok, RefusalCode, Refused, Role
from pi_daemon.protocol.pairing import PATH, ConsoleRole
from pi_daemon.trust.keys import Keys, open_keys
from pi_daemon.trust.tls import console_context
from tests.support.certificates import OTHER_KINDS, self_signed
from tests.support.daemons import DaemonProcess, daemon, owner_command
from tests.support.links import console_hello, open_link
from tests.support.pairing import PairedConsole, closing, open_socket, pair, paired_daemon

pytestmark = pytest.mark.asyncio(loop_scope="module")

WAIT_S = 30.0
fences = itertools.count(1)
addresses = (f"127.0.1.{n}" for n in range(1, 255))
"""Each may try to pair once a second."""


@pytest_asyncio.fixture(loop_scope="module", autouse=True)
async def still_served(alice: tuple[DaemonProcess, PairedConsole]) -> AsyncIterator[None]:
    yield
    running, desk = alice
    async with open_link(running.port, fence=next(fences), paired=desk) as link:
        assert isinstance(await link.take_lease(take_over=True, trains=False), Ok)


@pytest.fixture
def stranger(tmp_path: Path) -> Keys:
    return open_keys(tmp_path / "stranger")


async def invitation(running: DaemonProcess, *options: str) -> str:
    return (await owner_command(running, "pair", *options)).strip()


def code_of(error: pytest.ExceptionInfo[ConnectionClosed]) -> int:
    return told_by(error)[0]


def told_by(error: pytest.ExceptionInfo[ConnectionClosed]) -> tuple[int, str]:
    assert error.value.rcvd is not None
    return error.value.rcvd.code, error.value.rcvd.reason


# Certificates


async def test_the_console_that_was_paired_is_served_under_its_paired_name(
    running: DaemonProcess, desk: PairedConsole
) -> None:
    assert (desk.told.name, desk.told.role) == ("alice", ConsoleRole.OPERATOR)
    hello = console_hello(name="somebody else")
    async with open_link(running.port, fence=next(fences), hello=hello, paired=desk) as link:
        await link.take_lease(take_over=True, trains=False)
        async with open_link(running.port, hello=console_hello(Role.VIEWER), paired=desk) as other:
            said = other.seen[0]
            assert isinstance(said, Hello)
            assert said.status is not None
            assert said.status.holder == "desk-1"


async def test_an_unknown_certificate_dies_in_the_handshake(
    running: DaemonProcess, desk: PairedConsole, stranger: Keys
) -> None:
    context = console_context(stranger, [desk.device])
    with pytest.raises(ssl.SSLError, match="ALERT_UNKNOWN_CA"):
        async with open_socket(running.port, context):
            pass


async def test_without_a_certificate_nothing_is_said_but_that_it_has_to_pair(
    running: DaemonProcess, desk: PairedConsole
) -> None:
    async with open_socket(running.port, console_context(None, [desk.device])) as link:
        with pytest.raises(ConnectionClosed) as closed:
            await link.recv()
    assert code_of(closed) == CLOSE_NOT_PAIRED


async def test_a_console_that_names_itself_another_in_hello_is_turned_away(
    running: DaemonProcess, desk: PairedConsole
) -> None:
    async with open_socket(running.port, desk.context) as link:
        await link.send(encode(replace(console_hello(), id="A" * 52)))
        assert (await closing(link))[0] == CLOSE_NOT_ADMITTED


async def test_no_session_can_be_taken_up_again(
    running: DaemonProcess, desk: PairedConsole
) -> None:
    def session() -> ssl.SSLSession | None:
        with (
            socket.create_connection(("127.0.0.1", running.port)) as connection,
            desk.context.wrap_socket(connection) as secure,
        ):
            secure.settimeout(WAIT_S)
            secure.sendall(b"GET /other HTTP/1.1\r\n\r\n")
            # Tickets come before anything else.
            secure.recv(1)
            return secure.session

    found = await asyncio.to_thread(session)
    assert found is None or not found.has_ticket


# Roles


async def test_a_viewer_looks_and_steers_nothing(running: DaemonProcess, tmp_path: Path) -> None:
    join = await invitation(running, "--viewer")
    viewer = await pair(join, open_keys(tmp_path / "viewer"), from_address=next(addresses))
    assert viewer.told.role is ConsoleRole.VIEWER
    async with open_link(running.port, hello=console_hello(Role.VIEWER), paired=viewer) as link:
        assert isinstance(link.seen[0], Hello)
        refused = await link.take_lease(take_over=True)
        assert isinstance(refused, Refused)
        assert refused.code is RefusalCode.NOT_CONTROLLER
    async with open_socket(running.port, viewer.context) as raw:
        await raw.send(encode(replace(console_hello(), id=viewer.keys.id)))
        assert await closing(raw) == (
            CLOSE_NOT_ADMITTED,
            "this console may only look: pair it as operator to steer",
        )


async def test_a_viewer_is_refused_every_command_there_is(
    running: DaemonProcess, tmp_path: Path
) -> None:
    """As docs/protocol.md has them, one of each."""
    document = (Path(__file__).parents[2] / "docs" / "protocol.md").read_text()
    frames = re.findall(r"^```json\n(.+)\n```$", document, flags=re.MULTILINE)
    commands = [frame for frame in frames if '"fence":' in frame and '"cmd_id":' in frame]
    kinds = {json.loads(frame)["type"] for frame in commands}
    every = FromConsole.__args__
    assert kinds == {kind.__struct_config__.tag for kind in every if kind is not Hello}
    join = await invitation(running, "--viewer")
    viewer = await pair(join, open_keys(tmp_path / "viewer 2"), from_address=next(addresses))
    for command in commands:
        async with open_link(running.port, hello=console_hello(Role.VIEWER), paired=viewer) as link:
            await link.socket.send(command)
            answer = await link.answer_to(json.loads(command)["cmd_id"])
            assert isinstance(answer, Refused)
            assert (answer.code, answer.reason) == (
                RefusalCode.NOT_CONTROLLER,
                "this link is a viewer: it only listens",
            )
    await running.revoke(viewer.keys.id)


# Pairing


async def test_a_join_string_is_worth_nothing_after_its_use(
    running: DaemonProcess, stranger: Keys
) -> None:
    with pytest.raises(ConnectionClosed) as closed:
        await pair(running.join, stranger, from_address=next(addresses))
    assert code_of(closed) == CLOSE_NOT_PAIRED


async def test_a_wrong_secret_is_refused_and_leaves_the_window_open(
    running: DaemonProcess, stranger: Keys
) -> None:
    join = await invitation(running)
    wrong = join[:-16] + ("A" * 16 if join[-16:] != "A" * 16 else "B" * 16)
    for _ in range(8):
        with pytest.raises(ConnectionClosed) as closed:
            await pair(wrong, stranger, from_address=next(addresses))
        assert code_of(closed) == CLOSE_NOT_ADMITTED
    await pair(join, stranger, from_address=next(addresses))
    await running.revoke(stranger.id)


async def test_an_address_that_tries_twice_within_a_second_has_to_wait(
    running: DaemonProcess, stranger: Keys
) -> None:
    address = next(addresses)
    codes = set()
    for _ in range(3):
        with pytest.raises(ConnectionClosed) as closed:
            await pair(running.join, stranger, from_address=address)
        codes.add(code_of(closed))
    assert CLOSE_TOO_MANY_LINKS in codes


async def test_of_two_consoles_with_one_secret_exactly_one_is_paired(
    running: DaemonProcess, tmp_path: Path
) -> None:
    join = await invitation(running)
    rivals = [open_keys(tmp_path / f"rival {n}") for n in range(2)]
    told = await asyncio.gather(
        *(pair(join, keys, from_address=next(addresses)) for keys in rivals),
        return_exceptions=True,
    )
    [winner] = [one for one in told if isinstance(one, PairedConsole)]
    [loser] = [one for one in told if isinstance(one, ConnectionClosed)]
    assert loser.rcvd is not None
    assert loser.rcvd.code == CLOSE_NOT_PAIRED
    async with open_link(running.port, hello=console_hello(Role.VIEWER), paired=winner):
        pass
    await running.revoke(winner.keys.id)


async def test_who_connects_and_asks_nothing_keeps_nobody_from_pairing(
    running: DaemonProcess, desk: PairedConsole, stranger: Keys
) -> None:
    join = await invitation(running)
    context = console_context(None, [desk.device])
    for address in ("127.0.2.1", "127.0.2.1", "127.0.2.2", "127.0.2.3"):
        idle = await open_socket(running.port, context, PATH, from_address=address)
        assert idle.close_code is None
    await pair(join, stranger, from_address=next(addresses))
    await running.revoke(stranger.id)


async def test_what_is_no_question_or_no_certificate_is_refused(
    running: DaemonProcess, desk: PairedConsole
) -> None:
    secret = (await invitation(running)).rpartition(":")[2]
    whole = '{"type":"pair","secret":"%s","name":"x","certificate":"%s","proof":"AA=="}'
    context = console_context(None, [desk.device])
    for frame in (b"\xff", "{", '{"type":"pair"}', "x" * 100_000, whole % (secret, "none")):
        async with open_socket(
            running.port, context, PATH, from_address=next(addresses)
        ) as connection:
            await connection.send(frame)
            with pytest.raises(ConnectionClosed) as closed:
                await connection.recv()
        assert code_of(closed) == 4400


async def test_a_console_that_does_not_hold_the_key_of_a_certificate_cannot_pair_it(
    running: DaemonProcess, desk: PairedConsole, stranger: Keys
) -> None:
    """Who has the secret could else make a viewer of an operator, or an operator of a viewer."""
    join = await invitation(running, "--viewer")
    with pytest.raises(ConnectionClosed) as closed:
        await pair(join, stranger, from_address=next(addresses), certificate=desk.keys.certificate)
    assert told_by(closed) == (
        CLOSE_PROTOCOL_ERROR,
        "a certificate without a proof of its key",
    )
    async with open_link(running.port, fence=next(fences), paired=desk) as link:
        assert isinstance(await link.take_lease(take_over=True, trains=False), Ok)
    await pair(join, stranger, from_address=next(addresses))
    await running.revoke(stranger.id)


@pytest.mark.parametrize("kind", OTHER_KINDS)
async def test_a_console_with_a_key_of_another_kind_is_not_paired(
    running: DaemonProcess, stranger: Keys, kind: str
) -> None:
    join = await invitation(running)
    foreign = self_signed(OTHER_KINDS[kind]())
    with pytest.raises(ConnectionClosed) as closed:
        await pair(join, stranger, from_address=next(addresses), certificate=foreign)
    assert told_by(closed) == (
        CLOSE_PROTOCOL_ERROR,
        "a certificate whose key is of another kind than P-256",
    )


async def test_a_join_string_is_too_old_after_ten_minutes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stranger: Keys
) -> None:
    from tests.support.clocks import Clock

    clock = Clock(tmp_path)
    for name, value in clock.environment.items():
        if "MONOTONIC" not in name:
            monkeypatch.setenv(name, value)
    async with daemon(tmp_path, "--host", "127.0.0.1", "--pair", name="bob") as bob:
        clock.step(601)
        with pytest.raises(ConnectionClosed) as closed:
            await pair(bob.join, stranger)
        assert code_of(closed) == CLOSE_NOT_PAIRED


# Revocation


@pytest.mark.parametrize("by_hand", [False, True], ids=["by command", "by deleting its file"])
async def test_a_revoked_console_is_disconnected_and_not_served_again(
    running: DaemonProcess, tmp_path: Path, by_hand: bool
) -> None:
    keys = open_keys(tmp_path / "desk-2")
    join = await invitation(running)
    second = await pair(join, keys, "desk-2", from_address=next(addresses))
    async with open_link(running.port, paired=second) as link:
        if by_hand:
            (running.state_dir / "consoles" / f"{keys.id}.json").unlink()
        else:
            await running.revoke("desk-2")
        assert (await closing(link.socket))[0] == CLOSE_NOT_ADMITTED
    async with open_socket(running.port, second.context) as raw:
        assert (await closing(raw))[0] == CLOSE_NOT_ADMITTED


async def test_a_console_that_was_revoked_may_pair_anew(
    running: DaemonProcess, stranger: Keys
) -> None:
    for _ in range(2):
        again = await pair(await invitation(running), stranger, from_address=next(addresses))
        async with open_link(running.port, hello=console_hello(Role.VIEWER), paired=again):
            pass
        await running.revoke(stranger.id)


async def test_an_operator_that_is_paired_as_viewer_steers_no_longer(
    running: DaemonProcess, stranger: Keys
) -> None:
    before = await pair(await invitation(running), stranger, from_address=next(addresses))
    async with open_link(running.port, paired=before) as link:
        await pair(await invitation(running, "--viewer"), stranger, from_address=next(addresses))
        assert (await closing(link.socket))[0] == CLOSE_NOT_ADMITTED
    await running.revoke(stranger.id)


async def test_trust_outlives_the_process_and_so_does_a_revocation(tmp_path: Path) -> None:
    options = ("--host", "127.0.0.1")
    async with paired_daemon(tmp_path, name="bob") as (bob, desk):
        second = await pair(
            await invitation(bob), open_keys(tmp_path / "2"), "desk-2", from_address="127.0.3.1"
        )
        await bob.revoke("desk-2")
    async with daemon(tmp_path, *options, name="bob") as bob:
        async with open_link(bob.port, paired=desk):
            pass
        with pytest.raises(ssl.SSLError, match="ALERT_UNKNOWN_CA"):
            async with open_socket(bob.port, second.context):
                pass
