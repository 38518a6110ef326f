"""The training process: does what its owner asks over a pipe, and ends when its owner does.

`python -m pi_daemon.trainer FD ...` imports torch once and forks one trainer for each further
descriptor. A thread reads the pipe, so that a pause or an abort reaches a batch loop at once.
"""

from __future__ import annotations

import argparse
import logging
import os
import resource
import socket
import threading
import time
from dataclasses import dataclass, field
from typing import Final, assert_never

import torch

from pi_daemon.learning.batch_limit import BatchLimit
from pi_daemon.learning.evaluation import evaluate
from pi_daemon.learning.files import write_update
from pi_daemon.learning.graph import GraphRunError
from pi_daemon.learning.local_training import LocalTraining
from pi_daemon.learning.trial import Refusal, start_trials
from pi_daemon.learning.worker import Workshop
from pi_daemon.protocol.graphs import GraphError
from pi_daemon.protocol.limits import MAX_TEXT
from pi_daemon.protocol.messages import RefusalCode
from pi_daemon.protocol.text import clean
from pi_daemon.trainer.pipe import (
    LENGTH,
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
    frame,
    request_decoder,
)

log = logging.getLogger(__name__)

REPORT_S: Final = 0.1
"""Losses are told in groups at least this far apart."""


@dataclass(eq=False, slots=True)
class Job:
    """One request that takes time; a round that was paused keeps its training here."""

    request: PrepareWorker | TrainRound | EvaluateModel | ForgetWorker
    is_aborted: bool = False
    stops: list[int] = field(default_factory=list)
    """Pauses and aborts to answer once the batch loop has stopped."""
    training: LocalTraining | None = None
    losses: list[float | None] = field(default_factory=list)
    """Of every batch of the round."""
    num_told: int = 0
    seconds: float = 0.0

    @property
    def worker_id(self) -> str:
        request = self.request
        return request.worker_id if isinstance(request, ForgetWorker) else request.worker.worker_id


class Pipe:
    """The socket to the owner. When the owner is gone, so is this process."""

    def __init__(self, connection: socket.socket) -> None:
        self._socket = connection
        self._reader = connection.makefile("rb")
        self._sending = threading.Lock()

    def send(self, message: FromTrainer) -> None:
        try:
            with self._sending:
                self._socket.sendall(frame(message))
        except OSError:
            os._exit(0)

    def receive(self) -> Request:
        head = self._reader.read(LENGTH.size)
        if len(head) < LENGTH.size:
            os._exit(0)
        request: Request = request_decoder.decode(self._reader.read(LENGTH.unpack(head)[0]))
        return request


class Trainer:
    """Works its jobs off one after the other; a paused round waits while others go on."""

    def __init__(self, pipe: Pipe, workshop: Workshop) -> None:
        self._pipe = pipe
        self._workshop = workshop
        self._changed = threading.Condition()
        """Guards the three below."""
        self._jobs: list[Job] = []
        """In order of arrival, the running one included."""
        self._running: Job | None = None
        self._paused: set[str] = set()

    def run(self) -> None:
        """Never returns."""
        self._pipe.send(Started(os.getpid()))
        threading.Thread(target=self._read, daemon=True).start()
        while True:
            job = self._next()
            reply = self._carry_out(job)
            with self._changed:
                self._running = None
                if job.is_aborted:
                    reply = _broken_off(job.request)
                if reply is not None or isinstance(job.request, ForgetWorker):
                    self._jobs.remove(job)
                stops, job.stops = job.stops, []
            for message in (reply, *map(Done, stops)):
                if message is not None:
                    self._pipe.send(message)

    # On the reading thread

    def _read(self) -> None:
        try:
            while True:
                request = self._pipe.receive()
                with self._changed:
                    for reply in self._take(request):
                        self._pipe.send(reply)
                    self._changed.notify()
        finally:
            # An owner that was killed resets the pipe; without a reader nothing could end this.
            os._exit(1)

    def _take(self, request: Request) -> list[Reply]:
        """Queue work, steer the running job; what can be answered at once is returned."""
        match request:
            case PrepareWorker() | EvaluateModel():
                self._jobs.append(Job(request))
                return []
            case TrainRound():
                self._paused.discard(request.worker.worker_id)
                self._jobs.append(Job(request))
                return []
            case PauseWorker(request_id=request_id, worker_id=worker_id):
                self._paused.add(worker_id)
                return self._stop(request_id, worker_id, abort=False)
            case ResumeWorker(request_id=request_id, worker_id=worker_id):
                self._paused.discard(worker_id)
                return [Done(request_id)]
            case AbortWorker(request_id=request_id, worker_id=worker_id):
                return self._stop(request_id, worker_id, abort=True)
            case ForgetWorker(request_id=request_id, worker_id=worker_id):
                every = (PrepareWorker, TrainRound, EvaluateModel)
                replies = self._stop(request_id, worker_id, abort=True, kinds=every)
                self._jobs.append(Job(request))
                return replies
            case _:
                assert_never(request)

    def _stop(
        self,
        request_id: int,
        worker_id: str,
        *,
        abort: bool,
        kinds: tuple[type, ...] = (TrainRound,),
    ) -> list[Reply]:
        found = [
            job
            for job in self._jobs
            if isinstance(job.request, kinds) and job.worker_id == worker_id
        ]
        replies: list[Reply] = []
        if abort:
            self._paused.discard(worker_id)
            for job in found:
                if job is self._running:
                    job.is_aborted = True
                else:
                    self._jobs.remove(job)
                    replies.append(_broken_off(job.request))
        if self._running in found and self._running is not None:
            self._running.stops.append(request_id)
            return replies
        return [*replies, Done(request_id)]

    # On the main thread

    def _next(self) -> Job:
        with self._changed:
            while True:
                for job in self._jobs:
                    if not (isinstance(job.request, TrainRound) and job.worker_id in self._paused):
                        self._running = job
                        return job
                self._changed.wait()

    def _carry_out(self, job: Job) -> Reply | None:
        """Give the job's answer, or None when it has none, or none yet because it was stopped."""
        request = job.request
        try:
            match request:
                case PrepareWorker():
                    return self._prepare(request)
                case TrainRound():
                    return self._train(job, request)
                case EvaluateModel():
                    return self._evaluate(request)
                case ForgetWorker():
                    self._workshop.forget(request.worker_id)
                    return None
                case _:
                    assert_never(request)
        except Refusal as error:
            return _failed(request, error.code, str(error))
        except GraphError as error:
            return _failed(request, RefusalCode.BAD_GRAPH, str(error))
        except GraphRunError as error:
            log.warning("%s", clean(str(error), MAX_TEXT))
            # No example is computed with to make a worker ready.
            is_told = isinstance(request, PrepareWorker)
            reason = str(error) if is_told else error.without_values
            return _failed(request, RefusalCode.BAD_GRAPH, reason)
        except MemoryError:
            return _failed(request, RefusalCode.TOO_LARGE, "memory ran out")
        except Exception as error:
            # The trainer outlives whatever a model and its data can raise.
            # Of its text nobody knows which examples it quotes.
            log.warning("%s: %s", type(error).__name__, clean(str(error), MAX_TEXT))
            reason = f"{type(error).__name__}; the device's own log says more"
            return _failed(request, RefusalCode.TRAINER_FAILED, reason)

    def _prepare(self, request: PrepareWorker) -> WorkerReady:
        worker = self._workshop.worker(request.worker)
        return WorkerReady(
            request.request_id,
            num_examples=len(worker.training.rows),
            num_holdout=len(worker.holdout.rows),
            batch_seconds=self._workshop.batch_seconds(worker),
            memory_bytes=worker.needs.memory_bytes,
        )

    def _train(self, job: Job, request: TrainRound) -> Reply | None:
        worker = self._workshop.worker(request.worker)
        training = job.training
        if training is None:
            model = self._workshop.model(worker, request.model_path, request.model_id)
            try:
                training = job.training = worker.begin(
                    model, request.cursor, request.torch_seed, self._workshop.device
                )
            except ValueError as error:
                raise Refusal(RefusalCode.DATASET_MISMATCH, str(error)) from error
            self._pipe.send(RoundBegun(request.request_id))
        else:
            training.proceed()
        start_s = told_s = time.monotonic()
        while len(job.losses) < request.num_batches and not job.stops:
            with self._workshop.limit:
                job.losses.append(training.step())
            now_s = time.monotonic()
            if now_s - told_s >= REPORT_S:
                self._tell_losses(job)
                told_s = now_s
        job.seconds += time.monotonic() - start_s
        if len(job.losses) < request.num_batches:
            self._tell_losses(job)
            training.suspend()
            return None
        size, sha256 = write_update(
            request.update_path,
            worker.programs.returned,
            training.parameters | training.buffers,
        )
        # Not before: the owner of many short rounds is then woken once for both.
        self._tell_losses(job)
        losses = [loss for loss in job.losses if loss is not None]
        return RoundTrained(
            request.request_id,
            num_examples=training.num_examples,
            num_batches=len(job.losses),
            loss=sum(losses) / len(losses) if len(losses) == len(job.losses) else None,
            seconds=job.seconds,
            cursor=training.cursor,
            update_bytes=size,
            update_sha256=sha256,
        )

    def _tell_losses(self, job: Job) -> None:
        if job.num_told < len(job.losses):
            losses = tuple(job.losses[job.num_told :])
            self._pipe.send(BatchLosses(job.request.request_id, job.num_told, losses))
            job.num_told = len(job.losses)

    def _evaluate(self, request: EvaluateModel) -> ModelEvaluated:
        worker = self._workshop.worker(request.worker)
        model = self._workshop.model(worker, request.model_path, request.model_id)
        device = self._workshop.device
        x, y = worker.holdout.take(torch.arange(len(worker.holdout.rows)), torch.device("cpu"))

        def on_batch() -> None:
            self._workshop.limit.begin_anew()
            self._pipe.send(Alive(request.request_id))

        with self._workshop.limit:
            found = evaluate(
                worker.programs.evaluation,
                {name: tensor.to(device) for name, tensor in model.parameters.items()},
                {name: tensor.to(device) for name, tensor in model.buffers.items()},
                x,
                y,
                batch_size=worker.needs.evaluation_batch_size,
                num_classes=request.worker.num_classes,
                on_batch=on_batch,
            )
        return ModelEvaluated(request.request_id, found.num_examples, found.loss, found.confusion)


def _broken_off(request: Request) -> Reply:
    if isinstance(request, TrainRound):
        return RoundAborted(request.request_id)
    return _failed(request, RefusalCode.WRONG_STATE, "the run has ended here")


def _failed(request: Request, code: RefusalCode, reason: str) -> Failed:
    # A reason may quote a graph, which has names of any length.
    return Failed(request.request_id, code, reason[:MAX_TEXT])


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("fds", type=int, nargs="+")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--max-memory", type=int)
    parser.add_argument("--max-batch", type=float, required=True)
    options = parser.parse_args()
    max_memory_bytes = options.max_memory
    if max_memory_bytes is None:
        max_memory_bytes = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    else:
        # Not RLIMIT_AS: torch maps far more than it uses.
        resource.setrlimit(resource.RLIMIT_DATA, (max_memory_bytes, max_memory_bytes))
    trials = start_trials(len(options.fds))
    mine = _fork_others(len(options.fds))
    for index, fd in enumerate(options.fds):
        if index != mine:
            os.close(fd)
            trials[index].close()
    torch.set_num_threads(1)
    limit = BatchLimit(options.max_batch)
    workshop = Workshop(trials[mine], torch.device(options.device), max_memory_bytes, limit)
    Trainer(Pipe(socket.socket(fileno=options.fds[mine])), workshop).run()


def _fork_others(num_trainers: int) -> int:
    """Fork all trainers but the first; give the number of this one, from 0.

    The forked are never waited for, so that a pid stays theirs as long as this process lives.
    """
    for index in range(1, num_trainers):
        if os.fork() == 0:
            return index
    return 0


if __name__ == "__main__":
    main()
