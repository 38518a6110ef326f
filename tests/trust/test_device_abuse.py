"""What strangers do to the port of an initialised daemon; it serves its paired console all the while."""

from __future__ import annotations

import asyncio
import random
import resource
import ssl
import unicodedata
from collections.abc import AsyncIterator
from pathlib import Path

import psutil
import pytest
import pytest_asyncio
from msgspec.structs import replace
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidHandshake, InvalidStatus
from websockets.typing import Origin

from pi_daemon.protocol.codec import encode
from pi_daemon.protocol.limits import MAX_FRAME_BYTES
from pi_daemon.protocol.messages import Hello, Refused, RenewLease, Role
from pi_daemon.protocol.pairing import PATH
from pi_daemon.server.admission import MAX_CONNECTIONS_OF_ADDRESS
from pi_daemon.server.log_flood import MAX_LINES
from pi_daemon.trust.keys import open_keys
from pi_daemon.trust.tls import console_context
from tests.support.daemons import DaemonProcess, owner_command
from tests.support.links import RawLink, console_hello, open_link
from tests.support.pairing import PairedConsole, closing, open_socket, pair, paired_daemon
from tests.support.raw_socket import PING, TEXT, raw_socket

pytestmark = pytest.mark.asyncio(loop_scope="module")

WAIT_S = 60.0
MANY_CONNECTIONS = 5_000
AT_A_TIME = 50
EVIL = "clear\x1b[2J copy\x1b]52;c;eA==\x07 turned\u202e hid\u200bden nul\x01\x7f\nline"


@pytest_asyncio.fixture(loop_scope="module", autouse=True)
async def other(alice: tuple[DaemonProcess, PairedConsole]) -> AsyncIterator[None]:
    """The paired console, which is served all the while, and connects anew afterwards."""
    running, desk = alice
    viewer = console_hello(Role.VIEWER)
    async with open_link(running.port, hello=viewer, paired=desk) as link:
        yield
        await answers(link)
    async with open_link(running.port, hello=viewer, paired=desk) as link:
        assert isinstance(link.seen[0], Hello)


async def answers(link: RawLink) -> None:
    renew = RenewLease(cmd_id=link.new_cmd_id(), run=link.run, fence=0)
    assert isinstance(await link.ask(renew), Refused)


async def ending(reader: asyncio.StreamReader) -> bytes:
    """What still comes until the daemon drops the connection."""
    async with asyncio.timeout(WAIT_S):
        try:
            return await reader.read()
        except (ConnectionError, ssl.SSLError):
            return b""


async def dropped(port: int, said: bytes) -> bytes:
    """What comes back for these bytes, until the daemon drops the connection."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(said)
        return await ending(reader)
    finally:
        writer.transport.abort()


def client_hello(context: ssl.SSLContext) -> bytes:
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    end = context.wrap_bio(incoming, outgoing)
    with pytest.raises(ssl.SSLWantReadError):
        end.do_handshake()
    return outgoing.read()


# Before the websocket


async def test_random_bytes_are_dropped(running: DaemonProcess) -> None:
    dice = random.Random(1)
    for size in (1, 5, 100, 4_096, 100_000):
        answer = await dropped(running.port, dice.randbytes(size))
        # At most an alert of TLS.
        assert len(answer) < 100


async def test_http_and_a_websocket_without_tls_are_dropped(running: DaemonProcess) -> None:
    assert b"HTTP" not in await dropped(running.port, b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
    with pytest.raises((OSError, InvalidHandshake, EOFError)):
        async with open_socket(running.port):
            pass


async def test_tls_before_1_3_is_refused(running: DaemonProcess, desk: PairedConsole) -> None:
    context = desk.context
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    with pytest.raises((ssl.SSLError, ConnectionError)):
        await asyncio.open_connection("127.0.0.1", running.port, ssl=context)


async def test_a_handshake_that_stalls_is_dropped(
    running: DaemonProcess, desk: PairedConsole
) -> None:
    hello = client_hello(desk.context)
    said = [b"", hello[:1], hello[: len(hello) // 2], hello[:-1], hello]
    answers = await asyncio.gather(*(dropped(running.port, one) for one in said))
    assert answers[:4] == [b""] * 4
    assert answers[4], "the device's part of the handshake"


async def test_an_upgrade_that_comes_byte_by_byte_is_dropped(
    running: DaemonProcess, desk: PairedConsole
) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", running.port, ssl=desk.context)

    async def drip() -> None:
        while True:
            writer.write(b"G")
            await asyncio.sleep(0.3)

    dripping = asyncio.get_running_loop().create_task(drip())
    try:
        assert await ending(reader) == b""
    finally:
        dripping.cancel()
        writer.transport.abort()


@pytest.mark.parametrize(
    "request_head",
    [
        "GET / HTTP/1.1\r\n" + "".join(f"X-{n}: y\r\n" for n in range(500)) + "\r\n",
        "GET /" + "x" * 65_536 + " HTTP/1.1\r\n\r\n",
    ],
    ids=["500 headers", "64 KiB URL"],
)
async def test_a_request_that_is_too_large_is_refused(
    running: DaemonProcess, desk: PairedConsole, request_head: str
) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", running.port, ssl=desk.context)
    try:
        writer.write(request_head.encode())
        answer = await ending(reader)
        assert not answer or answer.startswith(b"HTTP/1.1 4"), answer
    finally:
        writer.transport.abort()


@pytest.mark.parametrize("path", ["/", PATH])
async def test_a_browser_is_refused(running: DaemonProcess, desk: PairedConsole, path: str) -> None:
    for context in (desk.context, console_context(None, [desk.device])):
        with pytest.raises(InvalidStatus) as refused:
            async with connect(
                f"wss://127.0.0.1:{running.port}{path}",
                ssl=context,
                origin=Origin("https://example.com"),
            ):
                pass
        assert refused.value.response.status_code == 403


async def test_another_path_is_not_there(running: DaemonProcess, desk: PairedConsole) -> None:
    for path in ("/pair/", "/pairing", "/../pair", "/?pair"):
        with pytest.raises(InvalidStatus) as refused:
            async with open_socket(running.port, desk.context, path):
                pass
        assert refused.value.response.status_code == 404


# Before the hello


async def test_who_says_nothing_is_closed(running: DaemonProcess, desk: PairedConsole) -> None:
    guest = console_context(None, [desk.device])

    async def code(context: ssl.SSLContext, path: str) -> int | None:
        async with open_socket(running.port, context, path) as link:
            return (await closing(link))[0]

    told = await asyncio.gather(code(guest, PATH), code(desk.context, "/"), code(guest, "/"))
    assert told == [4400, 4400, 4401]


async def test_of_a_stranger_that_floods_little_is_looked_at(
    running: DaemonProcess, desk: PairedConsole
) -> None:
    guest = console_context(None, [desk.device])
    async with raw_socket(running.port, tls=guest) as socket:
        for _ in range(8_192):
            socket.write(PING, bytes(125))
        # A pong for each ping that was looked at, and 4401.
        assert len(await ending(socket.reader)) < 160 << 10


# After it


async def test_a_viewer_that_pings_and_reads_no_answer_is_dropped(
    running: DaemonProcess, desk: PairedConsole
) -> None:
    process = psutil.Process(running.pid)
    before = process.memory_info().rss
    hello = replace(console_hello(Role.VIEWER), id=desk.keys.id)
    async with raw_socket(running.port, tls=desk.context) as socket:
        socket.write(TEXT, encode(hello).encode())
        await socket.ping_until_dropped()
    assert process.memory_info().rss - before < 32 << 20


# Many


async def test_five_thousand_connections_of_one_address_shut_nobody_else_out(
    running: DaemonProcess, desk: PairedConsole
) -> None:
    process = psutil.Process(running.pid)
    before = process.memory_info().rss
    num_allowed = resource.getrlimit(resource.RLIMIT_NOFILE)[0] - 200
    opened: list[asyncio.StreamWriter] = []
    try:
        async with open_link(
            running.port, hello=console_hello(Role.VIEWER), paired=desk
        ) as earlier:
            # None of them ever begins its handshake.
            for _ in range(min(MANY_CONNECTIONS, num_allowed) // AT_A_TIME):
                flood = (
                    asyncio.open_connection("127.0.0.1", running.port) for _ in range(AT_A_TIME)
                )
                opened += [writer for _reader, writer in await asyncio.gather(*flood)]
            await answers(earlier)
            async with (
                open_socket(running.port, desk.context, from_address="127.0.0.2") as socket,
                asyncio.timeout(WAIT_S),
            ):
                assert await socket.recv()
            num_held = len(process.net_connections("tcp"))
    finally:
        for writer in opened:
            writer.transport.abort()
    # Its own socket, and the other address's.
    assert num_held <= MAX_CONNECTIONS_OF_ADDRESS + 2
    assert process.memory_info().rss - before < 64 << 20


async def test_strangers_of_many_addresses_shut_no_console_out(
    running: DaemonProcess, desk: PairedConsole
) -> None:
    addresses = [f"127.0.0.{number}" for number in range(2, 14)]
    opened: list[asyncio.StreamWriter] = []
    try:
        for address in addresses * MAX_CONNECTIONS_OF_ADDRESS:
            _, writer = await asyncio.open_connection(
                "127.0.0.1", running.port, local_addr=(address, 0)
            )
            opened.append(writer)
        async with open_link(running.port, hello=console_hello(Role.VIEWER), paired=desk) as link:
            await answers(link)
    finally:
        for writer in opened:
            writer.transport.abort()


async def test_a_flood_of_strangers_fills_no_log(tmp_path: Path) -> None:
    dice = random.Random(1)
    async with paired_daemon(tmp_path, name="bob") as (bob, desk):
        for _ in range(300):
            await dropped(bob.port, dice.randbytes(200))
        guest = console_context(None, [desk.device])
        for _ in range(100):
            async with open_socket(bob.port, guest) as link:
                await link.wait_closed()
        lines = await last_lines(bob)
    # Of one kind in a period; slow machines see several periods.
    assert len([line for line in lines if "pair first" in line]) <= 3 * MAX_LINES
    assert [line for line in lines if "pair first" not in line and "paired with" not in line] == []


async def test_texts_of_a_console_reach_the_owners_terminal_clean(tmp_path: Path) -> None:
    async with paired_daemon(tmp_path, name="bob") as (bob, _):
        join = (await owner_command(bob, "pair")).strip()
        evil = await pair(join, open_keys(tmp_path / "evil"), EVIL[:100], from_address="127.0.0.9")
        hello = replace(console_hello(), name=EVIL, boot_id=EVIL, build=EVIL)
        async with open_link(bob.port, hello=hello, paired=evil) as link:
            link.run = EVIL
            await link.take_lease(take_over=True, trains=False)
            await link.socket.send('{"type":"\\u001b[2J"}')
            await link.socket.send('{"type":"lease.take","\\u001b":1,"fence":"\\u001b"}')
            assert (await closing(link.socket))[0] == 4400
        async with open_link(bob.port, hello=hello, paired=evil) as link:
            await link.socket.send("\x1b[2J" + "x" * (MAX_FRAME_BYTES - 10))
            assert (await closing(link.socket))[0] == 4400
        listed = await owner_command(bob, "consoles", "list")
        as_json = await owner_command(bob, "consoles", "list", "--json")
        lines = await last_lines(bob)
    assert "clear" in listed
    for text in (listed, as_json, "".join(lines)):
        assert {c for c in text if unicodedata.category(c) in ("Cc", "Cf")} <= {"\n"}


async def last_lines(running: DaemonProcess) -> list[str]:
    """What a daemon has written since it began to listen; it is ended."""
    running.process.terminate()
    _, stderr = await running.process.communicate()
    lines = stderr.decode().splitlines(keepends=True)
    return [line for line in lines if not line.startswith(("pi-daemon: ", "On the console"))]
