"""What the audit log says of what happened, and that nothing leaves the device without a line."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, TypeVar

from msgspec import structs

from pi_daemon.audit.recorder import Entry, Recorder
from pi_daemon.device.actions import Deliver, Tell, TrainModel
from pi_daemon.device.terms import Peer
from pi_daemon.protocol.graphs import OptimizerSpec
from pi_daemon.protocol.messages import (
    Abort,
    Batches,
    Blob,
    Command,
    Cursor,
    DatasetCard,
    Datasets,
    DataStored,
    Evaluate,
    Evaluated,
    Ok,
    Prepare,
    Prepared,
    PutData,
    RefusalCode,
    Refused,
    ReleaseLease,
    RenewLease,
    RoundFailed,
    StartRound,
    TakeLease,
)
from pi_daemon.protocol.pairing import ConsoleRole
from pi_daemon.trainer.pipe import RoundTrained

C = TypeVar("C", bound=Command)

DESK = Peer("DESK-ID", "desk-1", ConsoleRole.OPERATOR)
TABLET = Peer("TABLET-ID", "tablet", ConsoleRole.VIEWER)
CARD = DatasetCard("digits", (8, 8), "uint8", "int64", 480, 10, "d" * 64)
BY_DESK = {"console": "desk-1", "console_id": "DESK-ID"}
BY_TABLET = {"console": "tablet", "console_id": "TABLET-ID"}
TRAINED = RoundTrained(1, 480, 30, 0.5, 3.0004, Cursor(1, 6), 300, "e" * 64)


def command(kind: type[C], cmd_id: str = "1", **fields: Any) -> C:
    return kind(cmd_id=cmd_id, run="run-1", fence=1, **fields)


def start(number: int = 1) -> StartRound:
    return command(
        StartRound,
        round=number,
        attempt=1,
        model_id="c" * 64,
        model=None,
        cursor=Cursor(0, 0),
        num_batches=30,
        torch_seed="5",
    )


def prepare() -> Prepare:
    return command(
        Prepare,
        worker_id="alice",
        dataset="digits",
        sample_shape=(8, 8),
        sample_dtype="uint8",
        num_classes=10,
        batch_size=16,
        holdout=0.2,
        order_seed="7",
        optimizer=OptimizerSpec("sgd", 0.05),
        graphs=Blob(1, 100, "a" * 64),
    )


def recorder() -> Recorder:
    """A desk on link 1 that holds the lease, and a tablet on link 2 that looks."""
    found = Recorder()
    found.on_link_opened(1, DESK, "10.0.0.2", [CARD])
    found.on_link_opened(2, TABLET, "10.0.0.3", [CARD])
    answered(found, command(TakeLease), Ok("1"))
    return found


def answered(found: Recorder, asked: Command, answer: Any, link: int = 1) -> list[Entry]:
    found.on_command(link, asked)
    return found.on_action(Tell(link, answer))


def losses(number: int, *values: float | None, first: int = 0) -> Batches:
    return Batches("run-1", number, 1, first, 30, values)


def test_a_link_says_who_came_from_where_and_which_cards_were_told() -> None:
    found = Recorder()
    assert found.on_link_opened(1, DESK, "10.0.0.2", [CARD]) == [
        {
            "what": "link opened",
            **BY_DESK,
            "role": "operator",
            "address": "10.0.0.2",
            "cards": ["digits"],
            "label_counts": False,
        }
    ]
    assert found.on_link_closed(1, "the connection has ended") == [
        {"what": "link closed", **BY_DESK, "reason": "the connection has ended"}
    ]
    assert found.on_link_closed(1, "again") == []
    assert found.on_link_refused("10.0.0.9", "no hello") == [
        {
            "what": "link refused",
            "console": None,
            "console_id": None,
            "address": "10.0.0.9",
            "reason": "no hello",
        }
    ]


def test_a_console_that_was_paired_has_a_line() -> None:
    assert Recorder().on_paired(TABLET, "10.0.0.3") == [
        {"what": "console paired", **BY_TABLET, "role": "viewer", "address": "10.0.0.3"}
    ]


def test_cards_that_are_told_later_are_told_to_everybody() -> None:
    counted = DatasetCard("mnist", (28, 28), "uint8", "int64", 5, 2, "d" * 64, (2, 3))
    told = {"what": "cards told", "cards": ["digits", "mnist"], "label_counts": True}
    entries = recorder().on_action(Tell(None, Datasets((CARD, counted))))
    assert entries == [{**told, **BY_DESK}, {**told, **BY_TABLET}]


def test_what_a_console_may_do_is_told_with_its_run() -> None:
    found = recorder()
    assert answered(found, command(TakeLease), Ok("1")) == [
        {"what": "lease taken", **BY_DESK, "run": "run-1", "fence": 1}
    ]
    assert answered(found, prepare(), Prepared("1", 384, 96, 0.01, 1000)) == [
        {
            "what": "run prepared",
            **BY_DESK,
            "run": "run-1",
            "dataset": "digits",
            "graphs_sha256": "a" * 64,
            "num_examples": 384,
            "num_holdout": 96,
        }
    ]
    assert answered(found, command(Abort, round=3), Ok("1")) == [
        {"what": "round aborted", **BY_DESK, "run": "run-1", "round": 3}
    ]
    assert answered(found, command(ReleaseLease), Ok("1")) == [
        {"what": "lease released", **BY_DESK, "run": "run-1"}
    ]
    assert answered(found, command(RenewLease), Ok("1")) == []


def test_what_a_console_may_not_do_is_told_with_the_reason() -> None:
    refused = Refused("1", RefusalCode.NOT_ALLOWED, "too few", "min_examples")
    why = {"code": "not_allowed", "limit": "min_examples", "reason": "too few"}
    found = recorder()
    assert answered(found, prepare(), refused) == [
        {
            "what": "refused",
            **BY_DESK,
            "command": "run.prepare",
            "run": "run-1",
            "dataset": "digits",
            "graphs_sha256": "a" * 64,
            **why,
        }
    ]
    assert answered(found, start(4), refused, link=2) == [
        {
            "what": "refused",
            **BY_TABLET,
            "command": "round.start",
            "run": "run-1",
            "round": 4,
            **why,
        }
    ]


def test_an_update_and_its_losses_are_told_to_whom_they_went() -> None:
    found = recorder()
    found.on_action(TrainModel(2, prepare(), start(), "b" * 64))
    assert found.on_action(Tell(None, losses(1, 0.9, None))) == []
    assert found.on_trained(start(), TRAINED) == [
        {
            "what": "round trained",
            **BY_DESK,
            "run": "run-1",
            "round": 1,
            "batches": 30,
            "num_examples": 480,
            "seconds": 3.0,
        }
    ]
    # After a reconnect its losses are told once more, to that console alone: they have left already.
    found.on_action(Tell(1, losses(1, 0.9, None)))
    told = {"what": "losses told", "run": "run-1", "round": 1}
    assert found.on_action(Deliver(1, 2, start(), TRAINED)) == [
        {**told, **BY_DESK, "losses": 2},
        {
            "what": "update sent",
            **BY_DESK,
            "run": "run-1",
            "round": 1,
            "attempt": 1,
            "bytes": 300,
            "num_examples": 480,
            "sha256": "e" * 64,
        },
    ]
    assert found.on_action(TrainModel(3, prepare(), start(2), "b" * 64)) == [
        {**told, **BY_TABLET, "losses": 2}
    ]


def test_a_loss_counts_once_for_a_console_on_however_many_links_it_is_told() -> None:
    found = recorder()
    # The desk's engine is on link 1, its screen on this one.
    found.on_link_opened(3, replace(DESK, role=ConsoleRole.VIEWER), "10.0.0.2", [CARD])
    found.on_action(TrainModel(2, prepare(), start(), "b" * 64))
    found.on_action(Tell(None, losses(1, 0.9, 0.8)))
    told = {"what": "losses told", **BY_DESK, "run": "run-1", "round": 1}
    [before, _] = found.on_link_closed(1, "gone")
    assert before == {**told, "losses": 2}
    found.on_action(Tell(None, losses(1, 0.7, first=2)))
    found.on_link_opened(4, DESK, "10.0.0.2", [CARD])
    found.on_action(Tell(4, losses(1, 0.9, 0.8, 0.7)))
    [after, _] = found.on_action(Deliver(4, 2, start(), TRAINED))
    assert after == {**told, "losses": 1}
    # The same round again, as after its trainer died, is computed and told anew.
    found.on_action(TrainModel(3, prepare(), start(), "b" * 64))
    found.on_action(Tell(4, losses(1, 0.9)))
    [again, _] = found.on_action(Deliver(4, 3, start(), TRAINED))
    assert again == {**told, "losses": 1}


def test_losses_have_a_line_however_their_round_ends() -> None:
    for ending in (
        lambda found: found.on_action(Tell(None, RoundFailed("run-1", 1, 1, "killed"))),
        lambda found: answered(found, command(Abort, round=1), Ok("1")),
        lambda found: answered(found, command(ReleaseLease), Ok("1")),
    ):
        found = recorder()
        found.on_action(TrainModel(2, prepare(), start(), "b" * 64))
        found.on_action(Tell(None, losses(1, 0.9)))
        told = [entry for entry in ending(found) if entry["what"] == "losses told"]
        assert [entry["console"] for entry in told] == ["desk-1", "tablet"]
    found = recorder()
    found.on_action(TrainModel(2, prepare(), start(), "b" * 64))
    found.on_action(Tell(None, losses(1, 0.9)))
    assert [entry["what"] for entry in found.on_link_closed(2, "gone")] == [
        "losses told",
        "link closed",
    ]


def test_a_round_that_fails_belongs_to_whoever_has_the_lease_also_when_they_are_gone() -> None:
    found = recorder()
    found.on_link_closed(1, "gone")
    failed = found.on_action(Tell(None, RoundFailed("run-1", 1, 1, "killed")))
    assert failed == [
        {"what": "round failed", **BY_DESK, "run": "run-1", "round": 1, "reason": "killed"}
    ]


def test_an_evaluation_and_data_that_came_have_their_lines() -> None:
    found = recorder()
    evaluate = command(Evaluate, round=2, model_id="c" * 64, model=None)
    assert answered(found, evaluate, Evaluated("1", 2, 96, 0.5)) == [
        {"what": "evaluation sent", **BY_DESK, "run": "run-1", "round": 2, "num_examples": 96}
    ]
    put = command(PutData, sha256="f" * 64, offset=10, rest=Blob(3, 90, "a" * 64))
    assert answered(found, put, DataStored("1", CARD)) == [
        {
            "what": "data stored",
            **BY_DESK,
            "dataset": "digits",
            "num_examples": 480,
            "bytes": 100,
            "sha256": "f" * 64,
        }
    ]


def test_a_command_that_takes_the_number_of_another_hides_it_not() -> None:
    found = recorder()
    put = command(PutData, "7", sha256="f" * 64, offset=0, rest=Blob(3, 90, "a" * 64))
    found.on_command(1, put)
    found.on_command(1, command(RenewLease, "7"))
    [entry] = found.on_action(Tell(1, DataStored("7", CARD)))
    assert entry["what"] == "data stored"


def test_what_a_repeated_command_is_told_again_has_one_line() -> None:
    found = recorder()
    evaluate = command(Evaluate, "7", round=2, model_id="c" * 64, model=None)
    for asked, answer in (
        (prepare(), Prepared("1", 384, 96, 0.01, 1000)),
        (evaluate, Evaluated("7", 2, 96, 0.5)),
    ):
        assert [len(answered(found, asked, answer)) for _ in range(3)] == [1, 0, 0]
    # Another evaluation under that name is another line, as is one of another name.
    assert len(answered(found, evaluate, Evaluated("7", 3, 96, 0.5))) == 1
    assert (
        len(answered(found, structs.replace(evaluate, cmd_id="8"), Evaluated("8", 3, 96, 0.5))) == 1
    )
    for number in range(10_000):
        answered(
            found, structs.replace(evaluate, cmd_id=str(number)), Evaluated(str(number), 2, 96, 0.5)
        )
    assert len(found._answers) == 256


def test_commands_that_are_never_answered_cost_little_memory() -> None:
    found = recorder()
    for number in range(10_000):
        found.on_command(1, command(RenewLease, str(number)))
    assert len(found._commands) == 256
