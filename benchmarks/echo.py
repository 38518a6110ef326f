"""A worker without torch that returns each model as its update at once: what is left is the wire.

`python -m benchmarks.echo CARD [KEYS CONSOLE.pem]` prints its port, and a second line when `run.prepare`
has come. With a folder for its key it speaks TLS, with that console alone. It answers `run.prepare` when a line has come on its standard input, and ends with it. Its update has the model's content; no worker's parameters are
told from another's by content anywhere in the engine, so that saves nothing.
"""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

import msgspec
from websockets.asyncio.server import ServerConnection, serve
from websockets.typing import Subprotocol

from pi_daemon.protocol import messages as m
from pi_daemon.protocol.codec import IncomingTransfers, decode_from_console, encode
from pi_daemon.protocol.limits import (
    MAX_FRAME_BYTES,
    MAX_GRAPHS_BYTES,
    MAX_MODEL_BYTES,
    PROTO,
    SUBPROTOCOL,
)
from pi_daemon.trust.keys import open_keys, pem_to_der
from pi_daemon.trust.tls import device_context

_STATUS = m.DeviceStatus(state=m.DeviceState.IDLE, highest_fence=0)
"""Never with a model: so each round brings its own."""


class EchoWorker:
    def __init__(self, card: m.DatasetCard, device_id: str, may_go: asyncio.Event) -> None:
        self._may_go = may_go
        self._hello = m.Hello(
            proto=PROTO,
            min_proto=PROTO,
            id=device_id,
            name=f"echo-{os.getpid()}",
            boot_id="1",
            build="echo",
            capabilities=m.Capabilities(
                torch=None,
                operators=None,
                machine=os.uname().machine,
                num_cpus=1,
                memory_bytes=0,
                max_model_bytes=MAX_MODEL_BYTES,
            ),
            status=_STATUS,
            datasets=(card,),
        )

    async def serve(self, socket: ServerConnection) -> None:
        await socket.send(encode(self._hello))
        incoming = IncomingTransfers()
        commands: dict[int, m.Prepare | m.StartRound] = {}
        frames: list[bytes] = []
        batch_size = 1
        async for frame in socket:
            if isinstance(frame, bytes):
                transfer, _ = incoming.feed(frame)
                frames.append(frame)
                if not transfer.is_complete:
                    continue
                match commands.pop(transfer.blob.transfer):
                    case m.Prepare(cmd_id=cmd_id, batch_size=batch_size):
                        print("asked to prepare", flush=True)
                        await self._may_go.wait()
                        await socket.send(encode(m.Prepared(cmd_id, 10**9, 0, 0.0, 0)))
                    case m.StartRound() as start:
                        await socket.send(encode(m.Ok(start.cmd_id)))
                        await socket.send(encode(_update(start, transfer.blob, batch_size)))
                        # Numbers of transfers are each direction's own: the frames fit as they are.
                        for received in frames:
                            await socket.send(received)
                frames.clear()
                continue
            match decode_from_console(frame):
                case m.Hello():
                    pass
                case m.Prepare() as prepare:
                    incoming.announce(prepare.graphs, MAX_GRAPHS_BYTES)
                    commands[prepare.graphs.transfer] = prepare
                case m.StartRound(model=m.Blob() as blob) as start:
                    incoming.announce(blob, MAX_MODEL_BYTES)
                    commands[blob.transfer] = start
                case m.Command(cmd_id=cmd_id):
                    await socket.send(encode(m.Ok(cmd_id)))


def _update(start: m.StartRound, blob: m.Blob, batch_size: int) -> m.Update:
    return m.Update(
        run=start.run,
        round=start.round,
        attempt=start.attempt,
        model_id=start.model_id,
        num_examples=start.num_batches * batch_size,
        num_batches=start.num_batches,
        loss=0.0,
        seconds=0.0,
        cursor=m.Cursor(start.cursor.epoch, start.cursor.batch + start.num_batches),
        parameters=blob,
    )


async def main() -> None:
    may_go = asyncio.Event()
    device_id, tls = f"echo-{os.getpid()}", None
    if sys.argv[2:]:
        keys = open_keys(Path(sys.argv[2]) / str(os.getpid()))
        console = pem_to_der(Path(sys.argv[3]).read_text())
        device_id, tls = keys.id, device_context(keys, [console])
    worker = EchoWorker(msgspec.json.decode(sys.argv[1], type=m.DatasetCard), device_id, may_go)
    async with serve(
        worker.serve,
        "127.0.0.1",
        0,
        subprotocols=[Subprotocol(SUBPROTOCOL)],
        compression=None,
        max_size=MAX_FRAME_BYTES,
        ssl=tls,
    ) as listener:
        print(next(iter(listener.sockets)).getsockname()[1], flush=True)
        if await asyncio.to_thread(sys.stdin.readline):
            may_go.set()
            await asyncio.to_thread(sys.stdin.read)


if __name__ == "__main__":
    asyncio.run(main())
