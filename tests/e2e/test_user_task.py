"""A model of the user's own, on daemons that know nothing of it and were there before it."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from contextlib import AsyncExitStack
from pathlib import Path

import numpy as np
import pytest

from fedconsole.learning.tasks.loading import BUILT_IN, load_task
from tests.support.daemons import DaemonProcess, daemon
from tests.support.places import redirect
from tests.unit.test_docs import EXAMPLE, ROOT, code_block, documented_lines

FEDCONSOLE = [sys.executable, "-c", "from fedconsole.cli.main import main; main()"]
OPTIONS = [
    *("--task", "motion.py", "--data-dir", ".", "--optimizer", "adam", "--batch-size", "32"),
    *("--federate-after-n-batches", "10", "--rounds", "30", "--stop-at", "accuracy=0.97"),
]


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    return redirect(tmp_path, monkeypatch)


def write_motion(file: Path, num_examples: int, seed: int) -> None:
    """Readings in thousandths of g: walking swings on one axis, a fall is weightless, then hits."""
    generator = np.random.default_rng(seed)
    y = generator.choice(3, num_examples, p=[0.45, 0.45, 0.1])
    x = generator.normal(0, 80, (num_examples, 64, 3))
    x[:, :, 2] += 1000
    starts = generator.uniform(0, 2 * np.pi, ((y == 1).sum(), 1))
    x[y == 1, :, 0] += 400 * np.sin(2 * np.pi * np.arange(64) / 16 + starts)
    x[y == 2, 20:30, 2] -= 1000
    x[y == 2, 30:34, 1] += 2500
    np.savez(file, x=x.astype(np.int16), y=y)


def write_data(place: Path) -> None:
    write_motion(place / "motion.npz", 900, seed=1)
    write_motion(place / "motion-test.npz", 300, seed=2)


async def run_program(*command: str) -> tuple[int, str]:
    """Exit code and stdout; stderr is the test's own."""
    process = await asyncio.create_subprocess_exec(
        *command, stdout=asyncio.subprocess.PIPE, env=os.environ | {"PYTHONPATH": "."}
    )
    out, _ = await process.communicate()
    assert process.returncode is not None
    return process.returncode, out.decode()


async def two_daemons(stack: AsyncExitStack, place: Path) -> list[DaemonProcess]:
    return [
        await stack.enter_async_context(
            daemon(place, "--dataset", "motion=motion.npz", "--shard", shard, name=name)
        )
        for name, shard in (("alice", "1/2"), ("bob", "2/2"))
    ]


def layers(task: str) -> set[str]:
    return {type(module).__name__ for module in load_task(task).build().modules()}


async def test_a_module_written_after_the_daemons_started_trains_on_them(place: Path) -> None:
    write_data(place)
    async with AsyncExitStack() as stack:
        daemons = await two_daemons(stack, place)
        addresses = [f"--worker=127.0.0.1:{found.port}" for found in daemons]
        (place / "motion.py").write_text(EXAMPLE.read_text())

        code, out = await run_program(*FEDCONSOLE, "run", *addresses, *OPTIONS, "--json")

        assert code == 0
        assert [found.process.returncode for found in daemons] == [None, None]
    lines = [json.loads(line) for line in out.splitlines()]
    end = lines[-1]
    assert (end["outcome"], end["reason"].split(":")[0]) == ("completed", "accuracy reached 0.97")
    assert {line["worker"] for line in lines if line["type"] == "worker.update"} == {"alice", "bob"}
    require_documented(lines)
    built_in = set[str]().union(*map(layers, BUILT_IN))
    assert {"BatchNorm1d", "GRU", "Dropout"} <= layers("motion.py") - built_in


def require_documented(lines: list[dict[str, object]]) -> None:
    documented = documented_lines()
    for line in lines:
        found = line.keys() - {"v", "seq", "time", "type", "run"}
        of_class = {
            f"{kind}_{name}"
            for kind in ("recall", "precision", "f1")
            for name in ("still", "walking", "falling")
        }
        of_classes = {"accuracy", "macro_f1", *of_class} if line["type"] == "eval" else set()
        assert found == documented[str(line["type"])] | of_classes, line


@pytest.mark.slow
async def test_its_model_is_taken_as_the_docs_say_and_a_run_goes_on_from_it(place: Path) -> None:
    write_data(place)
    (place / "motion.py").write_text(EXAMPLE.read_text())
    command = (*FEDCONSOLE, "run", *OPTIONS, "--virtual", "2", "--json")
    code, _ = await run_program(*command)
    assert code == 0

    code, _ = await run_program(
        *FEDCONSOLE, "runs", "export", "latest", "--model", "motion.safetensors"
    )
    assert code == 0
    loading = code_block(ROOT / "docs" / "tasks.md", "python", 1)
    code, out = await run_program(sys.executable, "-c", loading + "print(net.gru.hidden_size)")
    assert (code, out) == (0, "32\n")
    code, out = await run_program(*command, "--rounds", "1", "--init-from", "motion.safetensors")
    assert code == 0
    (test,) = [line for line in map(json.loads, out.splitlines()) if line["type"] == "eval"]
    assert test["accuracy"] > 0.9
