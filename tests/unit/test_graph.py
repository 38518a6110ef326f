"""A captured graph computes what its module computes, to the last bit."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from fedconsole.learning.capture import CapturedModel, capture
from fedconsole.learning.tasks import digits, mnist
from fedconsole.learning.tasks.task import Task
from pi_daemon.learning.graph import CompiledGraph
from pi_daemon.learning.optimizers import make_optimizer
from pi_daemon.protocol.graphs import ModelGraphs, OptimizerSpec, decode_graphs, encode_graphs
from tests.support import models
from tests.support.models import make_batch

torch.set_num_threads(1)

BATCH_SIZES = (16, 16, 16, 16, 16, 16, 5)
SGD = OptimizerSpec("sgd", lr=0.05, momentum=0.9)
TASKS = {
    "mnist": mnist.task,
    "digits": digits.task,
    "residual": models.RESIDUAL,
    "heartbeat": models.HEARTBEAT,
    "lstm": models.LSTM,
    "gru": models.GRU,
    "transformer": models.TRANSFORMER,
    "weighted": models.WEIGHTED,
    "loss module": models.LOSS_MODULE,
    "regression": models.REGRESSION,
    "tied": models.TIED,
}


def batches(task: Task) -> list[tuple[Tensor, Tensor]]:
    torch.manual_seed(7)
    return [make_batch(task, size) for size in BATCH_SIZES]


def train_eagerly(task: Task) -> tuple[list[float], dict[str, Tensor], Tensor]:
    """Losses, the module's state, and its output for the last batch in evaluation."""
    torch.manual_seed(1)
    module = task.build().train()
    optimizer = torch.optim.SGD(module.parameters(), lr=SGD.lr, momentum=SGD.momentum)
    losses = []
    for number, (x, y) in enumerate(batches(task)):
        torch.manual_seed(number)
        optimizer.zero_grad()
        loss = task.loss(module(task.prepare(x)), y)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    # Without this, a module takes a fused path through transformers that rounds differently.
    torch.backends.mha.set_fastpath_enabled(False)
    with torch.no_grad():
        output = module.eval()(task.prepare(x))
    torch.backends.mha.set_fastpath_enabled(True)
    return losses, module.state_dict(), output


def train_as_a_device(
    graphs: ModelGraphs, task: Task, state: dict[str, Tensor]
) -> tuple[list[float], dict[str, Tensor], Tensor]:
    parameters = {spec.name: state[spec.name].requires_grad_() for spec in graphs.parameters}
    buffers = {spec.name: state[spec.name] for spec in graphs.buffers}
    optimizer = make_optimizer(SGD, parameters.values())
    training = CompiledGraph(graphs.training)
    losses = []
    for number, (x, y) in enumerate(batches(task)):
        torch.manual_seed(number)
        loss, _ = training.run(parameters, buffers, x, y)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    with torch.no_grad():
        _, output = CompiledGraph(graphs.evaluation).run(parameters, buffers, x, y)
    return losses, parameters | buffers, output


def bits(value: Any) -> Any:
    if isinstance(value, Tensor):
        return (value.dtype, tuple(value.shape), value.detach().numpy().tobytes())
    return value


@pytest.mark.parametrize("name", TASKS)
def test_a_graph_trains_and_evaluates_bit_for_bit_as_its_module(name: str) -> None:
    task = TASKS[name]
    captured = capture(task, batch_size=16, seed=1)
    graphs = decode_graphs(encode_graphs(captured.graphs))
    losses, state, output = train_eagerly(task)

    device_losses, device_state, device_output = train_as_a_device(graphs, task, captured.state)

    assert device_losses == losses
    assert bits(device_output) == bits(output)
    assert {k: bits(v) for k, v in captured.state_dict(device_state).items()} == {
        k: bits(v) for k, v in state.items()
    }


def test_an_update_returns_the_parameters_and_what_batch_norm_wrote() -> None:
    captured = capture(models.HEARTBEAT, batch_size=16)
    statistics = {"running_mean", "running_var", "num_batches_tracked"}
    assert {spec.name for spec in captured.graphs.returned} == {
        *(spec.name for spec in captured.graphs.parameters),
        *(f"layers.1.{name}" for name in statistics),
    }


def test_a_table_that_nobody_writes_travels_and_does_not_come_back() -> None:
    captured = capture(models.TRANSFORMER, batch_size=16)
    assert [spec.name for spec in captured.graphs.buffers] == ["positions"]
    assert captured.graphs.returned == captured.graphs.parameters


def test_a_graph_holds_no_tensor_after_its_run() -> None:
    captured = capture(models.REGRESSION, batch_size=16)
    compiled = CompiledGraph(captured.graphs.evaluation)
    x, y = make_batch(models.REGRESSION, 4)
    compiled.run(captured.state, {}, x, y)
    assert not any(isinstance(value, Tensor) for value in compiled._slots)


def test_both_graphs_of_a_task_share_their_constants() -> None:
    captured: CapturedModel = capture(models.WEIGHTED, batch_size=16)
    assert [(spec.name, spec.shape) for spec in captured.graphs.buffers] == [("constant_0", (3,))]
    assert captured.state_dict(captured.state).keys() == {"weight", "bias"}
