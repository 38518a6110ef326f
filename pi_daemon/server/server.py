"""Carries the device's decisions out: on websockets, on the trainer process, on disk.

Imports no torch, and holds no model in memory.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import os
import time
from collections.abc import Callable, Coroutine
from typing import Any, Final, assert_never

from msgspec.structs import replace
from websockets.asyncio.server import ServerConnection
from websockets.exceptions import ConnectionClosed

from pi_daemon.audit.auditing import Audit
from pi_daemon.device import actions
from pi_daemon.device.actions import Action, Fence
from pi_daemon.device.device import Device
from pi_daemon.device.receiving import Intake
from pi_daemon.discovery import Announcement, RegisteredDaemon, registered
from pi_daemon.identity import Identity
from pi_daemon.liveness import DaemonConnection
from pi_daemon.protocol.codec import (
    Unknown,
    close_reason,
    common_version,
    decode_from_console,
    no_common_version,
)
from pi_daemon.protocol.errors import FrameError, ProtocolError
from pi_daemon.protocol.limits import (
    CLOSE_NO_COMMON_VERSION,
    CLOSE_PROTOCOL_ERROR,
    CLOSE_TOO_MANY_LINKS,
    MAX_GRAPHS_BYTES,
    MAX_MODEL_BYTES,
)
from pi_daemon.protocol.messages import (
    Abort,
    Blob,
    Datasets,
    Evaluate,
    Hello,
    OfferData,
    Prepare,
    PutData,
    ReleaseLease,
    StartRound,
    Status,
)
from pi_daemon.protocol.pairing import PATH as PAIRING_PATH
from pi_daemon.protocol.text import clean
from pi_daemon.server.admin import Admin
from pi_daemon.server.admission import Admission, address_of, link_refusal
from pi_daemon.server.at_work import AtWork
from pi_daemon.server.data_store import DataStore
from pi_daemon.server.gate import Gate, TurnedAwayError, guarded, identified
from pi_daemon.server.link import Link, first_hello, hang_up
from pi_daemon.server.listening import listen
from pi_daemon.server.service_manager import ALIVE, READY, STOPPING, notify
from pi_daemon.settings import Settings
from pi_daemon.telemetry import measure
from pi_daemon.trainer.jobs import TrainerJobs
from pi_daemon.trainer.warm import WarmTrainer
from pi_daemon.trainer.work_files import WorkFiles
from pi_daemon.trust.consoles import Console

log = logging.getLogger(__name__)

TELEMETRY_S: Final = 2.0
TICK_S: Final = 0.5


class Server:
    def __init__(
        self,
        settings: Settings,
        identity: Identity,
        hello: Hello,
        store: DataStore | None,
        gate: Gate | None,
    ) -> None:
        """`hello` is what each console is told first; its status is filled in then.

        `store` takes dealt data, if `hello` says that any is taken. Without a gate anybody who can
        connect is served.
        """
        assert hello.capabilities is not None
        intake = Intake(hello.capabilities.max_data_bytes, frozenset(settings.sources))
        self._settings = settings
        self._identity = identity
        self._hello = hello
        self._capabilities = hello.capabilities
        self._store = store
        self._gate = gate
        self._admission = Admission()
        self._device = Device(hello.datasets, identity.load_fence(), intake, settings.terms)
        self._links: dict[int, Link] = {}
        self._numbers = itertools.count(1)
        self._files = WorkFiles(identity.folder / "work")
        self._trainer = WarmTrainer(
            settings.device, settings.max_memory_bytes, settings.max_batch_s
        )
        self._at_work = AtWork()
        self._audit = Audit(identity.folder)
        self._jobs = TrainerJobs(
            self._device, self._trainer, self._files, settings, store, self._audit, self._do
        )
        self._num_unknown = 0
        self._unsaved: Fence | None = None
        """One that the disk refused: no command is taken before it is there."""

    async def run(self, stop: asyncio.Event, on_listening: Callable[[str, int], None]) -> None:
        """Serve until `stop`; `on_listening` gets the address and the port.

        Raises:
            OSError: the address cannot be used.
        """
        settings = self._settings
        self._files.empty()
        gate = self._gate
        async with listen(
            guarded(gate, self._serve_link, self._audit),
            settings.host,
            settings.port,
            ["/", PAIRING_PATH] if gate else ["/"],
            gate.context if gate else None,
            self._admission,
        ) as listener:
            address, port = next(iter(listener.sockets)).getsockname()[:2]
            device_id, name = self._identity.device_id, settings.worker_name
            daemon = RegisteredDaemon(device_id, name, address, port, os.getpid(), gate is not None)
            self._announcement = Announcement(daemon)
            with registered(daemon):
                async with asyncio.TaskGroup() as self._tasks:
                    services = [self._tick(), self._tell_telemetry(), self._audit.log.run()]
                    # Without a gate nobody beyond this machine may come, and the rest is registered.
                    if settings.announces and gate is not None:
                        services.append(self._announcement.run())
                    if gate is not None:
                        folder, links = self._identity.folder, self._links
                        services.append(Admin(folder, gate, daemon, links, self._tasks).serve())
                    background = [self._tasks.create_task(service) for service in services]
                    on_listening(address, port)
                    notify(READY)
                    await stop.wait()
                    notify(STOPPING)
                    for task in background:
                        task.cancel()
                    listener.close()
                    await listener.wait_closed()
                    await self._trainer.close()
        self._audit.log.close()

    # Links

    async def _serve_link(self, socket: ServerConnection, console: Console | None) -> None:
        if reason := link_refusal([link.socket for link in self._links.values()], socket):
            self._audit.turned_away(address_of(socket.transport), reason)
            await hang_up(socket, CLOSE_TOO_MANY_LINKS, reason)
            return
        self._admission.keep(socket.remote_address)
        assert isinstance(socket, DaemonConnection)
        socket.let_in()
        link = Link(next(self._numbers), socket, console)
        self._links[link.number] = link
        status = self._device.status(time.monotonic())
        link.tell(replace(self._hello, status=status))
        sending = self._tasks.create_task(link.send())
        ending = "the connection broke"
        try:
            ending = await self._listen(link)
        except ConnectionClosed:
            pass
        except TurnedAwayError:
            ending = ""
            raise
        except ProtocolError as error:
            ending = str(error)
            log.warning("link %s closed: %s", link.number, clean(ending))
            await socket.close(CLOSE_PROTOCOL_ERROR, close_reason(str(error)))
        except OSError as error:
            ending = str(error)
            await link.close_for_lack(f"the device cannot store this: {error}")
        finally:
            sending.cancel()
            del self._links[link.number]
            link.drop_incoming()
            self._audit.closed(link, ending)
            self._do(self._device.on_link_closed(link.number, time.monotonic()))

    async def _listen(self, link: Link) -> str:
        """Until the console closes the link, or does not belong here; which of the two, in words."""
        hello = await first_hello(link.socket)
        if link.console is not None:
            hello = identified(hello, link.console)
        if common_version(self._hello, hello) is None:
            reason = no_common_version(hello)
            log.warning("link %s closed: %s", link.number, reason)
            await link.socket.close(CLOSE_NO_COMMON_VERSION, close_reason(reason))
            return reason
        link.is_open = True
        log.info("%s (%s) connected", clean(hello.name), hello.role)
        self._audit.opened(link, hello, self._hello.datasets)
        key = link.console.id if link.console is not None else ""
        self._device.on_link_opened(link.number, hello, key)
        async for frame in link.socket:
            if link.is_over:
                break
            if isinstance(frame, bytes):
                transfer = await link.take_chunk(frame)
                if transfer is not None:
                    self._do(self._device.on_received(link.number, transfer, time.monotonic()))
            else:
                self._take_message(link, frame)
                # Frames that have come at once are given without a pause, in which answers could go out.
                await asyncio.sleep(0)
            # A controller that commands faster than the device can work is not heard until it has.
            while self._at_work.is_full and self._device.is_led_by(link.number):
                await self._at_work.one_done()
        return "closed"

    def _take_message(self, link: Link, frame: str) -> None:
        message = decode_from_console(frame)
        self._save_fence()
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
        self._audit.asked(link, message)
        self._do(self._device.on_command(link.number, message, time.monotonic()))

    # Actions

    def _do(self, todo: list[Action]) -> None:
        for action in todo:
            self._audit.done(action)
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
                case actions.SaveFence(fence=fence):
                    self._unsaved = fence
                    self._save_fence()
                case actions.WarmUp():
                    self._tasks.create_task(self._trainer.warm_up())
                case actions.Receive(link=number, blob=blob):
                    self._files.need_room(blob.size)
                    self._links[number].keep(blob.transfer, self._files.path(blob.sha256))
                case actions.StopReceiving(link=number, transfer=transfer):
                    if number in self._links:
                        self._links[number].stop_keeping(transfer)
                case actions.PrepareWorker():
                    self._begin(self._jobs.prepare(action))
                case actions.TrainModel():
                    self._begin(self._jobs.train(action))
                case actions.EvaluateModel():
                    self._begin(self._jobs.evaluate(action))
                case actions.Control():
                    self._begin(self._jobs.control(action))
                case actions.ForgetWorker(worker_id=worker_id):
                    self._files.drop_blobs()
                    self._begin(self._jobs.forget(worker_id))
                case actions.Deliver():
                    self._deliver(action)
                case actions.DropUpdate(ticket=ticket):
                    self._files.drop_update(ticket)
                case actions.FindRoom(offer=offer):
                    self._begin(self._find_room(offer))
                case actions.ReceiveData():
                    self._receive_data(action)
                case actions.StoreData(offer=offer):
                    self._begin(self._store_data(offer))
                case _:
                    assert_never(action)

    def _begin(self, work: Coroutine[Any, Any, None]) -> None:
        self._at_work.add(self._tasks.create_task(work))

    def _save_fence(self) -> None:
        if self._unsaved is not None:
            self._identity.save_fence(self._unsaved)
            self._unsaved = None

    def _deliver(self, action: actions.Deliver) -> None:
        link, trained = self._links[action.link], action.trained
        blob = Blob(link.next_transfer(), trained.update_bytes, trained.update_sha256)
        try:
            link.upload(blob.transfer, self._files.update(action.ticket))
        except OSError as error:
            # The device takes it for sent on this link: it is sent again on the next.
            reason = f"the device cannot read its update: {error}"
            self._tasks.create_task(link.close_for_lack(reason))
        else:
            link.tell(action.announce(blob))  # goes first, as messages do

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

    # Clocks

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(TICK_S)
            notify(ALIVE)
            if self._gate is not None:
                self._gate.drop_revoked(self._links.values(), self._tasks)
            self._do(self._device.on_tick(time.monotonic()))

    async def _tell_telemetry(self) -> None:
        while True:
            try:
                self._do([actions.Tell(None, await measure(self._files.folder))])
            except OSError as error:
                log.warning("no telemetry: %s", error)
            await asyncio.sleep(TELEMETRY_S)
