"""A worker in another language takes part in a run: examples/node-worker."""

from __future__ import annotations

import asyncio
import shutil
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from fedconsole.learning.capture import capture
from fedconsole.learning.tasks.digits import task as digits
from tests.support.daemons import daemon
from tests.support.places import redirect
from tests.support.runs import carry, digits_plan

EXAMPLE = Path(__file__).parents[2] / "examples" / "node-worker"
NODE = shutil.which("node")


@pytest.fixture(scope="module")
def installed() -> None:
    """The example's one dependency, installed as its README says."""
    if NODE is None:
        pytest.skip("Node is not installed")
    if not (EXAMPLE / "node_modules").is_dir():
        found = subprocess.run(
            ["npm", "ci", "--silent", "--prefix", EXAMPLE], capture_output=True, text=True
        )
        if found.returncode != 0:
            pytest.skip(f"npm cannot install the example's dependency: {found.stderr[-200:]}")


@pytest.fixture
async def nora(installed: None, tmp_path: Path) -> AsyncIterator[str]:
    """The address of a running worker."""
    assert NODE is not None
    process = await asyncio.create_subprocess_exec(
        *(NODE, str(EXAMPLE / "worker.mjs"), "--port", "0", "--name", "nora", "--examples", "100"),
        stdout=asyncio.subprocess.PIPE,
        cwd=tmp_path,
    )
    assert process.stdout is not None
    async with asyncio.timeout(20):
        words = (await process.stdout.readline()).decode().split()
    yield words[-1].removeprefix("ws://")
    process.terminate()
    await process.wait()


async def test_a_worker_in_javascript_takes_part_in_rounds(
    nora: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    redirect(tmp_path, monkeypatch)
    plan = digits_plan(virtual=0, workers=(nora,), rounds=2)
    run = await carry(plan)
    assert (run.exit_code, run.last["outcome"]) == (0, "completed")
    updates = [(line["worker"], line["num_examples"]) for line in run.of_type("worker.update")]
    assert updates == [("nora", 32 * 3 + 4)] * 2
    # It halves every parameter in each round.
    before = capture(digits, plan.batch_size, plan.seed).state
    after = load_file(run.last["model_path"])
    assert all(torch.equal(after[name], before[name] / 4) for name in after)


@pytest.mark.slow
async def test_workers_in_two_languages_share_a_run(
    nora: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    redirect(tmp_path, monkeypatch)
    (tmp_path / "alice").mkdir()
    async with daemon(tmp_path / "alice", "--dataset", "digits=sample", "--shard", "1/3") as alice:
        workers = (nora, f"127.0.0.1:{alice.port}")
        run = await carry(digits_plan(virtual=0, workers=workers, rounds=1))
    assert run.of_type("round.finished")[0]["updates"] == ["alice", "nora"]
