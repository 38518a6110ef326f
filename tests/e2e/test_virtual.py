"""More virtual workers than trainers: most of them wait for one, whatever is asked of the run."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator

import psutil
import pytest

from fedconsole.engine.store import Line
from tests.support.places import redirect
from tests.support.runs import FinishedRun, carry, digits_plan

PLAN = digits_plan(virtual=24, rounds=2, batch_size=8, federate_after_n_batches=40)
"""Long enough that a request meets workers that train, that wait, and that are done."""


@pytest.fixture(autouse=True, scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        redirect(tmp_path_factory.mktemp("v"), patch)
        yield


@pytest.fixture(scope="module")
def plain(places: None) -> FinishedRun:
    """A run that nobody disturbs."""
    return asyncio.run(carry(PLAN))


def test_every_worker_has_its_turn_in_every_round(plain: FinishedRun) -> None:
    names = sorted(["alice", "bob", "charlie", *(f"virtual-{n:04d}" for n in range(4, 25))])
    assert [line["updates"] for line in plain.of_type("round.finished")] == [names, names]


def after_first_update(request: Callable[[], str | None]) -> Callable[[Line], str | None]:
    """What to ask when the first worker of round 2 is done; of a run that is paused, to go on."""
    has_asked = False

    def answer(line: Line) -> str | None:
        nonlocal has_asked
        if line["type"] == "worker.update" and line["round"] == 2 and not has_asked:
            has_asked = True
            return request()
        return "resume" if line["type"] == "run.paused" else None

    return answer


@pytest.mark.slow
async def test_a_pause_while_most_workers_wait_does_not_change_the_model(
    plain: FinishedRun,
) -> None:
    paused = await carry(PLAN, requests=after_first_update(lambda: "pause"))
    [at] = [index for index, line in enumerate(paused.lines) if line["type"] == "run.paused"]
    seen = [line["type"] for line in paused.lines[at + 1 :]]
    assert seen[: seen.index("run.resumed")] == []
    assert paused.model_id == plain.model_id


@pytest.mark.slow
async def test_an_abort_while_most_workers_wait_ends_the_run(plain: FinishedRun) -> None:
    aborted = await carry(PLAN, requests=after_first_update(lambda: "abort"))
    assert (aborted.exit_code, aborted.last["outcome"]) == (6, "aborted")
    assert aborted.model_id == plain.of_type("round.finished")[0]["model_id"]


async def test_what_a_killed_trainer_had_in_hand_is_trained_again(plain: FinishedRun) -> None:
    others = psutil.Process().children()

    def kill_a_trainer() -> None:
        [engine] = set(psutil.Process().children()).difference(others)
        [trainer] = engine.children()
        trainer.kill()

    run = await carry(PLAN, requests=after_first_update(kill_a_trainer))
    warnings = [line["text"] for line in run.of_type("warning")]
    assert 1 <= len(warnings) <= 2
    assert all("the trainer was killed" in text for text in warnings)
    assert run.model_id == plain.model_id
