"""Each toxic of the chaos proxy does what it says, between an echoing server and a client."""

from __future__ import annotations

import asyncio
import os
import socket
import struct
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import pytest_asyncio

from tests.support.chaos import ChaosProxy, Direction, chaos_proxy

pytestmark = pytest.mark.alone

DATA = bytes(range(256)) * 256
WAIT_S = 20.0


@pytest_asyncio.fixture
async def proxy() -> AsyncIterator[ChaosProxy]:
    """Before a server that sends back what it hears, and ends when it hears the end."""

    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(1 << 16):
                writer.write(data)
                await writer.drain()
        except ConnectionError:
            pass
        finally:
            writer.close()

    async with await asyncio.start_server(echo, "127.0.0.1", 0) as server:
        async with chaos_proxy(server.sockets[0].getsockname()[1], seed=3) as running:
            yield running
        assert running.num_open == 0


class Client:
    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    async def echo(self, data: bytes = DATA) -> tuple[bytes, float]:
        """What comes back, and after how many seconds all of it has."""
        began_s = time.monotonic()
        self.writer.write(data)
        async with asyncio.timeout(WAIT_S):
            back = await self.reader.readexactly(len(data))
        return back, time.monotonic() - began_s

    async def read_into(self, heard: bytearray) -> None:
        """Read to the end."""
        while data := await self.reader.read(100):
            heard += data


@asynccontextmanager
async def client_of(proxy: ChaosProxy) -> AsyncIterator[Client]:
    reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
    try:
        yield Client(reader, writer)
    finally:
        writer.transport.abort()


async def test_without_a_toxic_everything_goes_through_and_both_ends_are_told(
    proxy: ChaosProxy,
) -> None:
    async with client_of(proxy) as client:
        assert (await client.echo())[0] == DATA
        client.writer.write_eof()
        assert await asyncio.wait_for(client.reader.read(), WAIT_S) == b""
    assert (proxy.up.num_bytes, proxy.down.num_bytes) == (len(DATA), len(DATA))
    assert (proxy.num_connections, proxy.num_resets) == (1, 0)


async def test_latency_delays_each_direction_by_itself_but_not_piece_after_piece(
    proxy: ChaosProxy,
) -> None:
    async with client_of(proxy) as client:
        proxy.up.set(latency_s=0.2)
        assert 0.2 <= (await client.echo())[1] < 1.0
        proxy.down.set(latency_s=0.3)
        assert 0.5 <= (await client.echo())[1] < 1.5
        proxy.clear()
        assert (await client.echo())[1] < 0.5


async def test_jitter_varies_the_latency_and_keeps_the_order(proxy: ChaosProxy) -> None:
    proxy.up.set(latency_s=0.01, jitter_s=0.05)
    async with client_of(proxy) as client:
        took_s = []
        for _ in range(10):
            back, seconds = await client.echo()
            assert back == DATA
            took_s.append(seconds)
    assert min(took_s) >= 0.01
    assert max(took_s) - min(took_s) > 0.01


async def test_a_bandwidth_limits_what_goes_through(proxy: ChaosProxy) -> None:
    async with client_of(proxy) as client:
        proxy.down.set(bytes_per_s=len(DATA))
        back, seconds = await client.echo()
    assert back == DATA
    # The last piece is not followed by anything, so that its own time does not count.
    assert 0.9 <= seconds < 2.0


async def test_slicing_delivers_a_byte_at_a_time(proxy: ChaosProxy) -> None:
    proxy.up.set(slice_bytes=1, bytes_per_s=200)
    sizes: list[int] = []
    async with client_of(proxy) as client:
        client.writer.write(DATA[:40])
        async with asyncio.timeout(WAIT_S):
            while sum(sizes) < 40:
                sizes.append(len(await client.reader.read(1 << 16)))
    # Under load a reader finds two bytes at once now and then.
    assert len(sizes) > 20


async def test_slicing_changes_nothing_of_the_content(proxy: ChaosProxy) -> None:
    proxy.set(slice_bytes=7)
    async with client_of(proxy) as client:
        assert (await client.echo())[0] == DATA


async def test_a_reset_reaches_both_ends_at_once(proxy: ChaosProxy) -> None:
    async with client_of(proxy) as client:
        await client.echo()
        proxy.reset()
        with pytest.raises(ConnectionResetError):
            await asyncio.wait_for(client.reader.read(1), WAIT_S)
    assert proxy.num_resets == 1
    async with client_of(proxy) as client:
        assert (await client.echo())[0] == DATA


async def test_a_reset_after_n_bytes_lets_n_bytes_through_and_happens_once(
    proxy: ChaosProxy,
) -> None:
    proxy.down.set(reset_after_bytes=1000)
    heard = bytearray()
    async with client_of(proxy) as client:
        client.writer.write(DATA)
        with pytest.raises(ConnectionResetError):
            await asyncio.wait_for(client.read_into(heard), WAIT_S)
    # What lies in a buffer of this end is lost with the connection.
    assert DATA[:1000].startswith(heard)
    assert (proxy.down.num_bytes, proxy.num_resets) == (1000, 1)
    async with client_of(proxy) as client:
        assert (await client.echo())[0] == DATA


async def test_a_half_open_link_is_silent_and_stays_so_after_healing(proxy: ChaosProxy) -> None:
    async with client_of(proxy) as client:
        await client.echo()
        proxy.set(is_half_open=True)
        client.writer.write(DATA)
        async with client_of(proxy) as other:
            # Whoever connects now is let in and hears nothing.
            other.writer.write(DATA)
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(other.reader.read(1), 0.3)
        proxy.clear()
        client.writer.write(DATA)
        client.writer.write_eof()
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(client.reader.read(1), 0.3)
    assert proxy.up.num_bytes == len(DATA)
    async with client_of(proxy) as client:
        assert (await client.echo())[0] == DATA


async def test_a_stalled_link_fills_the_senders_buffers_and_goes_on_after_healing(
    proxy: ChaosProxy,
) -> None:
    proxy.up.set(is_stalled=True)
    large = os.urandom(16 << 20)
    async with client_of(proxy) as client:
        echo = asyncio.get_running_loop().create_task(client.echo(large))
        await asyncio.wait([echo], timeout=0.3)
        assert proxy.up.num_bytes == 0
        assert client.writer.transport.get_write_buffer_size() > 0
        proxy.clear()
        assert (await echo)[0] == large


async def test_flips_change_single_bytes_at_the_given_rate_and_the_same_ones_for_a_seed() -> None:
    ways = [Direction(seed=5), Direction(seed=5)]
    for way, step in zip(ways, (len(DATA), 1000), strict=True):
        way.set(flips_per_byte=1 / 1000)
        spoilt = b"".join(way.spoil(DATA[i : i + step]) for i in range(0, len(DATA), step))
        num_other = sum(a != b for a, b in zip(spoilt, DATA, strict=True))
        assert num_other == way.num_flips
        assert 30 < num_other < 120
    assert ways[0].num_flips == ways[1].num_flips


async def test_flips_reach_the_other_end_and_keep_to_their_bits(proxy: ChaosProxy) -> None:
    proxy.up.set(flips_per_byte=1 / 500, flip_bits=0x80)
    async with client_of(proxy) as client:
        back, _ = await client.echo()
    changes = [a ^ b for a, b in zip(back, DATA, strict=True) if a != b]
    assert changes == [0x80] * proxy.up.num_flips
    assert len(changes) > 50


async def test_a_server_that_is_not_there_closes_the_connection(proxy: ChaosProxy) -> None:
    async with chaos_proxy(1) as nowhere, client_of(nowhere) as client:
        with pytest.raises(ConnectionResetError):
            await asyncio.wait_for(client.reader.read(1), WAIT_S)


async def test_an_end_that_vanishes_resets_the_other(proxy: ChaosProxy) -> None:
    seen = asyncio.get_running_loop().create_future()

    async def wait(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            writer.write(await reader.readexactly(1))
            await reader.read(1)
        except ConnectionResetError as error:
            seen.set_result(error)
        finally:
            writer.transport.abort()

    async with await asyncio.start_server(wait, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        async with chaos_proxy(port) as other, client_of(other) as client:
            await client.echo(b"x")
            connection = client.writer.get_extra_info("socket")
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            client.writer.transport.abort()
            await asyncio.wait_for(seen, WAIT_S)


async def test_closing_the_proxy_leaves_no_task_behind() -> None:
    async def echo_one(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(await reader.readexactly(1))
        writer.close()

    before = asyncio.all_tasks()
    async with await asyncio.start_server(echo_one, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        async with chaos_proxy(port) as proxy, client_of(proxy) as client:
            await client.echo(b"x")
            proxy.set(latency_s=100)
            client.writer.write(DATA)
            await client.writer.drain()
            assert proxy.num_open == 1
        left = {task for task in asyncio.all_tasks() - before if "ChaosProxy" in repr(task)}
        assert left == set()
