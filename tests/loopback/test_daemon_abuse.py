"""What a daemon does with frames that no websocket library would send, and with too many connections."""

from __future__ import annotations

import asyncio
import itertools
import resource
import zlib
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import psutil
import pytest
import pytest_asyncio
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed
from websockets.typing import Subprotocol

from pi_daemon.protocol.codec import encode
from pi_daemon.protocol.limits import MAX_FRAME_BYTES, SUBPROTOCOL
from pi_daemon.protocol.messages import (
    AcceptUpdate,
    Command,
    Cursor,
    DeviceState,
    Hello,
    Ok,
    Pause,
    RefusalCode,
    Refused,
    RenewLease,
    Resume,
    Role,
    StartRound,
)
from pi_daemon.server.admission import MAX_CONNECTIONS_OF_ADDRESS
from tests.support.daemons import DaemonProcess, daemon
from tests.support.links import RawLink, console_hello, open_link
from tests.support.raw_socket import BINARY, PING, TEXT, RawSocket, raw_socket

pytestmark = pytest.mark.asyncio(loop_scope="module")

MANY_CONNECTIONS = 5_000
AT_A_TIME = 50
fences = itertools.count(1)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def alice(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[DaemonProcess]:
    async with daemon(tmp_path_factory.mktemp("daemon")) as running:
        yield running


@pytest_asyncio.fixture(loop_scope="module", autouse=True)
async def other(alice: DaemonProcess) -> AsyncIterator[None]:
    """A well-behaved console, which is served all the while, and a new one afterwards."""
    async with open_link(alice.port, hello=console_hello(Role.VIEWER)) as link:
        yield
        await answers(link)
    async with open_link(alice.port) as link:
        assert isinstance(link.seen[0], Hello)


async def answers(link: RawLink) -> None:
    """The daemon still answers on this link; what it says is no matter."""
    renew = RenewLease(cmd_id=link.new_cmd_id(), run=link.run, fence=0)
    assert isinstance(await link.ask(renew), Refused)


def memory_of(alice: DaemonProcess) -> int:
    return int(psutil.Process(alice.pid).memory_info().rss)


# Frames


def say_hello(socket: RawSocket) -> None:
    socket.write(TEXT, encode(console_hello()).encode())


async def test_fragments_without_an_end_are_cut_off_at_the_limit(alice: DaemonProcess) -> None:
    before = memory_of(alice)
    async with raw_socket(alice.port) as socket:
        say_hello(socket)
        socket.write(TEXT, b"x" * 16_384, fin=False)
        for _ in range(MAX_FRAME_BYTES // 16_384 + 1):
            socket.write(0, b"x" * 16_384, fin=False)
        assert await socket.close_code() == 1009
    assert memory_of(alice) - before < 64 << 20


async def test_compression_is_declined_and_a_bomb_is_no_message(alice: DaemonProcess) -> None:
    bomb = zlib.compress(bytes(100 << 20), 9, wbits=-15)
    assert len(bomb) < MAX_FRAME_BYTES
    before = memory_of(alice)
    async with raw_socket(alice.port, "Sec-WebSocket-Extensions: permessage-deflate") as socket:
        assert "sec-websocket-extensions" not in socket.answer.lower()
        say_hello(socket)
        socket.write(BINARY, bomb, rsv=0b100)
        assert await socket.close_code() == 1002
    assert memory_of(alice) - before < 64 << 20


@pytest.mark.parametrize(
    ("frame", "code"),
    [
        ({"opcode": TEXT, "payload": b'{"type":"\xff\xfe"}'}, 1007),
        ({"opcode": TEXT, "payload": b"{}", "masked": False}, 1002),
        ({"opcode": 3, "payload": b""}, 1002),
        ({"opcode": 11, "payload": b""}, 1002),
        ({"opcode": TEXT, "payload": b"{}", "rsv": 0b100}, 1002),
        ({"opcode": TEXT, "payload": b"{}", "rsv": 0b001}, 1002),
        ({"opcode": PING, "payload": b"x" * 126}, 1002),
        ({"opcode": PING, "payload": b"x", "fin": False}, 1002),
        ({"opcode": 0, "payload": b"goes on from nothing"}, 1002),
    ],
    ids=[
        *("utf-8", "unmasked", "opcode-3", "opcode-11", "rsv1", "rsv3"),
        *("long-ping", "ping-in-parts", "continuation"),
    ],
)
async def test_a_frame_against_the_rules_closes_its_link_only(
    alice: DaemonProcess, frame: dict[str, object], code: int
) -> None:
    async with raw_socket(alice.port) as socket:
        say_hello(socket)
        socket.write(**frame)  # type: ignore[arg-type]
        assert await socket.close_code() == code


async def test_pings_whose_answers_nobody_reads_end_their_link(alice: DaemonProcess) -> None:
    before = memory_of(alice)
    async with raw_socket(alice.port) as socket:
        say_hello(socket)
        await socket.ping_until_dropped()
    assert memory_of(alice) - before < 32 << 20


# Messages

RENEW = '{"type":"lease.renew","cmd_id":"1","run":"r","fence":%s}'


@pytest.mark.parametrize(
    ("frame", "code"),
    [
        ("{", 4400),
        ('{"type":"later","x":' + "[" * 10_000 + "]" * 10_000 + "}", 4400),
        (RENEW % ("[" * 10_000 + "]" * 10_000), 4400),
        (RENEW % ("9" * (MAX_FRAME_BYTES - 100)), 4400),
        (RENEW % "NaN", 4400),
        (RENEW % "Infinity", 4400),
        (RENEW % "-Infinity", 4400),
        (RENEW % "1e999", 4400),
        ('{"type":"lease.renew","cmd_id":"1","run":"r"}', 4400),
        (b'{"type":"lease.renew","cmd_id":"1","run":"r","fence":1}', 4400),
    ],
    ids=[
        *("cut", "deep-and-unknown", "deep", "1-MiB-number", "nan"),
        *("infinity", "minus-infinity", "too-large", "missing-field", "binary"),
    ],
)
async def test_json_that_is_hostile_closes_its_link_only(
    alice: DaemonProcess, frame: str | bytes, code: int
) -> None:
    async with open_link(alice.port, fence=next(fences)) as link:
        await link.socket.send(frame)
        with pytest.raises(ConnectionClosed) as closed:
            await link.expect(Refused, lambda _: False)
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code == code


async def test_a_number_of_ten_megabytes_is_not_even_read(alice: DaemonProcess) -> None:
    before = memory_of(alice)
    async with raw_socket(alice.port) as socket:
        say_hello(socket)
        socket.write(TEXT, (RENEW % ("9" * (10 << 20))).encode())
        # What is still on its way when the daemon closes resets the connection.
        assert await socket.close_code() in (1009, None)
    assert memory_of(alice) - before < 64 << 20


async def test_of_a_key_that_comes_twice_the_last_value_counts(alice: DaemonProcess) -> None:
    async with open_link(alice.port, fence=next(fences)) as link:
        assert isinstance(await link.take_lease(take_over=True), Ok)
        twice = f'"fence":0,"fence":{link.fence}'
        await link.socket.send(
            f'{{"type":"lease.renew","cmd_id":"twice","run":"{link.run}",{twice}}}'
        )
        assert await link.answer_to("twice") == Ok("twice")


async def test_text_in_the_place_of_a_model_closes_the_link(alice: DaemonProcess) -> None:
    async with open_link(alice.port, fence=next(fences)) as link:
        await link.take_lease(take_over=True, trains=False)
        await link.send(start(link, b"a model"))
        await link.socket.send("the bytes of a model")
        with pytest.raises(ConnectionClosed) as closed:
            await link.expect(Refused, lambda m: m.code is RefusalCode.BAD_MODEL)
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code == 4400


# Commands out of place


def start(link: RawLink, content: bytes | None) -> StartRound:
    return StartRound(
        **head(link),  # type: ignore[arg-type]
        round=1,
        attempt=1,
        model_id="0" * 64,
        model=None if content is None else link.blob(content),
        cursor=Cursor(0, 0),
        num_batches=1,
        torch_seed="1",
    )


def head(link: RawLink) -> dict[str, object]:
    return {"cmd_id": link.new_cmd_id(), "run": link.run, "fence": link.fence}


async def test_an_idle_device_refuses_what_belongs_to_a_round(alice: DaemonProcess) -> None:
    async with open_link(alice.port, fence=next(fences)) as link:
        await link.take_lease(take_over=True, trains=False)
        commands: list[Command] = [
            Resume(**head(link), round=1),  # type: ignore[arg-type]
            Pause(**head(link), round=1),  # type: ignore[arg-type]
            start(link, None),
        ]
        said = [await link.ask(command) for command in commands]
        assert [type(answer) for answer in said] == [Refused] * 3
        # An update that nobody has is forgotten already.
        accept = AcceptUpdate(**head(link), round=1, attempt=1)  # type: ignore[arg-type]
        assert await link.ask(accept) == Ok(accept.cmd_id)
        refused = await link.ask(start(link, b"a model"), b"a model")
        assert isinstance(refused, Refused)
    async with open_link(alice.port) as link:
        hello = link.seen[0]
        assert isinstance(hello, Hello)
        assert hello.status is not None
        assert hello.status.state is DeviceState.IDLE


async def test_of_consoles_that_start_at_once_one_gets_the_device(alice: DaemonProcess) -> None:
    async with AsyncExitStack() as stack:
        links = [
            await stack.enter_async_context(open_link(alice.port, fence=next(fences)))
            for _ in range(6)
        ]
        # Whoever had it before has let go.
        await links[0].take_lease(take_over=True, trains=False)
        release = '{"type":"lease.release","cmd_id":"end","run":"%s","fence":%d}'
        await links[0].socket.send(release % (links[0].run, links[0].fence))
        assert await links[0].answer_to("end") == Ok("end")
        rivals = links[1:]
        told = await asyncio.gather(*(link.take_lease(trains=False) for link in rivals))
        holders = [link for link, a in zip(rivals, told, strict=True) if isinstance(a, Ok)]
        assert len(holders) == 1
        codes = {a.code for a in told if isinstance(a, Refused)}
        assert codes <= {RefusalCode.HELD, RefusalCode.STALE_FENCE}
        # A take-over fences the one before, also when a frame of it comes again.
        new = await stack.enter_async_context(open_link(alice.port, fence=next(fences)))
        assert isinstance(await new.take_lease(take_over=True, trains=False), Ok)
        [old] = holders
        renew = RenewLease(**head(old))  # type: ignore[arg-type]
        for _ in range(2):
            refused = await old.ask(renew)
            assert isinstance(refused, Refused)
            assert refused.code is RefusalCode.STALE_FENCE


# Connections


async def test_five_thousand_connections_of_one_address_shut_nobody_else_out(
    alice: DaemonProcess,
) -> None:
    before = memory_of(alice)
    num_allowed = resource.getrlimit(resource.RLIMIT_NOFILE)[0] - 200
    opened: list[asyncio.StreamWriter] = []
    try:
        async with open_link(alice.port, fence=next(fences)) as earlier:
            # Few enough at a time for the listener's queue, and all held to the end.
            for _ in range(min(MANY_CONNECTIONS, num_allowed) // AT_A_TIME):
                flood = (asyncio.open_connection("127.0.0.1", alice.port) for _ in range(AT_A_TIME))
                opened += [writer for _reader, writer in await asyncio.gather(*flood)]
            await answers(earlier)
            async with connect(
                f"ws://127.0.0.1:{alice.port}",
                subprotocols=[Subprotocol(SUBPROTOCOL)],
                local_addr=("127.0.0.2", 0),
            ) as socket:
                link = RawLink(socket, 1)
                await link.send(console_hello())
                assert isinstance(await link.receive(), Hello)
            num_held = len(psutil.Process(alice.pid).net_connections("tcp"))
    finally:
        for writer in opened:
            writer.transport.abort()
    # Its own socket, the caller's and the other address's links besides.
    assert num_held <= MAX_CONNECTIONS_OF_ADDRESS + 4
    assert memory_of(alice) - before < 64 << 20
