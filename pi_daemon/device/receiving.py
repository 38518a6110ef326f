"""Decides which datasets a console may deal into this device, and follows the one that arrives.

Pure, as `device` is; who may give these commands was decided there. docs/protocol.md, "Dealing data".
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from pi_daemon.device.actions import FindRoom, ReceiveData, StoreData
from pi_daemon.device.outbox import Outbox
from pi_daemon.device.refusals import refused, wrong_state
from pi_daemon.protocol.limits import MAX_DATASETS
from pi_daemon.protocol.messages import (
    DataOffset,
    DatasetCard,
    Datasets,
    DataStored,
    OfferData,
    PutData,
    RefusalCode,
    Refused,
)

SPARE_BYTES: Final = 64 << 20
"""Left free on the disk: a device that cannot write its fence can no longer be steered."""


@dataclass(frozen=True, slots=True)
class Intake:
    """What the device's owner allows."""

    max_bytes: int
    """Of all that was dealt, parts of broken transfers included; 0: nothing may be dealt."""
    owned: frozenset[str] = frozenset()
    """Datasets that the owner brought; they are never replaced."""


NO_INTAKE: Final = Intake(max_bytes=0)


@dataclass(frozen=True, slots=True)
class Room:
    """What the folder of dealt data holds when a dataset is offered."""

    is_name_taken: bool
    """There is a file with the offered name."""
    is_here: bool
    """That file has the offered content."""
    part_bytes: int
    """Of the offered content, from a transfer that was cut."""
    used_bytes: int
    """By everything else in the folder."""
    free_bytes: int
    """On the disk."""


@dataclass(frozen=True, slots=True)
class _Accepted:
    offer: OfferData
    offset: int


class Receiving:
    """One dataset at a time. Every effect goes into the outbox."""

    def __init__(self, datasets: dict[str, DatasetCard], intake: Intake, outbox: Outbox) -> None:
        """`datasets` is the device's own table: a dataset that is stored is entered there."""
        self._datasets = datasets
        self._intake = intake
        self._outbox = outbox
        self._accepted: _Accepted | None = None
        """The latest offer; its rest may be put."""
        self._arriving: tuple[int, PutData, OfferData] | None = None
        """With its link."""
        self._storing: PutData | None = None
        self._waiting: list[OfferData] = []
        """Offers that came meanwhile: what is being stored may be what they bring."""

    # Commands, of which the outbox knows who waits for the answer

    def offer(self, command: OfferData, *, is_idle: bool) -> None:
        if refusal := self._objection(command, is_idle=is_idle):
            self._outbox.answer(refusal)
        elif self._storing is not None:
            self._waiting.append(command)
        else:
            self._outbox.do(FindRoom(command))

    def put(self, link: int, command: PutData, *, is_idle: bool) -> None:
        accepted, self._accepted = self._accepted, None
        if not is_idle:
            self._outbox.answer(_busy(command))
        elif self._arriving is not None or self._storing is not None:
            reason = "another dataset is arriving: wait for its answer"
            self._outbox.answer(wrong_state(command, reason))
        elif accepted is None or _place(command) != (
            accepted.offer.sha256,
            accepted.offset,
            accepted.offer.size,
        ):
            reason = "this is not what was offered last: offer it, and begin where the answer says"
            self._outbox.answer(wrong_state(command, reason))
        else:
            self._arriving = link, command, accepted.offer
            self._outbox.do(ReceiveData(link, command.rest, command.sha256, command.offset))

    def drop_incoming(self, link: int) -> None:
        """What has arrived stays on disk; the console offers it again and goes on."""
        if self._arriving is not None and self._arriving[0] == link:
            self._outbox.give_up([self._arriving[1].cmd_id])
            self._arriving = None

    # What happens by itself

    def on_room_found(self, offer: OfferData, room: Room | tuple[RefusalCode, str]) -> None:
        """`FindRoom` has been carried out, or the folder cannot be read."""
        if not isinstance(room, Room):
            self._outbox.answer(refused(offer.cmd_id, *room))
            return
        card = self._datasets.get(offer.name)
        if card is not None and room.is_here:
            self._outbox.answer(DataOffset(offer.cmd_id, offer.size, card))
        elif refusal := self._lack_of_room(offer, room):
            self._outbox.answer(refusal)
        else:
            # A part that is whole was never checked: its last byte comes again, and the check with it.
            offset = min(room.part_bytes, offer.size - 1)
            self._accepted = _Accepted(offer, offset)
            self._outbox.answer(DataOffset(offer.cmd_id, offset))

    def on_received(self, link: int, transfer: int) -> None:
        """All bytes that `ReceiveData` asked for are on disk."""
        if self._arriving is None:
            return
        arriving_on, put, offer = self._arriving
        if (arriving_on, put.rest.transfer) == (link, transfer):
            self._arriving, self._storing = None, put
            self._outbox.do(StoreData(offer))

    def on_stored(self, outcome: DatasetCard | tuple[RefusalCode, str]) -> None:
        """`StoreData` has been carried out."""
        assert self._storing is not None
        cmd_id, self._storing = self._storing.cmd_id, None
        match outcome:
            case DatasetCard() as card:
                self._datasets[card.name] = card
                self._outbox.tell(None, Datasets(tuple(self._datasets.values())))
                self._outbox.answer(DataStored(cmd_id, card))
            case (code, reason):
                self._outbox.answer(refused(cmd_id, code, reason))
        for offer in self._waiting:
            self._outbox.do(FindRoom(offer))
        self._waiting.clear()

    # Why not

    def _objection(self, offer: OfferData, *, is_idle: bool) -> Refused | None:
        """What can be said without a look at the disk."""
        if self._intake.max_bytes == 0:
            reason = (
                "this device takes no data: its owner may start pi-daemon with --accept-data DIR"
            )
            return refused(offer.cmd_id, RefusalCode.NOT_ALLOWED, reason)
        if offer.name in self._intake.owned:
            reason = f"{offer.name} is a dataset of the device's owner: deal under another --name"
            return refused(offer.cmd_id, RefusalCode.NOT_ALLOWED, reason)
        if not is_idle:
            return _busy(offer)
        if offer.name not in self._datasets and len(self._datasets) >= MAX_DATASETS:
            reason = f"there are {MAX_DATASETS} datasets already, as many as a device may have"
            return refused(offer.cmd_id, RefusalCode.TOO_LARGE, reason)
        return None

    def _lack_of_room(self, offer: OfferData, room: Room) -> Refused | None:
        if room.is_name_taken and not offer.replace:
            reason = f"there is a dataset {offer.name} with other content: deal with --replace"
            return refused(offer.cmd_id, RefusalCode.EXISTS, reason)
        if room.used_bytes + offer.size > self._intake.max_bytes:
            reason = (
                f"{offer.size} bytes beside the {room.used_bytes} that were dealt before are over "
                f"the owner's limit of {self._intake.max_bytes} (--max-bytes)"
            )
            return refused(offer.cmd_id, RefusalCode.TOO_LARGE, reason)
        missing = offer.size - room.part_bytes + SPARE_BYTES - room.free_bytes
        if missing > 0:
            reason = (
                f"the device's disk has {room.free_bytes} bytes free: free {missing} more, so that "
                f"{SPARE_BYTES >> 20} MiB stay free"
            )
            return refused(offer.cmd_id, RefusalCode.NO_ROOM, reason)
        return None


def _busy(command: OfferData | PutData) -> Refused:
    return wrong_state(command, "a run is prepared on this device: wait for its end")


def _place(put: PutData) -> tuple[str, int, int]:
    """Of which file, from where, to where."""
    return put.sha256, put.offset, put.offset + put.rest.size
