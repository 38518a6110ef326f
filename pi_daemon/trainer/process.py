"""Holds a trainer process from asyncio: starts it, asks it, hears its losses, ends it.

The daemon holds one; the engine holds one for each virtual worker. Imports no torch.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import signal
import socket
import sys
from collections.abc import Callable
from typing import Final, TypeVar

import msgspec

from pi_daemon.protocol.messages import Cursor, RefusalCode
from pi_daemon.trainer.pipe import (
    LENGTH,
    MAX_PIPE_FRAME_BYTES,
    AbortWorker,
    Alive,
    BatchLosses,
    Done,
    EvaluateModel,
    Failed,
    ForgetWorker,
    FromTrainer,
    ModelEvaluated,
    PauseWorker,
    PrepareWorker,
    Reply,
    Request,
    ResumeWorker,
    RoundAborted,
    RoundBegun,
    RoundTrained,
    Started,
    TrainRound,
    WorkerReady,
    WorkerSpec,
    decode_from_trainer,
    frame,
)

ABORT_S: Final = 5.0
"""A trainer that has not stopped by then is killed."""
MAX_BATCH_S: Final = 600.0
SILENCE_S: Final = 600.0
"""A machine can be slow for many reasons; who says nothing for so long, or for ten times what a batch may
compute if that is longer, is killed."""
START_S: Final = 300.0
"""Importing torch takes a Pi half a minute, and several of them on one card far longer."""

R = TypeVar("R", bound=Reply)


class TrainerRefusal(Exception):
    """The trainer did not carry out the request; it goes on and can be asked again."""

    def __init__(self, code: RefusalCode, reason: str) -> None:
        super().__init__(reason)
        self.code = code


class RoundAbortedError(Exception):
    """The round was aborted: there is no update."""


class TrainerExitedError(Exception):
    """The process has ended, and what it was doing with it; start another."""


async def start_trainers(
    count: int = 1,
    *,
    device: str = "cpu",
    max_memory_bytes: int | None = None,
    max_batch_s: float = MAX_BATCH_S,
) -> list[TrainerProcess]:
    """Start trainers that import torch once between them, and return without waiting for that.

    Requests may be sent at once: they wait in the pipe.

    Args:
        device: "cpu" or "cuda".
        max_memory_bytes: Data memory of each process; None: no limit.
        max_batch_s: Processor time of a batch; with one that takes more a trainer ends.
    """
    pairs = _pairs(count)
    limit = () if max_memory_bytes is None else ("--max-memory", str(max_memory_bytes))
    fds = [theirs.fileno() for _, theirs in pairs]
    try:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            *("-m", "pi_daemon.trainer", "--device", device, "--max-batch", str(max_batch_s)),
            *(*limit, *map(str, fds)),
            pass_fds=fds,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=2,
            # A Ctrl-C in the owner's terminal is the owner's to handle.
            process_group=0,
        )
    except OSError:
        for ours, _ in pairs:
            ours.close()
        raise
    finally:
        for _, theirs in pairs:
            theirs.close()
    trainers = []
    for index, (ours, _) in enumerate(pairs):
        reader, writer = await asyncio.open_unix_connection(sock=ours)
        owned = process if index == 0 else None
        trainers.append(TrainerProcess(owned, reader, writer, max_batch_s))
    return trainers


def _pairs(count: int) -> list[tuple[socket.socket, socket.socket]]:
    """All of them, or none: what lacks descriptors must not hold any that it does not use."""
    with contextlib.ExitStack() as stack:
        pairs = []
        for _ in range(count):
            pair = socket.socketpair()
            pairs.append(pair)
            for end in pair:
                stack.enter_context(end)
        stack.pop_all()
    return pairs


class TrainerProcess:
    """One running trainer. Made by `start_trainers`; must be closed.

    Each method that asks raises `TrainerExitedError` when the process has ended or ends meanwhile,
    and `TrainerRefusal` when it says no. A request is written before the first suspension, so that
    tasks that were started in order ask in that order.
    """

    def __init__(
        self,
        process: asyncio.subprocess.Process | None,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        max_batch_s: float,
    ) -> None:
        self.pid: int | None = None
        """None until torch is imported."""
        self.exit_reason: str | None = None
        """Why the process has ended, as the end of a sentence about it; None while it runs."""
        # Only the first of several is a child of ours; the others were forked from it.
        self._process = process
        self._reader, self._writer = reader, writer
        self._max_batch_s = max_batch_s
        self._ids = itertools.count(1)
        self._replies: dict[int, asyncio.Future[Reply]] = {}
        self._listeners: dict[int, tuple[Callable[[], None], Callable[[BatchLosses], None]]] = {}
        self._work: dict[int, str] = {}
        """Requests that keep the trainer busy, with their workers."""
        self._paused: set[str] = set()
        self._killed_because: str | None = None
        self._loop = asyncio.get_running_loop()
        reason = f"did not start within {START_S:g} s"
        self._alarm: asyncio.TimerHandle | None = self._loop.call_later(START_S, self.kill, reason)
        self._reading = self._loop.create_task(self._read())

    async def prepare(self, worker: WorkerSpec) -> WorkerReady:
        """Load the worker's data and graphs and try one batch."""
        return await self._work_on(PrepareWorker(next(self._ids), worker), WorkerReady)

    async def train(
        self,
        worker: WorkerSpec,
        *,
        model_path: str,
        model_id: str,
        update_path: str,
        cursor: Cursor,
        num_batches: int,
        torch_seed: int,
        on_begun: Callable[[], None],
        on_losses: Callable[[BatchLosses], None],
    ) -> RoundTrained:
        """Train; the update's file is written before this returns.

        Raises:
            RoundAbortedError: `abort` or `forget` ended it.
        """
        request = TrainRound(
            next(self._ids),
            worker,
            model_path,
            model_id,
            update_path,
            cursor,
            num_batches,
            torch_seed,
        )
        self._paused.discard(worker.worker_id)
        self._listeners[request.request_id] = on_begun, on_losses
        try:
            return await self._work_on(request, RoundTrained)
        finally:
            del self._listeners[request.request_id]

    async def evaluate(self, worker: WorkerSpec, model_path: str, model_id: str) -> ModelEvaluated:
        """Evaluate on the worker's holdout."""
        request = EvaluateModel(next(self._ids), worker, model_path, model_id)
        return await self._work_on(request, ModelEvaluated)

    async def pause(self, worker_id: str) -> None:
        """Stop the worker after its current batch, or before it begins.

        All losses of before have been heard when this returns.
        """
        await self._ask(PauseWorker(next(self._ids), worker_id), Done)
        self._paused.add(worker_id)
        self._watch()

    async def resume(self, worker_id: str) -> None:
        self._paused.discard(worker_id)
        self._watch()
        await self._ask(ResumeWorker(next(self._ids), worker_id), Done)

    async def abort(self, worker_id: str) -> None:
        """End the worker's round after its current batch; kill the trainer if it does not obey.

        All losses of before have been heard when this returns. Raises nothing.
        """
        self._paused.discard(worker_id)
        await self._stop(AbortWorker(next(self._ids), worker_id))

    async def forget(self, worker_id: str) -> None:
        """End whatever the worker is doing and drop its data and graphs; kill the trainer if it
        does not obey. Raises nothing.
        """
        self._paused.discard(worker_id)
        await self._stop(ForgetWorker(next(self._ids), worker_id))

    def kill(self, reason: str) -> None:
        """End the process at once. `reason` ends a sentence about it: "took too long"."""
        if self.exit_reason is not None:
            return
        self._killed_because = self._killed_because or reason
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                self._process.kill()
        elif self.pid is not None:
            # Its pid cannot be another's by now: nobody reaps it while its parent trainer lives.
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)
        else:
            self._writer.transport.abort()

    async def exited(self) -> str:
        """Wait until the process has ended, and say why."""
        await asyncio.shield(self._reading)
        assert self.exit_reason is not None
        return self.exit_reason

    async def close(self) -> None:
        """End the process, whatever it is doing, and wait for that."""
        # The trainer takes the end of its input as the end of its owner.
        with contextlib.suppress(OSError):
            self._writer.write_eof()
        try:
            async with asyncio.timeout(ABORT_S):
                await self.exited()
        except TimeoutError:
            self.kill("did not end when asked to")
            await self.exited()

    async def _stop(self, request: AbortWorker | ForgetWorker) -> None:
        try:
            async with asyncio.timeout(ABORT_S):
                await self._ask(request, Done)
        except TimeoutError:
            self.kill(f"did not stop within {ABORT_S:g} s")
            await self.exited()
        except TrainerExitedError:
            pass

    async def _work_on(
        self, request: PrepareWorker | TrainRound | EvaluateModel, answer: type[R]
    ) -> R:
        self._work[request.request_id] = request.worker.worker_id
        self._watch()
        try:
            return await self._ask(request, answer)
        finally:
            del self._work[request.request_id]
            self._watch()

    async def _ask(self, request: Request, answer: type[R]) -> R:
        if self.exit_reason is not None:
            raise TrainerExitedError(f"the trainer {self.exit_reason}")
        reply = self._replies[request.request_id] = self._loop.create_future()
        self._writer.write(frame(request))
        try:
            match await reply:
                case Failed(code=code, reason=reason):
                    raise TrainerRefusal(code, reason)
                case RoundAborted():
                    raise RoundAbortedError("the round was aborted")
                case found if isinstance(found, answer):
                    return found
                case found:
                    raise AssertionError(f"{answer.__name__} expected, {found} found")
        finally:
            self._replies.pop(request.request_id, None)

    def _watch(self) -> None:
        """Wait for the next sign of life from now on, if one is due."""
        if self.pid is None and self.exit_reason is None:
            # The alarm is still that of the start.
            return
        if self._alarm is not None:
            self._alarm.cancel()
            self._alarm = None
        if self.exit_reason is None and set(self._work.values()) - self._paused:
            silence_s = max(SILENCE_S, 10 * self._max_batch_s)
            reason = f"did not get on within {silence_s:g} s"
            self._alarm = self._loop.call_later(silence_s, self.kill, reason)

    async def _read(self) -> None:
        ending = "ended"
        try:
            while True:
                (size,) = LENGTH.unpack(await self._reader.readexactly(LENGTH.size))
                if size > MAX_PIPE_FRAME_BYTES:
                    raise msgspec.DecodeError(f"a frame of {size} bytes")
                self._take(decode_from_trainer(await self._reader.readexactly(size)))
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        except msgspec.DecodeError as error:
            self.kill(f"sent what cannot be read ({error})")
        finally:
            self._writer.close()
        if self._process is not None:
            ending = _ending(await self._process.wait(), self._max_batch_s)
        self.exit_reason = self._killed_because or ending
        self._watch()
        for reply in self._replies.values():
            if not reply.done():
                reply.set_exception(TrainerExitedError(f"the trainer {self.exit_reason}"))

    def _take(self, message: FromTrainer) -> None:
        if isinstance(message, Started):
            self.pid = message.pid
        self._watch()
        match message:
            case RoundBegun(request_id=request_id):
                if request_id in self._listeners:
                    self._listeners[request_id][0]()
            case BatchLosses(request_id=request_id):
                if request_id in self._listeners:
                    self._listeners[request_id][1](message)
            case Started() | Alive():
                pass
            case _:
                reply = self._replies.get(message.request_id)
                if reply is not None and not reply.done():
                    reply.set_result(message)


def _ending(exit_code: int, max_batch_s: float) -> str:
    if exit_code == -signal.SIGPROF:
        return f"took more than {max_batch_s:g} s for one batch"
    if exit_code == -signal.SIGKILL:
        return "was killed (by the system, if memory ran out)"
    if exit_code < 0:
        return f"was ended by {signal.Signals(-exit_code).name}"
    return f"ended with exit code {exit_code}"
