"""A connection to a daemon that is given up while its console still speaks."""

from __future__ import annotations

import asyncio
import gc
from typing import Any

from websockets.asyncio.server import ServerConnection, serve
from websockets.typing import Subprotocol

from fedconsole.dialling import console_hello, dial
from fedconsole.engine.connection import Connection, Listener
from pi_daemon.protocol import messages as m
from pi_daemon.protocol.limits import SUBPROTOCOL
from tests.support.chaos import chaos_proxy
from tests.support.echo_daemon import EchoDaemon
from tests.support.raw_socket import PING

MODEL = bytes(64 << 20)
"""More than all buffers between the two hold."""


def ignore(*_: object) -> None:
    pass


NOBODY = Listener(
    status=ignore,
    batches=ignore,
    round_failed=ignore,
    telemetry=ignore,
    log=ignore,
    update=ignore,
    update_path=ignore,  # type: ignore[arg-type]
)


def renew(cmd_id: str) -> m.Command:
    return m.RenewLease(cmd_id=cmd_id, run="20261122-a3f9", fence=1)


async def test_a_link_that_is_given_up_while_a_command_is_on_its_way_leaves_no_unheard_error() -> (
    None
):
    loop = asyncio.get_running_loop()
    unheard: list[dict[str, Any]] = []
    loop.set_exception_handler(lambda _, context: unheard.append(context))
    device = EchoDaemon("kitchen")
    await device.start()
    async with chaos_proxy(device.port) as proxy, dial(proxy.address) as websocket:
        connection = Connection(websocket, NOBODY)
        await connection.greet(console_hello(m.Role.CONTROLLER))
        proxy.up.set(is_stalled=True)
        blob = connection.announce(len(MODEL), "0" * 64)
        sending = loop.create_task(connection.send_bytes(blob, MODEL))
        _, most = websocket.transport.get_write_buffer_limits()
        async with asyncio.timeout(30):
            while websocket.transport.get_write_buffer_size() <= most:  # noqa: ASYNC110
                await asyncio.sleep(0)
        listening = loop.create_task(connection.listen())
        asking = loop.create_task(connection.ask(renew, m.Ok))
        await asyncio.sleep(0)
        # As the group of a connection's tasks does when one of them fails.
        for task in (listening, asking, sending):
            task.cancel()
        await asyncio.gather(listening, asking, sending, return_exceptions=True)
        proxy.reset()
    await device.kill()
    del listening, asking, sending, task
    gc.collect()
    assert unheard == []


async def test_a_device_that_pings_and_reads_no_answer_is_given_up() -> None:
    async def flood(socket: ServerConnection) -> None:
        transport = socket.transport
        transport.pause_reading()
        while not transport.is_closing():
            # Frames of 125 bytes that are not masked, as a server's are.
            transport.write((bytes([0x80 | PING, 125]) + bytes(125)) * 512)
            await socket.drain()

    async with serve(
        flood, "127.0.0.1", 0, subprotocols=[Subprotocol(SUBPROTOCOL)], ping_interval=None
    ) as server:
        port = next(iter(server.sockets)).getsockname()[1]
        async with asyncio.timeout(30), dial(f"127.0.0.1:{port}") as link:
            await link.wait_closed()
