"""What a daemon does with consoles that are wrong, many, or hostile. No training here."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import struct
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from msgspec.structs import replace
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.typing import Origin, Subprotocol

from pi_daemon.protocol.codec import CHUNK_HEADER
from pi_daemon.protocol.limits import MAX_FRAME_BYTES, SUBPROTOCOL
from pi_daemon.protocol.messages import (
    Blob,
    Hello,
    Ok,
    RefusalCode,
    Refused,
    RenewLease,
    Role,
    Status,
    Telemetry,
)
from pi_daemon.server.link import MAX_WAITING
from tests.support.daemons import DaemonProcess, daemon
from tests.support.links import RawLink, console_hello, open_link
from tests.support.rounds import prepare_command, start_command, tiny_model, write_dataset

pytestmark = pytest.mark.asyncio(loop_scope="module")

fences = itertools.count(1)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def alice(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[DaemonProcess]:
    folder = tmp_path_factory.mktemp("daemon")
    data = write_dataset(folder / "digits.npz")
    tiny_model()  # takes seconds: on a busy machine an open link would miss its pings
    async with daemon(folder, "--dataset", f"digits={data}", "--max-model", "1M") as running:
        yield running


async def close_of(link: RawLink) -> tuple[int, str]:
    """The code and the reason with which the daemon closes the link."""
    with pytest.raises(ConnectionClosed) as closed:
        await link.expect(Refused, lambda _: False)
    assert closed.value.rcvd is not None
    return closed.value.rcvd.code, closed.value.rcvd.reason


async def assert_serves(alice: DaemonProcess) -> None:
    async with open_link(alice.port) as link:
        assert isinstance(link.seen[0], Hello)


@pytest.mark.parametrize(
    ("frame", "reason"),
    [
        ("garbage", "not a JSON message: JSON is malformed"),
        (b"garbage", "binary frame with -5 bytes of payload"),
        ('{"type":"lease.take"}', "lease.take: Object missing required field"),
        ('{"type":"hello"}', "hello: Object missing required field"),
        (CHUNK_HEADER.pack(7, 0) + b"x", "chunk of transfer 7, which was not announced"),
    ],
    ids=range(5),
)
async def test_a_frame_that_is_no_message_closes_its_link_only(
    alice: DaemonProcess, frame: str | bytes, reason: str
) -> None:
    async with open_link(alice.port) as other, open_link(alice.port) as link:
        await link.socket.send(frame)
        code, said = await close_of(link)
        assert (code, said[: len(reason)]) == (4400, reason)
        await other.expect(Telemetry)
    await alice.wait_for_line("link .* closed: ")


async def test_an_unknown_message_is_ignored(alice: DaemonProcess) -> None:
    async with open_link(alice.port, fence=next(fences)) as link:
        await link.socket.send('{"type":"a.later.one","x":[1,2,3]}')
        assert isinstance(await link.take_lease(take_over=True), Ok)


async def test_a_frame_over_the_limit_closes_the_link(alice: DaemonProcess) -> None:
    async with open_link(alice.port) as link:
        await link.socket.send(b"x" * (MAX_FRAME_BYTES + 1))
        assert (await close_of(link))[0] == 1009
    await assert_serves(alice)


async def test_a_header_that_claims_a_tebibyte_allocates_nothing(alice: DaemonProcess) -> None:
    async with open_link(alice.port) as link:
        link.socket.transport.write(b"\x82\xff" + struct.pack(">Q", 1 << 40) + bytes(4))
        assert (await close_of(link))[0] == 1009


async def test_no_common_version_closes_with_a_sentence(alice: DaemonProcess) -> None:
    async with open_link(alice.port, hello=replace(console_hello(), proto=9, min_proto=9)) as link:
        assert await close_of(link) == (
            4406,
            "no common protocol version: 1-1 here, 9-9 there; update this side",
        )


async def test_a_command_before_hello_closes_the_link(alice: DaemonProcess) -> None:
    async with connect(
        f"ws://127.0.0.1:{alice.port}", subprotocols=[Subprotocol(SUBPROTOCOL)]
    ) as socket:
        await socket.send('{"type":"lease.renew","cmd_id":"1","run":"r","fence":1}')
        assert await close_of(RawLink(socket, 1)) == (4400, "the first message must be hello")


async def test_browsers_other_paths_and_other_protocols_are_shut_out(alice: DaemonProcess) -> None:
    url = f"ws://127.0.0.1:{alice.port}"
    protocol = Subprotocol(SUBPROTOCOL)
    for connecting, status in (
        (connect(url, subprotocols=[protocol], origin=Origin("http://evil.example")), 403),
        (connect(f"{url}/other", subprotocols=[protocol]), 404),
        (connect(url), 400),
    ):
        with pytest.raises(InvalidStatus) as refused:
            await connecting
        assert refused.value.response.status_code == status


async def test_noise_instead_of_http_is_dropped(alice: DaemonProcess) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", alice.port)
    writer.write(bytes(range(256)) * 100)
    with contextlib.suppress(ConnectionError):
        while await reader.read(4096):
            pass
    writer.close()
    await assert_serves(alice)


async def test_a_ninth_link_is_refused(alice: DaemonProcess) -> None:
    async with contextlib.AsyncExitStack() as links:
        for _ in range(8):
            await links.enter_async_context(open_link(alice.port))
        async with connect(
            f"ws://127.0.0.1:{alice.port}", subprotocols=[Subprotocol(SUBPROTOCOL)]
        ) as ninth:
            assert await close_of(RawLink(ninth, 1)) == (
                4429,
                "8 consoles are connected already",
            )


async def test_a_second_controller_is_told_who_holds_the_device(alice: DaemonProcess) -> None:
    async with (
        open_link(alice.port, fence=next(fences)) as first,
        open_link(alice.port, fence=next(fences), hello=console_hello(name="desk-2")) as second,
    ):
        await first.take_lease(take_over=True)
        refused = await second.take_lease()
        assert isinstance(refused, Refused)
        assert refused.code is RefusalCode.HELD
        assert refused.reason.startswith("held by desk-1 for run run-")
        assert isinstance(await second.take_lease(take_over=True), Ok)
        status = await first.expect(Status, lambda m: m.status.holder == "desk-2")
        assert status.status.highest_fence == second.fence


async def test_many_commands_at_once_are_all_answered(alice: DaemonProcess) -> None:
    async with open_link(alice.port, fence=next(fences)) as link:
        await link.take_lease(take_over=True)
        commands = [
            RenewLease(cmd_id=link.new_cmd_id(), run=link.run, fence=link.fence)
            for _ in range(4 * MAX_WAITING)
        ]
        for command in commands:
            await link.send(command)
        for command in commands:
            assert isinstance(await link.answer_to(command.cmd_id), Ok)


async def test_a_viewer_hears_everything_and_may_start_nothing(alice: DaemonProcess) -> None:
    async with open_link(alice.port, hello=console_hello(Role.VIEWER)) as viewer:
        refused = await viewer.ask(start_command(viewer), tiny_model().content)
        assert isinstance(refused, Refused)
        assert refused.code is RefusalCode.NOT_CONTROLLER
        assert (await viewer.expect(Telemetry)).memory_total_bytes > 0


async def test_the_bytes_of_a_refused_command_are_thrown_away(alice: DaemonProcess) -> None:
    async with open_link(alice.port, fence=next(fences)) as link:
        await link.take_lease(take_over=True)
        command = prepare_command(link, dataset="mnist")
        refused = await link.ask(command, tiny_model().graphs)
        assert isinstance(refused, Refused)
        assert refused.code is RefusalCode.NO_DATASET
        # The same command again gets the same answer, and its bytes are read again.
        again = replace(command, graphs=link.blob(tiny_model().graphs))
        assert await link.ask(again, tiny_model().graphs) == refused


async def test_a_model_over_the_owners_limit_closes_the_link(alice: DaemonProcess) -> None:
    async with open_link(alice.port, fence=next(fences)) as link:
        await link.send(replace(start_command(link), model=Blob(9, (1 << 20) + 1, "0" * 64)))
        assert await close_of(link) == (
            4400,
            "blob of 1048577 bytes, at most 1048576 allowed",
        )


async def test_the_fence_outlives_the_daemon(tmp_path: Path) -> None:
    async with daemon(tmp_path) as first, open_link(first.port, fence=7) as link:
        await link.take_lease()
        first.process.kill()
        await first.process.wait()
    async with (
        daemon(tmp_path) as second,
        open_link(second.port, fence=6) as late,
        open_link(second.port, fence=7) as same,
    ):
        refused = await late.take_lease()
        assert isinstance(refused, Refused)
        assert refused.code is RefusalCode.STALE_FENCE
        assert isinstance(await same.take_lease(), Ok)
