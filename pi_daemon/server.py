"""Carries the device's decisions out: on websockets, on the trainer process, on disk.

Imports no torch, and holds no model in memory.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final, assert_never

from msgspec.structs import replace
from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed
from websockets.typing import Subprotocol

from pi_daemon import actions
from pi_daemon.actions import Action
from pi_daemon.data_store import DataStore
from pi_daemon.device import Device
from pi_daemon.discovery import Announcement, RegisteredDaemon, registered
from pi_daemon.identity import Fence, Identity
from pi_daemon.link import Link, first_hello, require_root
from pi_daemon.paths import make_private
from pi_daemon.protocol.codec import (
    Unknown,
    close_reason,
    common_version,
    decode_from_console,
    no_common_version,
)
from pi_daemon.protocol.errors import FrameError, ProtocolError
from pi_daemon.protocol.limits import (
    CLOSE_CANNOT_STORE,
    CLOSE_NO_COMMON_VERSION,
    CLOSE_PROTOCOL_ERROR,
    CLOSE_TOO_MANY_LINKS,
    MAX_FRAME_BYTES,
    MAX_GRAPHS_BYTES,
    MAX_MODEL_BYTES,
    SUBPROTOCOL,
)
from pi_daemon.protocol.messages import (
    Abort,
    Blob,
    Datasets,
    Evaluate,
    Hello,
    OfferData,
    Pause,
    Prepare,
    PutData,
    RefusalCode,
    ReleaseLease,
    Resume,
    StartRound,
    Status,
)
from pi_daemon.protocol.text import clean
from pi_daemon.receiving import Intake
from pi_daemon.settings import Settings
from pi_daemon.telemetry import measure
from pi_daemon.trainer_pipe import BatchLosses, ModelEvaluated, WorkerSpec
from pi_daemon.trainer_process import RoundAbortedError, TrainerExitedError, TrainerRefusal
from pi_daemon.warm_trainer import WarmTrainer
from pi_daemon.work import worker_spec

log = logging.getLogger(__name__)

MAX_LINKS: Final = 8
TELEMETRY_S: Final = 2.0
TICK_S: Final = 1.0


class Server:
    def __init__(
        self, settings: Settings, identity: Identity, hello: Hello, store: DataStore | None
    ) -> None:
        """`hello` is what each console is told first; its status is filled in then.

        `store` takes dealt data, if `hello` says that any is taken.
        """
        assert hello.capabilities is not None
        intake = Intake(hello.capabilities.max_data_bytes, frozenset(settings.sources))
        fence = identity.load_fence()
        self._settings = settings
        self._identity = identity
        self._hello = hello
        self._capabilities = hello.capabilities
        self._store = store
        self._device = Device(hello.datasets, fence.fence, fence.run, intake)
        self._links: dict[int, Link] = {}
        self._numbers = itertools.count(1)
        self._work_dir = identity.folder / "work"
        self._trainer = WarmTrainer(
            settings.device, settings.max_memory_bytes, settings.max_batch_s
        )
        self._num_unknown = 0

    async def run(self, stop: asyncio.Event, on_listening: Callable[[str, int], None]) -> None:
        """Serve until `stop`; `on_listening` gets the address and the port.

        Raises:
            OSError: the address cannot be used.
        """
        settings = self._settings
        self._empty_work_dir()
        async with serve(
            self._serve_link,
            settings.host,
            settings.port,
            subprotocols=[Subprotocol(SUBPROTOCOL)],
            process_request=require_root,
            origins=[None],
            compression=None,
            max_size=MAX_FRAME_BYTES,
            max_queue=16,
            open_timeout=5,
            ping_interval=5,
            ping_timeout=10,
            close_timeout=2,
            server_header=None,
            logger=logging.getLogger("pi_daemon.websockets"),
        ) as listener:
            address, port = next(iter(listener.sockets)).getsockname()[:2]
            device_id, name = self._identity.device_id, settings.worker_name
            self._announcement = Announcement(device_id, name, address, port)
            with registered(RegisteredDaemon(device_id, name, address, port, os.getpid())):
                async with asyncio.TaskGroup() as self._tasks:
                    on_listening(address, port)
                    background = [
                        self._tasks.create_task(self._tick()),
                        self._tasks.create_task(self._tell_telemetry()),
                    ]
                    if settings.announces:
                        background.append(self._tasks.create_task(self._announcement.run()))
                    await stop.wait()
                    for task in background:
                        task.cancel()
                    listener.close()
                    await listener.wait_closed()
                    await self._trainer.close()

    # Links

    async def _serve_link(self, socket: ServerConnection) -> None:
        if len(self._links) >= MAX_LINKS:
            await socket.close(CLOSE_TOO_MANY_LINKS, f"{MAX_LINKS} consoles are connected already")
            return
        link = Link(next(self._numbers), socket)
        self._links[link.number] = link
        status = self._device.status(time.monotonic())
        link.tell(replace(self._hello, status=status))
        sending = self._tasks.create_task(link.send())
        try:
            await self._listen(link)
        except ConnectionClosed:
            pass
        except ProtocolError as error:
            log.warning("link %s closed: %s", link.number, clean(str(error)))
            await socket.close(CLOSE_PROTOCOL_ERROR, close_reason(str(error)))
        except OSError as error:
            log.error("link %s closed: %s", link.number, error)
            await socket.close(
                CLOSE_CANNOT_STORE, close_reason(f"the device cannot store this: {error}")
            )
        finally:
            sending.cancel()
            del self._links[link.number]
            link.drop_incoming()
            self._do(self._device.on_link_closed(link.number, time.monotonic()))

    async def _listen(self, link: Link) -> None:
        hello = await first_hello(link.socket)
        if common_version(self._hello, hello) is None:
            reason = no_common_version(hello)
            log.warning("link %s closed: %s", link.number, reason)
            await link.socket.close(CLOSE_NO_COMMON_VERSION, close_reason(reason))
            return
        link.is_open = True
        log.info("%s (%s) connected", clean(hello.name), hello.role)
        self._device.on_link_opened(link.number, hello)
        async for frame in link.socket:
            if isinstance(frame, bytes):
                transfer = await link.take_chunk(frame)
                if transfer is not None:
                    self._do(self._device.on_received(link.number, transfer, time.monotonic()))
            else:
                self._take_message(link, frame)

    def _take_message(self, link: Link, frame: str) -> None:
        message = decode_from_console(frame)
        match message:
            case Unknown():
                self._num_unknown += 1
                log.debug("ignored %s of type %r", self._num_unknown, clean(message.type))
                return
            case Hello():
                raise FrameError("a second hello")
            case Prepare():
                link.expect(message.graphs, MAX_GRAPHS_BYTES)
            case Abort() | ReleaseLease():
                link.drop_incoming()
            case StartRound(model=Blob() as model) | Evaluate(model=Blob() as model):
                link.expect(model, self._capabilities.max_model_bytes)
            case PutData():
                link.expect(message.rest, MAX_MODEL_BYTES)
        self._do(self._device.on_command(link.number, message, time.monotonic()))

    # Actions

    def _do(self, todo: list[Action]) -> None:
        for action in todo:
            match action:
                case actions.Tell(link=None, message=message):
                    if isinstance(message, Status):
                        self._announcement.show_state(message.status.state)
                    elif isinstance(message, Datasets):
                        self._hello = replace(self._hello, datasets=message.datasets)
                    for link in self._links.values():
                        if link.is_open:
                            link.tell(message)
                case actions.Tell(link=number, message=message):
                    if number in self._links:
                        self._links[number].tell(message)
                case actions.SaveFence(fence=fence, run=run):
                    self._identity.save_fence(Fence(fence, run))
                case actions.WarmUp():
                    self._tasks.create_task(self._trainer.warm_up())
                case actions.Receive(link=number, blob=blob):
                    self._links[number].keep(blob.transfer, self._work_dir / blob.sha256)
                case actions.PrepareWorker():
                    self._tasks.create_task(self._prepare(action))
                case actions.TrainModel():
                    self._tasks.create_task(self._train(action))
                case actions.EvaluateModel():
                    self._tasks.create_task(self._evaluate(action))
                case actions.Control():
                    self._tasks.create_task(self._control(action))
                case actions.ForgetWorker(worker_id=worker_id):
                    self._tasks.create_task(self._forget(worker_id))
                case actions.Deliver():
                    self._deliver(action)
                case actions.DropUpdate(ticket=ticket):
                    self._update_path(ticket).unlink(missing_ok=True)
                case actions.FindRoom(offer=offer):
                    self._tasks.create_task(self._find_room(offer))
                case actions.ReceiveData():
                    self._receive_data(action)
                case actions.StoreData(offer=offer):
                    self._tasks.create_task(self._store_data(offer))
                case _:
                    assert_never(action)

    async def _prepare(self, action: actions.PrepareWorker) -> None:
        device, ticket = self._device, action.ticket
        self._keep_only(action.prepare.graphs.sha256)
        worker = self._worker(action.prepare)
        try:
            try:
                ready = await self._trainer.ask(lambda trainer: trainer.prepare(worker))
            except TrainerExitedError as error:  # by chance, or of what it was asked for?
                log.warning("preparing again: %s", clean(str(error)))
                ready = await self._trainer.ask(lambda trainer: trainer.prepare(worker))
        except (TrainerRefusal, TrainerExitedError) as error:
            self._do(device.on_prepare_failed(ticket, *_failure(error), time.monotonic()))
        else:
            self._do(device.on_prepared(ticket, ready, time.monotonic()))

    async def _train(self, action: actions.TrainModel) -> None:
        device, ticket, start = self._device, action.ticket, action.start

        def on_begun() -> None:
            self._do(device.on_begun(ticket, time.monotonic()))

        def on_losses(told: BatchLosses) -> None:
            self._do(device.on_losses(ticket, told.losses, time.monotonic()))

        self._keep_only(action.prepare.graphs.sha256, action.model_sha256)
        worker = self._worker(action.prepare)
        try:
            trained = await self._trainer.ask(
                lambda trainer: trainer.train(
                    worker,
                    model_path=str(self._work_dir / action.model_sha256),
                    model_id=start.model_id,
                    update_path=str(self._update_path(ticket)),
                    cursor=start.cursor,
                    num_batches=start.num_batches,
                    torch_seed=int(start.torch_seed),
                    on_begun=on_begun,
                    on_losses=on_losses,
                )
            )
        except RoundAbortedError:
            self._update_path(ticket).unlink(missing_ok=True)
        except (TrainerRefusal, TrainerExitedError) as error:
            log.warning("round %s failed: %s", start.round, clean(str(error)))
            self._do(device.on_training_failed(ticket, *_failure(error), time.monotonic()))
        else:
            self._do(device.on_trained(ticket, trained, time.monotonic()))

    async def _evaluate(self, action: actions.EvaluateModel) -> None:
        self._keep_only(action.prepare.graphs.sha256, action.model_sha256)
        worker = self._worker(action.prepare)
        path = str(self._work_dir / action.model_sha256)
        outcome: ModelEvaluated | tuple[RefusalCode, str]
        try:
            outcome = await self._trainer.ask(
                lambda trainer: trainer.evaluate(worker, path, action.evaluate.model_id)
            )
        except (TrainerRefusal, TrainerExitedError) as error:
            outcome = _failure(error)
        self._do(self._device.on_evaluated(action.evaluate, outcome, time.monotonic()))

    async def _control(self, action: actions.Control) -> None:
        worker_id, command = action.worker_id, action.command
        try:
            match command:
                case Abort():
                    await self._trainer.stop(lambda trainer: trainer.abort(worker_id))
                case Pause():
                    await self._trainer.ask(lambda trainer: trainer.pause(worker_id))
                case Resume():
                    await self._trainer.ask(lambda trainer: trainer.resume(worker_id))
        except TrainerExitedError:
            # Its training has failed with it, and the device was told so.
            pass
        self._do(self._device.on_controlled(command, time.monotonic()))

    async def _forget(self, worker_id: str) -> None:
        await self._trainer.stop(lambda trainer: trainer.forget(worker_id))

    def _deliver(self, action: actions.Deliver) -> None:
        link, trained = self._links[action.link], action.trained
        blob = Blob(link.next_transfer(), trained.update_bytes, trained.update_sha256)
        link.tell(action.announce(blob))
        link.upload(blob.transfer, self._update_path(action.ticket))

    async def _find_room(self, offer: OfferData) -> None:
        assert self._store is not None
        room = await asyncio.to_thread(self._store.find_room, offer)
        self._do(self._device.on_room_found(offer, room, time.monotonic()))

    def _receive_data(self, action: actions.ReceiveData) -> None:
        assert self._store is not None
        part = self._store.part_of(action.sha256)
        for link in self._links.values():
            link.let_go(part)
        self._links[action.link].go_on_with(action.rest.transfer, part, action.offset)

    async def _store_data(self, offer: OfferData) -> None:
        assert self._store is not None
        outcome = await asyncio.to_thread(self._store.store, offer)
        self._do(self._device.on_stored(outcome, time.monotonic()))

    def _worker(self, prepare: Prepare) -> WorkerSpec:
        source, shard = self._settings.sources.get(prepare.dataset), self._settings.shard
        if source is None:
            # Dealt, and therefore a shard already.
            assert self._store is not None
            source, shard = str(self._store.path_of(prepare.dataset)), None
        graphs_path = self._work_dir / prepare.graphs.sha256
        return worker_spec(prepare, source, shard, str(graphs_path))

    # Files and clocks

    def _update_path(self, ticket: int) -> Path:
        return self._work_dir / f"update-{ticket}"

    def _keep_only(self, *names: str) -> None:
        """Delete the graphs and models of before; a file of 64 digits is one of them."""
        for path in self._work_dir.iterdir():
            if len(path.name) == 64 and path.name not in names:
                path.unlink(missing_ok=True)

    def _empty_work_dir(self) -> None:
        make_private(self._work_dir)
        for path in self._work_dir.iterdir():
            path.unlink()

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(TICK_S)
            self._do(self._device.on_tick(time.monotonic()))

    async def _tell_telemetry(self) -> None:
        while True:
            self._do([actions.Tell(None, await measure(self._work_dir))])
            await asyncio.sleep(TELEMETRY_S)


def _failure(error: TrainerRefusal | TrainerExitedError) -> tuple[RefusalCode, str]:
    code = error.code if isinstance(error, TrainerRefusal) else RefusalCode.TRAINER_FAILED
    return code, str(error)
