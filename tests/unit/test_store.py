from __future__ import annotations

import fcntl
import sqlite3
import threading
from pathlib import Path

import pytest

from fedconsole.engine.store import Row, RunStore
from fedconsole.errors import StorageError


def types(store: RunStore) -> list[str]:
    return [line["type"] for line in store.lines(1, 100)]


def test_who_looks_whether_there_is_an_engine_keeps_none_out(tmp_path: Path) -> None:
    RunStore(tmp_path / "r1").close()
    looking = (tmp_path / "r1" / "engine.lock").open()
    fcntl.flock(looking, fcntl.LOCK_SH)
    threading.Timer(0.05, looking.close).start()
    RunStore(tmp_path / "r1").close()


def test_notes_wait_for_the_next_commit_and_keep_their_order(tmp_path: Path) -> None:
    store = RunStore(tmp_path / "r1")
    store.note(Row("worker.batches", {"losses": [1.0]}))
    assert types(store) == []
    store.commit(Row("worker.update", {"worker": "alice"}))
    assert types(store) == ["worker.batches", "worker.update"]


def test_lines_carry_version_number_time_type_and_run(tmp_path: Path) -> None:
    store = RunStore(tmp_path / "r1")
    store.commit(Row("log", {"text": "hello", "worker": "앨리스"}))
    (line,) = store.lines(1, 10)
    assert line.pop("time").endswith("Z")
    assert line == {
        "v": 1,
        "seq": 1,
        "type": "log",
        "run": "r1",
        "text": "hello",
        "worker": "앨리스",
    }


def test_the_numbers_go_on_after_the_folder_is_opened_again(tmp_path: Path) -> None:
    store = RunStore(tmp_path / "r1")
    store.commit(Row("log", {}), Row("log", {}))
    store.close()
    store = RunStore(tmp_path / "r1")
    store.commit(Row("warning", {}))
    assert [line["seq"] for line in store.lines(1, 10)] == [1, 2, 3]


def test_only_the_machines_own_events_are_replayed(tmp_path: Path) -> None:
    store = RunStore(tmp_path / "r1")
    store.commit(Row("log", {}))
    store.commit(Row("worker.joined", {}), events=[b'{"type":"worker_joined"}'])
    assert list(store.events()) == [b'{"type":"worker_joined"}']


def test_events_of_one_commit_are_replayed_in_their_order(tmp_path: Path) -> None:
    store = RunStore(tmp_path / "r1")
    store.commit(events=[b'{"n":1}', b'{"n":2}'])
    store.commit(events=[b'{"n":3}'])
    assert list(store.events()) == [b'{"n":1}', b'{"n":2}', b'{"n":3}']


@pytest.mark.parametrize("written", [b'"loss": 0.5', b'"n":12'], ids=["line", "event"])
def test_a_journal_of_which_a_disk_has_changed_one_digit_is_refused(
    tmp_path: Path, written: bytes
) -> None:
    store = RunStore(tmp_path / "r1")
    store.commit(Row("worker.update", {"loss": 0.5}), events=[b'{"n":12}'])
    store.close()
    journal = tmp_path / "r1" / "run.db"
    content = journal.read_bytes()
    assert content.count(written) == 1
    journal.write_bytes(content.replace(written, written[:-1] + b"7"))
    with pytest.raises(StorageError, match="it holds other lines than were written"):
        RunStore(tmp_path / "r1")


def test_tidying_leaves_the_updates_of_a_round_that_has_begun(tmp_path: Path) -> None:
    store = RunStore(tmp_path / "r1")
    paths = [store.new_update_path(number, "alice") for number in (1, 2, 3)]
    for path in paths:
        path.touch()
    store.tidy(2)
    assert list(store.updates.iterdir()) == [paths[2]]


def test_tidying_leaves_a_checkpoint_that_is_newer(tmp_path: Path) -> None:
    store = RunStore(tmp_path / "r1")
    for n in range(4):
        store.checkpoint_path(n).touch()
    store.tidy(2)
    kept = sorted(store.checkpoints.iterdir())
    assert kept == [store.checkpoint_path(n) for n in (1, 2, 3)]


def test_a_worker_id_cannot_leave_the_folder(tmp_path: Path) -> None:
    store = RunStore(tmp_path / "r1")
    path = store.new_update_path(3, "../../etc/앨리스")
    assert path.parent == store.updates
    assert path != store.new_update_path(3, "../../etc/앨리스")


def test_the_journal_is_written_through_to_the_disk(tmp_path: Path) -> None:
    RunStore(tmp_path / "r1").commit(Row("log", {}))
    reader = sqlite3.connect(f"file:{tmp_path}/r1/run.db?mode=ro", uri=True)
    assert reader.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    assert reader.execute("SELECT type FROM journal").fetchall() == [("log",)]
    reader.close()


def test_a_folder_that_cannot_be_made_is_a_storage_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(StorageError, match="cannot open the run's folder"):
        RunStore(tmp_path / "file" / "r1")


def test_the_last_two_checkpoints_stay(tmp_path: Path) -> None:
    store = RunStore(tmp_path / "r1")
    for n in range(5):
        store.checkpoint_path(n).write_bytes(b"x")
    store.tidy(4)
    assert sorted(p.name for p in store.checkpoints.iterdir()) == [
        "round-000003.safetensors",
        "round-000004.safetensors",
    ]


def test_kept_events_are_written_with_the_next_commit_and_before_it(tmp_path: Path) -> None:
    store = RunStore(tmp_path / "r1")
    store.keep(Row("worker.joined", {}), events=[b'{"n":1}'])
    assert types(store) == []
    assert list(store.events()) == []
    store.commit(Row("round.started", {}), events=[b'{"n":2}'])
    assert types(store) == ["worker.joined", "round.started"]
    assert list(store.events()) == [b'{"n":1}', b'{"n":2}']
    store.commit()
    assert list(store.events()) == [b'{"n":1}', b'{"n":2}']
