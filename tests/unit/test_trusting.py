"""Operators that trust their arguments get none that lead them beyond the ends of tensors."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from pi_daemon.learning.graph import CompiledGraph, GraphRunError
from pi_daemon.protocol.graphs import Argument, Graph, InputRef, Node, NodeRef, StateRef

MAX_POOLS = [(count, suffix) for count in (1, 2, 3) for suffix in ("", "_with_indices")]


def pool(count: int, suffix: str, size: int, *, padding: Any, dilation: Argument) -> None:
    """On meta tensors, as on trial: with elements, training would write beyond the end of the gradient."""
    operator = f"aten.max_pool{count}d{suffix}.default"
    ones = (1,) * count
    nodes = [Node("pool", operator, (InputRef("x"), (2,) * count, ones, padding, dilation))]
    if suffix:
        nodes.append(Node("first", "getitem", (NodeRef("pool"), 0)))
    last = nodes[-1].name
    nodes.append(Node("loss", "aten.sum.default", (NodeRef(last),)))
    x = torch.zeros((1, 1, *[size] * count), device="meta")
    CompiledGraph(Graph(tuple(nodes), "loss", last), "meta").run({}, {}, x, x)


@pytest.mark.parametrize(("count", "suffix"), MAX_POOLS)
@pytest.mark.parametrize("dilation", [4, (4,), "each"])
def test_max_pooling_refuses_a_dilation_beyond_the_values(
    count: int, suffix: str, dilation: Argument
) -> None:
    given = (4,) * count if dilation == "each" else dilation
    with pytest.raises(GraphRunError, match="has a dilation of 4, which is more than 3 values"):
        pool(count, suffix, 3, padding=1, dilation=given)


@pytest.mark.parametrize(("count", "suffix"), MAX_POOLS)
def test_max_pooling_takes_a_dilation_within_the_values(count: int, suffix: str) -> None:
    pool(count, suffix, 4, padding=1, dilation=4)


@pytest.mark.parametrize(("count", "suffix"), MAX_POOLS[2:])
def test_max_pooling_looks_at_each_dilation(count: int, suffix: str) -> None:
    dilation = (*[1] * (count - 1), 4)
    with pytest.raises(GraphRunError, match="has a dilation of 4, which is more than 3 values"):
        pool(count, suffix, 3, padding=1, dilation=dilation)


def test_max_pooling_needs_as_many_dilations_as_dimensions() -> None:
    with pytest.raises(GraphRunError, match="has 2 numbers for 3 dimensions"):
        pool(3, "", 4, padding=1, dilation=(1, 1))


class Paddings(TorchDispatchMode):
    """Keeps the padding of each convolution."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[Any] = []

    def __torch_dispatch__(
        self, function: Any, types: object, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        if function is torch.ops.aten.convolution.default:
            self.found.append(args[4])
        return function(*args, **(kwargs or {}))


@pytest.mark.parametrize(
    ("padding", "left"), [((5, 0), [0, 0]), ((0, 3), [0, 0]), ((4, 2), [4, 2])]
)
def test_no_kernel_of_a_convolution_lies_in_the_padding_alone(
    padding: Any, left: list[int]
) -> None:
    args = (InputRef("x"), StateRef("w"), None, (1, 1), padding, (2, 1))
    nodes = (
        Node("conv", "aten.conv2d.default", args),
        Node("loss", "aten.sum.default", (NodeRef("conv"),)),
    )
    w = torch.linspace(-1, 1, 18).reshape(1, 2, 3, 3)
    x = torch.linspace(-2, 3, 60).reshape(1, 2, 5, 6)
    with Paddings() as paddings:
        _, output = CompiledGraph(Graph(nodes, "loss", "conv")).run({"w": w}, {}, x, x)
    assert paddings.found == [left]
    torch.testing.assert_close(output, torch.conv2d(x, w, None, 1, padding, (2, 1)))


@pytest.mark.parametrize("trains", [True, False])
def test_batch_norm_reads_a_weight_that_is_a_view_and_nothing_behind_it(trains: bool) -> None:
    def gradient(weight: Tensor) -> Tensor:
        nodes = (
            Node("weight", "aten.select.int", (StateRef("w"), 1, 0)),
            Node(
                "norm",
                "aten.batch_norm.default",
                (
                    *(InputRef("x"), NodeRef("weight"), None, StateRef("mean"), StateRef("var")),
                    *(trains, 0.1, 1e-5, True),
                ),
            ),
            Node("square", "aten.square.default", (NodeRef("norm"),)),
            Node("loss", "aten.sum.default", (NodeRef("square"),)),
        )
        buffers = {"w": weight, "mean": torch.zeros(4), "var": torch.ones(4)}
        x = torch.linspace(-1, 1, 32).square().reshape(2, 4, 2, 2)
        x = x.contiguous(memory_format=torch.channels_last).requires_grad_()
        loss, _ = CompiledGraph(Graph(nodes, "loss", "norm")).run({}, buffers, x, x)
        loss.backward()
        assert x.grad is not None
        return x.grad

    # The second column is what lies between the elements of the first.
    ones, between = torch.ones(4, 1), torch.tensor([[0.0], [1e6], [2e6], [3e6]])
    found = gradient(torch.cat([ones, between], dim=1))
    assert torch.equal(found, gradient(torch.cat([ones, ones], dim=1)))


def test_the_median_of_an_expanded_tensor_is_its_number() -> None:
    nodes = (
        Node("one", "aten.select.int", (InputRef("x"), 0, 0)),
        Node("many", "aten.expand.default", (NodeRef("one"), (5,))),
        Node("median", "aten.median.dim", (NodeRef("many"), 0)),
        Node("loss", "getitem", (NodeRef("median"), 0)),
    )
    x = torch.tensor([1.0, 7.0, 8.0, 9.0, 10.0])
    loss, _ = CompiledGraph(Graph(nodes, "loss", "loss")).run({}, {}, x, x)
    assert loss.item() == 1.0


def test_a_circular_padding_is_not_negative() -> None:
    nodes = (
        Node("padded", "aten.pad.default", (InputRef("x"), (1, -5), "circular")),
        Node("loss", "aten.sum.default", (NodeRef("padded"),)),
    )
    x = torch.zeros(2, 2, 5, device="meta")
    with pytest.raises(GraphRunError, match=r"node padded \(aten.pad.default\): has a negative"):
        CompiledGraph(Graph(nodes, "loss", "padded"), "meta").run({}, {}, x, x)
