"""Runs a model's graphs on trial, without data, in a process that is thrown away afterwards.

Torch's shape machinery, which that loads, takes 50 MB that a small device has better uses for; and
a graph that would hang or crash takes only the trial with it.
"""

from __future__ import annotations

import ctypes
import os
import resource
import signal
from collections.abc import Set as AbstractSet
from contextlib import suppress
from multiprocessing.connection import Connection, Pipe, wait
from typing import Final

import msgspec
import torch

from pi_daemon.learning.graph import GraphRunError
from pi_daemon.learning.memory import (
    GraphTooLargeError,
    evaluation_peak_bytes,
    training_peak_bytes,
)
from pi_daemon.learning.no_compiler import leave_out_the_compiler
from pi_daemon.protocol.graphs import GraphError, ModelGraphs, OptimizerSpec
from pi_daemon.protocol.messages import RefusalCode

TRIAL_CPU_S: Final = 120
_PR_SET_PDEATHSIG: Final = 1
EVALUATION_BATCH_SIZES: Final = (1000, 250, 50, 10, 1)
"""Tried in this order until one fits into memory."""


class Refusal(Exception):
    """A request that cannot be carried out; the trainer goes on."""

    def __init__(self, code: RefusalCode, reason: str) -> None:
        super().__init__(reason)
        self.code = code


class Needs(msgspec.Struct, frozen=True, tag=True):
    """What a trial has shown."""

    memory_bytes: int
    """Peak of training, as `training_peak_bytes`."""
    evaluation_batch_size: int


class _Refused(msgspec.Struct, frozen=True, tag=True):
    code: RefusalCode
    reason: str


class _Request(msgspec.Struct, frozen=True):
    graphs: ModelGraphs
    optimizer: OptimizerSpec
    batch_sizes: tuple[int, ...]
    num_holdout: int
    limit_bytes: int


_request_decoder = msgspec.msgpack.Decoder(_Request)
_answer_decoder = msgspec.msgpack.Decoder(Needs | _Refused)
_CRASHED: Final = msgspec.msgpack.encode(
    _Refused(
        RefusalCode.BAD_GRAPH,
        "the graphs crashed on trial, or took too long or too much memory",
    )
)


class Trials:
    """One trainer's way to the process that tries graphs. Made by `start_trials`."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def run(
        self,
        graphs: ModelGraphs,
        optimizer: OptimizerSpec,
        batch_sizes: AbstractSet[int],
        num_holdout: int,
        limit_bytes: int,
    ) -> Needs:
        """Train on batches of these sizes, evaluate on those that so many examples make.

        Raises:
            Refusal: they do not run, or do not fit into `limit_bytes`.
            SystemExit: nothing can be tried any more.
        """
        sizes = tuple(sorted(batch_sizes))
        request = _Request(graphs, optimizer, sizes, num_holdout, limit_bytes)
        try:
            self._connection.send_bytes(msgspec.msgpack.encode(request))
            answer: Needs | _Refused = _answer_decoder.decode(self._connection.recv_bytes())
        except (OSError, EOFError) as error:
            # This process can start no other one any more; its owner starts another of this.
            raise SystemExit("the process that tries graphs has ended") from error
        if isinstance(answer, _Refused):
            raise Refusal(answer.code, answer.reason)
        return answer

    def close(self) -> None:
        """Let go of it in a process that does not use it."""
        self._connection.close()


def start_trials(num_trainers: int) -> list[Trials]:
    """Start the process that tries graphs for this one and for trainers that are forked from it.

    Call it before this process runs anything of torch's and starts any thread: it forks. Torch cannot
    be relied on in a process forked from one that has trained already, so the trials are forked from
    one that never does anything else. It ends with the last of those that use it.
    """
    pairs = [Pipe() for _ in range(num_trainers)]
    theirs = [other for _, other in pairs]
    if os.fork() == 0:
        # Whatever happens, this copy of the process ends here.
        try:
            _close_all_but(theirs)
            _serve(theirs)
        finally:
            os._exit(1)
    for other in theirs:
        other.close()
    return [Trials(ours) for ours, _ in pairs]


def _close_all_but(connections: list[Connection]) -> None:
    # Above all the pipe to the trainer's owner, who takes its end for the trainer's.
    begin = 3
    for fd in sorted(connection.fileno() for connection in connections):
        os.closerange(begin, fd)
        begin = fd + 1
    os.closerange(begin, os.sysconf("SC_OPEN_MAX"))


def _end_with(parent: int) -> None:
    """From now on the kernel kills this process when its parent has ended, however that came."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)


def _serve(connections: list[Connection]) -> None:
    # The first one starts now, so that what it imports is there when the graphs come.
    attempt: _Attempt | None = _Attempt()
    request = answer = b""
    while connections:
        for connection in wait(connections):
            assert isinstance(connection, Connection)
            try:
                asked = connection.recv_bytes()
            except EOFError:
                connections.remove(connection)
                continue
            if asked != request or not answer:
                request, answer = asked, (attempt or _Attempt()).answer(asked, connection)
                attempt = None
            with suppress(OSError):
                connection.send_bytes(answer or _CRASHED)


class _Attempt:
    """A process that waits for one request, and ends with it."""

    def __init__(self) -> None:
        self._connection, other = Pipe()
        parent = os.getpid()
        self._pid = os.fork()
        if self._pid == 0:
            try:
                _end_with(parent)
                _close_all_but([other])
                resource.setrlimit(resource.RLIMIT_CPU, (TRIAL_CPU_S, TRIAL_CPU_S))
                leave_out_the_compiler()
                # Torch would import it with the first shapes that it computes; it takes half a second.
                import torch.fx.experimental.symbolic_shapes  # noqa: F401

                request = _request_decoder.decode(other.recv_bytes())
                other.send_bytes(msgspec.msgpack.encode(_try(request)))
            finally:
                os._exit(0)
        other.close()

    def answer(self, request: bytes, asking: Connection) -> bytes:
        """What came of it; nothing if the process has ended over it, or was ended with who asks."""
        try:
            self._connection.send_bytes(request)
            # Who asks sends nothing more until it is answered: its connection only wakes at its end.
            if self._connection in wait([self._connection, asking]):
                return self._connection.recv_bytes()
            return b""
        except (OSError, EOFError):
            return b""
        finally:
            # It has answered, or nobody wants it any more.
            os.kill(self._pid, signal.SIGKILL)
            self._connection.close()
            os.waitpid(self._pid, 0)


def _try(request: _Request) -> Needs | _Refused:
    # Here rather than in autograd's threads, where the forked thread pool would be mended twice.
    torch.set_num_threads(1)
    graphs, limit_bytes = request.graphs, request.limit_bytes
    try:
        memory_bytes = max(
            training_peak_bytes(graphs, request.optimizer, size, limit_bytes)
            for size in request.batch_sizes
        )
        for size in EVALUATION_BATCH_SIZES:
            try:
                # Each that will run: a graph can make its sizes depend on the batch in any way.
                for num_samples in _evaluated_at_once(request.num_holdout, size):
                    evaluation_peak_bytes(graphs, num_samples, limit_bytes)
            except GraphTooLargeError:
                continue
            return Needs(memory_bytes, size)
        return _Refused(RefusalCode.TOO_LARGE, "the evaluation graph does not fit into memory")
    except GraphTooLargeError as error:
        return _Refused(RefusalCode.TOO_LARGE, str(error))
    except (GraphError, GraphRunError) as error:
        return _Refused(RefusalCode.BAD_GRAPH, str(error))


def _evaluated_at_once(num_holdout: int, size: int) -> AbstractSet[int]:
    """The numbers of examples in the batches of an evaluation; of some evaluation, if there is none."""
    return {min(size, num_holdout), num_holdout % size} - {0} or {size}
