"""Recurrent operators get tensors that belong together, or nothing.

On meta tensors, as on trial: with elements, the shapes below would overrun this process's memory.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from fedconsole.learning.capture import capture
from pi_daemon.learning.graph import CompiledGraph, GraphRunError
from pi_daemon.protocol.graphs import Argument, Graph, InputRef, Node, NodeRef, StateRef
from tests.support.models import make_task

GATES = {"lstm": 4, "gru": 3, "rnn_tanh": 1, "rnn_relu": 1}
FLAGS: tuple[Argument, ...] = (True, 1, 0.0, True, False, True)
H = 6
BATCH, STEPS, WIDTH = 2, 5, 3


def run(operator: str, *flags: Argument, tensors: dict[str, Tensor], gates: int) -> Tensor:
    """The loss of a graph whose one layer takes the batch and these tensors."""
    states: Argument = (StateRef("h"), StateRef("c")) if gates == 4 else StateRef("h")
    weights = tuple(StateRef(name) for name in tensors if name not in "xhc")
    args = (weights, *flags) if flags else weights
    graph = Graph(
        (
            Node("layer", operator, (InputRef("x"), states, *args)),
            Node("first", "getitem", (NodeRef("layer"), 0)),
            Node("loss", "aten.sum.default", (NodeRef("first"),)),
        ),
        loss="loss",
        output="first",
    )
    meta = {name: tensor.to("meta") for name, tensor in tensors.items()}
    x = meta.pop("x")
    loss, _ = CompiledGraph(graph, "meta").run(meta, {}, x, x)
    return loss


def layer_tensors(gates: int) -> dict[str, Tensor]:
    shapes = {
        "x": (BATCH, STEPS, WIDTH),
        "h": (1, BATCH, H),
        "c": (1, BATCH, H),
        "w_ih": (gates * H, WIDTH),
        "w_hh": (gates * H, H),
        "b_ih": (gates * H,),
        "b_hh": (gates * H,),
    }
    return {name: torch.zeros(shape) for name, shape in shapes.items()}


def cell_tensors(gates: int) -> dict[str, Tensor]:
    return layer_tensors(gates) | {
        "x": torch.zeros(BATCH, WIDTH),
        "h": torch.zeros(BATCH, H),
        "c": torch.zeros(BATCH, H),
    }


def change(tensors: dict[str, Tensor], changes: dict[str, Tensor | None]) -> dict[str, Tensor]:
    return {name: tensor for name, tensor in (tensors | changes).items() if tensor is not None}


WRONG: dict[str, Any] = {
    "narrow weights": lambda g: {"w_ih": torch.zeros(g, WIDTH), "w_hh": torch.zeros(g, H)},
    "one row": lambda g: {"w_ih": torch.zeros(1, WIDTH)},
    "rows that make too few gates": lambda g: {
        "w_ih": torch.zeros(g + 1, WIDTH),
        "w_hh": torch.zeros(g + 1, H),
    },
    "another input": lambda g: {"w_ih": torch.zeros(g * H, WIDTH + 1)},
    "another state": lambda g: {"w_hh": torch.zeros(g * H, H + 1)},
    "a short bias": lambda g: {"b_ih": torch.zeros(1)},
    "a missing bias": lambda g: {"b_hh": None},
    "a state for one sample": lambda g: {"h": torch.zeros(1, 1, H)},
    "a state for two layers": lambda g: {"h": torch.zeros(2, BATCH, H)},
    "another dtype": lambda g: {"w_hh": torch.zeros(g * H, H, dtype=torch.bfloat16)},
    "no steps": lambda g: {"x": torch.zeros(BATCH, 0, WIDTH)},
}
CELLS_TOO = tuple(WRONG)[:6]


@pytest.mark.parametrize("kind", GATES)
@pytest.mark.parametrize("case", WRONG)
def test_a_layer_refuses(kind: str, case: str) -> None:
    gates = GATES[kind]
    tensors = change(layer_tensors(gates), WRONG[case](gates))
    with pytest.raises(GraphRunError, match=rf"^node layer \(aten.{kind}.input\): (has|takes) "):
        run(f"aten.{kind}.input", *FLAGS, tensors=tensors, gates=gates)


@pytest.mark.parametrize("kind", GATES)
@pytest.mark.parametrize("case", CELLS_TOO)
def test_a_cell_refuses(kind: str, case: str) -> None:
    gates = GATES[kind]
    tensors = change(cell_tensors(gates), WRONG[case](gates))
    with pytest.raises(GraphRunError, match=rf"^node layer \(aten.{kind}_cell.default\): has "):
        run(f"aten.{kind}_cell.default", tensors=tensors, gates=gates)


@pytest.mark.parametrize(
    ("position", "value"), [(0, 1), (1, 0), (1, 2), (1, 1 << 62), (1, -1), (4, True), (4, 1)]
)
def test_a_layer_refuses_flags_that_its_weights_are_not_for(position: int, value: int) -> None:
    flags = (*FLAGS[:position], value, *FLAGS[position + 1 :])
    with pytest.raises(GraphRunError, match=r"^node layer \(aten.lstm.input\): "):
        run("aten.lstm.input", *flags, tensors=layer_tensors(4), gates=4)


class Last(nn.Module):
    """What a recurrent layer, or a cell, makes of a sample."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: Tensor) -> Tensor:
        if isinstance(self.layer, nn.RNNCellBase):
            found = self.layer(x[:, -1])
            return found[0] if isinstance(found, tuple) else found
        return self.layer(x)[0].mean(dim=1)


@pytest.mark.parametrize(
    "make",
    [
        lambda: nn.LSTM(WIDTH, 3, num_layers=2, batch_first=True, bias=False),
        lambda: nn.LSTM(WIDTH, 5, num_layers=2, proj_size=3, batch_first=True),
        lambda: nn.GRU(WIDTH, 3, num_layers=3, batch_first=True),
        lambda: nn.RNN(WIDTH, 3, batch_first=True),
        lambda: nn.RNN(WIDTH, 3, batch_first=True, nonlinearity="relu"),
        lambda: nn.LSTMCell(WIDTH, 3),
        lambda: nn.GRUCell(WIDTH, 3, bias=False),
        lambda: nn.RNNCell(WIDTH, 3),
    ],
    ids=range(8),
)
def test_what_torchs_modules_make_of_themselves_runs(make: Any) -> None:
    capture(make_task(lambda: Last(make()), (STEPS, WIDTH)), batch_size=8)


def test_a_layer_of_both_directions_runs() -> None:
    def both() -> nn.Module:
        layer = nn.LSTM(WIDTH, 4, num_layers=2, bidirectional=True, batch_first=True)
        return nn.Sequential(Last(layer), nn.Linear(8, 3))

    capture(make_task(both, (STEPS, WIDTH)), batch_size=8)
