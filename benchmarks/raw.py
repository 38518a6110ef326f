"""The same bytes over websockets and nothing else: what the wire's figures are compared to.

`python -m benchmarks.raw NUM` prints its port and sends every NUM messages that came back again.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Sequence

from websockets.asyncio.client import ClientConnection, connect
from websockets.asyncio.server import ServerConnection, serve


async def rounds(
    addresses: Sequence[str], message: bytes, num_messages: int, num_rounds: int
) -> list[float]:
    """Seconds of each round: all workers get the messages, and the console gets them back."""
    sockets = [
        await connect(
            f"ws://{address}", compression=None, proxy=None, max_size=None, ping_interval=None
        )
        for address in addresses
    ]
    seconds = []
    for _ in range(num_rounds):
        began = time.perf_counter()
        await asyncio.gather(
            *(_there_and_back(socket, message, num_messages) for socket in sockets)
        )
        seconds.append(time.perf_counter() - began)
    await asyncio.gather(*(socket.close() for socket in sockets))
    return seconds


async def _there_and_back(socket: ClientConnection, message: bytes, num_messages: int) -> None:
    for _ in range(num_messages):
        await socket.send(message)
    for _ in range(num_messages):
        await socket.recv()


async def main() -> None:
    num_messages = int(sys.argv[1])

    async def echo(socket: ServerConnection) -> None:
        messages = []
        async for message in socket:
            messages.append(message)
            if len(messages) == num_messages:
                for received in messages:
                    await socket.send(received)
                messages.clear()

    async with serve(
        echo, "127.0.0.1", 0, compression=None, max_size=None, ping_interval=None
    ) as listener:
        print(next(iter(listener.sockets)).getsockname()[1], flush=True)
        await asyncio.to_thread(sys.stdin.read)


if __name__ == "__main__":
    asyncio.run(main())
