"""Still, walking or falling: told from 64 readings of an accelerometer with three axes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fedconsole.learning.tasks.task import Examples, Task

READINGS_PER_G = 1000
CLASS_WEIGHTS = torch.tensor([0.5, 0.5, 2.0])  # falls are rare and matter most


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv1d(3, 16, 5, padding=2)
        self.norm = nn.BatchNorm1d(16)
        self.gru = nn.GRU(16, 32, batch_first=True)
        self.dropout = nn.Dropout(0.2)
        self.head = nn.Linear(32, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = F.gelu(self.norm(self.conv(x.transpose(1, 2))))
        _, last = self.gru(x.transpose(1, 2))
        return self.head(self.dropout(last[0]))


def prepare(readings: Tensor) -> Tensor:
    """(n, 64, 3) readings as the sensor gives them -> multiples of g."""
    return readings.float() / READINGS_PER_G


def loss(output: Tensor, targets: Tensor) -> Tensor:
    return F.cross_entropy(output, targets, weight=CLASS_WEIGHTS)


def load_test_data(data_dir: Path | None) -> Examples | None:
    file = (data_dir or Path()) / "motion-test.npz"
    if not file.exists():
        return None
    with np.load(file) as arrays:
        return arrays["x"], arrays["y"]


task = Task(
    name="motion",
    dataset="motion",
    sample_shape=(64, 3),
    sample_dtype="int16",
    num_classes=3,
    class_names=("still", "walking", "falling"),
    build=Net,
    prepare=prepare,
    loss=loss,
    test_data=load_test_data,
)
