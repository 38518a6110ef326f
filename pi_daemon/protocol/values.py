"""The values that messages are made of: names, states, codes, and what devices tell of themselves."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Final

from msgspec import Meta, Struct

from pi_daemon.protocol.limits import (
    MAX_CLASSES,
    MAX_COUNT,
    MAX_DATASETS,
    MAX_DIMENSIONS,
    MAX_MODEL_BYTES,
    MAX_NAME,
    MAX_TEXT,
)

Name = Annotated[str, Meta(min_length=1, max_length=MAX_NAME)]
Text = Annotated[str, Meta(max_length=MAX_TEXT)]
Digest = Annotated[str, Meta(pattern="^[0-9a-f]{64}$", max_length=64)]
"""The length, too: `$` also matches before a line end."""
DATASET_NAME: Final = r"^[A-Za-z0-9_-][A-Za-z0-9._-]{0,63}$(?!\n)"
DatasetName = Annotated[str, Meta(pattern=DATASET_NAME)]
"""Of a dataset that is dealt: its file has this name."""
Count = Annotated[int, Meta(ge=0, le=MAX_COUNT)]
Positive = Annotated[int, Meta(ge=1, le=MAX_COUNT)]
PerClass = Annotated[tuple[Count, ...], Meta(max_length=MAX_CLASSES)]
Seed = Annotated[str, Meta(pattern="^[0-9]{1,19}$")]
"""A 63-bit integer in decimal digits, as a string for the same reason."""
Seconds = Annotated[float, Meta(ge=0, le=1e9)]
"""Thirty years: what is added up and multiplied stays a number that can be shown."""
Reading = Annotated[float, Meta(ge=-1e7, le=1e7)]
"""Of a sensor, also of a broken one."""
Loss = float | None
"""Mean loss of a batch or of examples; null when it is not finite."""


class Role(StrEnum):
    CONTROLLER = "controller"
    """May steer, once it holds the lease."""
    VIEWER = "viewer"
    """Only listens."""


class DeviceState(StrEnum):
    IDLE = "idle"
    PREPARING = "preparing"
    READY = "ready"
    RECEIVING = "receiving"
    TRAINING = "training"
    PAUSED = "paused"
    EVALUATING = "evaluating"
    DELIVERING = "delivering"


class RefusalCode(StrEnum):
    """Why a command was not carried out; scripts and consoles decide by it, people read `reason`."""

    NOT_CONTROLLER = "not_controller"
    """The link is a viewer or does not hold the lease."""
    HELD = "held"
    """Another controller holds the lease."""
    STALE_FENCE = "stale_fence"
    """A later controller has had the device since."""
    WRONG_STATE = "wrong_state"
    NO_DATASET = "no_dataset"
    DATASET_MISMATCH = "dataset_mismatch"
    BAD_GRAPH = "bad_graph"
    BAD_MODEL = "bad_model"
    NO_MODEL = "no_model"
    """`model` was null, but the device does not hold that model: send it."""
    TOO_LARGE = "too_large"
    """Over the memory or the limit that the device's owner allows."""
    NO_STATE = "no_state"
    """The round to resume is gone: start it again."""
    TRAINER_FAILED = "trainer_failed"
    NOT_ALLOWED = "not_allowed"
    """The device's owner does not let consoles do this."""
    EXISTS = "exists"
    """A dataset of that name with other content is here."""
    NO_ROOM = "no_room"
    """The disk is full, or nearly."""
    BAD_DATA = "bad_data"
    """Not the bytes that were offered, or no dataset."""


class Blob(Struct, frozen=True, forbid_unknown_fields=True):
    """Announces bytes that follow in binary frames on the same link."""

    transfer: Annotated[int, Meta(ge=0, le=2**32 - 1)]
    """Chosen by the sender; not used twice on one link in one direction."""
    size: Annotated[int, Meta(ge=1, le=MAX_MODEL_BYTES)]
    """Bytes in all."""
    sha256: Digest


class Cursor(Struct, frozen=True):
    """A place in a worker's data: the next batch to train on."""

    epoch: Count
    batch: Count


class DatasetCard(Struct, frozen=True):
    """What a device tells about one dataset; never an example of it."""

    name: Name
    sample_shape: Annotated[tuple[Count, ...], Meta(max_length=MAX_DIMENSIONS)]
    sample_dtype: Name
    """NumPy's name of the stored dtype, such as "uint8"."""
    target_dtype: Name
    num_examples: Count
    num_classes: Count | None
    """None: the targets are no class labels."""
    sha256: Digest
    """Over samples and targets of this device's shard, in order."""
    label_counts: PerClass | None = None
    """Examples of each class; only if the device's owner allows it."""


DatasetCards = Annotated[tuple[DatasetCard, ...], Meta(max_length=MAX_DATASETS)]


class Capabilities(Struct, frozen=True):
    """What decides whether a device can take part, before anything is sent to it."""

    torch: Name | None
    """Installed version of torch; None: this worker trains by other means."""
    operators: Digest | None
    """Digest of the operators that the device would run; None: as for `torch`."""
    machine: Name
    """As `uname -m`: "aarch64", "x86_64"."""
    num_cpus: Positive
    memory_bytes: Count
    max_model_bytes: Positive
    max_data_bytes: Count = 0
    """What may be dealt into this device in all; 0: nothing."""


class DeviceStatus(Struct, frozen=True):
    """What a device is doing, and for whom."""

    state: DeviceState
    highest_fence: Count
    """A new controller must bring a higher one."""
    holder: Name | None = None
    """Name of the console whose lease is valid now."""
    run: Name | None = None
    round: Count | None = None
    model_id: Digest | None = None
    """The model that the device holds and that need not be sent again."""
