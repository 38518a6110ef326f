from __future__ import annotations

import asyncio
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from fedconsole.coordinator import commands as c
from fedconsole.coordinator import facts
from fedconsole.engine.ledger import Ledger
from fedconsole.engine.store import Row, RunStore
from fedconsole.errors import StorageError

PATIENT = c.AcceptUpdate("alice", 1, 0)
URGENT = c.SaveModel("model")
TOLD = c.Announce(facts.Warning("something", None))


@contextmanager
def no_file_may_grow() -> Iterator[None]:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def types(store: RunStore) -> list[str]:
    return [line["type"] for line in store.lines(1, 100)]


async def test_what_nobody_waits_for_is_written_and_done_with_what_comes_next(
    tmp_path: Path,
) -> None:
    store, done = RunStore(tmp_path / "r1"), list[c.Command]()
    commits = list[int]()
    store.on_change = lambda: commits.append(store.last_seq)
    ledger = Ledger(store, done.append)
    ledger.take([Row("worker.joined", {})], [b'{"n":1}'], [TOLD])
    ledger.take([Row("worker.update", {})], [b'{"n":2}'], [PATIENT])
    assert (types(store), done) == ([], [])
    ledger.take([Row("round.finished", {})], [b'{"n":3}'], [URGENT])
    assert types(store) == ["worker.joined", "worker.update", "round.finished"]
    assert list(store.events()) == [b'{"n":1}', b'{"n":2}', b'{"n":3}']
    assert done == [TOLD, PATIENT, URGENT]
    assert commits == [3]


async def test_what_nobody_waits_for_is_soon_written_by_itself_and_only_then_done(
    tmp_path: Path,
) -> None:
    store, is_done = RunStore(tmp_path / "r1"), asyncio.Event()
    written = list[str]()

    def do(_: c.Command) -> None:
        written.extend(types(store))
        is_done.set()

    Ledger(store, do).take([Row("worker.update", {})], [b'{"n":1}'], [PATIENT])
    await is_done.wait()
    assert written == ["worker.update"]


async def test_what_is_asked_for_at_once_is_written_at_once(tmp_path: Path) -> None:
    store = RunStore(tmp_path / "r1")
    Ledger(store, lambda _: None).take([Row("warning", {})], [], [TOLD], at_once=True)
    assert types(store) == ["warning"]


async def test_a_disk_that_refuses_keeps_what_could_wait_and_nothing_of_what_could_not(
    tmp_path: Path,
) -> None:
    store, done = RunStore(tmp_path / "r1"), list[c.Command]()
    ledger = Ledger(store, done.append)
    ledger.take([Row("worker.update", {})], [b'{"n":1}'], [PATIENT])
    with no_file_may_grow(), pytest.raises(StorageError):
        ledger.take([Row("round.finished", {})], [b'{"n":2}'], [URGENT])
    assert (types(store), done) == ([], [])
    ledger.take([Row("round.finished", {})], [b'{"n":3}'], [URGENT])
    assert types(store) == ["worker.update", "round.finished"]
    assert list(store.events()) == [b'{"n":1}', b'{"n":3}']
    assert done == [PATIENT, URGENT]
