"""Small networks of the usual kinds, as tasks: what a user's file would hold."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fedconsole.learning.tasks.task import Task


class ResidualBlock(nn.Module):
    def __init__(self, num_channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(num_channels, num_channels, 3, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(num_channels)
        self.conv2 = nn.Conv2d(num_channels, num_channels, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(num_channels)

    def forward(self, x: Tensor) -> Tensor:
        inner = F.relu(self.norm1(self.conv1(x)), inplace=True)
        return F.relu(x + self.norm2(self.conv2(inner)))


class ResidualNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, 8, 3, padding=1)
        self.blocks = nn.Sequential(ResidualBlock(8), nn.MaxPool2d(2), ResidualBlock(8))
        self.head = nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.blocks(self.stem(x))
        return self.head(F.adaptive_avg_pool2d(x, 1).flatten(1))


class HeartbeatNet(nn.Module):
    """Convolutions along time, with dropout."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv1d(1, 8, 5, padding=2),
            nn.BatchNorm1d(8),
            nn.GELU(),
            nn.Dropout(0.2),
            nn.MaxPool1d(2),
            nn.Conv1d(8, 16, 3),
            nn.LeakyReLU(),
            nn.AdaptiveAvgPool1d(1),
            nn.Flatten(),
            nn.Dropout(0.5),
            nn.Linear(16, 5),
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x.unsqueeze(1))


class RecurrentNet(nn.Module):
    def __init__(self, kind: type[nn.LSTM] | type[nn.GRU]) -> None:
        super().__init__()
        self.recurrent = kind(6, 12, num_layers=2, batch_first=True, dropout=0.1)
        self.head = nn.Linear(12, 3)

    def forward(self, x: Tensor) -> Tensor:
        states, _ = self.recurrent(x)
        return self.head(states[:, -1])


class TransformerNet(nn.Module):
    """A transformer encoder over tokens, with a fixed table of positions."""

    positions: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(50, 16)
        self.register_buffer("positions", torch.linspace(-1, 1, 10 * 16).reshape(10, 16))
        layer = nn.TransformerEncoderLayer(16, 4, 32, dropout=0.1, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.head = nn.Linear(16, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.encoder(self.embedding(x) + self.positions)
        return F.log_softmax(self.head(x.mean(dim=1)), dim=1)


class Regression(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(6, 12), nn.LayerNorm(12), nn.SiLU(), nn.Linear(12, 1))

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x).squeeze(-1)


CLASS_WEIGHTS = torch.tensor([0.5, 1.0, 2.0])


def weighted_focal_loss(output: Tensor, target: Tensor) -> Tensor:
    """A loss of the user's own, with a constant tensor and a smooth focus on hard examples."""
    losses = F.cross_entropy(output, target, weight=CLASS_WEIGHTS, reduction="none")
    return ((1 - torch.exp(-losses)) ** 2 * losses).mean()


def make_task(
    build: Callable[[], nn.Module],
    sample_shape: tuple[int, ...] = (6,),
    num_classes: int | None = 3,
    sample_dtype: str = "float32",
    loss: Callable[[Tensor, Tensor], Tensor] = F.cross_entropy,
    prepare: Callable[[Tensor], Tensor] = lambda x: x,
) -> Task:
    """A task without a test set; everything but the module has a default."""
    return Task(
        name="test",
        dataset="test",
        sample_shape=sample_shape,
        sample_dtype=sample_dtype,
        target_dtype="float32" if num_classes is None else "int64",
        num_classes=num_classes,
        build=build,
        prepare=prepare,
        loss=loss,
    )


def make_batch(task: Task, num_samples: int) -> tuple[Tensor, Tensor]:
    """Random samples and targets as a device stores them, from torch's generator."""
    shape = (num_samples, *task.sample_shape)
    match task.sample_dtype:
        case "uint8":
            x = torch.randint(0, 256, shape, dtype=torch.uint8)
        case "int64":
            x = torch.randint(0, 50, shape)
        case _:
            x = torch.randn(shape)
    if task.num_classes is None:
        return x, torch.randn(num_samples)
    return x, torch.randint(0, task.num_classes, (num_samples,))


RESIDUAL = make_task(
    ResidualNet, (1, 8, 8), 4, sample_dtype="uint8", prepare=lambda x: x.float() / 255
)
HEARTBEAT = make_task(HeartbeatNet, (40,), 5, sample_dtype="uint8", prepare=lambda x: x / 255)
LSTM = make_task(lambda: RecurrentNet(nn.LSTM), (7, 6))
GRU = make_task(lambda: RecurrentNet(nn.GRU), (7, 6))
TRANSFORMER = make_task(TransformerNet, (10,), sample_dtype="int64", loss=F.nll_loss)
WEIGHTED = make_task(lambda: nn.Linear(6, 3), loss=weighted_focal_loss)
LOSS_MODULE = make_task(lambda: nn.Linear(6, 3), loss=nn.CrossEntropyLoss(CLASS_WEIGHTS))
REGRESSION = make_task(Regression, num_classes=None, loss=F.mse_loss)


class TiedNet(nn.Module):
    """Uses one tensor under two names, a frozen layer, a table that is no buffer, and the batch size."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(50, 8)
        self.frozen = nn.Linear(8, 8)
        self.frozen.requires_grad_(False)
        self.table = torch.linspace(0, 1, 8)
        self.head = nn.Linear(8, 50, bias=False)
        self.head.weight = self.embedding.weight

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.frozen(self.embedding(x).sum(dim=1)) * self.table + torch.tensor(0.5)
        hidden = hidden.masked_fill(hidden < -1, float("-inf")).clamp(min=-2)
        return self.head(hidden) / x.shape[0] ** 0.5


TIED = make_task(TiedNet, (10,), 50, sample_dtype="int64")
