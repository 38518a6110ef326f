"""What cannot travel is refused on the desktop, with the line to change."""

from __future__ import annotations

import inspect
import subprocess
import sys

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fedconsole.learning.capture import CaptureError, capture
from fedconsole.learning.tasks.task import Task
from tests.support.models import LSTM, RESIDUAL, TIED, make_task

torch.set_num_threads(1)


class Linear(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(6, 3)
        self.memory: Tensor
        self.register_buffer("memory", torch.zeros(6))


class Branches(Linear):
    def forward(self, x: Tensor) -> Tensor:
        if x.sum() > 0:  # blamed
            x = -x
        return self.linear(x)


class ReadsANumber(Linear):
    def forward(self, x: Tensor) -> Tensor:
        return self.linear(x) * x.max().item()  # blamed


class ChoosesByMask(Linear):
    def forward(self, x: Tensor) -> Tensor:
        return self.linear(x) + x[x > 0].sum()  # blamed


class KeepsAnExample(Linear):
    def forward(self, x: Tensor) -> Tensor:
        self.memory.copy_(x[0])  # blamed
        return self.linear(x)


class AddsToItsMemory(Linear):
    def forward(self, x: Tensor) -> Tensor:
        self.memory.add_(x.sum(dim=0))  # blamed
        return self.linear(x)


class AssignsItsMemory(Linear):
    def forward(self, x: Tensor) -> Tensor:
        self.memory = self.memory * 0.9 + x.mean(dim=0)  # blamed
        return self.linear(x)


class ChangesItsInput(Linear):
    def forward(self, x: Tensor) -> Tensor:
        x.relu_()  # blamed
        return self.linear(x)


class ChangesAView(Linear):
    def forward(self, x: Tensor) -> Tensor:
        x[:, 1:].relu_()  # blamed
        return self.linear(x)


class UsesAnUncommonOperator(Linear):
    def forward(self, x: Tensor) -> Tensor:
        return self.linear(torch.fft.rfft(x).real.repeat(1, 2)[:, :6])  # blamed


class AveragesWithoutMomentum(Linear):
    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(6, momentum=None)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(self.norm(x))  # blamed


class TracksInstances(Linear):
    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.InstanceNorm1d(1, track_running_stats=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(self.norm(x.unsqueeze(1)).squeeze(1))  # blamed


class HasAWrongShape(Linear):
    def forward(self, x: Tensor) -> Tensor:
        return self.linear(x[:, :5])  # blamed


class KnowsItsBatch(Linear):
    def forward(self, x: Tensor) -> Tensor:
        return self.linear(x.view(8, 6))


class WantsManySamples(Linear):
    def forward(self, x: Tensor) -> Tensor:
        return self.linear(-x if x.shape[0] >= 5 else x)


class WantsPairs(Linear):
    def forward(self, x: Tensor) -> Tensor:
        return self.linear(x.view(-1, 2, 6).flip(1).reshape(-1, 6))  # blamed


class EmbedsABag(Linear):
    def __init__(self) -> None:
        super().__init__()
        self.bag = nn.EmbeddingBag(9, 6)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(self.bag(x.long()))  # blamed


def blamed_line(module: type[nn.Module]) -> str:
    lines, first = inspect.getsourcelines(module)
    found = [(first + i, line.strip()) for i, line in enumerate(lines) if "# blamed" in line]
    return "".join(f"; {__file__}:{number}: {text}" for number, text in found)


@pytest.mark.parametrize(
    ("module", "reason"),
    [
        (Branches, "the task cannot be captured: what it does next depends on values in a tensor"),
        (ReadsANumber, "node item: operator 'aten.item.default' is not allowed"),
        (ChoosesByMask, "node index (aten.index.Tensor): "),
        (KeepsAnExample, "node copy_: operator 'aten.copy_.default' is not allowed"),
        (AddsToItsMemory, "node add_ (aten.add_.Tensor) writes in place to something that is not"),
        (
            AssignsItsMemory,
            "the task cannot be captured: `forward` assigns memory; only batch norm",
        ),
        (ChangesItsInput, "node relu_ (aten.relu_.default) writes in place to something that is"),
        (ChangesAView, "node relu_ (aten.relu_.default) writes to what it was given"),
        (UsesAnUncommonOperator, "node fft_rfft: operator 'aten.fft_rfft.default' is not allowed"),
        (AveragesWithoutMomentum, "the task cannot be captured: what it does next depends on val"),
        (TracksInstances, "node instance_norm (aten.instance_norm.default) has running statist"),
        (HasAWrongShape, "the task cannot be captured: RuntimeError: "),
        (KnowsItsBatch, "the task cannot be captured: it works for batches of 8 only"),
        (WantsManySamples, "the task takes no batches below 5, and must take any size"),
        (
            EmbedsABag,
            "node embedding_bag: operator 'aten.embedding_bag.padding_idx' is not allowed",
        ),
        (WantsPairs, "node view (aten.view.default): "),
    ],
)
def test_capture_refuses_a_module_that(
    module: type[nn.Module], reason: str, capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(CaptureError) as caught:
        capture(make_task(module), batch_size=8)
    assert str(caught.value).startswith(reason)
    blamed = blamed_line(module)
    assert str(caught.value).endswith(blamed)
    assert (__file__ in str(caught.value)) == (blamed != "")
    assert capfd.readouterr() == ("", "")


def fails() -> nn.Module:
    raise RuntimeError("no such layer")


def raw_scores(output: Tensor, target: Tensor) -> Tensor:
    return F.cross_entropy(output, target, reduction="none")


@pytest.mark.parametrize(
    ("task", "reason"),
    [
        (
            make_task(fails),
            r"^the module cannot be built: RuntimeError: no such layer; .*raise Run",
        ),
        (make_task(Linear), r"^the task cannot be captured: NotImplementedError: "),
        (
            make_task(lambda: nn.Linear(6, 4)),
            r"^for 2 samples the module returns \(2, 4\), expected \(2, 3\): one value for",
        ),
        (make_task(lambda: nn.Linear(6, 3), loss=raw_scores), "does not return a scalar loss"),
        (make_task(lambda: nn.LSTM(6, 3)), "the task cannot be captured: "),
    ],
)
def test_capture_refuses_a_task_that_fails(task: Task, reason: str) -> None:
    with pytest.raises(CaptureError, match=reason):
        capture(task, batch_size=8)


def test_the_same_seed_builds_the_same_parameters_and_leaves_torch_alone() -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    first, second, other = (capture(LSTM, 8, seed=seed).state for seed in (1, 1, 2))
    assert torch.equal(torch.rand(3), expected)
    assert {k: v.tolist() for k, v in first.items()} == {k: v.tolist() for k, v in second.items()}
    assert first["head.weight"].tolist() != other["head.weight"].tolist()


def test_the_batch_size_at_capture_changes_nothing_in_the_graphs() -> None:
    assert capture(RESIDUAL, batch_size=1).graphs == capture(RESIDUAL, batch_size=64).graphs


def test_capture_talks_to_nobody() -> None:
    # In a process of its own: torch's loggers keep the stderr that they first saw.
    script = """
from fedconsole.learning.capture import CaptureError, capture
from tests.support.models import LSTM, make_task
from tests.unit.test_capture import Branches, HasAWrongShape
capture(LSTM, 8)
for module in (Branches, HasAWrongShape):
    try:
        capture(make_task(module), 8)
    except CaptureError:
        pass
"""
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert (done.stdout, done.stderr) == ("", "")


def test_tied_tensors_travel_once_and_frozen_ones_are_buffers() -> None:
    captured = capture(TIED, batch_size=8)
    assert {spec.name for spec in captured.graphs.parameters} == {"embedding.weight"}
    assert {spec.name for spec in captured.graphs.buffers} == {
        "frozen.weight",
        "frozen.bias",
        "constant_0",
        "constant_1",
    }
    module = TIED.build()
    module.load_state_dict(captured.state_dict(captured.state))


def test_initial_parameters_are_no_views_of_the_module() -> None:
    made: list[nn.Module] = []

    def build() -> nn.Module:
        made.append(nn.Linear(6, 3))
        return made[0]

    captured = capture(make_task(build), batch_size=8)
    captured.state["weight"].zero_()
    assert made[0].get_parameter("weight").abs().sum() > 0
