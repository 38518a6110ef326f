"""A link's own watch works through TLS as it does without."""

from __future__ import annotations

import asyncio
import socket
from pathlib import Path

import psutil
import pytest
from websockets.asyncio.server import ServerConnection

from pi_daemon.protocol.messages import Role
from pi_daemon.server.admission import Admission
from pi_daemon.server.listening import listen
from pi_daemon.trust.keys import open_keys
from pi_daemon.trust.tls import console_context, device_context
from tests.support.chaos import chaos_proxy
from tests.support.daemons import DaemonProcess
from tests.support.links import console_hello, open_link
from tests.support.pairing import open_socket, paired_daemon

WAIT_S = 60.0
LOOK_S = 0.1


def num_connected(running: DaemonProcess) -> int:
    found = psutil.Process(running.pid).net_connections("tcp")
    return sum(one.status == psutil.CONN_ESTABLISHED for one in found)


async def until_nobody_is_connected(running: DaemonProcess) -> None:
    async with asyncio.timeout(WAIT_S):
        while num_connected(running):  # noqa: ASYNC110
            await asyncio.sleep(LOOK_S)


@pytest.mark.parametrize("is_revoked", [False, True], ids=["silent", "silent and revoked"])
async def test_a_console_that_is_gone_without_a_word_is_dropped(
    tmp_path: Path, is_revoked: bool
) -> None:
    async with paired_daemon(tmp_path) as (running, desk), chaos_proxy(running.port) as proxy:
        viewer = console_hello(Role.VIEWER)
        async with open_link(proxy.port, hello=viewer, paired=desk) as link:
            assert num_connected(running) == 1
            proxy.up.set(is_half_open=True)
            proxy.down.set(is_half_open=True)
            if is_revoked:
                await running.revoke("desk-1")
            await until_nobody_is_connected(running)
            link.socket.transport.abort()


async def test_little_waits_in_the_kernel(tmp_path: Path) -> None:
    device, desk = open_keys(tmp_path / "device"), open_keys(tmp_path / "desk")
    met: asyncio.Queue[ServerConnection] = asyncio.Queue()

    async def serve(connection: ServerConnection) -> None:
        met.put_nowait(connection)
        await connection.wait_closed()

    tls = device_context(device, [desk.certificate])
    async with listen(serve, "127.0.0.1", 0, ["/"], tls, Admission()) as listener:
        port = next(iter(listener.sockets)).getsockname()[1]
        async with open_socket(port, console_context(desk, [device.certificate])) as ours:
            theirs = await met.get()
            for end in (ours, theirs):
                kernel = end.transport.get_extra_info("socket")
                unsent = kernel.getsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT)
                assert unsent == 128 << 10
            theirs.transport.abort()
            async with asyncio.timeout(WAIT_S):
                await ours.wait_closed()
        assert theirs.close_code == 1006
