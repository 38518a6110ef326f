"""What is told, and taken back, of a journal whose end a disk has damaged, and of models."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import msgspec
import numpy as np
import pytest
import safetensors.numpy

from fedconsole.coordinator import machine
from fedconsole.coordinator.events import Event
from fedconsole.coordinator.plan import Plan
from fedconsole.coordinator.state import RunState
from fedconsole.engine.going_back import go_back_to_whole_model, tell_lost_end
from fedconsole.engine.store import Row, RunStore
from fedconsole.errors import StorageError
from pi_daemon.protocol.tensors import model_id, read_table
from tests.support.play import CLOSES, delivers, joins, play

FRAME_BYTES = 24 + 4096
HEAD_BYTES = 32
TOLD = "the end of the journal is damaged on this disk: what it told is done again"


@pytest.fixture
def killed(tmp_path: Path) -> Path:
    """The folder of a run of twenty lines, as a killed engine leaves it."""
    store = RunStore(tmp_path / "r1")
    for number in range(20):
        store.commit(Row("log", {"number": number}), events=[b"{}"])
    folder = Path(shutil.copytree(tmp_path / "r1", tmp_path / "killed"))
    store.close()
    return folder


def garble(killed: Path, place: int) -> None:
    wal = killed / "run.db-wal"
    content = bytearray(wal.read_bytes())
    content[place] ^= 1
    wal.write_bytes(content)


def lines_after(killed: Path) -> list[object]:
    """What the journal holds when it was taken up: numbers of its lines, then what was told."""
    store = RunStore(killed)
    tell_lost_end(store)
    lines = [line.get("number", line.get("text")) for line in store.lines(1, 100)]
    store.close()
    return lines


def test_nothing_is_told_of_a_journal_that_is_whole(killed: Path) -> None:
    assert lines_after(killed) == list(range(20))


def test_a_commit_that_never_ended_is_no_loss(killed: Path) -> None:
    wal = killed / "run.db-wal"
    wal.write_bytes(wal.read_bytes()[:-1])
    assert lines_after(killed) == list(range(19))


@pytest.mark.parametrize("place", [100, 8], ids=["page", "salt"])
def test_a_lost_end_is_told_once(killed: Path, place: int) -> None:
    num_frames = ((killed / "run.db-wal").stat().st_size - HEAD_BYTES) // FRAME_BYTES
    garble(killed, HEAD_BYTES + FRAME_BYTES * (num_frames // 2) + place)
    *kept, told = lines_after(killed)
    assert kept == list(range(len(kept)))
    assert 0 < len(kept) < 20
    assert told == TOLD
    assert lines_after(killed) == [*kept, told]


def test_a_journal_of_which_all_is_lost_tells_nothing(killed: Path) -> None:
    garble(killed, 16)
    store = RunStore(killed)
    assert store.has_lost_end
    store.close()
    assert lines_after(killed) == []


@pytest.fixture
def one_round(tmp_path: Path) -> Iterator[RunStore]:
    """A run with one complete round, and the next one open."""
    store = RunStore(tmp_path / "r1")
    run = play(
        Plan(workers=("alice:10002",), rounds=2), [joins("alice"), delivers("alice"), *CLOSES]
    )
    events = [msgspec.json.encode(event) for event in run.journal]
    for number in (0, 1):
        content = safetensors.numpy.save({"w": np.full(1, number, np.float32)})
        store.checkpoint_path(number).write_bytes(content)
        name = model_id(content, read_table(content))
        events = [event.replace(f"model-{number}".encode(), name.encode()) for event in events]
    store.model_path.touch()
    store.commit(Row("run.created", {}), *(Row("round.started", {"round": n}) for n in (1, 2)))
    store.commit(events=events)
    yield store
    store.close()


def types(store: RunStore) -> list[str]:
    return [line["type"] for line in store.lines(1, 100)]


def state_of(store: RunStore) -> RunState:
    return machine.replay(msgspec.json.decode(event, type=Event) for event in store.events())


def test_a_run_whose_model_is_whole_stays_where_its_journal_says(one_round: RunStore) -> None:
    assert go_back_to_whole_model(one_round) == state_of(one_round)


@pytest.mark.parametrize("is_gone", [True, False])
def test_a_round_whose_model_is_gone_or_damaged_is_taken_back(
    one_round: RunStore, is_gone: bool
) -> None:
    model = one_round.checkpoint_path(1)
    if is_gone:
        model.unlink()
    else:
        model.write_bytes(model.read_bytes()[:-1])
    state = go_back_to_whole_model(one_round)
    assert state == state_of(one_round)
    assert state.num_rounds == 0
    assert types(one_round) == ["run.created", "round.started", "warning"]
    assert not one_round.model_path.exists()


@pytest.mark.timeout(60)
def test_a_fifo_in_the_place_of_a_model_is_refused(one_round: RunStore) -> None:
    model = one_round.checkpoint_path(1)
    model.unlink()
    os.mkfifo(model)
    with pytest.raises(
        StorageError, match=rf"^cannot read {model}: {model.name} is no regular file"
    ):
        go_back_to_whole_model(one_round)


def test_a_round_whose_model_cannot_be_read_now_is_not_taken_back(one_round: RunStore) -> None:
    before = [*one_round.events()], one_round.lines(1, 100)
    model = one_round.checkpoint_path(1)
    model.unlink()
    model.symlink_to(model.name)
    with pytest.raises(
        StorageError,
        match=rf"^cannot read {model}: Too many levels of symbolic links; mend that, or delete the file: "
        "round 1 is trained again then$",
    ):
        go_back_to_whole_model(one_round)
    assert ([*one_round.events()], one_round.lines(1, 100)) == before
    assert one_round.model_path.exists()


def test_the_only_model_that_may_be_whole_is_not_to_be_deleted(one_round: RunStore) -> None:
    one_round.checkpoint_path(1).unlink()
    model = one_round.checkpoint_path(0)
    model.unlink()
    model.symlink_to(model.name)
    with pytest.raises(StorageError, match=r"links; mend that, and resume the run again$"):
        go_back_to_whole_model(one_round)
