"""The seed's task: its convolutional network on MNIST."""

from __future__ import annotations

from pathlib import Path

import torch.nn.functional as F
from torch import Tensor, nn

from fedconsole.learning.tasks.task import Examples, Task, TaskError
from pi_daemon.learning.idx import IdxError, read_idx_pair


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, 20, 5, 1)
        self.conv2 = nn.Conv2d(20, 50, 5, 1)
        self.fc1 = nn.Linear(4 * 4 * 50, 500)
        self.fc2 = nn.Linear(500, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.conv1(x))
        x = F.max_pool2d(x, 2, 2)
        x = F.relu(self.conv2(x))
        x = F.max_pool2d(x, 2, 2)
        x = x.view(-1, 4 * 4 * 50)
        x = F.relu(self.fc1(x))
        x = self.fc2(x)
        return F.log_softmax(x, dim=1)


def prepare(images: Tensor) -> Tensor:
    """(n, 28, 28) bytes -> (n, 1, 28, 28), normalised by MNIST's mean and deviation."""
    return ((images.float() / 255 - 0.1307) / 0.3081).unsqueeze(1)


def load_test_data(data_dir: Path | None) -> Examples | None:
    """The `t10k` files in the folder, or in its `mnist`."""
    if data_dir is None:
        return None
    folder = data_dir / "mnist" if (data_dir / "mnist").is_dir() else data_dir
    try:
        return read_idx_pair(folder, "t10k")
    except IdxError as error:
        raise TaskError(
            f"{error}. Put MNIST's four files there, or name their folder with --data-dir"
        ) from error


task = Task(
    name="mnist",
    dataset="mnist",
    sample_shape=(28, 28),
    sample_dtype="uint8",
    num_classes=10,
    class_names=tuple("0123456789"),
    build=Net,
    prepare=prepare,
    loss=F.nll_loss,
    test_data=load_test_data,
)
