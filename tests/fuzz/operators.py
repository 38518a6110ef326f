"""Calls every operator of graphs as nobody should: `python -m tests.fuzz.operators --minutes 10`.

Each seed is a case (`tests.fuzz.cases`). What passes its checks and its trial trains and evaluates for real,
in two processes whose fresh memory is filled with different bytes, and whose blocks are fenced in where there
is a C compiler (`fences.c`). A process that dies of a signal, and results that differ, are findings: an operator
that trusts its arguments, or one that tells what lay in memory before.
"""

from __future__ import annotations

import argparse
import ctypes
import hashlib
import os
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import torch
from torch import Tensor

from pi_daemon.learning.graph import CompiledGraph, GraphRunError
from pi_daemon.learning.memory import evaluation_peak_bytes, training_peak_bytes
from pi_daemon.learning.optimizers import make_optimizer
from pi_daemon.protocol.graphs import GraphError, check_graphs
from tests.fuzz.cases import ATEN, Case, Maker

AT_ONCE: Final = 1_000
LIMIT_BYTES: Final = 64 << 20
CHILD_BYTES: Final = 2 << 30
CASE_S: Final = 20
FENCES: Final = Path("fences.so")
FILLS: Final = ("85", "170")
"""Of fresh memory."""


def run(case: Case, seed: int) -> str:
    """What comes of a case, in a few words; of one that runs, a digest of its results."""
    graphs, tensors = case.graphs, case.tensors
    try:
        check_graphs(graphs)
        training, evaluation = CompiledGraph(graphs.training), CompiledGraph(graphs.evaluation)
        training_peak_bytes(graphs, case.optimizer, 3, LIMIT_BYTES)
        evaluation_peak_bytes(graphs, 3, LIMIT_BYTES)
    except (GraphError, GraphRunError):
        return "refused"
    except Exception as error:
        return f"refused {type(error).__name__}"
    torch.manual_seed(seed)
    parameters = {spec.name: tensors[spec.name].requires_grad_() for spec in graphs.parameters}
    buffers = {spec.name: tensors[spec.name] for spec in graphs.buffers}
    x, y = torch.linspace(-1, 1, 12).reshape(3, 4), torch.tensor([0, 1, 2])
    results: list[Tensor] = []
    words: list[str] = []
    with fences():
        try:
            results += training.run(parameters, buffers, x, y)
            results[0].backward()
            results += [p.grad.to_dense() for p in parameters.values() if p.grad is not None]
            make_optimizer(case.optimizer, parameters.values()).step()
        except Exception as error:
            words.append(str(error))
        try:
            with torch.no_grad():
                results += evaluation.run(parameters, buffers, x, y)
        except Exception as error:
            words.append(str(error))
    digest = hashlib.sha256("\n".join(words).encode())
    for tensor in (*results, *tensors.values()):
        digest.update(tensor.detach().contiguous().view(-1).view(torch.uint8).numpy().tobytes())
    return ("failed " if words else "ran ") + digest.hexdigest()


@contextmanager
def fences() -> Iterator[None]:
    """Around what may allocate: fences every block, if this process was started with `fences.c`."""
    try:
        flag = ctypes.c_int.in_dll(ctypes.CDLL(None), "fences_on")
    except ValueError:
        flag = ctypes.c_int()
    flag.value = 1
    try:
        yield
    finally:
        flag.value = 0


def child(first: int, log: Path) -> None:
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    resource.setrlimit(resource.RLIMIT_DATA, (CHILD_BYTES, CHILD_BYTES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with log.open("a") as file:
        for seed in range(first, first - first % AT_ONCE + AT_ONCE):
            file.write(f"{seed} ")
            file.flush()
            # The signal ends this process.
            signal.alarm(CASE_S)
            file.write(run(Maker(seed).case(), seed) + "\n")


def outcomes(first: int, fill: str, folder: Path) -> dict[int, str]:
    """Of `AT_ONCE` seeds; a child that dies is followed by one for the rest."""
    log = folder / f"{first}-{fill}"
    seed, end = first, first + AT_ONCE
    environment = os.environ | {"MALLOC_PERTURB_": fill, "FENCES_FILL": fill}
    if (library := folder / FENCES.name).exists():
        environment["LD_PRELOAD"] = str(library)
    while seed < end:
        command = [sys.executable, "-m", "tests.fuzz.operators", "--child", str(seed), str(log)]
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
    num_cases = num_run = 0
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        build_fences(folder)
        while time.monotonic() < end_s:
            found = [outcomes(first, fill, folder) for fill in FILLS]
            for seed, outcome in found[0].items():
                num_cases += 1
                num_run += outcome.startswith("ran")
                other = found[1].get(seed, "")
                if outcome != other or outcome.startswith("died"):
                    yield f"seed {seed} ({ATEN[seed % len(ATEN)]}): {outcome[:16]}, {other[:16]}"
            first += AT_ONCE
    yield f"{num_cases} cases, {num_run} of them ran; next seed {first}"


def build_fences(folder: Path) -> None:
    if compiler := shutil.which("cc"):
        source = Path(__file__).with_name("fences.c")
        options = ["-O1", "-shared", "-fPIC", "-o", str(folder / FENCES.name)]
        subprocess.run([compiler, *options, str(source)], check=True)


def show(seed: int) -> None:
    """The case of a seed, and what comes of it."""
    case = Maker(seed).case()
    for node in case.graphs.training.nodes:
        print(node)
    for spec in case.graphs.parameters + case.graphs.buffers:
        print(spec, case.tensors[spec.name].flatten()[:12].tolist())
    print(run(case, seed), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz.operators")
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--seed", type=int, default=0, help=f"a multiple of {AT_ONCE}")
    parser.add_argument("--show", type=int, metavar="SEED", help="one case, and what comes of it")
    parser.add_argument("--child", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        child(int(options.child[0]), Path(options.child[1]))
    elif options.show is not None:
        show(options.show)
    else:
        is_clean = True
        for line in campaign(options.minutes, options.seed):
            print(line, flush=True)
            is_clean &= not line.startswith("seed")
        sys.exit(not is_clean)


if __name__ == "__main__":
    main()
