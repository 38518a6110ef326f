"""What is told, and taken back, of a journal whose end a disk has damaged."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from fedconsole.engine.going_back import tell_lost_end
from fedconsole.engine.store import Row, RunStore

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
