"""The model as it travels: two graphs of tensor operations and the table of their tensors, as JSON.

What arrives here comes from somebody else: `decode_graphs` returns only graphs that name allowed
operators, refer to what exists, and write nothing but batch norm's statistics.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from collections.abc import Set as AbstractSet
from typing import Literal

import msgspec

from pi_daemon.protocol.errors import UNREADABLE
from pi_daemon.protocol.limits import MAX_DIMENSIONS, MAX_GRAPHS_BYTES, MAX_TENSORS
from pi_daemon.protocol.operators import (
    BATCH_NORM,
    BUILTINS,
    COUNT,
    INPLACE,
    INSTANCE_NORM,
    OPERATORS,
)
from pi_daemon.protocol.tensors import DTYPE_BYTES, TensorSpec

MAX_NODES = 20_000
MAX_NAME_LENGTH = 512


class GraphError(ValueError):
    """A graph that this device does not run; `node` is the name of the operation at fault, if one is."""

    def __init__(self, reason: str, node: str | None = None) -> None:
        super().__init__(reason)
        self.node = node


class _Value(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="kind"):
    """An argument that plain JSON cannot say."""


class NodeRef(_Value, frozen=True, tag="node"):
    """What an earlier operation returned."""

    name: str


class StateRef(_Value, frozen=True, tag="state"):
    """A parameter or a buffer."""

    name: str


class InputRef(_Value, frozen=True, tag="input"):
    """The batch: `x` are the samples in their stored dtype, `y` their targets."""

    name: Literal["x", "y"]


class DType(_Value, frozen=True, tag="dtype"):
    code: str


class Device(_Value, frozen=True, tag="device"):
    """Wherever the graph runs."""


class MemoryFormat(_Value, frozen=True, tag="memory_format"):
    name: Literal["contiguous_format", "preserve_format", "channels_last", "channels_last_3d"]


class NonFinite(_Value, frozen=True, tag="float"):
    value: Literal["inf", "-inf", "nan"]


Scalar = (
    bool
    | int
    | float
    | str
    | NodeRef
    | StateRef
    | InputRef
    | DType
    | Device
    | MemoryFormat
    | NonFinite
    | None
)
Argument = Scalar | tuple[Scalar, ...]
"""No operator takes lists of lists, so an argument's depth is bounded by its type."""


class Node(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """One operation: `operator` is an exact overload such as `aten.conv2d.default`, or a builtin."""

    name: str
    operator: str
    args: tuple[Argument, ...] = ()
    kwargs: dict[str, Argument] = {}


class Graph(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Operations in the order in which they run; `loss` and `output` name two of them."""

    nodes: tuple[Node, ...]
    loss: str
    output: str


class NamedTensor(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    name: str
    dtype: str
    """A safetensors code: one of `DTYPE_BYTES`."""
    shape: tuple[int, ...]

    @property
    def is_floating(self) -> bool:
        return self.dtype.startswith(("F", "BF"))

    @property
    def spec(self) -> TensorSpec:
        return TensorSpec(self.dtype, self.shape)


class ModelGraphs(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A model: how it trains, how it is evaluated, and the tensors that it needs for both."""

    training: Graph
    evaluation: Graph
    parameters: tuple[NamedTensor, ...]
    """What the optimizer changes."""
    buffers: tuple[NamedTensor, ...]
    """Everything else: running statistics, frozen layers, tables, constants."""
    sample: NamedTensor
    """One sample, without the batch dimension."""
    target: NamedTensor

    @property
    def returned(self) -> tuple[NamedTensor, ...]:
        """What an update holds: the parameters, and the buffers that training writes."""
        written = written_buffers(self.training)
        return self.parameters + tuple(spec for spec in self.buffers if spec.name in written)


class OptimizerSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """An optimizer of `torch.optim`, which has the defaults for everything that is not named here.

    Raises:
        ValueError: a value is out of range, or belongs to another optimizer.
    """

    name: Literal["sgd", "adam", "adamw"]
    lr: float
    momentum: float = 0.0
    weight_decay: float = 0.0
    nesterov: bool = False

    def __post_init__(self) -> None:
        if not (math.isfinite(self.lr) and self.lr > 0):
            raise ValueError(f"lr is {self.lr}, expected a number above 0")
        if not 0 <= self.momentum < 1:
            raise ValueError(f"momentum is {self.momentum}, expected 0 or more and less than 1")
        if not (math.isfinite(self.weight_decay) and self.weight_decay >= 0):
            raise ValueError(f"weight_decay is {self.weight_decay}, expected 0 or more")
        if self.name != "sgd" and (self.momentum or self.nesterov):
            raise ValueError(f"momentum and nesterov belong to sgd, not to {self.name}")
        if self.nesterov and not self.momentum:
            raise ValueError("nesterov needs a momentum above 0")


def encode_graphs(graphs: ModelGraphs) -> bytes:
    """The bytes that `decode_graphs` takes; equal graphs give equal bytes.

    Raises:
        GraphError: no device would take these graphs.
    """
    check_graphs(graphs)
    content = msgspec.json.encode(graphs, order="deterministic")
    if len(content) > MAX_GRAPHS_BYTES:
        raise GraphError(f"the graphs have {len(content)} bytes, at most {MAX_GRAPHS_BYTES} travel")
    return content


def decode_graphs(content: bytes) -> ModelGraphs:
    """Graphs from a stranger.

    Raises:
        GraphError: they are malformed, too big, or not allowed here.
    """
    if len(content) > MAX_GRAPHS_BYTES:
        raise GraphError(f"the graphs have {len(content)} bytes, at most {MAX_GRAPHS_BYTES} travel")
    try:
        graphs = msgspec.json.decode(content, type=ModelGraphs)
    except UNREADABLE as error:
        raise GraphError(f"the graphs are malformed: {error}") from error
    check_graphs(graphs)
    return graphs


def check_graphs(graphs: ModelGraphs) -> None:
    """Everything that can be said about graphs without running them.

    Raises:
        GraphError: with the name of the node, where one is at fault.
    """
    num_tensors = len(graphs.parameters) + len(graphs.buffers)
    if num_tensors > MAX_TENSORS:
        raise GraphError(f"the model has {num_tensors} tensors, at most {MAX_TENSORS} are allowed")
    specs: dict[str, NamedTensor] = {}
    for spec in graphs.parameters:
        if not spec.is_floating:
            raise GraphError(f"{spec.name} is a parameter of dtype {spec.dtype!a}, expected floats")
    for spec in graphs.parameters + graphs.buffers:
        _check_tensor(spec)
        if spec.name in specs:
            raise GraphError(f"two tensors are called {spec.name}")
        specs[spec.name] = spec
    _check_tensor(graphs.sample)
    _check_tensor(graphs.target)
    for graph in (graphs.training, graphs.evaluation):
        _check_nodes(graph, specs.keys())
    counters = {b.name for b in graphs.buffers if (b.dtype, b.shape) == ("I64", ())}
    statistics = {b.name for b in graphs.buffers if b.is_floating}
    for node, name in _writes(graphs.training):
        if name not in (counters if node.operator == COUNT else statistics):
            raise _refusal(node, f"writes {name}, which is no buffer of batch norm's")
    for node, name in _writes(graphs.evaluation):
        raise _refusal(node, f"writes {name}; evaluation may write nothing")


def written_buffers(graph: Graph) -> frozenset[str]:
    """The names of the buffers that a run of this graph changes: batch norm's, and nothing else.

    Raises:
        GraphError: the graph writes something else.
    """
    return frozenset(name for _, name in _writes(graph))


def _refusal(node: Node, reason: str) -> GraphError:
    return GraphError(f"node {node.name} ({node.operator}) {reason}", node.name)


def _check_name(name: str) -> None:
    # Names reach logs and terminals in errors.
    if not (0 < len(name) <= MAX_NAME_LENGTH and name.isprintable()):
        raise GraphError(
            f"a name is {name[:MAX_NAME_LENGTH]!a}, expected 1 to 512 printable characters"
        )


def _check_tensor(spec: NamedTensor) -> None:
    _check_name(spec.name)
    if spec.dtype not in DTYPE_BYTES:
        raise GraphError(
            f"{spec.name} has the dtype {spec.dtype!a}, expected one of {', '.join(DTYPE_BYTES)}"
        )
    if len(spec.shape) > MAX_DIMENSIONS or any(not 0 <= size < 1 << 40 for size in spec.shape):
        raise GraphError(f"{spec.name} has an impossible shape")


def _check_nodes(graph: Graph, tensors: AbstractSet[str]) -> None:
    if len(graph.nodes) > MAX_NODES:
        raise GraphError(f"a graph has {len(graph.nodes)} nodes, at most {MAX_NODES} are allowed")
    earlier: set[str] = set()
    """The operators of the nodes so far, by name."""
    for node in graph.nodes:
        _check_name(node.name)
        if node.operator not in OPERATORS:
            raise GraphError(
                f"node {node.name}: operator {node.operator!a} is not allowed", node.name
            )
        if node.name in earlier:
            raise GraphError(f"two nodes are called {node.name}", node.name)
        if node.operator in BUILTINS and node.kwargs:
            raise _refusal(node, "takes its arguments by position")
        for argument in (*node.args, *node.kwargs.values()):
            if isinstance(argument, tuple) and len(argument) > MAX_NODES:
                # Torch takes minutes over a shape of a million dimensions.
                raise _refusal(node, f"has a list of {len(argument)}, at most {MAX_NODES} allowed")
        for value in _scalars(node):
            match value:
                case NodeRef(name) if name not in earlier:
                    raise _refusal(node, f"uses {name!a}, which no earlier node computes")
                case StateRef(name) if name not in tensors:
                    raise _refusal(node, f"uses {name!a}, which is no parameter and no buffer")
                case DType(code) if code not in DTYPE_BYTES:
                    raise _refusal(node, f"has the unknown dtype {code!a}")
                case float() if not math.isfinite(value):
                    raise _refusal(node, f"has a bare {value}; JSON needs NonFinite for it")
        # A device in words would let a graph allocate where memory is not yet bounded.
        if not isinstance(node.kwargs.get("device"), Device | None):
            raise _refusal(node, "names a device; only wherever it runs is allowed")
        earlier.add(node.name)
    for name in (graph.loss, graph.output):
        if name not in earlier:
            raise GraphError(f"the graph returns {name!a}, which no node computes")


def _scalars(node: Node) -> Iterator[Scalar]:
    for argument in (*node.args, *node.kwargs.values()):
        if isinstance(argument, tuple):
            yield from argument
        else:
            yield argument


def _writes(graph: Graph) -> Iterator[tuple[Node, str]]:
    """Each write to a tensor that outlives the run, as (node, name of the tensor).

    That an in-place operator's temporary is no view of such a tensor shows only when it runs.
    """
    for node in graph.nodes:
        match node:
            case Node(operator=operator) if operator == BATCH_NORM:
                yield from ((node, name) for name in _batch_norm_writes(node))
            case Node(operator=operator) if operator == INSTANCE_NORM:
                if node.kwargs or node.args[3:5] != (None, None):
                    raise _refusal(node, "has running statistics, which only batch norm may have")
            case Node(operator=operator) if operator in INPLACE:
                match node.args:
                    case (NodeRef(), *_):
                        pass
                    case (StateRef(name), 1) if operator == COUNT and not node.kwargs:
                        yield node, name
                    case _:
                        raise _refusal(node, "writes in place to something that is not its own")


def _batch_norm_writes(node: Node) -> Iterator[str]:
    if node.kwargs or len(node.args) != 9 or not isinstance(node.args[5], bool):
        raise _refusal(node, "needs its nine arguments by position, `training` as a boolean")
    for statistic in node.args[3:5]:
        match statistic:
            case None:
                pass
            case StateRef(name):
                if node.args[5]:
                    yield name
            case _:
                raise _refusal(node, "keeps its statistics in something that is no buffer")
