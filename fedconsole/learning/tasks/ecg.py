"""Heartbeats: a residual convolutional network tells the five classes of AAMI EC57 apart.

Two tasks: `ecg` sees a beat alone, `ecg-rr` also the intervals to its neighbours.
"""

from __future__ import annotations

import zipfile
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from fedconsole.learning.tasks.task import Examples, Task, TaskError
from pi_daemon.ecg.beats import CLASSES, NUM_RR, NUM_SAMPLES, rr_intervals

TRAINING_RECORDS = (
    101, 106, 108, 109, 112, 114, 115, 116, 118, 119, 122,
    124, 201, 203, 205, 207, 208, 209, 215, 220, 223, 230,
)  # fmt: skip
"""DS1 of de Chazal et al., 2004: of the MIT-BIH Arrhythmia Database, one patient each."""
TEST_RECORDS = (
    100, 103, 105, 111, 113, 117, 121, 123, 200, 210, 212,
    213, 214, 219, 221, 222, 228, 231, 232, 233, 234,
)  # fmt: skip
"""DS2 without 202, which is of the same patient as 201."""
TRAINING_COUNTS = (45_866, 944, 3_788, 415, 8)
"""Beats of each class in the training records. Constants, as a device sees only its own classes."""
CLASS_WEIGHTS = (sum(TRAINING_COUNTS) / torch.tensor(TRAINING_COUNTS)).sqrt()
_MIT_BIH_HZ = 360


class Block(nn.Module):
    """(n, 32, length) -> (n, 32, (length - 3) // 2)."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv1d(32, 32, 5, padding=2)
        self.conv2 = nn.Conv1d(32, 32, 5, padding=2)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(x + self.conv2(F.relu(self.conv1(x))))
        return F.max_pool1d(x, 5, 2)


class Net(nn.Module):
    """The network of Kachuee et al., 2018, which may be given further features of each beat.

    No batch norm: the mean and deviation of one patient's beats are not another's. Each block begins
    as the identity instead, so that sums along the network do not grow.
    """

    def __init__(self, num_features: int = 0) -> None:
        super().__init__()
        self.conv = nn.Conv1d(1, 32, 5)
        self.blocks = nn.Sequential(*(Block() for _ in range(5)))
        self.fc1 = nn.Linear(32 * 2 + num_features, 32)
        self.fc2 = nn.Linear(32, 32)
        self.fc3 = nn.Linear(32, len(CLASSES))
        for name, parameter in self.named_parameters():
            if name.endswith(("bias", "conv2.weight")):
                nn.init.zeros_(parameter)
            else:
                nn.init.kaiming_normal_(parameter)

    def forward(self, x: Tensor) -> Tensor:
        shape = self.blocks(self.conv(x[:, :NUM_SAMPLES].unsqueeze(1)))
        x = torch.cat([shape.flatten(1), x[:, NUM_SAMPLES:]], dim=1)
        x = F.relu(self.fc1(x))
        x = F.relu(self.fc2(x))
        logits: Tensor = self.fc3(x)
        return logits


def prepare(beats: Tensor) -> Tensor:
    """(n, 187) bytes -> values from 0 to 1."""
    return beats.float() / 255


def prepare_with_intervals(samples: Tensor) -> Tensor:
    """(n, 190) bytes -> (n, 189): a beat, and two intervals as logarithms of their ratio to the mean.

    A ratio says "early" or "late" whatever the patient's heart rate is; the factor brings a beat that
    comes a third too early to about -4, where a network of two features among 66 notices it.
    """
    previous, following, mean = samples[:, NUM_SAMPLES:].float().clamp(min=1).unbind(1)
    ratios = torch.stack([previous / mean, following / mean], dim=1)
    return torch.cat([prepare(samples[:, :NUM_SAMPLES]), 10 * ratios.log()], dim=1)


def loss(output: Tensor, targets: Tensor) -> Tensor:
    return F.cross_entropy(output, targets, weight=CLASS_WEIGHTS)


def _load_test_data(dataset: str, data_dir: Path | None) -> Examples | None:
    """DATASET-test.npz in the folder, else the test records of its mitbih_beats.npz."""
    if data_dir is None:
        return None
    try:
        if (path := data_dir / f"{dataset}-test.npz").exists():
            x, y = _arrays(path, "x", "y")
            return x, y.astype(np.int64)
        if (path := data_dir / "mitbih_beats.npz").exists():
            return beats_of(path, TEST_RECORDS, with_intervals=dataset == "ecg-rr")
    except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise TaskError(f"{path} cannot be read: {error}; expected arrays x and y") from error
    return None


def _arrays(path: Path, *names: str) -> list[NDArray[Any]]:
    # A file of its own: NumPy leaves that of a damaged archive open.
    with path.open("rb") as file, np.load(file) as archive:
        return [archive[name] for name in names]


def beats_of(path: Path, records: Sequence[int], *, with_intervals: bool) -> Examples:
    """The beats of some records of the MIT-BIH database, in their order.

    Args:
        path: an .npz of its labelled beats: `x` (n, 187), `y` (n,), `record` (n,), and `sample` (n,),
            the R peak at 360 Hz.
    """
    x, y, record, sample = _arrays(path, "x", "y", "record", "sample")
    parts = []
    for number in records:
        rows = record == number
        beats = x[rows]
        if with_intervals:
            beats = np.concatenate([beats, rr_intervals(sample[rows], _MIT_BIH_HZ)], axis=1)
        parts.append((beats, y[rows].astype(np.int64)))
    samples, targets = zip(*parts, strict=True)
    return np.concatenate(samples), np.concatenate(targets)


task = Task(
    name="ecg",
    dataset="ecg",
    sample_shape=(NUM_SAMPLES,),
    sample_dtype="uint8",
    num_classes=len(CLASSES),
    class_names=CLASSES,
    # The test records have seven beats of class Q: its F1 would be chance.
    scored_classes=CLASSES[:4],
    build=Net,
    prepare=prepare,
    loss=loss,
    test_data=partial(_load_test_data, "ecg"),
)
task_with_intervals = replace(
    task,
    name="ecg-rr",
    dataset="ecg-rr",
    sample_shape=(NUM_SAMPLES + NUM_RR,),
    build=partial(Net, num_features=2),
    prepare=prepare_with_intervals,
    test_data=partial(_load_test_data, "ecg-rr"),
)
