"""What a stranger may send as a graph, and what is refused before any of it runs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from pi_daemon.protocol.graphs import (
    MAX_NODES,
    Argument,
    DType,
    Graph,
    GraphError,
    InputRef,
    ModelGraphs,
    NamedTensor,
    Node,
    NodeRef,
    NonFinite,
    OptimizerSpec,
    StateRef,
    decode_graphs,
    encode_graphs,
)
from pi_daemon.protocol.limits import MAX_GRAPHS_BYTES

X, Y, WEIGHT, MEAN, VARIANCE, COUNTER = (
    InputRef("x"),
    InputRef("y"),
    StateRef("weight"),
    StateRef("mean"),
    StateRef("variance"),
    StateRef("counter"),
)
LINEAR = Node("linear", "aten.linear.default", (X, WEIGHT))
LOSS = Node("loss", "aten.mse_loss.default", (NodeRef("linear"), Y))
NORM_ARGS: tuple[Argument, ...] = (X, None, None, MEAN, VARIANCE, True, 0.1, 1e-5, False)


def graph(*nodes: Node) -> Graph:
    return Graph((LINEAR, *nodes, LOSS), loss="loss", output="linear")


def model(*nodes: Node, evaluation: tuple[Node, ...] = ()) -> ModelGraphs:
    """A linear model with more operations in it."""
    return ModelGraphs(
        training=graph(*nodes),
        evaluation=graph(*evaluation),
        parameters=(NamedTensor("weight", "F32", (1, 4)),),
        buffers=(
            NamedTensor("mean", "F32", (4,)),
            NamedTensor("variance", "F32", (4,)),
            NamedTensor("counter", "I64", ()),
            NamedTensor("table", "F32", (4,)),
        ),
        sample=NamedTensor("x", "F32", (4,)),
        target=NamedTensor("y", "F32", ()),
    )


def decode_unchecked(graphs: ModelGraphs) -> ModelGraphs:
    """As a console that does not check what it sends."""
    return decode_graphs(msgspec.json.encode(graphs))


def test_graphs_survive_the_journey() -> None:
    graphs = model(
        Node("norm", "aten.batch_norm.default", NORM_ARGS),
        Node("count", "aten.add_.Tensor", (COUNTER, 1)),
        Node("to", "aten.to.dtype", (X, DType("F64"))),
        Node("fill", "aten.masked_fill.Scalar", (X, X, NonFinite("-inf"))),
        Node("cat", "aten.cat.default", ((NodeRef("to"), X), 1)),
        Node("numbers", "aten.full.default", ((2, 3), -0.0), {"dtype": DType("BF16")}),
    )
    assert decode_graphs(encode_graphs(graphs)) == graphs


def test_what_comes_back_are_parameters_and_the_statistics_that_training_writes() -> None:
    graphs = model(
        Node("norm", "aten.batch_norm.default", NORM_ARGS),
        Node("count", "aten.add_.Tensor", (COUNTER, 1)),
    )
    assert [spec.name for spec in graphs.returned] == ["weight", "mean", "variance", "counter"]


REFUSED: dict[str, tuple[Node, str]] = {
    "an operator that is not on the list": (
        Node("n", "aten.from_file.default", ("/etc/passwd",)),
        "node n: operator 'aten.from_file.default' is not allowed",
    ),
    "an operator of another name space": (
        Node("n", "prim.device", (X,)),
        "node n: operator 'prim.device' is not allowed",
    ),
    "a reference to a later node": (
        Node("n", "aten.relu.default", (NodeRef("loss"),)),
        "node n (aten.relu.default) uses 'loss', which no earlier node computes",
    ),
    "a reference to itself": (
        Node("n", "aten.relu.default", (NodeRef("n"),)),
        "node n (aten.relu.default) uses 'n', which no earlier node computes",
    ),
    "a reference hidden in a list": (
        Node("n", "aten.cat.default", ((X, NodeRef("nothing")),)),
        "node n (aten.cat.default) uses 'nothing', which no earlier node computes",
    ),
    "a tensor that was not declared": (
        Node("n", "aten.relu.default", (StateRef("other"),)),
        "node n (aten.relu.default) uses 'other', which is no parameter and no buffer",
    ),
    "a dtype that does not travel": (
        Node("n", "aten.to.dtype", (X, DType("C64"))),
        "node n (aten.to.dtype) has the unknown dtype 'C64'",
    ),
    "two nodes of one name": (
        Node("linear", "aten.relu.default", (X,)),
        "two nodes are called linear",
    ),
    "a name that would move the cursor": (
        Node("a\x1b[2J", "aten.relu.default", (X,)),
        "a name is 'a\\x1b[2J', expected 1 to 512 printable characters",
    ),
    "a write to the samples": (
        Node("n", "aten.relu_.default", (X,)),
        "node n (aten.relu_.default) writes in place to something that is not its own",
    ),
    "a write to a parameter": (
        Node("n", "aten.mul_.Tensor", (WEIGHT, 2)),
        "node n (aten.mul_.Tensor) writes in place to something that is not its own",
    ),
    "examples added to a buffer": (
        Node("n", "aten.add_.Tensor", (StateRef("table"), X)),
        "node n (aten.add_.Tensor) writes in place to something that is not its own",
    ),
    "a counter that counts by two": (
        Node("n", "aten.add_.Tensor", (COUNTER, 2)),
        "node n (aten.add_.Tensor) writes in place to something that is not its own",
    ),
    "a counter that counts by one times anything": (
        Node("n", "aten.add_.Tensor", (COUNTER, 1), {"alpha": 7}),
        "node n (aten.add_.Tensor) writes in place to something that is not its own",
    ),
    "a parameter that is counted up": (
        Node("n", "aten.add_.Tensor", (WEIGHT, 1)),
        "node n (aten.add_.Tensor) writes weight, which is no buffer of batch norm's",
    ),
    "a table that is counted up": (
        Node("n", "aten.add_.Tensor", (StateRef("table"), 1)),
        "node n (aten.add_.Tensor) writes table, which is no buffer of batch norm's",
    ),
    "an in-place target given by keyword": (
        Node("n", "aten.relu_.default", (), {"self": X}),
        "node n (aten.relu_.default) writes in place to something that is not its own",
    ),
    "a device in words": (
        Node("n", "aten.zeros_like.default", (X,), {"device": "cpu"}),
        "node n (aten.zeros_like.default) names a device; only wherever it runs is allowed",
    ),
    "batch norm's statistics in a parameter": (
        Node("n", "aten.batch_norm.default", (X, None, None, WEIGHT, VARIANCE, *NORM_ARGS[5:])),
        "node n (aten.batch_norm.default) writes weight, which is no buffer of batch norm's",
    ),
    "batch norm's statistics in a view": (
        Node("n", "aten.batch_norm.default", (X, None, None, NodeRef("linear"), *NORM_ARGS[4:])),
        "node n (aten.batch_norm.default) keeps its statistics in something that is no buffer",
    ),
    "batch norm with a computed mode": (
        Node("n", "aten.batch_norm.default", (*NORM_ARGS[:5], NodeRef("linear"), *NORM_ARGS[6:])),
        "node n (aten.batch_norm.default) needs its nine arguments by position, "
        "`training` as a boolean",
    ),
    "batch norm by keywords": (
        Node("n", "aten.batch_norm.default", NORM_ARGS[:5], {"training": True}),
        "node n (aten.batch_norm.default) needs its nine arguments by position, "
        "`training` as a boolean",
    ),
    "a builtin's arguments by keyword": (
        Node("n", "getitem", (), {"results": NodeRef("linear"), "index": 0}),
        "node n (getitem) takes its arguments by position",
    ),
    "a list that is too long": (
        Node("n", "aten.reshape.default", (X, (1,) * 20_001)),
        "node n (aten.reshape.default) has a list of 20001, at most 20000 allowed",
    ),
    "instance norm with statistics": (
        Node("n", "aten.instance_norm.default", NORM_ARGS),
        "node n (aten.instance_norm.default) has running statistics, which only batch norm may have",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_device_refuses(case: str) -> None:
    node, reason = REFUSED[case]
    with pytest.raises(GraphError) as caught:
        decode_unchecked(model(node))
    assert str(caught.value) == reason


def test_the_desktop_refuses_the_same_before_it_sends() -> None:
    with pytest.raises(GraphError, match="is not allowed"):
        encode_graphs(model(Node("n", "aten.set_.source_Tensor", (X, X))))


def test_evaluation_may_write_nothing() -> None:
    with pytest.raises(GraphError, match="writes counter; evaluation may write nothing"):
        decode_unchecked(model(evaluation=(Node("n", "aten.add_.Tensor", (COUNTER, 1)),)))


def test_a_bare_infinity_is_refused_before_json_makes_a_null_of_it() -> None:
    with pytest.raises(GraphError, match="has a bare inf; JSON needs NonFinite"):
        encode_graphs(model(Node("n", "aten.add.Tensor", (X, float("inf")))))


def with_tensors(*specs: NamedTensor) -> ModelGraphs:
    return msgspec.structs.replace(model(), buffers=specs)


def with_nodes(count: int) -> ModelGraphs:
    return model(*(Node(f"n{i}", "aten.relu.default", (X,)) for i in range(count)))


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda: with_tensors(NamedTensor("weight", "F32", (1,))), "two tensors are called weight"),
        (lambda: with_tensors(NamedTensor("b", "C64", (1,))), "b has the dtype 'C64', expected"),
        (lambda: with_tensors(NamedTensor("b", "F32", (-1,))), "b has an impossible shape"),
        (lambda: with_tensors(NamedTensor("b", "F32", (1,) * 17)), "b has an impossible shape"),
        (lambda: with_tensors(NamedTensor("", "F32", (1,))), "a name is ''"),
        (
            lambda: msgspec.structs.replace(model(), parameters=(NamedTensor("p", "I64", (1,)),)),
            "p is a parameter of dtype 'I64', expected floats",
        ),
        (lambda: with_nodes(MAX_NODES), f"a graph has {MAX_NODES + 2} nodes, at most {MAX_NODES}"),
        (
            lambda: msgspec.structs.replace(model(), training=Graph((LINEAR,), "loss", "linear")),
            "the graph returns 'loss', which no node computes",
        ),
    ],
)  # fmt: skip
def test_impossible_tables_are_refused(make: Callable[[], ModelGraphs], reason: str) -> None:
    with pytest.raises(GraphError) as caught:
        decode_unchecked(make())
    assert str(caught.value).startswith(reason)


def changed(path: list[str | int], value: Any) -> bytes:
    content = msgspec.json.decode(encode_graphs(model()))
    place = content
    for step in path[:-1]:
        place = place[step]
    place[path[-1]] = value
    return msgspec.json.encode(content)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"null",
        b"{}",
        b"\xff\xfe",
        b'{"training":' + b"[" * 100_000,
        encode_graphs(model())[:-1],
        encode_graphs(model()) + b"{}",
        changed(["extra"], 1),
        changed(["training", "nodes", 0, "args", 0], {"kind": "file", "name": "/etc/passwd"}),
        changed(["training", "nodes", 0, "args", 0], {"kind": "input", "name": "z"}),
        changed(["training", "nodes", 0, "args", 0], {"kind": "input", "name": "x", "more": 1}),
        changed(["training", "nodes", 0, "args", 0], [[1]]),
        changed(["training", "nodes", 0, "args"], 1),
        changed(["training", "nodes", 0, "operator"], None),
        changed(["parameters", 0, "shape"], ["4"]),
        changed(["parameters", 0, "shape"], [1.5]),
    ],
)
def test_malformed_bytes_are_refused_as_such(content: bytes) -> None:
    with pytest.raises(GraphError, match=r"^the graphs are malformed: "):
        decode_graphs(content)


def test_too_many_bytes_are_refused_unread() -> None:
    with pytest.raises(GraphError, match=f"at most {MAX_GRAPHS_BYTES} travel"):
        decode_graphs(b" " * (MAX_GRAPHS_BYTES + 1))


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ({"lr": 0.0}, "lr is 0.0, expected a number above 0"),
        ({"lr": float("nan")}, "lr is nan, expected a number above 0"),
        ({"momentum": 1.0}, "momentum is 1.0, expected 0 or more and less than 1"),
        ({"weight_decay": -1.0}, "weight_decay is -1.0, expected 0 or more"),
        ({"nesterov": True}, "nesterov needs a momentum above 0"),
        ({"name": "adam", "momentum": 0.9}, "momentum and nesterov belong to sgd, not to adam"),
    ],
)
def test_an_impossible_optimizer_is_refused(arguments: dict[str, Any], reason: str) -> None:
    with pytest.raises(ValueError, match=f"^{reason}$"):
        OptimizerSpec(**dict[str, Any](name="sgd", lr=0.1) | arguments)
