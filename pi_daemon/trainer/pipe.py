"""What a trainer process and its owner say to each other: length-prefixed msgpack over a socketpair.

Tensors never pass here: they lie in safetensors files whose paths do. Both ends run as one user on
one machine, so nothing here is versioned.
"""

from __future__ import annotations

import struct
from typing import Final

import msgspec
from msgspec import Struct

from pi_daemon.protocol.errors import UNREADABLE
from pi_daemon.protocol.graphs import OptimizerSpec
from pi_daemon.protocol.messages import Cursor, RefusalCode

LENGTH: Final = struct.Struct(">I")
MAX_PIPE_FRAME_BYTES: Final = 64 << 20
"""Far above any honest frame; a larger length means that the stream is out of step."""


class WorkerSpec(Struct, frozen=True):
    """All that a trainer must know to train as one worker; it travels with each request.

    So a trainer that was started anew needs no other preparation than the next request.
    """

    worker_id: str
    """One trainer serves several workers if they are virtual."""
    dataset: str
    source: str
    """As in `--dataset NAME=SOURCE`."""
    shard: str | None
    """As in `--shard`; None: all of the source."""
    sample_shape: tuple[int, ...]
    sample_dtype: str
    num_classes: int | None
    batch_size: int
    holdout: float
    order_seed: int
    optimizer: OptimizerSpec
    graphs_path: str
    graphs_sha256: str
    """Workers with equal graphs share the compiled ones."""


# Requests: owner -> trainer; each is answered once


class PrepareWorker(Struct, frozen=True, tag=True):
    """Load data and graphs, try one batch. Answer: `WorkerReady` or `Failed`."""

    request_id: int
    worker: WorkerSpec


class TrainRound(Struct, frozen=True, tag=True):
    """Answer: `RoundTrained`, `RoundAborted` or `Failed`; before it, `RoundBegun` and losses."""

    request_id: int
    worker: WorkerSpec
    model_path: str
    model_id: str
    """What the file must hold."""
    update_path: str
    """Where the update is to be written."""
    cursor: Cursor
    num_batches: int
    torch_seed: int


class EvaluateModel(Struct, frozen=True, tag=True):
    """Evaluate on the worker's holdout. Answer: `ModelEvaluated` or `Failed`."""

    request_id: int
    worker: WorkerSpec
    model_path: str
    model_id: str


class PauseWorker(Struct, frozen=True, tag=True):
    """Answer: `Done`, after the losses of the last batch. Nothing to pause is no error."""

    request_id: int
    worker_id: str


class ResumeWorker(Struct, frozen=True, tag=True):
    """Answer: `Done`."""

    request_id: int
    worker_id: str


class AbortWorker(Struct, frozen=True, tag=True):
    """Answer: `Done`, after the losses of the last batch and after `RoundAborted`."""

    request_id: int
    worker_id: str


class ForgetWorker(Struct, frozen=True, tag=True):
    """Abort what the worker does and drop its data and graphs. Answer: `Done`, when it has stopped."""

    request_id: int
    worker_id: str


Request = (
    PrepareWorker
    | TrainRound
    | EvaluateModel
    | PauseWorker
    | ResumeWorker
    | AbortWorker
    | ForgetWorker
)


# Replies: trainer -> owner


class Done(Struct, frozen=True, tag=True):
    request_id: int


class Failed(Struct, frozen=True, tag=True):
    """The request was not carried out; the trainer goes on."""

    request_id: int
    code: RefusalCode
    reason: str


class WorkerReady(Struct, frozen=True, tag=True):
    request_id: int
    num_examples: int
    """For training, the holdout taken off."""
    num_holdout: int
    batch_seconds: float
    """Time of one training batch, the first one (which loads libraries) not counted."""
    memory_bytes: int
    """Estimated peak for tensors."""


class RoundTrained(Struct, frozen=True, tag=True):
    """The update lies at `TrainRound.update_path`."""

    request_id: int
    num_examples: int
    num_batches: int
    loss: float | None
    """Mean over the batches; None when one was not finite."""
    seconds: float
    """Pauses taken off."""
    cursor: Cursor
    update_bytes: int
    update_sha256: str


class RoundAborted(Struct, frozen=True, tag=True):
    request_id: int


class ModelEvaluated(Struct, frozen=True, tag=True):
    request_id: int
    num_examples: int
    loss: float | None
    confusion: tuple[tuple[int, ...], ...] | None


Reply = Done | Failed | WorkerReady | RoundTrained | RoundAborted | ModelEvaluated


# Told by the trainer, without being asked


class Started(Struct, frozen=True, tag=True):
    """The first frame of every trainer: torch is imported."""

    pid: int


class RoundBegun(Struct, frozen=True, tag=True):
    """Model and data are checked; the first batch follows."""

    request_id: int


class BatchLosses(Struct, frozen=True, tag=True):
    """Losses of batches just trained, in order, none left out."""

    request_id: int
    first: int
    """Index in this round of the first of them."""
    losses: tuple[float | None, ...]


class Alive(Struct, frozen=True, tag=True):
    """A long evaluation goes on."""

    request_id: int


FromTrainer = Reply | Started | RoundBegun | BatchLosses | Alive

_encoder = msgspec.msgpack.Encoder()
request_decoder: Final[msgspec.msgpack.Decoder[Request]] = msgspec.msgpack.Decoder(Request)
_from_trainer: Final[msgspec.msgpack.Decoder[FromTrainer]] = msgspec.msgpack.Decoder(FromTrainer)


def decode_from_trainer(body: bytes) -> FromTrainer:
    """Read a frame without its length. Raises msgspec.DecodeError: a trainer's memory may be spoilt."""
    try:
        return _from_trainer.decode(body)
    except UNREADABLE as error:
        raise msgspec.DecodeError(str(error)) from error


def frame(message: Request | FromTrainer) -> bytes:
    body = _encoder.encode(message)
    return LENGTH.pack(len(body)) + body
