"""What `device.Device` wants done; `server` does it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from msgspec import Struct

from pi_daemon.protocol.messages import (
    Abort,
    Blob,
    Evaluate,
    FromDaemon,
    OfferData,
    Pause,
    Prepare,
    Resume,
    StartRound,
    Update,
)
from pi_daemon.trainer.pipe import RoundTrained

ControlCommand = Pause | Resume | Abort


@dataclass(frozen=True, slots=True)
class Tell:
    link: int | None
    """None: all links."""
    message: FromDaemon


class Fence(Struct, frozen=True):
    """The highest one so far, and the run that brought it."""

    fence: int = 0
    run: str = ""
    console: str = ""
    """Id of the key whose run it is; empty where consoles prove none, and all count as one."""


NO_FENCE: Final = Fence()
"""At first."""


@dataclass(frozen=True, slots=True)
class SaveFence:
    """Put the fence on disk, before any later action is carried out."""

    fence: Fence


@dataclass(frozen=True, slots=True)
class WarmUp:
    """Start the trainer now: torch takes seconds to import, while the console captures its task."""


@dataclass(frozen=True, slots=True)
class Receive:
    """Keep this blob as a file, then call `on_received`. Other blobs are read and thrown away."""

    link: int
    blob: Blob


@dataclass(frozen=True, slots=True)
class StopReceiving:
    """Nobody waits for this blob any more: delete what has arrived, throw the rest away."""

    link: int
    transfer: int


@dataclass(frozen=True, slots=True)
class PrepareWorker:
    """Load data and graphs, then call `on_prepared` or `on_prepare_failed`."""

    ticket: int
    prepare: Prepare


@dataclass(frozen=True, slots=True)
class TrainModel:
    """Train, then call `on_begun`, `on_losses` and `on_trained` or `on_training_failed`."""

    ticket: int
    prepare: Prepare
    start: StartRound
    model_sha256: str
    """Of the model's file."""


@dataclass(frozen=True, slots=True)
class EvaluateModel:
    """Evaluate, then call `on_evaluated`."""

    prepare: Prepare
    evaluate: Evaluate
    model_sha256: str
    """Of the model's file."""


@dataclass(frozen=True, slots=True)
class Control:
    """Pause, resume or abort the training, then call `on_controlled`."""

    worker_id: str
    command: ControlCommand


@dataclass(frozen=True, slots=True)
class ForgetWorker:
    """Abort what the worker does, and let go of its data, graphs and model."""

    worker_id: str


@dataclass(frozen=True, slots=True)
class Deliver:
    """Send the update that this training left."""

    link: int
    ticket: int
    start: StartRound
    """Of the attempt that it is sent for."""
    trained: RoundTrained

    def announce(self, parameters: Blob) -> Update:
        start, trained = self.start, self.trained
        return Update(
            run=start.run,
            round=start.round,
            attempt=start.attempt,
            model_id=start.model_id,
            num_examples=trained.num_examples,
            num_batches=trained.num_batches,
            loss=trained.loss,
            seconds=trained.seconds,
            cursor=trained.cursor,
            parameters=parameters,
        )


@dataclass(frozen=True, slots=True)
class DropUpdate:
    """Delete the update that this training left."""

    ticket: int


@dataclass(frozen=True, slots=True)
class FindRoom:
    """Look at the folder of dealt data, then call `on_room_found`."""

    offer: OfferData


@dataclass(frozen=True, slots=True)
class ReceiveData:
    """Write this blob into a part that is kept when the link ends, then call `on_received`.

    Nobody else writes into that part from now on.
    """

    link: int
    rest: Blob
    sha256: str
    """Of the whole file, by which the part is named."""
    offset: int
    """Where the blob begins; what the part holds beyond is cut off."""


@dataclass(frozen=True, slots=True)
class StoreData:
    """Check the whole file, put it in its place, then call `on_stored`."""

    offer: OfferData


Action = (
    Tell
    | SaveFence
    | WarmUp
    | Receive
    | StopReceiving
    | PrepareWorker
    | TrainModel
    | EvaluateModel
    | Control
    | ForgetWorker
    | Deliver
    | DropUpdate
    | FindRoom
    | ReceiveData
    | StoreData
)
