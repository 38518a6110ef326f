"""What a trial asks of torch needs nothing of its compiler."""

from __future__ import annotations

import json
import subprocess
import sys

from pi_daemon.learning.memory import evaluation_peak_bytes, training_peak_bytes
from tests.fuzz.cases import ATEN, Maker

LIMIT_BYTES = 1 << 30


def peaks() -> list[tuple[str, int, int]]:
    """Of a model that calls it, for each operator."""
    found = []
    for seed, operator in enumerate(ATEN):
        case = Maker(seed).case()
        training = training_peak_bytes(case.graphs, case.optimizer, 3, LIMIT_BYTES)
        found.append((operator, training, evaluation_peak_bytes(case.graphs, 3, LIMIT_BYTES)))
    return found


_WITHOUT = """
import json, sys
from pi_daemon.learning.no_compiler import leave_out_the_compiler
leave_out_the_compiler()
from tests.unit.test_no_compiler import peaks
found = peaks()
print(json.dumps([found, [name for name in sys.modules if name.startswith("torch._dynamo")]]))
"""

_OTHERWISE = """
import sys
from pi_daemon.learning.no_compiler import leave_out_the_compiler
leave_out_the_compiler()
import torch._dynamo
assert torch._dynamo.disable(print) is print
torch._dynamo.reset()
assert torch.compile(lambda x: x + 1, backend="eager")(torch.ones(1)).item() == 2
"""


def test_every_operator_takes_the_same_memory_without_the_compiler_and_none_calls_for_it() -> None:
    done = subprocess.run(
        [sys.executable, "-c", _WITHOUT], capture_output=True, text=True, check=True
    )
    found, loaded = json.loads(done.stdout)
    assert [tuple(peak) for peak in found] == peaks()
    assert loaded == ["torch._dynamo"]


def test_whoever_calls_for_the_compiler_gets_it() -> None:
    subprocess.run([sys.executable, "-c", _OTHERWISE], check=True)
