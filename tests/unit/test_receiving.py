"""Scripts: what a console offers, what lies on the disk, and what the device makes of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pytest

from pi_daemon.device.actions import (
    Action,
    Fence,
    FindRoom,
    ReceiveData,
    SaveFence,
    StoreData,
    Tell,
    WarmUp,
)
from pi_daemon.device.device import Device
from pi_daemon.device.receiving import SPARE_BYTES, Intake, Room
from pi_daemon.protocol.limits import MAX_DATASETS
from pi_daemon.protocol.messages import (
    Abort,
    Blob,
    DataOffset,
    DatasetCard,
    Datasets,
    DataStored,
    OfferData,
    Ok,
    PutData,
    RefusalCode,
    Refused,
    ReleaseLease,
    Role,
    TakeLease,
)
from tests.support.device_script import CARD, Script, told

SHA = "a" * 64
NEW = DatasetCard("mnist", (28, 28), "uint8", "int64", 20_000, 10, "e" * 64)
EMPTY = Room(is_name_taken=False, is_here=False, part_bytes=0, used_bytes=0, free_bytes=1 << 40)


@dataclass
class Dealing(Script):
    """A device that takes 1,000 bytes, and desk-1, which has taken its lease on link 1."""

    device: Device = field(
        default_factory=lambda: Device((CARD,), intake=Intake(1_000, frozenset({"digits"})))
    )

    def __post_init__(self) -> None:
        self.open(1)
        self.say(1, TakeLease)

    def offer(self, cmd_id: str = "offer", **changes: Any) -> list[Action]:
        fields: dict[str, Any] = {"name": "mnist", "size": 600, "sha256": SHA}
        return self.say(1, OfferData, cmd_id, **(fields | changes))

    def find(self, room: Room = EMPTY, **changes: Any) -> list[Action]:
        """Offer, and let the folder be looked at."""
        [looking] = self.offer(**changes)
        assert isinstance(looking, FindRoom)
        return self.device.on_room_found(looking.offer, room, self.now_s)

    def put(self, cmd_id: str = "put", offset: int = 0, **changes: Any) -> list[Action]:
        rest = Blob(1, 600 - offset, "b" * 64)
        fields: dict[str, Any] = {"sha256": SHA, "offset": offset, "rest": rest}
        return self.say(1, PutData, cmd_id, **(fields | changes))

    def receive(self) -> list[Action]:
        """All bytes of the blob have come."""
        self.find()
        self.put()
        return self.device.on_received(1, 1, self.now_s)


def refusal(actions: list[Action]) -> tuple[RefusalCode, str]:
    [refused] = told(actions)
    assert isinstance(refused, Refused)
    return refused.code, refused.reason


def test_a_dataset_is_offered_put_stored_and_told_to_all() -> None:
    script = Dealing()
    assert told(script.find()) == [DataOffset("offer", 0)]
    assert script.put() == [ReceiveData(1, Blob(1, 600, "b" * 64), SHA, 0)]
    [storing] = script.device.on_received(1, 1, script.now_s)
    assert isinstance(storing, StoreData)
    assert (storing.offer.name, storing.offer.size) == ("mnist", 600)
    assert script.device.on_stored(NEW, script.now_s) == [
        Tell(None, Datasets((CARD, NEW))),
        Tell(1, DataStored("put", NEW)),
    ]


def test_a_device_whose_owner_allows_nothing_does_not_even_look() -> None:
    script = Dealing(Device((CARD,)))
    code, reason = refusal(script.offer())
    assert code is RefusalCode.NOT_ALLOWED
    assert "--accept-data DIR" in reason


def test_a_dataset_of_the_owner_is_never_replaced() -> None:
    code, reason = refusal(Dealing().offer(name="digits", replace=True))
    assert (code, reason[:34]) == (RefusalCode.NOT_ALLOWED, "digits is a dataset of the device'")


@pytest.mark.parametrize(
    ("room", "code", "said"),
    [
        (Room(True, False, 0, 0, 1 << 40), RefusalCode.EXISTS, "with --replace"),
        (Room(False, False, 0, 401, 1 << 40), RefusalCode.TOO_LARGE, "limit of 1000 (--max-bytes)"),
        (Room(False, False, 100, 0, 499), RefusalCode.NO_ROOM, f"free {SPARE_BYTES + 1} more"),
    ],
    ids=["exists", "limit", "disk"],
)
def test_what_there_is_no_room_for_is_refused_before_a_byte_comes(
    room: Room, code: RefusalCode, said: str
) -> None:
    script = Dealing()
    found, reason = refusal(script.find(room))
    assert found is code
    assert said in reason
    assert refusal(script.put())[0] is RefusalCode.WRONG_STATE


def test_a_limit_is_reached_and_not_passed() -> None:
    room = Room(False, False, 100, 400, 500 + SPARE_BYTES)
    assert told(Dealing().find(room)) == [DataOffset("offer", 100)]


def test_other_content_may_be_replaced_when_the_console_says_so() -> None:
    script = Dealing()
    assert told(script.find(Room(True, False, 0, 0, 1 << 40), replace=True)) == [
        DataOffset("offer", 0)
    ]


def test_what_is_here_already_is_answered_with_its_card() -> None:
    script = Dealing()
    script.receive()
    script.device.on_stored(NEW, script.now_s)
    again = script.find(Room(True, True, 0, 600, 0), cmd_id="again")
    assert told(again) == [DataOffset("again", 600, NEW)]


def test_a_part_that_is_whole_is_checked_by_sending_its_last_byte_again() -> None:
    assert told(Dealing().find(Room(False, False, 600, 0, 1 << 40))) == [DataOffset("offer", 599)]


@pytest.mark.parametrize(
    "changes",
    [{"offset": 1}, {"sha256": "c" * 64}, {"rest": Blob(1, 601, "b" * 64)}],
    ids=["offset", "content", "size"],
)
def test_only_what_was_offered_may_be_put(changes: dict[str, Any]) -> None:
    script = Dealing()
    script.find()
    assert refusal(script.put(**changes))[0] is RefusalCode.WRONG_STATE


def test_one_dataset_arrives_at_a_time() -> None:
    script = Dealing()
    script.find()
    script.put()
    script.find(cmd_id="second")
    code, reason = refusal(script.put("second put"))
    assert (code, reason) == (
        RefusalCode.WRONG_STATE,
        "another dataset is arriving: wait for its answer",
    )


def test_nothing_is_dealt_into_a_device_that_a_run_is_prepared_on() -> None:
    script = Dealing()
    script.find()
    script.prepare(1)
    assert refusal(script.put())[0] is RefusalCode.WRONG_STATE
    assert refusal(script.offer("second offer"))[0] is RefusalCode.WRONG_STATE


def test_a_viewer_deals_nothing() -> None:
    script = Dealing()
    script.open(2, Role.VIEWER)
    [refused] = told(script.say(2, OfferData, name="mnist", size=1, sha256=SHA), 2)
    assert refused.code is RefusalCode.NOT_CONTROLLER


def test_a_cut_link_leaves_the_part_and_the_next_one_goes_on_with_it() -> None:
    script = Dealing()
    script.find()
    script.put()
    script.device.on_link_closed(1, script.now_s)
    assert script.device.on_received(1, 1, script.now_s) == []
    script.open(1)
    script.say(1, TakeLease, "again")
    assert told(script.find(Room(False, False, 256, 0, 1 << 40), cmd_id="offer 2")) == [
        DataOffset("offer 2", 256)
    ]
    rest = Blob(7, 344, "b" * 64)
    assert script.put("put 2", 256, rest=rest) == [ReceiveData(1, rest, SHA, 256)]


@pytest.mark.parametrize("kind", [Abort, ReleaseLease])
def test_a_transfer_is_broken_off_by_the_console(kind: Any) -> None:
    script = Dealing()
    script.find()
    script.put()
    fields: Any = {"round": 1} if kind is Abort else {}
    assert Ok(kind.__name__) in told(script.say(1, kind, **fields))
    assert script.device.on_received(1, 1, script.now_s) == []


def test_another_run_that_takes_the_device_ends_the_transfer_but_not_the_check() -> None:
    script = Dealing()
    script.receive()
    script.open(2, name="desk-2")
    script.run, script.fence = "run-2", 2
    script.say(2, TakeLease, take_over=True)
    waiting = script.say(2, OfferData, "offer 2", name="mnist", size=600, sha256=SHA)
    assert waiting == []
    stored = script.device.on_stored(NEW, script.now_s)
    assert stored[0] == Tell(None, Datasets((CARD, NEW)))
    [looking] = stored[1:]
    assert isinstance(looking, FindRoom)
    here = script.device.on_room_found(looking.offer, Room(True, True, 0, 600, 0), script.now_s)
    assert told(here, 2) == [DataOffset("offer 2", 600, NEW)]


def test_a_bad_file_is_refused_and_the_next_one_may_come() -> None:
    script = Dealing()
    script.receive()
    bad = script.device.on_stored((RefusalCode.BAD_DATA, "x has no dtype"), script.now_s)
    assert told(bad) == [Refused("put", RefusalCode.BAD_DATA, "x has no dtype")]
    assert told(script.find(cmd_id="next")) == [DataOffset("next", 0)]


def test_a_repeated_offer_gets_its_answer_again() -> None:
    script = Dealing()
    first = script.find()
    assert script.offer() == first


def test_a_device_has_as_many_datasets_as_a_hello_holds() -> None:
    cards = tuple(DatasetCard(str(i), (1,), "uint8", "int64", 1, 1, SHA) for i in range(64))
    assert len(cards) == MAX_DATASETS
    script = Dealing(Device(cards, intake=Intake(1_000)))
    assert refusal(script.offer())[0] is RefusalCode.TOO_LARGE
    assert told(script.find(name="63", cmd_id="same name")) == [DataOffset("same name", 0)]


def test_a_folder_that_cannot_be_read_is_a_refusal() -> None:
    script = Dealing()
    [looking] = script.offer()
    assert isinstance(looking, FindRoom)
    failed = (RefusalCode.NO_ROOM, "the device cannot store this: Input/output error")
    assert refusal(script.device.on_room_found(looking.offer, failed, script.now_s)) == failed


def test_a_device_that_is_only_dealt_to_starts_no_trainer() -> None:
    script = Dealing()
    script.run, script.fence = "run-2", 2
    taken = script.say(1, TakeLease, take_over=True, trains=False)
    assert taken[0] == SaveFence(Fence(2, "run-2"))
    assert WarmUp() not in taken
