"""Pause, resume and abort with real devices, all the way down to their trainers."""

from __future__ import annotations

import random
from collections.abc import Iterator

import pytest

from fedconsole.engine.store import Line
from fedconsole.fleet.local import local_daemons
from tests.support.pauses import pauses_of, require_obeyed
from tests.support.places import redirect
from tests.support.runs import FinishedRun, carry, digits_plan

NUM_PAUSES = 5


@pytest.fixture(autouse=True, scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        redirect(tmp_path_factory.mktemp("e"), patch)
        yield


class Pauser:
    """Asks for a pause at some moments of a run, and to resume when all have stopped."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)
        self._num_left = NUM_PAUSES
        self._lines_to_wait = self._random.randint(1, 6)
        self._has_asked = False

    def __call__(self, line: Line) -> str | None:
        match line["type"]:
            case "run.paused":
                return "resume"
            case "run.resumed":
                self._has_asked = False
            case "worker.batches" if self._num_left and not self._has_asked:
                self._lines_to_wait -= 1
                if self._lines_to_wait == 0:
                    self._num_left -= 1
                    self._lines_to_wait = self._random.randint(1, 6)
                    self._has_asked = True
                    return "pause"
        return None


async def test_a_run_paused_five_times_at_random_moments_gives_the_same_model() -> None:
    async with local_daemons(3) as addresses:
        plan = digits_plan(
            virtual=0, workers=tuple(addresses), rounds=4, federate_after_n_batches=150
        )
        undisturbed = await carry(plan)
        paused = await carry(plan, requests=Pauser(seed=4))
    assert len(paused.of_type("run.paused")) == NUM_PAUSES
    assert len(paused.of_type("run.resumed")) == NUM_PAUSES
    assert paused.model_id == undisturbed.model_id
    assert losses_by_worker(paused) == losses_by_worker(undisturbed)
    require_obeyed(pauses_of(paused.lines))


async def test_simulated_workers_tell_that_they_are_paused() -> None:
    plan = digits_plan(virtual=2, rounds=4, federate_after_n_batches=150)
    run = await carry(plan, requests=Pauser(seed=4))
    phases: dict[str, str] = {}
    for line in run.lines:
        if line["type"] == "worker.phase":
            phases[line["worker"]] = line["phase"]
        elif line["type"] == "run.paused":
            assert "training" not in phases.values()
    assert "paused" in {line["phase"] for line in run.of_type("worker.phase")}


def losses_by_worker(run: FinishedRun) -> dict[tuple[str, int], list[float]]:
    losses: dict[tuple[str, int], list[float]] = {}
    for line in run.of_type("worker.batches"):
        losses.setdefault((line["worker"], line["round"]), []).extend(line["losses"])
    return losses
