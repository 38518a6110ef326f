"""The control socket of an engine: events out, the operator's requests in, as JSON lines.

A reader says from which journal number on it wants lines, and the engine reads them for it from the
journal at the reader's own pace: a slow or stopped reader blocks nobody and costs no memory.
"""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

from fedconsole import paths
from fedconsole.engine.store import Line, Row, RunStore, make_line, time_ms
from fedconsole.errors import EngineCrashedError, ExitCode, FedconsoleError, StorageError

_MAX_LINE_BYTES = 4 << 20
"""The longest line: a run's plan, or 4096 losses."""
_LINES_AT_ONCE = 500
_LOOK_S = 2.0
"""Between two looks at whether the socket is still there."""
_ANSWER_S = 30.0
"""It answers at once, but on a machine that is very busy."""

RequestHandler = Callable[[str], None]
"""Carries out one of the operator's requests; raises FedconsoleError when it is not legal now."""
Standstill = Callable[[], str | None]
"""Why the run stands still although nobody has paused it; None: it does not."""


def socket_path(run_id: str) -> Path:
    return paths.runtime_dir() / f"{run_id}.sock"


class ControlServer:
    """The engine's side; one per run."""

    def __init__(
        self, store: RunStore, handle: RequestHandler, standstill: Standstill = lambda: None
    ) -> None:
        self._store = store
        self._handle = handle
        self._standstill = standstill
        self._grown = asyncio.Event()
        self._is_closing = False
        self._last_words: Row | None = None
        self._readers: set[asyncio.Task[None]] = set()
        self._path = socket_path(store.run_id)
        store.on_change = self._wake

    async def start(self) -> None:
        await self._listen()
        self._staying = asyncio.get_running_loop().create_task(self._stay())

    async def _stay(self) -> None:
        """Some systems clean the folder of sockets, as after a logout; nobody could steer the run then."""
        while True:
            await asyncio.sleep(_LOOK_S)
            if not self._path.exists():
                # The folder may be gone as well; where it cannot be made, another look follows.
                with suppress(OSError, StorageError):
                    self._path = socket_path(self._store.run_id)
                    self._server.close()
                    await self._listen()

    async def _listen(self) -> None:
        self._path.unlink(missing_ok=True)
        self._server = await asyncio.start_unix_server(
            self._serve, str(self._path), limit=_MAX_LINE_BYTES
        )
        self._path.chmod(0o600)

    async def close(self, grace_s: float = 5.0) -> None:
        """Let readers take the last lines, then hang up. A stuck reader is left after `grace_s`."""
        self._is_closing = True
        self._staying.cancel()
        self._wake()
        self._server.close()
        self._path.unlink(missing_ok=True)
        if self._readers:
            _, stuck = await asyncio.wait(self._readers, timeout=grace_s)
            for task in stuck:
                task.cancel()

    def say_last(self, row: Row) -> None:
        """Tell every reader at the end what the journal could not take."""
        self._last_words = row

    def _wake(self) -> None:
        self._grown.set()
        self._grown = asyncio.Event()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._readers.add(task)
        try:
            request = json.loads(await reader.readline())
            if request["request"] == "events":
                await self._send_lines(writer, int(request["first_seq"]))
            elif request["request"] == "standstill":
                await self._send(writer, {"ok": True, "standstill": self._standstill()})
            else:
                await self._answer(writer, str(request["request"]))
        except (OSError, ValueError, KeyError, TypeError, OverflowError, RecursionError):
            pass  # a front end that left, or no front end at all; the run goes on either way
        except asyncio.CancelledError:
            pass  # stuck at the end; asyncio would print the cancellation of a connection's task
        finally:
            self._readers.discard(task)
            writer.close()

    async def _answer(self, writer: asyncio.StreamWriter, request: str) -> None:
        answer: Line = {"ok": True}
        try:
            self._handle(request)
        except FedconsoleError as error:
            answer = {"ok": False, "reason": str(error), "exit_code": error.exit_code}
        await self._send(writer, answer)

    async def _send(self, writer: asyncio.StreamWriter, answer: Line) -> None:
        writer.write(json.dumps(answer).encode() + b"\n")
        await writer.drain()

    async def _send_lines(self, writer: asyncio.StreamWriter, seq: int) -> None:
        told: str | None = None
        while True:
            grown = self._grown
            lines = self._store.lines(seq, _LINES_AT_ONCE)
            for line in lines:
                writer.write(json.dumps(line).encode() + b"\n")
            if lines:
                seq = lines[-1]["seq"] + 1
                told = None
                await writer.drain()
            elif self._is_closing:
                if self._last_words is not None:
                    await self._send_unwritten(writer, seq, self._last_words)
                return
            elif self._store.refusal not in (None, told):
                told = self._store.refusal
                await self._send_unwritten(writer, seq - 1, Row("run.stalled", {"reason": told}))
            else:
                await grown.wait()

    async def _send_unwritten(self, writer: asyncio.StreamWriter, seq: int, row: Row) -> None:
        """Tell this reader what the journal cannot take."""
        line = make_line(self._store.run_id, seq, time_ms(), row.type, json.dumps(row.fields))
        await self._send(writer, line)


def standstill(run_id: str, seconds: float) -> str | None:
    """Why a run stands still; None: it does not, or nobody answers within so many seconds."""
    with socket.socket(socket.AF_UNIX) as link, suppress(OSError, ValueError):
        link.settimeout(seconds)
        link.connect(str(socket_path(run_id)))
        link.sendall(_request({"request": "standstill"}))
        with link.makefile("rb") as answer:
            reason: str | None = json.loads(answer.readline()).get("standstill")
            return reason
    return None


class ControlLink:
    """A front end's side: reads a run's lines, from its first on, and sends requests."""

    def __init__(self, path: Path) -> None:
        self._path = path

    @classmethod
    @asynccontextmanager
    async def connect(cls, run_id: str) -> AsyncIterator[ControlLink]:
        """Reach a run's engine.

        Raises:
            EngineCrashedError: no engine listens for that run.
        """
        link = cls(socket_path(run_id))
        _, writer = await link._open()
        writer.close()
        yield link

    async def events(self, first_seq: int = 1) -> AsyncGenerator[Line, None]:
        """Every line from `first_seq` on, those of the past first; ends when the engine ends."""
        reader, writer = await self._open()
        try:
            writer.write(_request({"request": "events", "first_seq": first_seq}))
            with suppress(ConnectionError):
                # A line that is cut off is one that the engine has not waited for.
                while (text := await reader.readline()).endswith(b"\n"):
                    yield json.loads(text)
        finally:
            writer.close()

    async def request(self, name: str) -> None:
        """Send one of the operator's requests, such as "abort", and wait for the answer.

        Raises:
            FedconsoleError: the run cannot do that now; the message says why.
            EngineCrashedError: the engine is gone, or does not answer.
        """
        reader, writer = await self._open()
        text = b""
        try:
            async with asyncio.timeout(_ANSWER_S):
                writer.write(_request({"request": name}))
                with suppress(ConnectionError):
                    text = await reader.readline()
        except TimeoutError as error:
            raise EngineCrashedError(
                f"the engine has not answered to {name!r} for {_ANSWER_S:g} s: it stands still, or its machine "
                "does; what was asked may be done later"
            ) from error
        finally:
            writer.close()
        if not text:
            raise EngineCrashedError(f"the engine went away before it answered to {name!r}")
        answer = json.loads(text)
        if not answer["ok"]:
            refusal = FedconsoleError(answer["reason"])
            refusal.exit_code = ExitCode(answer["exit_code"])
            raise refusal

    async def _open(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        try:
            return await asyncio.open_unix_connection(str(self._path), limit=_MAX_LINE_BYTES)
        except OSError as error:
            raise EngineCrashedError(f"no engine listens at {self._path}: {error}") from error


def _request(fields: dict[str, Any]) -> bytes:
    return json.dumps(fields).encode() + b"\n"
