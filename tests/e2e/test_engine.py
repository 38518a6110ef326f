"""Real engine processes with virtual workers: from a plan to a model, and every way to end."""

from __future__ import annotations

import asyncio
import os
import signal
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import msgspec
import numpy as np
import psutil
import pytest
import torch
from safetensors.torch import load_file

from fedconsole import history, paths
from fedconsole.coordinator import machine
from fedconsole.coordinator.events import Event
from fedconsole.coordinator.phases import RunPhase
from fedconsole.coordinator.plan import Plan
from fedconsole.engine.control import ControlLink, socket_path
from fedconsole.engine.launch import new_run_id, start_engine, take_up_engine
from fedconsole.engine.store import Line, RunStore
from fedconsole.equivalent import command_line
from fedconsole.errors import RefusedError
from fedconsole.fleet.local import local_daemons
from fedconsole.learning.tasks.digits import task as digits
from tests.support.daemons import daemon
from tests.support.places import redirect
from tests.support.runs import FinishedRun, carry, digits_plan


@pytest.fixture(autouse=True, scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        redirect(tmp_path_factory.mktemp("e"), patch)
        yield


@pytest.fixture(scope="module")
def plain(places: None) -> FinishedRun:
    """A run that nobody disturbs."""
    return asyncio.run(carry(digits_plan(holdout=0.25)))


def test_a_run_ends_with_a_model_that_loads_into_the_module(plain: FinishedRun) -> None:
    assert (plain.exit_code, plain.last["outcome"]) == (0, "completed")
    assert [line["seq"] for line in plain.lines] == list(range(1, len(plain.lines) + 1))
    assert [line["round"] for line in plain.of_type("round.finished")] == [1, 2]
    net = digits.build()
    net.load_state_dict(load_file(plain.last["model_path"]))
    assert all(torch.isfinite(p).all() for p in net.parameters())


async def test_one_plan_and_seed_give_one_model_and_another_seed_another(
    plain: FinishedRun,
) -> None:
    again = await carry(digits_plan(holdout=0.25))
    other = await carry(digits_plan(holdout=0.25, seed=2))
    assert plain.model_id == again.model_id != other.model_id


def test_the_journal_holds_every_loss(plain: FinishedRun) -> None:
    for worker in ("alice", "bob"):
        for number in (1, 2):
            parts = [
                line
                for line in plain.of_type("worker.batches")
                if (line["worker"], line["round"]) == (worker, number)
            ]
            before = [sum(len(part["losses"]) for part in parts[:n]) for n in range(len(parts))]
            assert [line["first"] for line in parts] == before
            assert sum(len(line["losses"]) for line in parts) == 4


def test_the_journal_replays_to_the_state_of_the_end(plain: FinishedRun) -> None:
    store = RunStore(paths.runs_dir() / plain.run_id)
    events = [msgspec.json.decode(event, type=Event) for event in store.events()]
    store.close()
    state = machine.replay(events)
    assert (state.phase, state.model_id) == (RunPhase.COMPLETED, plain.model_id)


def test_holdouts_are_evaluated_on_the_workers(plain: FinishedRun) -> None:
    holdouts = [line for line in plain.of_type("eval") if line["worker"] is not None]
    assert sorted((line["round"], line["worker"], line["num_examples"]) for line in holdouts) == [
        (1, "alice", 180),
        (1, "bob", 180),
        (2, "alice", 180),
        (2, "bob", 180),
    ]


@pytest.mark.slow
async def test_daemons_and_virtual_workers_with_the_same_shards_give_the_same_model() -> None:
    async with local_daemons(3) as addresses:
        devices = await carry(digits_plan(virtual=0, workers=tuple(addresses)))
    virtual = await carry(digits_plan(virtual=3))
    assert [line["updates"] for line in devices.of_type("round.finished")] == [
        ["alice", "bob", "charlie"]
    ] * 2
    assert devices.model_id == virtual.model_id


async def test_a_worker_that_is_not_there_is_named_with_a_way_out() -> None:
    run = await carry(digits_plan(virtual=1, workers=("127.0.0.1:9",)))
    assert run.exit_code == 5
    assert run.last["reason"] == (
        "1 of 2 workers have joined, 2 needed; missing: 127.0.0.1:9 (connection refused; "
        "is pi-daemon running there?); start them, or allow fewer with --min-updates"
    )
    assert_kept_as_failed(run)


def assert_kept_as_failed(run: FinishedRun) -> None:
    """The history has it with the reason, and `resume` tells how to try it again."""
    assert run.run_id in history.by_start()
    summary = history.summarize(run.run_id)
    assert summary is not None
    assert (summary.state, summary.reason) == (history.RunState.FAILED, run.last["reason"])
    with pytest.raises(
        RefusedError, match=r"it is failed; .* To try again: fedconsole run "
    ) as says:
        take_up_engine(run.run_id)
    command = str(says.value).partition("To try again: ")[2]
    assert command == command_line(msgspec.convert(summary.plan, Plan))


async def test_a_device_with_other_data_is_refused_and_nobody_is_left_held(
    tmp_path: Path,
) -> None:
    np.savez(tmp_path / "odd.npz", x=np.zeros((50, 9, 9), np.uint8), y=np.arange(50) % 10)
    odd = f"digits={tmp_path / 'odd.npz'}"
    async with (
        daemon(tmp_path, "--dataset", "digits=sample") as alice,
        daemon(tmp_path, "--dataset", odd, name="bob") as bob,
    ):
        both = tuple(f"127.0.0.1:{each.port}" for each in (bob, alice))
        refused = await carry(digits_plan(virtual=0, workers=both))
        again = await carry(digits_plan(virtual=0, workers=both[1:]))
    assert refused.exit_code == 3
    assert refused.last["reason"] == (
        "bob cannot take part: its dataset 'digits' has shape (9, 9), the task takes (8, 8)"
    )
    assert_kept_as_failed(refused)
    assert again.exit_code == 0


async def test_a_model_that_could_not_be_saved_is_refused_before_training(tmp_path: Path) -> None:
    run = await carry(digits_plan(save_model=str(tmp_path / "nowhere" / "a.pt")))
    assert run.exit_code == 3
    assert run.last["reason"].endswith(f"there is no folder {tmp_path / 'nowhere'}: make it first")


@pytest.mark.parametrize(
    "kind", ["a pipe", *(pytest.param(k, marks=pytest.mark.slow) for k in ("a folder", "a device"))]
)
async def test_a_model_is_never_saved_over_what_is_no_file(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "m.pt"
    match kind:
        case "a folder":
            path.mkdir()
        case "a pipe":
            os.mkfifo(path)
        case _:
            # The engine's log, by a name to which nothing can be renamed.
            path = Path("/dev/fd/1")
    run = await carry(digits_plan(save_model=str(path)))
    assert (run.exit_code, run.of_type("round.started")) == (3, [])
    assert run.last["reason"] == (
        f"--save-model names {path}, which is no regular file: give the name of a file"
    )
    assert not path.is_file() or kind == "a device"


async def test_abort_ends_the_run_and_keeps_the_last_complete_rounds_model() -> None:
    def after_first_round(line: Line) -> str | None:
        return "abort" if line["type"] == "round.started" and line["round"] == 2 else None

    run = await carry(digits_plan(rounds=500), requests=after_first_round)
    assert (run.exit_code, run.last["outcome"]) == (6, "aborted")
    assert run.model_id == run.of_type("round.finished")[-1]["model_id"]
    assert Path(run.last["model_path"]).exists()


async def test_abort_works_before_the_task_is_captured() -> None:
    run = await carry(
        digits_plan(rounds=500),
        requests=lambda line: "abort" if line["type"] == "run.created" else None,
    )
    assert (run.exit_code, run.last["outcome"], run.last["rounds"]) == (6, "aborted", 0)


@pytest.mark.slow
async def test_pausing_and_resuming_does_not_change_the_model() -> None:
    def pause_at_the_first_losses(line: Line) -> str | None:
        if line["type"] == "worker.batches" and (line["worker"], line["first"]) == ("alice", 0):
            return "pause"
        return "resume" if line["type"] == "run.paused" else None

    plan = digits_plan(rounds=1, federate_after_n_batches=500)
    plain = await carry(plan)
    paused = await carry(plan, requests=pause_at_the_first_losses)
    assert [line["type"] for line in paused.lines].count("run.paused") == 1
    assert paused.model_id == plain.model_id


@pytest.mark.slow
async def test_a_run_goes_on_from_the_model_of_an_earlier_one(
    plain: FinishedRun, tmp_path: Path
) -> None:
    saved = str(tmp_path / "saved.safetensors")
    plan = digits_plan(rounds=1, lr=1e-12, init_from=plain.last["model_path"], save_model=saved)
    later = await carry(plan)
    assert later.last["model_path"] == saved
    before, after = (load_file(run.last["model_path"]) for run in (plain, later))
    assert all(torch.allclose(before[name], after[name]) for name in before)


@pytest.mark.slow
async def test_the_metric_that_was_asked_for_stops_the_run() -> None:
    run = await carry(digits_plan(rounds=500, stop_at=("accuracy", 0.3)))
    assert (run.exit_code, run.last["outcome"]) == (0, "completed")
    assert run.last["reason"].startswith("accuracy reached 0.3")
    values = [line["accuracy"] for line in run.of_type("eval")]
    assert values[-1] >= 0.3
    assert all(value < 0.3 for value in values[:-1])


@pytest.mark.slow
async def test_a_dry_run_tries_every_worker_and_leaves_nothing() -> None:
    run = await carry(digits_plan(), dry_run=True)
    assert (run.exit_code, (paths.runs_dir() / run.run_id).exists()) == (0, False)
    found = {
        line["worker"]: (line["ok"], line["num_examples"]) for line in run.of_type("preflight")
    }
    assert found == {"alice": (True, 718), "bob": (True, 719)}


async def test_a_task_that_cannot_be_captured_is_refused_by_its_line(tmp_path: Path) -> None:
    (tmp_path / "odd.py").write_text(
        "import torch\n"
        "from torch import nn\n"
        "from fedconsole.learning.tasks.task import Task\n"
        "class Net(nn.Module):\n"
        "    def __init__(self):\n"
        "        super().__init__()\n"
        "        self.fc = nn.Linear(64, 10)\n"
        "    def forward(self, x):\n"
        "        x = self.fc(x.flatten(1))\n"
        "        if x.sum() > 0:\n"
        "            x = x * 2\n"
        "        return x\n"
        "task = Task(name='odd', dataset='digits', sample_shape=(8, 8), sample_dtype='uint8',\n"
        "            num_classes=10, build=Net, prepare=lambda x: x / 16,\n"
        "            loss=nn.functional.cross_entropy)\n"
    )
    run = await carry(digits_plan(task=str(tmp_path / "odd.py")))
    assert run.exit_code == 3
    assert "odd.py:10" in run.last["reason"]
    assert "x.sum() > 0" in run.last["reason"]
    assert_kept_as_failed(run)


async def test_a_killed_engine_takes_its_virtual_workers_with_it() -> None:
    run_id = new_run_id()
    engine = start_engine(run_id, digits_plan(rounds=100_000))
    async with ControlLink.connect(run_id) as link:
        async for line in link.events():
            if line["type"] == "round.started":
                children = _children(engine.pid)
                os.kill(engine.pid, signal.SIGKILL)
                engine.wait()
                break
    assert children
    for pid in children:
        _wait_until_gone(pid)
    database = sqlite3.connect(paths.runs_dir() / run_id / "run.db")
    assert database.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    database.close()
    socket_path(run_id).unlink()


def _children(pid: int) -> list[int]:
    return [child.pid for child in psutil.Process(pid).children(recursive=True)]


def _wait_until_gone(pid: int) -> None:
    try:
        psutil.Process(pid).wait(timeout=10)
    except psutil.NoSuchProcess:
        return
