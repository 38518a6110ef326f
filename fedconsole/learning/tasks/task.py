"""What a run trains: the one thing that its operator writes.

A task file is ordinary Python that ends in `task = Task(...)`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from numpy.typing import NDArray
from torch import Tensor, nn

Examples = tuple[NDArray[Any], NDArray[Any]]
"""Samples `(n, *sample_shape)` and targets `(n,)`."""

_DTYPES = frozenset(
    ["float64", "float32", "float16", "int64", "int32", "int16", "int8", "uint8", "bool"],
)


class TaskError(ValueError):
    """A task that cannot be used; the message says what to mend and where."""


def _unchanged(samples: Tensor) -> Tensor:
    return samples


def _no_test_data(data_dir: Path | None) -> None:
    return None


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """A module, its loss, and the data that it expects on the devices.

    Raises:
        TaskError: a field is out of range.
    """

    name: str
    dataset: str
    """The name that the devices know their shards by: `pi-daemon --dataset NAME=...`."""
    sample_shape: tuple[int, ...]
    """One sample as it is stored, without the batch."""
    sample_dtype: str
    """As it is stored, such as `uint8`."""
    build: Callable[[], nn.Module]
    """Makes the module with fresh parameters; seeded by the run."""
    loss: Callable[[Tensor, Tensor], Tensor]
    """(output of the module, targets) -> mean loss of the batch, a scalar."""
    prepare: Callable[[Tensor], Tensor] = _unchanged
    """Stored samples -> what the module takes. Runs on the device, as a part of the graph."""
    target_dtype: str = "int64"
    num_classes: int | None = None
    """`None` for regression: then there is a loss, and no accuracy."""
    class_names: tuple[str, ...] = ()
    scored_classes: tuple[str, ...] = ()
    """Those of `class_names` that count for macro F1; empty: all."""
    test_data: Callable[[Path | None], Examples | None] = _no_test_data
    """The test set on the desktop; its argument is `--data-dir`. `None`: there is none."""

    def __post_init__(self) -> None:
        for field in ("sample_dtype", "target_dtype"):
            if getattr(self, field) not in _DTYPES:
                raise TaskError(
                    f"{field} is {getattr(self, field)!r}, expected one of {', '.join(sorted(_DTYPES))}"
                )
        if any(size < 1 for size in self.sample_shape):
            raise TaskError(f"sample_shape is {self.sample_shape}, expected sizes of 1 or more")
        if self.num_classes is not None and self.num_classes < 2:
            raise TaskError(f"num_classes is {self.num_classes}, expected 2 or more, or None")
        if self.class_names and len(self.class_names) != self.num_classes:
            raise TaskError(
                f"{len(self.class_names)} class_names for num_classes={self.num_classes}"
            )
        if odd := [name for name in self.scored_classes if name not in self.class_names]:
            raise TaskError(f"scored_classes has {odd[0]!r}, which is not among class_names")
