"""Every message between a console and a daemon, and nothing else.

A message is one JSON text frame with a `type`. Commands go from the console to the daemon and carry
`cmd_id`, `run` and `fence`; each is answered once, by `ok`, `refused` or its own answer, with the
same `cmd_id`. Everything else tells and expects no answer. docs/protocol.md has the same order.
"""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta, Struct

from pi_daemon.protocol.graphs import OptimizerSpec
from pi_daemon.protocol.limits import (
    MAX_CLASSES,
    MAX_DIMENSIONS,
    MAX_LOSSES,
    MAX_MODEL_BYTES,
)
from pi_daemon.protocol.values import Blob as Blob
from pi_daemon.protocol.values import Capabilities as Capabilities
from pi_daemon.protocol.values import (
    Count,
    DatasetCards,
    DatasetName,
    Digest,
    Loss,
    Name,
    PerClass,
    Positive,
    Reading,
    Seconds,
    Seed,
    Text,
)
from pi_daemon.protocol.values import Cursor as Cursor
from pi_daemon.protocol.values import DatasetCard as DatasetCard
from pi_daemon.protocol.values import DeviceState as DeviceState
from pi_daemon.protocol.values import DeviceStatus as DeviceStatus
from pi_daemon.protocol.values import RefusalCode as RefusalCode
from pi_daemon.protocol.values import Role as Role

# First on every link, in both directions


class Hello(Struct, frozen=True, tag="hello"):
    """Who is there. The only message that every version of the protocol can read.

    Both sides send it at once, unasked. The version spoken is the highest that both have; if there
    is none, each closes with 4406.
    """

    proto: Positive
    min_proto: Positive
    id: Name
    """Device id (daemon) or console id."""
    name: Name
    """A label for people: the worker's name, the console's host name."""
    boot_id: Name
    """New at each start of the process: a restart is no reconnect."""
    build: Name
    role: Role | None = None
    """Console only."""
    capabilities: Capabilities | None = None
    """Daemon only, as the two below."""
    status: DeviceStatus | None = None
    datasets: DatasetCards = ()


# Commands: console -> daemon


class Command(Struct, frozen=True, kw_only=True):
    cmd_id: Name
    """Chosen by the console. A repeated one gets its first answer again and does nothing."""
    run: Name
    fence: Count


class TakeLease(Command, frozen=True, kw_only=True, tag="lease.take"):
    """Become the controller. Answer: `ok`, or `refused` (held, stale_fence).

    The same run with the same fence takes its lease again after a reconnect.
    """

    take_over: bool = False
    """Replace a controller whose lease is still valid; needs a higher fence."""
    trains: bool = True
    """The run will train: the device may load at once what that takes. False: data is dealt."""


class RenewLease(Command, frozen=True, kw_only=True, tag="lease.renew"):
    """Keep the lease: every 5 s; it lasts 15. Answer: `ok`."""


class ReleaseLease(Command, frozen=True, kw_only=True, tag="lease.release"):
    """The run has ended here: forget its graphs, model and update. Answer: `ok`."""


class Prepare(Command, frozen=True, kw_only=True, tag="run.prepare"):
    """Make ready to train one model on one dataset. Answer: `run.prepared`.

    Repeated with the same graphs after a reconnect, it changes nothing.
    """

    worker_id: Name
    """This worker's name in the run."""
    dataset: Name
    sample_shape: Annotated[tuple[Count, ...], Meta(max_length=MAX_DIMENSIONS)]
    """What the model takes; the dataset's card must say the same."""
    sample_dtype: Name
    num_classes: Annotated[int, Meta(ge=1, le=MAX_CLASSES)] | None
    batch_size: Positive
    holdout: Annotated[float, Meta(ge=0, lt=1)]
    """Share of the worker's examples that is kept from training, for evaluation."""
    order_seed: Seed
    optimizer: OptimizerSpec
    graphs: Blob


class StartRound(Command, frozen=True, kw_only=True, tag="round.start"):
    """Train on some batches from the given model on. Answer: `ok` when training has begun.

    A device that is at this round already, from the same model and cursor, goes on with it.
    """

    round: Positive
    attempt: Positive
    model_id: Digest
    model: Blob | None
    """None: the device holds that model."""
    cursor: Cursor
    num_batches: Positive
    torch_seed: Seed
    """Of torch's generator: what dropout draws."""


class Pause(Command, frozen=True, kw_only=True, tag="round.pause"):
    """Stop after the current batch and keep everything. Answer: `ok`, after the last batch."""

    round: Positive


class Resume(Command, frozen=True, kw_only=True, tag="round.resume"):
    """Go on after a pause. Answer: `ok`, or `refused` (no_state)."""

    round: Positive


class Abort(Command, frozen=True, kw_only=True, tag="round.abort"):
    """Stop after the current batch and forget the round. Answer: `ok`, after the last batch."""

    round: Positive


class Evaluate(Command, frozen=True, kw_only=True, tag="evaluate"):
    """Evaluate a model on the worker's holdout. Answer: `evaluated`."""

    round: Count
    model_id: Digest
    model: Blob | None


class AcceptUpdate(Command, frozen=True, kw_only=True, tag="update.accept"):
    """The update is safe on disk: forget it. Answer: `ok`."""

    round: Positive
    attempt: Positive


class RefuseUpdate(Command, frozen=True, kw_only=True, tag="update.refuse"):
    """The update will never count: forget it. Answer: `ok`."""

    round: Positive
    attempt: Positive
    reason: Text


class OfferData(Command, frozen=True, kw_only=True, tag="data.offer"):
    """Ask whether the device takes a dataset. Answer: `data.offset`."""

    name: DatasetName
    size: Annotated[int, Meta(ge=1, le=MAX_MODEL_BYTES)]
    """Bytes of its file: safetensors with x, y and perhaps record."""
    sha256: Digest
    """Of the file."""
    replace: bool = False
    """Put it in the place of one with this name and other content."""


class PutData(Command, frozen=True, kw_only=True, tag="data.put"):
    """Bring the rest of the dataset that was offered last. Answer: `data.stored`."""

    sha256: Digest
    """Of the whole file, as it was offered."""
    offset: Count
    """Where the rest begins: as the device said."""
    rest: Blob


# Answers: daemon -> console


class Ok(Struct, frozen=True, tag="ok"):
    cmd_id: Name


class Refused(Struct, frozen=True, tag="refused"):
    cmd_id: Name
    code: RefusalCode
    reason: Text
    limit: Name | None = None
    """The bound of the device's owner that it would be over: its key in the daemon's configuration."""


class Prepared(Struct, frozen=True, tag="run.prepared"):
    """Ready for rounds; one batch was tried and timed."""

    cmd_id: Name
    num_examples: Count
    """For training, the holdout taken off."""
    num_holdout: Count
    batch_seconds: Seconds
    memory_bytes: Count
    """Estimated peak of the training process for tensors."""


class Evaluated(Struct, frozen=True, tag="evaluated"):
    cmd_id: Name
    round: Count
    num_examples: Count
    loss: Loss
    """Mean over the examples."""
    confusion: Annotated[tuple[PerClass, ...], Meta(max_length=MAX_CLASSES)] | None = None
    """Row: true class, column: predicted class; None when the targets are no classes."""


class DataOffset(Struct, frozen=True, tag="data.offset"):
    """The device takes the dataset that was offered."""

    cmd_id: Name
    offset: Count
    """Bytes of it that are here already, from a transfer that was cut."""
    card: DatasetCard | None = None
    """Not None: it is here, and there is nothing to send."""


class DataStored(Struct, frozen=True, tag="data.stored"):
    """The dataset is on the device's disk and can be trained on."""

    cmd_id: Name
    card: DatasetCard


# Told by the daemon, without an answer


class Status(Struct, frozen=True, tag="status"):
    """Sent on every link when it changes."""

    status: DeviceStatus


class Datasets(Struct, frozen=True, tag="datasets"):
    """What the device has data of. Sent on every link when it changes."""

    datasets: DatasetCards


class Batches(Struct, frozen=True, tag="round.batches"):
    """Losses of batches just trained, in order, none left out."""

    run: Name
    round: Positive
    attempt: Positive
    first: Count
    """Index in this round of the first of them."""
    num_batches: Positive
    """Of the whole round."""
    losses: Annotated[tuple[Loss, ...], Meta(min_length=1, max_length=MAX_LOSSES)]


class Update(Struct, frozen=True, tag="round.update"):
    """The end of local training. Sent again after a reconnect until it is accepted or refused."""

    run: Name
    round: Positive
    attempt: Positive
    model_id: Digest
    """The model that the training began with."""
    num_examples: Positive
    """Examples trained on, repeats counted."""
    num_batches: Positive
    loss: Loss
    """Mean over the batches."""
    seconds: Seconds
    """Time spent training, pauses taken off."""
    cursor: Cursor
    """Where the next round would go on."""
    parameters: Blob
    """safetensors: all parameters, and the buffers that training changes."""


class RoundFailed(Struct, frozen=True, tag="round.failed"):
    """Training stopped and there will be no update of this attempt."""

    run: Name
    round: Positive
    attempt: Positive
    reason: Text
    limit: Name | None = None
    """As of `Refused`: it is over, so that this run gets no further round here."""


class Telemetry(Struct, frozen=True, tag="telemetry"):
    """The device's health, every 2 s. None: not available on this device."""

    celsius: Reading | None
    throttled: Count | None
    """Bits of `vcgencmd get_throttled`."""
    memory_bytes: Count
    """In use on the whole device."""
    memory_total_bytes: Count
    disk_free_bytes: Count
    load: Reading | None
    """Run queue, mean of one minute."""
    swap_bytes: Count | None = None
    """In use."""
    clock: Annotated[float, Meta(ge=0, le=1e12)] | None = None
    """Of its wall, in seconds since 1970. Nothing may depend on it: it is told to be compared."""


class Log(Struct, frozen=True, tag="log"):
    level: Literal["debug", "info", "warning", "error"]
    text: Text


FromConsole = (
    Hello
    | TakeLease
    | RenewLease
    | ReleaseLease
    | Prepare
    | StartRound
    | Pause
    | Resume
    | Abort
    | Evaluate
    | AcceptUpdate
    | RefuseUpdate
    | OfferData
    | PutData
)
Answer = Ok | Refused | Prepared | Evaluated | DataOffset | DataStored
FromDaemon = Hello | Answer | Status | Datasets | Batches | Update | RoundFailed | Telemetry | Log
