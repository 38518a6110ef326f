"""Real trainer processes, as the daemon and the engine's virtual workers hold them."""

from __future__ import annotations

import asyncio
import hashlib
import os
import signal
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import psutil
import pytest
import pytest_asyncio
from msgspec.structs import replace

from pi_daemon.protocol.graphs import decode_graphs
from pi_daemon.protocol.messages import Cursor, RefusalCode
from pi_daemon.trainer import process
from pi_daemon.trainer.pipe import BatchLosses, RoundTrained, WorkerSpec
from pi_daemon.trainer.process import (
    RoundAbortedError,
    TrainerExitedError,
    TrainerProcess,
    TrainerRefusal,
    start_trainers,
)
from tests.support.freezing import frozen
from tests.support.hostile import HONEST, endless, hostile_model
from tests.support.rounds import tiny_model, worker_spec

pytestmark = pytest.mark.asyncio(loop_scope="module")

FOREVER = 10**9


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def trainers() -> AsyncIterator[list[TrainerProcess]]:
    found = await start_trainers(2)
    yield found
    for trainer in found:
        await trainer.close()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("trainers")


class Training:
    """A round in a task; `begun` is set when its first batch is near."""

    def __init__(
        self,
        trainer: TrainerProcess,
        worker: WorkerSpec,
        num_batches: int,
        on_losses: Callable[[BatchLosses], None] = lambda _: None,
    ) -> None:
        self.begun = asyncio.Event()
        self.update = Path(worker.graphs_path).parent / f"update-{worker.worker_id}"
        self.task = asyncio.get_running_loop().create_task(
            trainer.train(
                worker,
                model_path=str(Path(worker.graphs_path).parent / "model"),
                model_id=tiny_model().model_id,
                update_path=str(self.update),
                cursor=Cursor(0, 0),
                num_batches=num_batches,
                torch_seed=5,
                on_begun=self.begun.set,
                on_losses=on_losses,
            )
        )


async def train(trainer: TrainerProcess, worker: WorkerSpec, num_batches: int) -> RoundTrained:
    return await Training(trainer, worker, num_batches).task


async def test_trainers_of_one_import_are_processes_of_their_own(
    trainers: list[TrainerProcess], folder: Path
) -> None:
    first, second = trainers
    ready = await asyncio.gather(
        first.prepare(worker_spec(folder)), second.prepare(worker_spec(folder, "bob"))
    )
    assert [found.num_examples for found in ready] == [384, 384]
    assert first.pid is not None
    assert second.pid in [child.pid for child in psutil.Process(first.pid).children()]
    updates = await asyncio.gather(
        train(first, worker_spec(folder), 30), train(second, worker_spec(folder, "bob"), 30)
    )
    assert updates[0].update_sha256 == updates[1].update_sha256


async def test_a_paused_worker_lets_others_train_and_notices_nothing(
    trainers: list[TrainerProcess], folder: Path
) -> None:
    trainer = trainers[0]
    alice, bob = worker_spec(folder), worker_spec(folder, "bob")
    straight = await train(trainer, alice, 300)
    paused = Training(trainer, alice, 300)
    await paused.begun.wait()
    await trainer.pause("alice")
    if paused.task.done():
        pytest.fail("the round ended before it could be paused: train more batches here")
    await train(trainer, bob, 30)
    assert not paused.task.done()
    await trainer.resume("alice")
    assert (await paused.task).update_sha256 == straight.update_sha256


async def test_workers_of_one_trainer_wait_for_their_turn_and_can_be_aborted_meanwhile(
    trainers: list[TrainerProcess], folder: Path
) -> None:
    trainer = trainers[0]
    alice = Training(trainer, worker_spec(folder), FOREVER)
    bob = Training(trainer, worker_spec(folder, "bob"), FOREVER)
    await alice.begun.wait()
    await trainer.abort("bob")
    with pytest.raises(RoundAbortedError):
        await bob.task
    assert not bob.begun.is_set()
    await trainer.abort("alice")
    with pytest.raises(RoundAbortedError):
        await alice.task


async def test_a_round_that_was_paused_can_be_aborted(
    trainers: list[TrainerProcess], folder: Path
) -> None:
    trainer = trainers[0]
    alice = Training(trainer, worker_spec(folder), FOREVER)
    await alice.begun.wait()
    await trainer.pause("alice")
    await trainer.forget("alice")
    with pytest.raises(RoundAbortedError):
        await alice.task
    assert (await train(trainer, worker_spec(folder), 3)).num_batches == 3


async def test_no_loss_comes_after_an_acknowledged_pause(
    trainers: list[TrainerProcess], folder: Path
) -> None:
    told: list[int] = []
    trainer = trainers[0]
    alice = Training(trainer, worker_spec(folder), FOREVER, lambda m: told.append(len(m.losses)))
    await alice.begun.wait()
    await trainer.pause("alice")
    num_told = sum(told)
    await trainer.evaluate(worker_spec(folder), str(folder / "model"), tiny_model().model_id)
    assert sum(told) == num_told
    await trainer.abort("alice")
    with pytest.raises(RoundAbortedError):
        await alice.task


async def test_a_refused_request_leaves_the_trainer_as_it_was(
    trainers: list[TrainerProcess], folder: Path
) -> None:
    trainer = trainers[0]
    with pytest.raises(TrainerRefusal) as refusal:
        await trainer.evaluate(worker_spec(folder), str(folder / "gone"), "0" * 64)
    assert refusal.value.code is RefusalCode.BAD_MODEL
    assert (await train(trainer, worker_spec(folder), 3)).num_batches == 3


async def test_a_killed_trainer_takes_no_other_with_it(folder: Path) -> None:
    first, second = await start_trainers(2)
    rounds = [Training(first, worker_spec(folder), FOREVER)]
    rounds.append(Training(second, worker_spec(folder, "bob"), FOREVER))
    for training in rounds:
        await training.begun.wait()
    first.kill("was killed by the test")
    with pytest.raises(TrainerExitedError, match="the trainer was killed by the test"):
        await rounds[0].task
    await second.abort("bob")
    with pytest.raises(RoundAbortedError):
        await rounds[1].task
    await second.close()
    with pytest.raises(TrainerExitedError, match="the trainer ended"):
        await second.prepare(worker_spec(folder))


async def test_a_trainer_that_does_not_obey_an_abort_is_killed(folder: Path) -> None:
    [trainer] = await start_trainers()
    alice = Training(trainer, worker_spec(folder), FOREVER)
    await alice.begun.wait()
    assert trainer.pid is not None
    os.kill(trainer.pid, signal.SIGSTOP)
    await trainer.abort("alice")
    with pytest.raises(TrainerExitedError, match="did not stop within 5 s"):
        await alice.task
    await trainer.close()


@pytest.mark.parametrize("graph", ["training", "evaluation"])
async def test_a_batch_that_never_ends_ends_its_trainer(folder: Path, graph: str) -> None:
    endless_nodes = decode_graphs(endless().graphs).training.nodes
    nodes = {"training": HONEST, "evaluation": HONEST} | {graph: endless_nodes}
    model = hostile_model(*nodes["training"], evaluation=nodes["evaluation"])
    path = folder / f"endless {graph}"
    path.write_bytes(model.graphs)
    spec = replace(
        worker_spec(folder),
        graphs_path=str(path),
        graphs_sha256=hashlib.sha256(model.graphs).hexdigest(),
    )
    zeros = folder / "zeros"
    zeros.write_bytes(model.content)
    [trainer] = await start_trainers(max_batch_s=1.0)
    with pytest.raises(TrainerExitedError, match="took more than 1 s for one batch"):
        await (
            trainer.prepare(spec)
            if graph == "training"
            else trainer.evaluate(spec, str(zeros), model.model_id)
        )
    await trainer.close()


async def test_nothing_but_what_a_batch_computes_counts_against_its_limit(folder: Path) -> None:
    """Neither importing, nor the trial in another process, nor to stand still."""
    [trainer] = await start_trainers(max_batch_s=0.5)
    alice = Training(trainer, worker_spec(folder), FOREVER)
    await alice.begun.wait()
    assert trainer.pid is not None
    with frozen(trainer.pid):
        # Takes a second and more.
        [other] = await start_trainers()
        await other.prepare(worker_spec(folder))
        await other.close()
    await trainer.abort("alice")
    with pytest.raises(RoundAbortedError):
        await alice.task
    await trainer.close()


async def test_a_trainer_that_stands_still_for_good_is_killed(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    [trainer] = await start_trainers()
    alice = Training(trainer, worker_spec(folder), FOREVER)
    await alice.begun.wait()
    monkeypatch.setattr(process, "SILENCE_S", 0.5)
    trainer._max_batch_s = 0.01
    await trainer.pause("bob")  # its answer is a sign of life
    assert trainer.pid is not None
    os.kill(trainer.pid, signal.SIGSTOP)
    with pytest.raises(TrainerExitedError, match=r"did not get on within 0\.5 s"):
        await alice.task
    await trainer.close()


async def test_a_trainer_that_does_not_start_is_killed(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(process, "START_S", 0.1)
    [trainer] = await start_trainers()
    with pytest.raises(TrainerExitedError, match=r"did not start within 0\.1 s"):
        await trainer.prepare(worker_spec(folder))
