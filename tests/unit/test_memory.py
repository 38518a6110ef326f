from __future__ import annotations

import pytest
import torch

from fedconsole.learning.capture import capture
from pi_daemon.learning.graph import GraphRunError
from pi_daemon.learning.memory import (
    GraphTooLargeError,
    evaluation_peak_bytes,
    training_peak_bytes,
)
from pi_daemon.protocol.graphs import (
    Graph,
    GraphError,
    InputRef,
    ModelGraphs,
    NamedTensor,
    Node,
    NodeRef,
    OptimizerSpec,
    StateRef,
)
from tests.support.models import RESIDUAL

SGD = OptimizerSpec("sgd", lr=0.1)
GIB = 1 << 30
N, BATCH = 100, 64
MATRIX, ROWS = 4 * N * N, 4 * BATCH * N


def model(*nodes: Node, loss: str = "loss") -> ModelGraphs:
    graph = Graph(nodes, loss=loss, output=loss)
    return ModelGraphs(
        training=graph,
        evaluation=graph,
        parameters=(NamedTensor("w", "F32", (N, N)),),
        buffers=(NamedTensor("table", "F32", (N,)),),
        sample=NamedTensor("x", "F32", (N,)),
        target=NamedTensor("y", "I64", ()),
    )


def aten(name: str, operator: str, *args: object) -> Node:
    return Node(name, f"aten.{operator}", args)  # type: ignore[arg-type]


PRODUCT = aten("product", "mm.default", InputRef("x"), StateRef("w"))
LOSS = aten("loss", "sum.default", NodeRef("product"))
GIVEN = MATRIX + 4 * N + ROWS + 8 * BATCH


def test_the_peak_of_evaluation_counts_what_lives_at_once() -> None:
    chain = model(
        PRODUCT,
        aten("a", "neg.default", NodeRef("product")),
        aten("b", "neg.default", NodeRef("a")),
        aten("c", "neg.default", NodeRef("b")),
        aten("loss", "sum.default", NodeRef("c")),
    )
    assert evaluation_peak_bytes(chain, BATCH, GIB) == GIVEN + 2 * ROWS


def test_training_counts_gradients_and_the_optimizers_state() -> None:
    graphs = model(PRODUCT, LOSS)
    plain = training_peak_bytes(graphs, SGD, BATCH, GIB)
    adam = training_peak_bytes(graphs, OptimizerSpec("adam", lr=0.1), BATCH, GIB)
    # The gradient of w, the loss and its own gradient, and twice w for the step.
    assert plain >= GIVEN + 3 * MATRIX
    assert plain < GIVEN + 3 * MATRIX + 3 * ROWS
    assert adam == plain + 2 * MATRIX


def test_a_real_model_grows_with_its_batch() -> None:
    graphs = capture(RESIDUAL, batch_size=16).graphs
    small, large = (training_peak_bytes(graphs, SGD, size, GIB) for size in (16, 64))
    assert 2 < large / small < 4


@pytest.mark.parametrize(
    "node",
    [
        aten("product", "zeros.default", (1 << 40,)),
        aten("product", "expand.default", StateRef("table"), (1 << 40, N)),
        aten("product", "full.default", (1 << 20, 1 << 20), 1.0),
        aten("product", "arange.default", 1 << 40),
        aten("product", "repeat.default", InputRef("x"), (1 << 20, 1 << 10)),
    ],
    ids=lambda node: node.operator,
)
def test_a_huge_tensor_is_refused_before_anything_is_allocated(node: Node) -> None:
    with pytest.raises(GraphTooLargeError, match="this device gives it 1,024 MiB"):
        evaluation_peak_bytes(model(node, LOSS), BATCH, GIB)


def test_many_tensors_that_live_together_are_refused() -> None:
    parts = [aten(f"n{i}", "neg.default", StateRef("w")) for i in range(40)]
    stack = aten("product", "cat.default", tuple(NodeRef(node.name) for node in parts))
    evaluation_peak_bytes(model(*parts, stack, LOSS), BATCH, 100 * MATRIX)
    with pytest.raises(GraphTooLargeError):
        evaluation_peak_bytes(model(*parts, stack, LOSS), BATCH, 60 * MATRIX)


def test_a_size_that_explodes_for_small_batches_is_seen_when_that_batch_is_asked_for() -> None:
    graphs = model(
        aten("size", "sym_size.int", InputRef("x"), 0),
        Node("rest", "sub", (BATCH, NodeRef("size"))),
        Node("rows", "mul", (NodeRef("rest"), 1 << 30)),
        aten("product", "zeros.default", (NodeRef("rows"),)),
        LOSS,
    )
    assert evaluation_peak_bytes(graphs, BATCH, GIB) < GIB
    with pytest.raises(GraphTooLargeError):
        evaluation_peak_bytes(graphs, BATCH - 1, GIB)


def test_sizes_that_depend_on_data_are_refused() -> None:
    mask = aten("mask", "gt.Scalar", InputRef("x"), 0)
    chosen = aten("product", "index.Tensor", InputRef("x"), (NodeRef("mask"),))
    with pytest.raises(GraphRunError, match=r"^node product \(aten.index.Tensor\)"):
        evaluation_peak_bytes(model(mask, chosen, LOSS), BATCH, GIB)


def test_a_loss_without_parameters_is_refused() -> None:
    graphs = model(aten("loss", "sum.default", InputRef("x")))
    with pytest.raises(GraphError, match="does not depend on any parameter"):
        training_peak_bytes(graphs, SGD, BATCH, GIB)


def test_the_meter_leaves_torch_as_it_was() -> None:
    training_peak_bytes(model(PRODUCT, LOSS), SGD, BATCH, GIB)
    assert torch.zeros(2).sum() == 0
