"""Hostile calls of operators, by seed: honest ones (`tests.fuzz.calls`) with some changes."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, TypeVar

import torch
from torch import Tensor

from pi_daemon.learning.graph import TORCH_DTYPES
from pi_daemon.protocol.graphs import (
    Argument,
    Device,
    DType,
    Graph,
    MemoryFormat,
    ModelGraphs,
    NamedTensor,
    Node,
    NodeRef,
    NonFinite,
    OptimizerSpec,
    Scalar,
    StateRef,
)
from pi_daemon.protocol.operators import BATCH_NORM, BUILTINS, INPLACE, OPERATORS
from pi_daemon.protocol.tensors import DTYPE_BYTES
from tests.fuzz.calls import Given, honest_call

T = TypeVar("T")

ATEN: Final = sorted(OPERATORS - BUILTINS)

SIZES = (
    0,
    1,
    2,
    3,
    4,
    5,
    8,
    -1,
    -2,
    -7,
    63,
    64,
    1000,
    2**31 - 1,
    2**31,
    2**62,
    -(2**63),
    2**63 - 1,
)
NUMBERS: tuple[Scalar, ...] = (
    *(0.0, 1.0, -1.0, 0.5, 2.0, -0.0, 1e-38, 1e38, 3.0e9, -1e19),
    *(NonFinite("nan"), NonFinite("inf"), NonFinite("-inf")),
)
WORDS = (
    *("none", "mean", "sum", "batchmean", "floor", "trunc", "tanh", "same", "valid", "ij", "xy"),
    *("constant", "reflect", "replicate", "circular", "bij,bjk->bik", "ij->ji", "ij,jk", "...i"),
)
HONEST_WORDS: dict[str, Argument] = {"rounding_mode": "floor", "indexing": "ij"}
LAYOUTS = ("plain", "plain", "transposed", "channels last", "expanded", "strided", "offset")
CONTENTS = ("small", "small", "negative", "huge", "odd", "zeros")


@dataclass(frozen=True, slots=True)
class Case:
    """A model that calls an operator, with its tensors."""

    graphs: ModelGraphs
    tensors: dict[str, Tensor]
    optimizer: OptimizerSpec


class Maker:
    """Makes a case out of a seed; of the first ones, one for each operator, the honest call."""

    def __init__(self, seed: int) -> None:
        self._is_honest = seed < len(ATEN)
        self._random = random.Random(seed)
        self._generator = torch.Generator().manual_seed(seed)
        self._operator = ATEN[seed % len(ATEN)]
        self._nodes: list[Node] = []
        self._tensors: dict[str, Tensor] = {}
        self._parameters: list[NamedTensor] = []
        self._buffers: list[NamedTensor] = []

    def case(self) -> Case:
        self._state(Given("F32", (3,)), "small", is_parameter=True)
        results = self._call("a", self._operator, None)
        if not self._is_honest and self._random.random() < 0.3:
            results += self._call("b", self._pick(ATEN), self._pick(results))
        pieces = []
        for ref in results:
            pieces.append(self._add("aten.to.dtype", ref, DType("F32")))
            pieces[-1] = self._add("aten.flatten.using_ints", pieces[-1], 0, -1)
        pieces.append(self._add("aten.mul.Scalar", StateRef("t0"), 0.5))
        output = self._add("aten.cat.default", tuple(pieces), 0)
        # Of a sum alone each gradient is one number, expanded.
        loss = output
        if self._random.random() < 0.5:
            loss = self._add("aten.square.default", output)
        loss = self._add("aten.sum.default", loss)
        graph = Graph(tuple(self._nodes), loss.name, output.name)
        # What evaluation must not write it may read.
        evaluating = tuple(
            Node(n.name, n.operator, (*n.args[:5], False, *n.args[6:]))
            if n.operator == BATCH_NORM and len(n.args) == 9
            else n
            for n in graph.nodes
        )
        graphs = ModelGraphs(
            training=graph,
            evaluation=Graph(evaluating, loss.name, output.name),
            parameters=tuple(self._parameters),
            buffers=tuple(self._buffers),
            sample=NamedTensor("x", "F32", (4,)),
            target=NamedTensor("y", "I64", ()),
        )
        optimizer = self._pick(
            (OptimizerSpec("sgd", 0.1, 0.9, 0.01, nesterov=True), OptimizerSpec("adamw", 0.1))
        )
        return Case(graphs, self._tensors, optimizer)

    def _call(self, name: str, operator: str, first: NodeRef | None) -> list[NodeRef]:
        """A changed call of the operator; `first` takes the place of its first tensor."""
        schema = _schema(operator)
        call = list(honest_call(operator, schema))
        for _ in range(0 if self._is_honest else self._pick((0, 0, 1, 1, 1, 2, 3, 5))):
            if call:
                index = self._random.randrange(len(call))
                kind = str(schema.arguments[index].real_type)
                call[index] = self._changed(call[index], kind)
        args: list[Argument] = []
        for index, value in enumerate(call):
            if isinstance(value, Given) and first is not None:
                args.append(first)
                first = None
            elif operator == BATCH_NORM and index in (3, 4) and isinstance(value, Given):
                args.append(self._state(value, "small", is_parameter=False))
            else:
                args.append(self._argument(value))
        kwargs: dict[str, Argument] = {}
        for argument in schema.arguments:
            is_needed = not argument.has_default_value()
            is_added = not self._is_honest and self._random.random() < 0.2
            if argument.kwarg_only and (is_needed or is_added):
                kwargs[argument.name] = self._value(str(argument.real_type))
        if self._is_honest:
            kwargs |= {name: word for name, word in HONEST_WORDS.items() if name in kwargs}
        if operator in INPLACE and args and not isinstance(args[0], NodeRef):
            args[0] = self._add("aten.clone.default", args[0])
        called = self._add(operator, *args, **kwargs)
        return self._results(called, schema)

    def _results(self, called: NodeRef, schema: torch.FunctionSchema) -> list[NodeRef]:
        kinds = [str(kind.real_type) for kind in schema.returns]
        if any(kind.startswith("List") for kind in kinds):
            other = 0 if self._is_honest else self._pick((1, 0, 2, -1))
            return [self._add("getitem", called, index) for index in (0, other)]
        if len(kinds) > 1:
            return [self._add("getitem", called, index) for index in range(len(kinds))]
        return [called if kinds == ["Tensor"] else self._add("aten.scalar_tensor.default", called)]

    def _add(self, operator: str, *args: Argument, **kwargs: Argument) -> NodeRef:
        name = f"n{len(self._nodes)}"
        self._nodes.append(Node(name, operator, args, kwargs))
        return NodeRef(name)

    def _argument(self, value: Any) -> Argument:
        match value:
            case Given():
                return self._tensor(value)
            case tuple():
                return tuple(self._argument(item) for item in value)  # type: ignore[misc]
            case _:
                return value

    def _tensor(self, given: Given) -> StateRef | NodeRef:
        """A tensor of this shape, as it lies in memory or as a view."""
        shape, layout = given.shape, "plain" if self._is_honest else self._pick(LAYOUTS)

        def state(shape: tuple[int, ...]) -> StateRef:
            is_parameter = not given.is_constant and (
                self._is_honest or self._random.random() < 0.8
            )
            contents = "small" if self._is_honest else self._pick(CONTENTS)
            return self._state(Given(given.dtype, shape), contents, is_parameter=is_parameter)

        if not shape or layout == "plain":
            return state(shape)
        if layout == "transposed":
            order = tuple(reversed(range(len(shape))))
            return self._add("aten.permute.default", state(shape[::-1]), order)
        if layout == "channels last":
            order = (0, len(shape) - 1, *range(1, len(shape) - 1))[: len(shape)]
            return self._add(
                "aten.permute.default", state((shape[0], *shape[2:], *shape[1:2])), order
            )
        if layout == "expanded":
            index = self._random.randrange(len(shape))
            small = (*shape[:index], 1, *shape[index + 1 :])
            return self._add("aten.expand.default", state(small), shape)
        if layout == "strided":
            last = len(shape) - 1
            longer = state((*shape[:-1], 2 * shape[-1]))
            return self._add("aten.slice.Tensor", longer, last, 0, 2**63 - 1, 2)
        longer = state((shape[0] + 1, *shape[1:]))
        return self._add("aten.narrow.default", longer, 0, 1, shape[0])

    def _state(self, given: Given, contents: str, *, is_parameter: bool) -> StateRef:
        name = f"t{len(self._tensors)}"
        named = NamedTensor(name, given.dtype, given.shape)
        self._tensors[name] = self._filled(given, contents)
        is_parameter = is_parameter and named.is_floating
        (self._parameters if is_parameter else self._buffers).append(named)
        return StateRef(name)

    def _filled(self, given: Given, contents: str) -> Tensor:
        tensor = torch.rand(given.shape, generator=self._generator)
        if not given.dtype.startswith(("F", "BF")):
            tensor = tensor.round()
        match contents:
            case "negative":
                tensor -= 1
            case "huge":
                tensor *= 1e9
            case "zeros":
                tensor *= 0
            case "odd" if given.dtype.startswith(("F", "BF")):
                tensor[tensor < 0.2] = torch.nan
                tensor[tensor > 0.8] = torch.inf
            case "odd":
                tensor.flatten()[-1:] = self._pick((-1, -8, 7, 64, 2**31, -(2**40)))
        return tensor.to(TORCH_DTYPES[given.dtype])

    def _changed(self, value: Any, kind: str) -> Any:
        draw = self._random.random()
        if draw < 0.05 or value is None:
            return self._value(kind.removeprefix("Optional["))
        if draw < 0.1:
            return None
        match value:
            case Given():
                return self._changed_tensor(value)
            case tuple():
                return self._changed_list(value)
            case bool():
                return not value
            case int():
                near = (value + 1, value - 1, 2 * value, 1, 2, 3, 5, 8)
                return self._pick(near if self._random.random() < 0.6 else SIZES)
            case float():
                return self._pick((*NUMBERS, *SIZES))
            case str():
                return self._pick(WORDS)
            case DType():
                return DType(self._pick(tuple(DTYPE_BYTES)))
            case _:
                return value

    def _changed_list(self, value: tuple[Any, ...]) -> tuple[Any, ...]:
        index = self._random.randrange(len(value)) if value else 0
        change = self._pick(("item", "item", "item", "all", "fewer", "more", "none"))
        match change:
            case "item" if value:
                kind = "Tensor" if isinstance(value[index], Given) else "int"
                return (*value[:index], self._changed(value[index], kind), *value[index + 1 :])
            case "all" if value:
                return (self._changed(value[index], "int"),) * len(value)
            case "fewer":
                return value[:-1]
            case "more":
                return (*value, *value[-1:])
            case _:
                return ()

    def _changed_tensor(self, given: Given) -> Given:
        shape = list(given.shape)
        index = self._random.randrange(len(shape)) if shape else 0
        match self._pick(
            ("size", "size", "size", "size", "size", "dtype", "fewer", "more", "swap", "scalar")
        ):
            case "size" if shape:
                size = shape[index]
                shape[index] = self._pick(
                    (0, 1, size + 1, max(size - 1, 0), 2 * size, size // 2, 40)
                )
            case "dtype":
                return replace(given, dtype=self._pick(tuple(DTYPE_BYTES)))
            case "fewer" if shape:
                del shape[index]
            case "more":
                shape.insert(index, self._pick((0, 1, 2, 3)))
            case "swap":
                self._random.shuffle(shape)
            case _:
                shape = []
        return replace(given, shape=tuple(shape))

    def _value(self, kind: str) -> Any:
        """Anything of a kind."""
        if kind.startswith("Optional["):
            return None if self._random.random() < 0.3 else self._value(kind[9:-1])
        if kind.startswith("List["):
            made = [self._value(kind[5:-1]) for _ in range(self._random.randint(0, 4))]
            return tuple(item for item in made if not isinstance(item, tuple))
        match kind.rstrip("]"):
            case "Tensor":
                dtype = self._pick(("F32", "F32", "I64", "BOOL"))
                return Given(dtype, self._pick(((), (3,), (4,), (3, 4), (0, 4), (1,))))
            case "int" | "SymInt":
                likely = self._random.random() < 0.7
                return self._random.randint(0, 4) if likely else self._pick(SIZES)
            case "float":
                return self._pick(NUMBERS)
            case "number":
                return self._pick((*NUMBERS, *SIZES))
            case "bool":
                return self._random.random() < 0.5
            case "str":
                return self._pick(WORDS)
            case "ScalarType":
                return DType(self._pick(tuple(DTYPE_BYTES)))
            case "Device":
                return Device()
            case "MemoryFormat":
                return MemoryFormat(self._pick(("contiguous_format", "channels_last")))
            case _:
                return None

    def _pick(self, values: Sequence[T]) -> T:
        return self._random.choice(values)


def _schema(operator: str) -> torch.FunctionSchema:
    _, packet, overload = operator.split(".")
    return getattr(getattr(torch.ops.aten, packet), overload)._schema
