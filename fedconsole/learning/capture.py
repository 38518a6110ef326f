"""Captures a task's module as graphs of tensor operations, so that devices run it without its code.

The only part that uses torch's compiler, and it runs on the desktop.
"""

from __future__ import annotations

import io
import linecache
import math
import re
import sys
import traceback
import warnings
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, redirect_stderr
from dataclasses import dataclass
from itertools import count, product
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch._ops import OpOverload
from torch.export import Dim, ExportedProgram
from torch.export.graph_signature import InputKind, InputSpec
from torch.nn.modules.module import register_module_buffer_registration_hook

from fedconsole.learning.tasks.task import Task
from pi_daemon.learning.graph import TORCH_DTYPES, CompiledGraph, GraphRunError
from pi_daemon.protocol.graphs import (
    Argument,
    Device,
    DType,
    Graph,
    GraphError,
    InputRef,
    MemoryFormat,
    ModelGraphs,
    NamedTensor,
    Node,
    NodeRef,
    NonFinite,
    Scalar,
    StateRef,
    check_graphs,
)

_CODES = {dtype: code for code, dtype in TORCH_DTYPES.items()}
_DTYPES_BY_NAME = {str(dtype).removeprefix("torch."): dtype for dtype in _CODES}
_LIBRARY_FILES = (str(Path(torch.__file__).parent), sys.prefix, sys.base_prefix, __file__)


class CaptureError(ValueError):
    """The task cannot travel as a graph; the message names the line to change."""


@dataclass(frozen=True, slots=True)
class CapturedModel:
    graphs: ModelGraphs
    state: dict[str, Tensor]
    """Parameters and buffers as they were built, by their names in `graphs`."""
    state_names: dict[str, str]
    """Keys of the module's `state_dict()`, each with its name in `state`: tied tensors share one."""

    def state_dict(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """A state of this model as the module's own `load_state_dict` takes it."""
        return {key: state[name] for key, name in self.state_names.items()}


def capture(task: Task, batch_size: int, seed: int = 1) -> CapturedModel:
    """Build the task's module with this seed, and capture how it trains and how it is evaluated.

    The graphs take batches of any size from 2 on. Leaves torch's random state as it was.

    Raises:
        CaptureError: the module, `prepare` or the loss does what a graph cannot say.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        try:
            module = task.build()
        except Exception as error:
            raise _capture_error(error, "the module cannot be built") from error
        state = _State(module)
        batch_size = max(batch_size, 2)
        x = torch.zeros((batch_size, *task.sample_shape), dtype=_DTYPES_BY_NAME[task.sample_dtype])
        y = torch.zeros(batch_size, dtype=_DTYPES_BY_NAME[task.target_dtype])
        programs = [_export(_Objective(task, module).train(mode), x, y) for mode in (True, False)]
    training, evaluation = (_Translation(program, state) for program in programs)
    graphs = ModelGraphs(
        training=training.graph,
        evaluation=evaluation.graph,
        parameters=tuple(_spec(n, t) for n, t in state.tensors.items() if t.requires_grad),
        buffers=tuple(_spec(n, t) for n, t in state.tensors.items() if not t.requires_grad),
        sample=_spec("x", x[0]),
        target=_spec("y", y[0]),
    )
    _require_runnable(graphs, task, batch_size, training.lines | evaluation.lines)
    keys = module.state_dict().keys() & state.names.keys()
    return CapturedModel(
        graphs=graphs,
        state={name: tensor.detach().clone() for name, tensor in state.tensors.items()},
        state_names={key: name for key, name in state.names.items() if key in keys},
    )


class _Objective(nn.Module):
    """What a device computes for a batch, from stored samples to the loss."""

    def __init__(self, task: Task, module: nn.Module) -> None:
        super().__init__()
        self.module = module
        self._task = task

    def forward(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        output = self.module(self._task.prepare(x))
        return self._task.loss(output, y), output


class _State:
    """Every tensor of the module and of its graphs, each under one name."""

    def __init__(self, module: nn.Module) -> None:
        self.tensors: dict[str, Tensor] = {}
        self.names: dict[str, str] = {}
        """By each name under which the module has a tensor, the one name that travels."""
        first_names: dict[int, str] = {}
        for name, tensor in (
            *module.named_parameters(remove_duplicate=False),
            *module.named_buffers(remove_duplicate=False),
        ):
            self.names[name] = first_names.setdefault(id(tensor), name)
            self.tensors.setdefault(self.names[name], tensor)

    def add_constant(self, constant: Tensor) -> str:
        """The name of a tensor that is no part of the module's state."""
        for name, tensor in self.tensors.items():
            if name.startswith("constant_") and _is_same(tensor, constant):
                return name
        name = next(n for n in map("constant_{}".format, count()) if n not in self.tensors)
        self.tensors[name] = constant.detach()
        return name


def _is_same(a: Tensor, b: Tensor) -> bool:
    return a.dtype == b.dtype and torch.equal(a, b)


def _spec(name: str, tensor: Tensor) -> NamedTensor:
    if tensor.dtype not in _CODES:
        raise CaptureError(f"{name} is {tensor.dtype}, which does not travel")
    return NamedTensor(name, _CODES[tensor.dtype], tuple(tensor.shape))


def _export(objective: _Objective, x: Tensor, y: Tensor) -> ExportedProgram:
    any_size = {0: Dim.DYNAMIC}
    with _quiet(), _no_buffer_assigned(objective):
        try:
            program = torch.export.export(
                objective, (x, y), dynamic_shapes={"x": any_size, "y": any_size}, strict=False
            )
        except Exception as error:
            raise _capture_error(error, "the task cannot be captured") from error
    for sizes in program.range_constraints.values():
        # Export never promises a batch of 1, and nobody trains on one.
        if sizes.lower > 2:
            raise CaptureError(
                f"the task takes no batches below {sizes.lower}, and must take any size: "
                "it decides something by the size of its batch"
            )
    return program


@contextmanager
def _quiet() -> Iterator[None]:
    """Export reports each failure on stderr, beside raising it."""
    with warnings.catch_warnings(), redirect_stderr(io.StringIO()):
        warnings.simplefilter("ignore")
        yield


@contextmanager
def _no_buffer_assigned(objective: nn.Module) -> Iterator[None]:
    """Export forgets, in silence, that `forward` assigned to a buffer of an inner module."""
    inner = set(objective.modules())

    def refuse(module: nn.Module, name: str, value: Tensor | None) -> None:
        if module in inner:
            raise CaptureError(f"`forward` assigns {name}; only batch norm may keep statistics")

    hook = register_module_buffer_registration_hook(refuse)
    try:
        yield
    finally:
        hook.remove()


class _Translation:
    """One exported program in the words of the protocol, and the user's lines behind its nodes."""

    def __init__(self, program: ExportedProgram, state: _State) -> None:
        self.lines: dict[str, str] = {}
        self._references: dict[fx.Node, Scalar] = {}
        inputs = (node for node in program.graph.nodes if node.op == "placeholder")
        for node, spec in zip(inputs, program.graph_signature.input_specs, strict=True):
            self._references[node] = _reference(spec, program, state)
        nodes = tuple(self._node(node) for node in _operations(program.graph))
        loss, output = program.graph.output_node().args[0]
        for result in (loss, output):
            if self._references.get(result) != NodeRef(result.name):
                raise CaptureError("the loss or the output is not computed by the module")
        self.graph = Graph(nodes, loss=loss.name, output=output.name)

    def _node(self, node: fx.Node) -> Node:
        self._references[node] = NodeRef(node.name)
        name = _operator_name(node)
        line = self.lines[node.name] = _user_line(_frames_of_node(node))
        try:
            return Node(
                node.name,
                name,
                args=tuple(map(self._argument, node.args)),
                kwargs={
                    key: self._argument(value)
                    for key, value in node.kwargs.items()
                    # Nothing but strided tensors in pageable memory exists on a device.
                    if key not in {"layout", "pin_memory"}
                },
            )
        except TypeError as error:
            raise CaptureError(f"{name} takes {error}, which cannot travel{line}") from None

    def _argument(self, value: Any) -> Argument:
        if isinstance(value, list | tuple):
            return tuple(map(self._scalar, value))
        return self._scalar(value)

    def _scalar(self, value: Any) -> Scalar:
        match value:
            case fx.Node():
                return self._references[value]
            case torch.dtype() if value in _CODES:
                return DType(_CODES[value])
            case torch.device():
                return Device()
            case torch.memory_format():
                return MemoryFormat(str(value).removeprefix("torch."))  # type: ignore[arg-type]
            case float() if not math.isfinite(value):
                return NonFinite(str(value))  # type: ignore[arg-type]
            case None | bool() | int() | float() | str():
                return value
        raise TypeError(f"{value!r}")


def _reference(spec: InputSpec, program: ExportedProgram, state: _State) -> Scalar:
    match spec.kind, spec.target:
        case InputKind.USER_INPUT, _:
            return InputRef(spec.arg.name)  # type: ignore[arg-type]
        case InputKind.PARAMETER | InputKind.BUFFER, str(target):
            return StateRef(state.names[target.removeprefix("module.")])
        case InputKind.CONSTANT_TENSOR, str(target):
            return StateRef(state.add_constant(program.constants[target]))
    raise CaptureError(f"the module holds {spec.target}, which is no tensor and cannot travel")


def _operations(graph: fx.Graph) -> list[fx.Node]:
    """The nodes that compute something: no assertions of export's, and no sizes that only those need."""
    needed: list[fx.Node] = []
    dropped: set[fx.Node] = set()
    for node in reversed(graph.nodes):
        if node.op in ("placeholder", "output"):
            continue
        name = _operator_name(node)
        is_size = not isinstance(node.target, OpOverload) or name.startswith("aten.sym_")
        if name.startswith("aten._assert_") or (is_size and node.users.keys() <= dropped):
            dropped.add(node)
        else:
            needed.append(node)
    return needed[::-1]


def _operator_name(node: fx.Node) -> str:
    match node.target:
        case OpOverload():
            name = str(node.target)
            # On the copy that `torch.tensor` makes of its constant; equal, and writes nothing.
            return "aten.detach.default" if name == "aten.detach_.default" else name
        case str(name):
            return name
        case function:
            return function.__name__


def _require_runnable(
    graphs: ModelGraphs, task: Task, batch_size: int, lines: Mapping[str, str]
) -> None:
    """What every device will check, and that the graphs hold for other batches than the captured."""

    def empty(spec: NamedTensor, *leading: int) -> Tensor:
        return torch.empty((*leading, *spec.shape), dtype=TORCH_DTYPES[spec.dtype], device="meta")

    try:
        check_graphs(graphs)
        for graph, size in product((graphs.training, graphs.evaluation), (2, 3, batch_size)):
            _, output = CompiledGraph(graph, "meta").run(
                {spec.name: empty(spec) for spec in graphs.parameters},
                {spec.name: empty(spec) for spec in graphs.buffers},
                empty(graphs.sample, size),
                empty(graphs.target, size),
            )
            if task.num_classes is not None and output.shape != (size, task.num_classes):
                raise CaptureError(
                    f"for {size} samples the module returns {tuple(output.shape)}, "
                    f"expected {(size, task.num_classes)}: one value for each class"
                )
    except (GraphError, GraphRunError) as error:
        raise CaptureError(f"{error}{lines.get(error.node or '', '')}") from error


def _capture_error(error: Exception, what: str) -> CaptureError:
    """The reason without torch's advice on its own internals, and the user's line."""
    text = str(error)
    if isinstance(error, CaptureError):
        reason = text
    elif found := re.search(r"specialized it to be a constant \((\d+)\)", text):
        reason = f"it works for batches of {found[1]} only, and must take any size"
    elif "data-dependent" in text:
        reason = "what it does next depends on values in a tensor, which a graph cannot say"
    else:
        reason = f"{type(error).__name__}: {text.strip().partition(chr(10))[0]}"
    frames = ((f.filename, f.lineno or 0) for f in traceback.extract_tb(error.__traceback__))
    return CaptureError(f"{what}: {reason}{_user_line(frames)}")


def _frames_of_node(node: fx.Node) -> Iterable[tuple[str, int]]:
    trace = re.findall(r'File "(.+)", line (\d+)', node.meta.get("stack_trace") or "")
    return ((file, int(line)) for file, line in trace)


def _user_line(frames: Iterable[tuple[str, int]]) -> str:
    """The innermost frame that is neither torch's nor ours, as the end of an error's text."""
    own = [(file, line) for file, line in frames if not file.startswith(_LIBRARY_FILES)]
    if not own:
        return ""
    file, line = own[-1]
    return f"; {file}:{line}: {linecache.getline(file, line).strip()}"
