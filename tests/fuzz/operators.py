"""Runs made-up graphs of allowed operators as a trainer would: `python -m tests.fuzz.operators --minutes 10`.

Each graph that passes its checks and its trial runs for real, in two processes whose allocators fill
fresh memory with different bytes. A process that dies of a signal, and results that differ, are
findings: an operator that trusts its arguments, or one that tells what lay in memory before.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import random
import resource
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final, TypeVar

import torch

from pi_daemon.learning.graph import CompiledGraph, GraphRunError
from pi_daemon.learning.memory import training_peak_bytes
from pi_daemon.protocol.graphs import (
    Argument,
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
    OptimizerSpec,
    StateRef,
    check_graphs,
)
from pi_daemon.protocol.operators import BUILTINS, OPERATORS
from pi_daemon.protocol.tensors import DTYPE_BYTES

T = TypeVar("T")

ATEN: Final = sorted(OPERATORS - BUILTINS)
AT_ONCE: Final = 4_000
LIMIT_BYTES: Final = 64 << 20
CHILD_BYTES: Final = 2 << 30
CHILD_CPU_S: Final = 600
FILLS: Final = ("85", "170")
"""Of fresh memory (glibc's MALLOC_PERTURB_)."""

SIZES = (0, 1, 2, 3, 4, 5, 8, -1, -2, -7, 63, 64, 2**31 - 1, 2**31, 2**62, -(2**63))
NUMBERS: tuple[Argument, ...] = (
    *(0.0, 1.0, -1.0, 0.5, 2.0, -0.0, 1e-38, 1e38),
    *(NonFinite("nan"), NonFinite("inf"), NonFinite("-inf")),
)
WORDS = (
    *("none", "mean", "sum", "batchmean", "floor", "trunc", "tanh", "same", "valid", "ij", "xy"),
    *("constant", "reflect", "replicate", "circular", "bij,bjk->bik", "ij->ji", "ij,jk", "...i"),
)
LEAVES = (
    Node("i", "aten.full.default", ((2, 3), 1), {"dtype": DType("I64")}),
    Node("low", "aten.full.default", ((2, 3), -1), {"dtype": DType("I64")}),
    Node("far", "aten.full.default", ((4,), 2**40), {"dtype": DType("I64")}),
    Node("row", "aten.arange.default", (4,), {"dtype": DType("I64")}),
    Node("small", "aten.arange.default", (3,), {"dtype": DType("I32")}),
    Node("square", "aten.ones.default", ((4, 4),)),
    Node("image", "aten.randn.default", ((1, 2, 5, 6),)),
    Node("volume", "aten.randn.default", ((1, 2, 3, 4, 5),)),
    Node("wide", "aten.randn.default", ((3, 7),), {"dtype": DType("F64")}),
    Node("half", "aten.ones.default", ((3, 4),), {"dtype": DType("BF16")}),
    Node("none", "aten.zeros.default", ((0, 4),)),
    Node("mask", "aten.gt.Scalar", (StateRef("w"), 0.5)),
    Node("one", "aten.full.default", ((), 0.5)),
    Node("scaled", "aten.mul.Scalar", (StateRef("w"), 3.0)),
)


class Maker:
    """Makes a graph out of a seed."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)
        self._tensors = [*(NodeRef(leaf.name) for leaf in LEAVES), StateRef("w"), InputRef("x")]

    def graphs(self) -> ModelGraphs:
        nodes = list(LEAVES)
        for number in range(self._random.randint(1, 3)):
            operator = self._pick(ATEN)
            nodes.append(self._node(f"n{number}", operator))
            if _returns_several(operator):
                index = self._pick((0, 0, 0, 1, 2))
                nodes.append(Node(f"of-n{number}", "getitem", (NodeRef(f"n{number}"), index)))
            self._tensors.extend([NodeRef(nodes[-1].name)] * 6)
        last = NodeRef(nodes[-1].name)
        nodes += [
            Node("as-floats", "aten.to.dtype", (last, DType("F32"))),
            Node("total", "aten.sum.default", (NodeRef("as-floats"),)),
            Node("of-w", "aten.sum.default", (NodeRef("scaled"),)),
            Node("loss", "aten.add.Tensor", (NodeRef("total"), NodeRef("of-w"))),
        ]
        graph = Graph(tuple(nodes), "loss", "as-floats")
        return ModelGraphs(
            training=graph,
            evaluation=graph,
            parameters=(NamedTensor("w", "F32", (3, 4)),),
            buffers=(),
            sample=NamedTensor("x", "F32", (4,)),
            target=NamedTensor("y", "I64", ()),
        )

    def _node(self, name: str, operator: str) -> Node:
        args: list[Argument] = []
        kwargs: dict[str, Argument] = {}
        for argument in _schema(operator).arguments:
            if argument.has_default_value() and self._random.random() < 0.75:
                if not argument.kwarg_only:
                    break
                continue
            value = self._value(str(argument.real_type))
            if argument.kwarg_only:
                kwargs[argument.name] = value
            else:
                args.append(value)
        return Node(name, operator, tuple(args), kwargs)

    def _value(self, kind: str) -> Argument:
        if kind.startswith("Optional["):
            return None if self._random.random() < 0.5 else self._value(kind[9:-1])
        if kind.startswith("List["):
            inner = kind[5:-1]
            made = [self._value(inner) for _ in range(self._random.randint(0, 4))]
            return tuple(item for item in made if not isinstance(item, tuple))
        match kind:
            case "Tensor":
                return self._pick(self._tensors)
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
            case "MemoryFormat":
                return MemoryFormat(self._pick(("contiguous_format", "channels_last")))
            case _:
                return None

    def _pick(self, values: Sequence[T]) -> T:
        return self._random.choice(values)


def _schema(operator: str) -> torch.FunctionSchema:
    _, packet, overload = operator.split(".")
    return getattr(getattr(torch.ops.aten, packet), overload)._schema


def _returns_several(operator: str) -> bool:
    returns = _schema(operator).returns
    return len(returns) > 1 or any("List" in str(kind.type) for kind in returns)


def run(seed: int) -> str:
    """What comes of a seed's graph, in a few words; of one that runs, a digest of its results."""
    graphs = Maker(seed).graphs()
    try:
        check_graphs(graphs)
        program = CompiledGraph(graphs.training)
        training_peak_bytes(graphs, OptimizerSpec("sgd", lr=0.1), 3, LIMIT_BYTES)
    except (GraphError, GraphRunError):
        return "refused"
    except Exception as error:
        return f"refused {type(error).__name__}"
    torch.manual_seed(seed)
    w = torch.linspace(0, 1, 12).reshape(3, 4).requires_grad_()
    x, y = torch.linspace(-1, 1, 12).reshape(3, 4), torch.tensor([0, 1, 2])
    digest = hashlib.sha256()
    try:
        loss, output = program.run({"w": w}, {}, x, y)
        loss.backward()
    except Exception:
        return "failed"
    for tensor in (loss, output, w.grad):
        if tensor is not None:
            digest.update(tensor.detach().numpy().tobytes())
    return digest.hexdigest()


def child(first: int, log: Path) -> None:
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    resource.setrlimit(resource.RLIMIT_DATA, (CHILD_BYTES, CHILD_BYTES))
    resource.setrlimit(resource.RLIMIT_CPU, (CHILD_CPU_S, CHILD_CPU_S))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with log.open("a") as file:
        for seed in range(first, first - first % AT_ONCE + AT_ONCE):
            file.write(f"{seed} ")
            file.flush()
            file.write(run(seed) + "\n")


def outcomes(first: int, fill: str, folder: Path) -> dict[int, str]:
    """Of `AT_ONCE` seeds; a child that dies is followed by one for the rest."""
    log = folder / f"{first}-{fill}"
    seed, end = first, first + AT_ONCE
    while seed < end:
        command = [sys.executable, "-m", "tests.fuzz.operators", "--child", str(seed), str(log)]
        environment = os.environ | {"MALLOC_PERTURB_": fill}
        done = subprocess.run(command, env=environment, capture_output=True, check=False)
        if done.returncode == 0:
            break
        with log.open("a") as file:
            file.write(f"died {done.returncode}\n")
        seed = max(_read(log)) + 1
    return _read(log)


def _read(log: Path) -> dict[int, str]:
    lines = (line.partition(" ") for line in log.read_text().splitlines())
    return {int(seed): outcome for seed, _, outcome in lines}


def campaign(minutes: float, first: int) -> Iterator[str]:
    """Findings, one a line, and what was done at the end."""
    end_s = time.monotonic() + 60 * minutes
    num_graphs = num_run = 0
    with tempfile.TemporaryDirectory() as name:
        while time.monotonic() < end_s:
            found = [outcomes(first, fill, Path(name)) for fill in FILLS]
            for seed, outcome in found[0].items():
                num_graphs += 1
                num_run += len(outcome) == 64
                if outcome != found[1].get(seed) or outcome.startswith("died"):
                    yield f"seed {seed}: {outcome[:16]}, {found[1].get(seed, '')[:16]}"
            first += AT_ONCE
    yield f"{num_graphs} graphs, {num_run} of them ran; next seed {first}"


def show(seed: int) -> None:
    """The graph of a seed, and what comes of it."""
    for node in Maker(seed).graphs().training.nodes[len(LEAVES) :]:
        print(node)
    print(run(seed), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz.operators")
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--seed", type=int, default=0, help="a multiple of 4000")
    parser.add_argument("--show", type=int, metavar="SEED", help="one graph, and what comes of it")
    parser.add_argument("--child", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        child(int(options.child[0]), Path(options.child[1]))
    elif options.show is not None:
        show(options.show)
    else:
        for line in campaign(options.minutes, options.seed):
            print(line, flush=True)


if __name__ == "__main__":
    main()
