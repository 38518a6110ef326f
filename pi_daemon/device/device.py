"""Decides what a connected console may do now, and what the device does about it.

Pure: no clock, no socket, no file. The server hands in what happens, with the time of its monotonic
clock, and carries out the actions that come back, in their order.
"""

from __future__ import annotations

from typing import assert_never

from pi_daemon.device.actions import NO_FENCE, Action, ControlCommand, Fence, SaveFence, WarmUp
from pi_daemon.device.allowance import Allowance
from pi_daemon.device.assignment import Assignment
from pi_daemon.device.lease import Lease
from pi_daemon.device.outbox import Outbox
from pi_daemon.device.receiving import NO_INTAKE, Intake, Receiving, Room
from pi_daemon.device.terms import NO_BOUNDS, Terms, peer_of
from pi_daemon.protocol.messages import (
    Abort,
    AcceptUpdate,
    DatasetCard,
    DeviceState,
    DeviceStatus,
    Evaluate,
    Hello,
    OfferData,
    Ok,
    Pause,
    Prepare,
    PutData,
    RefusalCode,
    RefuseUpdate,
    ReleaseLease,
    RenewLease,
    Resume,
    StartRound,
    Status,
    TakeLease,
)
from pi_daemon.trainer.pipe import ModelEvaluated, RoundTrained, WorkerReady

SteeringCommand = (
    RenewLease
    | ReleaseLease
    | Prepare
    | StartRound
    | Pause
    | Resume
    | Abort
    | Evaluate
    | AcceptUpdate
    | RefuseUpdate
    | OfferData
    | PutData
)


class Device:
    """The state of one daemon. Every `on_...` returns what is to be done, in order."""

    def __init__(
        self,
        datasets: tuple[DatasetCard, ...],
        fence: Fence = NO_FENCE,
        intake: Intake = NO_INTAKE,
        terms: Terms = NO_BOUNDS,
    ) -> None:
        """`fence` is what `SaveFence` last saved."""
        self._consoles: dict[int, Hello] = {}
        self._keys: dict[int, str] = {}
        """By link, as `on_link_opened` has it."""
        self._lease = Lease(fence)
        self._outbox = Outbox()
        self._allowance = Allowance(terms)
        by_name = {card.name: card for card in datasets}
        self._assignment = Assignment(by_name, self._allowance, self._lease, self._outbox)
        self._receiving = Receiving(by_name, intake, self._outbox)
        self._told = self.status(0.0)

    def status(self, now_s: float) -> DeviceStatus:
        return DeviceStatus(
            state=self._assignment.state,
            highest_fence=self._lease.highest.fence,
            holder=self._lease.holder(now_s),
            run=self._assignment.run,
            round=self._assignment.round,
            model_id=self._assignment.model_id,
        )

    def is_led_by(self, link: int) -> bool:
        return self._lease.link == link

    # What consoles do

    def on_link_opened(self, link: int, hello: Hello, key: str = "") -> None:
        """`key` is the id of the key that the console has proved; a device without keys has none."""
        self._consoles[link] = hello
        self._keys[link] = key

    def on_link_closed(self, link: int, now_s: float) -> list[Action]:
        """Training goes on; what the link was still bringing is forgotten."""
        self._consoles.pop(link, None)
        self._keys.pop(link, None)
        self._lease.lose(link)
        self._drop_incoming(link)
        return self._done(now_s)

    def on_command(
        self, link: int, command: TakeLease | SteeringCommand, now_s: float
    ) -> list[Action]:
        console = self._consoles[link]
        if isinstance(command, TakeLease):
            self._take_lease(link, console, command, now_s)
        elif refusal := self._lease.renew(link, console, command, now_s):
            self._outbox.tell(link, refusal)
        elif self._outbox.begin(link, command.cmd_id):
            self._carry_out(link, command)
        return self._done(now_s)

    def on_received(self, link: int, transfer: int, now_s: float) -> list[Action]:
        """A blob that `Receive` or `ReceiveData` asked for is complete and in its place."""
        self._assignment.on_received(link, transfer)
        self._receiving.on_received(link, transfer)
        return self._done(now_s)

    def on_tick(self, now_s: float) -> list[Action]:
        """Call about every second: leases and kept updates end by it."""
        self._assignment.on_tick(now_s)
        return self._done(now_s)

    # What the folder of dealt data does

    def on_room_found(
        self, offer: OfferData, room: Room | tuple[RefusalCode, str], now_s: float
    ) -> list[Action]:
        self._receiving.on_room_found(offer, room)
        return self._done(now_s)

    def on_stored(
        self, outcome: DatasetCard | tuple[RefusalCode, str], now_s: float
    ) -> list[Action]:
        self._receiving.on_stored(outcome)
        return self._done(now_s)

    # What the trainer does

    def is_wanted(self, ticket: int) -> bool:
        """Whether what is prepared under this ticket is still of use."""
        return self._assignment.wanted(ticket) is not None

    def on_prepared(self, ticket: int, ready: WorkerReady, now_s: float) -> list[Action]:
        self._assignment.on_prepared(ticket, ready)
        return self._done(now_s)

    def on_prepare_failed(
        self, ticket: int, code: RefusalCode, reason: str, now_s: float
    ) -> list[Action]:
        self._assignment.on_prepare_failed(ticket, code, reason)
        return self._done(now_s)

    def on_begun(self, ticket: int, now_s: float) -> list[Action]:
        self._assignment.on_begun(ticket)
        return self._done(now_s)

    def on_losses(
        self, ticket: int, losses: tuple[float | None, ...], now_s: float
    ) -> list[Action]:
        self._assignment.on_losses(ticket, losses)
        return self._done(now_s)

    def on_trained(self, ticket: int, trained: RoundTrained, now_s: float) -> list[Action]:
        self._assignment.on_trained(ticket, trained, now_s)
        return self._done(now_s)

    def on_training_failed(
        self, ticket: int, code: RefusalCode, reason: str, now_s: float
    ) -> list[Action]:
        """Training did not begin, or stopped without an update."""
        self._assignment.on_training_failed(ticket, code, reason)
        return self._done(now_s)

    def on_controlled(self, command: ControlCommand, now_s: float) -> list[Action]:
        """A `Control` has been carried out, or there was no trainer left to carry it out."""
        self._assignment.on_controlled(command)
        return self._done(now_s)

    def on_evaluated(
        self, evaluate: Evaluate, outcome: ModelEvaluated | tuple[RefusalCode, str], now_s: float
    ) -> list[Action]:
        self._assignment.on_evaluated(evaluate, outcome)
        return self._done(now_s)

    # Decisions

    def _take_lease(self, link: int, console: Hello, take: TakeLease, now_s: float) -> None:
        old_link, old_fence = self._lease.link, self._lease.highest
        key = self._keys[link]
        is_same = self._lease.is_of(take.run, key)
        if refusal := self._lease.take(link, console, key, take, now_s):
            self._outbox.tell(link, refusal)
            return
        if old_link is not None and old_link != link:
            self._drop_incoming(old_link)
        if not is_same:
            # Before the fence is saved: a full disk has more room then.
            self._assignment.forget()
            self._outbox.forget_run()
            self._allowance.begin_run()
        if self._lease.highest != old_fence:
            self._outbox.do(SaveFence(self._lease.highest))
        self._outbox.tell(link, Ok(take.cmd_id))
        if take.trains:
            self._outbox.do(WarmUp())
        self._assignment.catch_up(link)

    def _carry_out(self, link: int, command: SteeringCommand) -> None:
        match command:
            case RenewLease():
                self._outbox.answer(Ok(command.cmd_id))
            case ReleaseLease():
                self._outbox.answer(Ok(command.cmd_id))
                self._receiving.drop_incoming(link)
                self._assignment.forget()
                self._lease.release()
            case Prepare():
                self._assignment.prepare(link, command, peer_of(self._consoles[link]))
            case StartRound():
                self._assignment.start_round(link, command)
            case Pause() | Resume():
                self._assignment.control(command)
            case Abort():
                self._receiving.drop_incoming(link)
                self._assignment.control(command)
            case OfferData():
                self._receiving.offer(command, is_idle=self._is_idle)
            case PutData():
                self._receiving.put(link, command, is_idle=self._is_idle)
            case Evaluate():
                self._assignment.evaluate(link, command)
            case AcceptUpdate() | RefuseUpdate():
                self._assignment.end_update(command)
            case _:
                assert_never(command)

    @property
    def _is_idle(self) -> bool:
        return self._assignment.state is DeviceState.IDLE

    def _drop_incoming(self, link: int) -> None:
        self._assignment.drop_incoming(link)
        self._receiving.drop_incoming(link)

    def _done(self, now_s: float) -> list[Action]:
        self._assignment.keep_time(now_s)
        if (status := self.status(now_s)) != self._told:
            self._told = status
            self._outbox.tell(None, Status(status))
        return self._outbox.take()
