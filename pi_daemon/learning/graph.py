"""Runs a model's graph: a loop over allowed operators, as fast as the module that it was captured from."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from pi_daemon.learning import recurrent, trusting
from pi_daemon.protocol.graphs import (
    Argument,
    Device,
    DType,
    Graph,
    GraphError,
    InputRef,
    MemoryFormat,
    Node,
    NodeRef,
    NonFinite,
    StateRef,
)
from pi_daemon.protocol.operators import BUILTINS, CREATION, INPLACE

TORCH_DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}
"""By safetensors' code."""


class GraphRunError(RuntimeError):
    """An operation of the graph failed; `node` is its name, unless the result as a whole is at fault.

    The text may hold numbers that the graph has computed, and so what it was given.
    """

    def __init__(self, reason: str, node: str | None = None, title: str = "the graph") -> None:
        super().__init__(reason)
        self.node = node
        self._title = title

    @property
    def without_values(self) -> str:
        """What may be told to others where the graph was given a device's examples."""
        what = type(self.__cause__ or self).__name__
        return f"{self._title}: {what} on this device's examples; the device's own log says more"


@dataclass(frozen=True, slots=True)
class _Step:
    """One operation on numbered slots, which hold every value of a run."""

    name: str
    operator: str
    function: Callable[..., Any]
    args: tuple[int, ...]
    kwargs: Mapping[str, int]
    result: int
    is_inplace: bool
    released: tuple[int, ...]
    """Slots that nobody reads after this step."""

    @property
    def title(self) -> str:
        return f"{self.name} ({self.operator})"


class CompiledGraph:
    """A graph made ready for one device. Holds no tensors between runs."""

    def __init__(self, graph: Graph, device: torch.device | str = "cpu") -> None:
        """Take a graph that passed `check_graphs`."""
        self._device = torch.device(device)
        self._slots: list[Any] = []
        """What is known before a run, by slot; `None` elsewhere."""
        self._by_reference: dict[Argument, int] = {}
        steps: list[_Step] = []
        for node in graph.nodes:
            steps.extend(self._steps(node))
        self._loss = self._by_reference[NodeRef(graph.loss)]
        self._output = self._by_reference[NodeRef(graph.output)]
        self._steps_in_order = _release_early(steps, keep={self._loss, self._output})
        self._has_inplace = any(step.is_inplace for step in steps)
        self._state = {r.name: s for r, s in self._by_reference.items() if isinstance(r, StateRef)}
        self._inputs = {r.name: s for r, s in self._by_reference.items() if isinstance(r, InputRef)}

    def run(
        self,
        parameters: Mapping[str, Tensor],
        buffers: Mapping[str, Tensor],
        x: Tensor,
        y: Tensor,
    ) -> tuple[Tensor, Tensor]:
        """Compute `(loss, output)` of one batch; the loss is a scalar, and has a gradient if the
        parameters do. Batch norm's buffers are updated in place.

        Raises:
            GraphRunError: an operation failed. Buffers may have been updated by earlier ones.
            GraphError: an operation writes to something that is not the graph's own.
        """
        values = self._slots.copy()
        for name, slot in self._state.items():
            values[slot] = parameters[name] if name in parameters else buffers[name]
        for name, slot in self._inputs.items():
            values[slot] = x if name == "x" else y
        foreign: frozenset[int] = frozenset()
        if self._has_inplace:
            foreign = frozenset(map(_storage, (x, y, *parameters.values(), *buffers.values())))
        for step in self._steps_in_order:
            args = [values[slot] for slot in step.args]
            try:
                if step.is_inplace and _storage(args[0]) in foreign:
                    raise GraphError(f"node {step.title} writes to what it was given", step.name)
                values[step.result] = step.function(
                    *args, **{name: values[slot] for name, slot in step.kwargs.items()}
                )
            except GraphError:
                raise
            except Exception as error:
                reason = str(error).strip().partition("\n")[0]
                title = f"node {step.title}"
                raise GraphRunError(f"{title}: {reason}", step.name, title) from error
            for slot in step.released:
                values[slot] = None
        loss, output = values[self._loss], values[self._output]
        if not (isinstance(loss, Tensor) and loss.dim() == 0 and isinstance(output, Tensor)):
            raise GraphRunError("the graph does not return a scalar loss and an output")
        return loss, output

    def _steps(self, node: Node) -> Iterable[_Step]:
        """The steps of a node: one for itself, after one for each list that holds references."""
        gathered: list[_Step] = []

        def slot(argument: Argument) -> int:
            if isinstance(argument, tuple) and any(map(_is_reference, argument)):
                result = self._new_slot(None)
                items = tuple(slot(item) for item in argument)
                gathered.append(
                    _Step(node.name, node.operator, _as_list, items, {}, result, False, ())
                )
                return result
            if not _is_reference(argument):
                return self._new_slot(self._constant(argument))
            if argument not in self._by_reference:
                self._by_reference[argument] = self._new_slot(None)
            return self._by_reference[argument]

        args = tuple(slot(argument) for argument in node.args)
        device: dict[str, Argument] = {"device": Device()} if node.operator in CREATION else {}
        kwargs = {name: slot(value) for name, value in (node.kwargs | device).items()}
        yield from gathered
        result = self._by_reference[NodeRef(node.name)] = self._new_slot(None)
        # Batch norm's counter is the one foreign tensor that may be written (`check_graphs`).
        is_inplace = node.operator in INPLACE and isinstance(node.args[0], NodeRef)
        function = _function(node.operator)
        if isinstance(function, torch._ops.OpOverload):
            _require_kinds(node, function)
        for checks in (recurrent, trusting):
            function = checks.checked(node.operator, function)
        yield _Step(node.name, node.operator, function, args, kwargs, result, is_inplace, ())

    def _new_slot(self, value: Any) -> int:
        self._slots.append(value)
        return len(self._slots) - 1

    def _constant(self, argument: Argument) -> Any:
        match argument:
            case tuple():
                return [self._constant(item) for item in argument]
            case DType(code):
                return TORCH_DTYPES[code]
            case Device():
                return self._device
            case MemoryFormat(name):
                return getattr(torch, name)
            case NonFinite(value):
                return float(value)
            case _:
                return argument


def _is_reference(argument: Argument) -> bool:
    return isinstance(argument, NodeRef | StateRef | InputRef)


def _as_list(*items: Any) -> list[Any]:
    return list(items)


def _storage(tensor: Tensor) -> int:
    # Not `data_ptr`: it is 0 for every meta tensor.
    key: int = tensor.untyped_storage()._cdata
    return key


def _release_early(steps: list[_Step], keep: set[int]) -> tuple[_Step, ...]:
    """The same steps, each letting go of the slots that it is the last one to use."""
    seen = set(keep)
    released: list[tuple[int, ...]] = []
    for step in reversed(steps):
        last_used = {step.result, *step.args, *step.kwargs.values()} - seen
        seen |= last_used
        released.append(tuple(last_used))
    return tuple(
        replace(step, released=slots) for step, slots in zip(steps, reversed(released), strict=True)
    )


def _function(name: str) -> Callable[..., Any]:
    if name in BUILTINS:
        return _getitem if name == "getitem" else _size_arithmetic(name)
    _, packet, overload = name.split(".")
    function: Callable[..., Any] = getattr(getattr(torch.ops.aten, packet), overload)
    return function


_KINDS: Mapping[str, type | tuple[type, ...]] = {
    "ScalarType": DType,
    "Device": Device,
    "MemoryFormat": MemoryFormat,
    "Layout": (),
    "Generator": (),
}
"""What stands for these in a graph. Torch also takes numbers for them, and words for a device: a graph
would reach quantized and sparse tensors so, and memory that is not bounded."""


def _require_kinds(node: Node, function: torch._ops.OpOverload) -> None:
    """Check the arguments that are neither tensors nor numbers.

    Raises:
        GraphError: one is something else than its kind.
    """
    known = {argument.name: argument for argument in function._schema.arguments}
    given = [*zip(known.values(), node.args, strict=False)]
    given += [(known[name], value) for name, value in node.kwargs.items() if name in known]
    for argument, value in given:
        kind = str(argument.real_type).removeprefix("Optional[").removesuffix("]")
        if kind in _KINDS and value is not None and not isinstance(value, _KINDS[kind]):
            reason = f"node {node.name} ({node.operator}) has a {argument.name} that is none"
            raise GraphError(reason, node.name)


def _getitem(results: Any, index: Any) -> Any:
    if not (isinstance(results, tuple | list) and isinstance(index, int)):
        raise TypeError("getitem takes one result of several, by its number")
    return results[index]


def _size_arithmetic(name: str) -> Callable[..., Any]:
    function = getattr(torch, name) if name.startswith("sym_") else getattr(operator, name)

    def compute(*numbers: Any) -> int | float:
        # Without this, a string times a number, or a tower of powers, would fill the memory.
        if not all(isinstance(number, int | float) and abs(number) < 1 << 63 for number in numbers):
            raise TypeError(f"{name} takes numbers below 2**63")
        if name == "pow" and abs(numbers[1]) > 64:
            raise ValueError("pow takes exponents up to 64")
        result: int | float = function(*numbers)
        return result

    return compute
