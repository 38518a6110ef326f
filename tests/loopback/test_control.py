from __future__ import annotations

import asyncio
import shutil
import socket
import sqlite3
import stat
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from fedconsole import history, paths
from fedconsole.engine import control
from fedconsole.engine.control import ControlLink, ControlServer, socket_path
from fedconsole.engine.store import Line, Row, RunStore
from fedconsole.errors import (
    EngineCrashedError,
    ExitCode,
    FedconsoleError,
    RefusedError,
    StorageError,
)
from tests.support.places import redirect


class Engine:
    """A control socket over a real journal; requests are written down or refused."""

    def __init__(self, folder: Path) -> None:
        self.store = RunStore(folder / "r1")
        self.requests: list[str] = []
        self.control = ControlServer(self.store, self._take)

    def _take(self, request: str) -> None:
        if request == "pause":
            raise RefusedError("cannot pause: it has ended")
        self.requests.append(request)


@pytest.fixture
async def engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Engine]:
    runtime = tmp_path / "r"
    runtime.mkdir(mode=0o700)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(runtime))
    engine = Engine(tmp_path)
    await engine.control.start()
    yield engine
    await engine.control.close(grace_s=0.1)
    engine.store.close()


async def collect(first_seq: int = 1) -> list[Line]:
    async with ControlLink.connect("r1") as link:
        return [line async for line in link.events(first_seq)]


async def test_a_reader_gets_the_past_then_the_present_then_the_end(engine: Engine) -> None:
    engine.store.commit(Row("run.created", {}))
    async with ControlLink.connect("r1") as link:
        lines = link.events()
        assert (await anext(lines))["type"] == "run.created"
        engine.store.commit(Row("log", {"text": "one"}), Row("log", {"text": "two"}))
        assert [(await anext(lines))["text"] for _ in range(2)] == ["one", "two"]
        closing = asyncio.get_running_loop().create_task(engine.control.close())
        assert [line async for line in lines] == []
        await closing


async def test_every_reader_sees_the_same_lines_from_where_it_asks(engine: Engine) -> None:
    engine.store.commit(*(Row("log", {"text": str(n)}) for n in range(1200)))
    whole = asyncio.get_running_loop().create_task(collect())
    tail = asyncio.get_running_loop().create_task(collect(first_seq=1190))
    async with ControlLink.connect("r1") as link:
        await anext(link.events())
    await engine.control.close()
    assert [line["seq"] for line in await whole] == list(range(1, 1201))
    assert await tail == (await whole)[1189:]


async def test_readers_are_told_once_that_the_journal_cannot_be_written_and_then_what_follows(
    engine: Engine,
) -> None:
    engine.store.commit(Row("run.created", {}))
    async with ControlLink.connect("r1") as link:
        lines = link.events()
        await anext(lines)
        with sqlite3.connect(engine.store.folder / "run.db") as another:
            another.execute("BEGIN IMMEDIATE")
            for _ in range(2):
                with pytest.raises(StorageError, match="database is locked"):
                    engine.store.commit(Row("log", {}))
            stalled = await anext(lines)
        assert (stalled["seq"], stalled["type"]) == (1, "run.stalled")
        assert "database is locked" in stalled["reason"]
        engine.store.commit(Row("log", {}))
        goes_on = await anext(lines)
        assert (goes_on["seq"], goes_on["type"]) == (2, "log")


async def test_a_reader_that_never_reads_holds_up_nobody(engine: Engine) -> None:
    _, writer = await asyncio.open_unix_connection(str(socket_path("r1")))
    writer.write(b'{"request":"events","first_seq":1}\n')
    engine.store.commit(*(Row("log", {"text": "x" * 1000}) for _ in range(20_000)))
    async with ControlLink.connect("r1") as link:
        count = 0
        async for _ in link.events():
            count += 1
            if count == 20_000:
                break
    assert count == 20_000
    writer.close()


async def test_a_reader_that_stood_still_at_the_end_has_the_rest_from_the_journal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    redirect(tmp_path, monkeypatch)
    engine = Engine(paths.runs_dir())
    await engine.control.start()
    engine.store.commit(Row("run.created", {}))
    lines = history.follow("r1")
    seen = [await anext(lines)]
    # More than what lies between the two of them can hold.
    engine.store.commit(*(Row("log", {"text": "x" * 60_000}) for _ in range(700)))
    engine.store.commit(Row("run.finished", {"exit_code": 0}))
    await engine.control.close(grace_s=0.1)
    engine.store.close()
    seen += [line async for line in lines]
    assert [line["seq"] for line in seen] == list(range(1, 703))
    assert seen[-1]["type"] == "run.finished"
    assert caplog.text == ""


async def test_a_request_is_carried_out_or_refused_with_its_reason(engine: Engine) -> None:
    async with ControlLink.connect("r1") as link:
        await link.request("abort")
        with pytest.raises(FedconsoleError, match="cannot pause: it has ended") as refusal:
            await link.request("pause")
    assert engine.requests == ["abort"]
    assert refusal.value.exit_code is ExitCode.REFUSED


async def test_garbage_on_the_socket_ends_only_its_own_connection(engine: Engine) -> None:
    for garbage in (b"\xff\xfe\n", b"[]\n", b'{"request":"events"}\n', b"", b"{" * 10_000 + b"\n"):
        reader, writer = await asyncio.open_unix_connection(str(socket_path("r1")))
        writer.write(garbage)
        writer.write_eof()
        assert await reader.read() == b""
        writer.close()
    async with ControlLink.connect("r1") as link:
        await link.request("abort")
    assert engine.requests == ["abort"]


async def test_only_its_owner_may_open_the_socket(engine: Engine) -> None:
    assert stat.S_IMODE(socket_path("r1").stat().st_mode) == 0o600


async def test_a_socket_that_was_cleaned_away_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(control, "_LOOK_S", 0.05)
    runtime = tmp_path / "r"
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(runtime))
    runtime.mkdir(mode=0o700)
    engine = Engine(tmp_path)
    engine.store.commit(Row("run.created", {}))
    await engine.control.start()
    async with ControlLink.connect("r1") as before:
        shutil.rmtree(socket_path("r1").parent)
        runtime.mkdir(mode=0o700, exist_ok=True)
        async with asyncio.timeout(30):
            while not socket_path("r1").exists():  # noqa: ASYNC110
                await asyncio.sleep(0)
        async with ControlLink.connect("r1") as link:
            await link.request("abort")
        assert engine.requests == ["abort"]
        # Who was there stays.
        assert (await anext(before.events()))["type"] == "run.created"
    await engine.control.close(grace_s=0.1)
    engine.store.close()


async def test_what_the_journal_could_not_take_is_said_last(engine: Engine) -> None:
    engine.store.commit(Row("run.created", {}))
    engine.control.say_last(Row("run.finished", {"exit_code": 8}))
    reading = asyncio.get_running_loop().create_task(collect())
    async with ControlLink.connect("r1") as link:
        await anext(link.events())
    await engine.control.close()
    assert [(line["seq"], line["type"]) for line in await reading] == [
        (1, "run.created"),
        (2, "run.finished"),
    ]


async def test_a_run_without_an_engine_is_named(engine: Engine) -> None:
    with pytest.raises(EngineCrashedError, match="no engine listens"):
        async with ControlLink.connect("r2"):
            pass


async def test_an_engine_that_dies_over_a_request_is_named(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "s"))
        listener.listen()
        asking = asyncio.get_running_loop().create_task(
            ControlLink(tmp_path / "s").request("pause")
        )
        connection, _ = await asyncio.to_thread(listener.accept)
        await asyncio.to_thread(connection.recv, 1, socket.MSG_PEEK)
        # What is not read by then makes it a reset.
        connection.close()
        with pytest.raises(EngineCrashedError, match="went away before it answered to 'pause'"):
            await asking
