"""What shows only when a graph runs: aliases, failures, and tricks with numbers."""

from __future__ import annotations

import pytest
import torch

from pi_daemon.learning.graph import CompiledGraph, GraphRunError
from pi_daemon.protocol.graphs import (
    Argument,
    Device,
    DType,
    Graph,
    GraphError,
    InputRef,
    Node,
    NodeRef,
    StateRef,
)

torch.set_num_threads(1)

X = InputRef("x")


def run(*nodes: Node, result: str) -> torch.Tensor:
    """The sum of a node's result, on three samples of four numbers."""
    total = Node("total", "aten.sum.default", (NodeRef(result),))
    x, weight = torch.arange(12.0).reshape(3, 4), torch.ones(4, requires_grad=True)
    buffers = {"table": torch.ones(4)}
    with torch.no_grad():
        loss, _ = CompiledGraph(Graph((*nodes, total), "total", "total")).run(
            {"weight": weight}, buffers, x, torch.zeros(3)
        )
    assert torch.equal(x, torch.arange(12.0).reshape(3, 4))
    assert torch.equal(buffers["table"], torch.ones(4))
    return loss


def aten(name: str, operator: str, *args: Argument) -> Node:
    return Node(name, f"aten.{operator}", args)


def test_a_temporary_of_its_own_may_be_written() -> None:
    nodes = aten("neg", "neg.default", X), aten("n", "relu_.default", NodeRef("neg"))
    assert run(*nodes, result="n") == 0


@pytest.mark.parametrize("given", [X, StateRef("weight"), StateRef("table")])
@pytest.mark.parametrize(
    "alias",
    [
        ("view.default", (-1,)),
        ("slice.Tensor", 0, 0, 1),
        ("contiguous.default",),
        ("alias.default",),
        ("detach.default",),
        ("dropout.default", 0.5, False),
        ("expand.default", (3, 4)),
    ],
)
def test_a_view_of_what_was_given_may_not_be_written(
    given: Argument, alias: tuple[Argument, ...]
) -> None:
    operator, *rest = alias
    assert isinstance(operator, str)
    nodes = aten("view", operator, given, *rest), aten("n", "add_.Scalar", NodeRef("view"), 1)
    with pytest.raises(
        GraphError, match=r"node n \(aten.add_.Scalar\) writes to what it was given"
    ):
        run(*nodes, result="n")


def test_a_view_reached_through_a_list_may_not_be_written() -> None:
    nodes = (
        aten("parts", "split.Tensor", X, 1),
        Node("part", "getitem", (NodeRef("parts"), 0)),
        aten("n", "relu_.default", NodeRef("part")),
    )
    with pytest.raises(GraphError, match="writes to what it was given"):
        run(*nodes, result="n")


def test_writing_to_something_that_is_no_tensor_fails_by_name() -> None:
    nodes = aten("size", "sym_size.int", X, 0), aten("n", "relu_.default", NodeRef("size"))
    with pytest.raises(GraphRunError, match=r"^node n \(aten.relu_.default\): "):
        run(*nodes, result="n")


def test_a_failing_operation_is_named() -> None:
    with pytest.raises(GraphRunError) as caught:
        run(aten("product", "mm.default", X, X), result="product")
    assert str(caught.value) == (
        "node product (aten.mm.default): mat1 and mat2 shapes cannot be multiplied (3x4 and 3x4)"
    )


@pytest.mark.parametrize(
    ("node", "reason"),
    [
        (Node("n", "mul", ("a", 10**10)), "mul takes numbers below 2**63"),
        (Node("n", "mul", ((0,), 10**10)), "mul takes numbers below 2**63"),
        (Node("n", "mul", (2**63, 1)), "mul takes numbers below 2**63"),
        (Node("n", "pow", (10, 10**9)), "pow takes exponents up to 64"),
        (Node("n", "add", (X, 1)), "add takes numbers below 2**63"),
        (Node("n", "getitem", ("text", 0)), "getitem takes one result of several, by its number"),
        (Node("n", "floordiv", (1, 0)), "integer division or modulo by zero"),
    ],
)
def test_arithmetic_on_sizes_takes_sizes_only(node: Node, reason: str) -> None:
    with pytest.raises(GraphRunError) as caught:
        run(node, result="n")
    assert str(caught.value) == f"node n ({node.operator}): {reason}"


@pytest.mark.parametrize(
    ("node", "kind"),
    [
        (Node("n", "aten.zeros.default", ((2,),), {"dtype": 9}), "dtype"),
        (Node("n", "aten.zeros.default", ((2, 2),), {"layout": 1}), "layout"),
        (Node("n", "aten.to.device", (X, "cpu", DType("F32"))), "device"),
        (Node("n", "aten.to.dtype", (X, 12)), "dtype"),
        (Node("n", "aten.clone.default", (X,), {"memory_format": 2}), "memory_format"),
        (Node("n", "aten.rand.default", ((2,),), {"layout": Device()}), "layout"),
    ],
)
def test_no_number_and_no_word_stands_for_a_dtype_a_layout_or_a_device(
    node: Node, kind: str
) -> None:
    """Torch would take them: complex numbers, quantized and sparse tensors, other devices."""
    with pytest.raises(GraphError, match=rf"^node n \(.*\) has a {kind} that is none$"):
        run(node, result="n")


def test_a_loss_is_one_number() -> None:
    graph = Graph((aten("n", "neg.default", X),), loss="n", output="n")
    with pytest.raises(GraphRunError, match="does not return a scalar loss"):
        CompiledGraph(graph).run({}, {}, torch.zeros(3, 4), torch.zeros(3))
