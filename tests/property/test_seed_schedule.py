"""What the run machine lets workers train, beside the old guide's loop over its batches."""

from __future__ import annotations

from hypothesis import example, given
from hypothesis import strategies as st

from benchmarks.seed import get_next_batches
from fedconsole.coordinator import commands, facts
from fedconsole.coordinator.phases import RunPhase
from fedconsole.coordinator.plan import EpochEnd, Plan, Weighting
from tests.support.play import facts_in, joins, play
from tests.unit.test_machine_lengths import Turns, evaluated_rounds, finish_rounds, turns_of

BATCH_SIZE = 10
NUM_EPOCHS = 2
WORKERS = ("alice", "bob", "charlie")
# A single example makes no batch here, and in the guide a worker without any ends every epoch.
SHARDS = st.tuples(*[st.integers(2, 150).filter(lambda n: n % BATCH_SIZE != 1)] * len(WORKERS))


def turns_of_the_guide(shards: tuple[int, ...], nr_batches: int) -> tuple[Turns, list[int]]:
    """For each round, what each worker gets; and the rounds after which the guide tests."""
    turns: Turns = []
    tested: list[int] = []
    for epoch in range(NUM_EPOCHS):
        loader = {
            worker: iter(range(-(-num_examples // BATCH_SIZE)))
            for worker, num_examples in zip(WORKERS, shards, strict=True)
        }
        while all((batches := get_next_batches(loader, nr_batches)).values()):
            turns.append({w: (epoch, found[0], len(found)) for w, found in batches.items()})
        tested.append(len(turns))
    return turns, tested


@given(SHARDS, st.integers(1, 16))
@example((130, 100, 115), 4)
@example((130, 100, 115), 5)
@example((95, 130, 95), 50)
def test_workers_train_and_are_averaged_as_in_the_guide(
    shards: tuple[int, ...], nr_batches: int
) -> None:
    plan = Plan(
        virtual=len(WORKERS),
        epochs=NUM_EPOCHS,
        federate_after_n_batches=nr_batches,
        batch_size=BATCH_SIZE,
        weighting=Weighting.UNIFORM,
        epoch_end=EpochEnd.FIRST,
        eval_every="epoch",
    )
    run = play(plan, [joins(w, size) for w, size in zip(WORKERS, shards, strict=True)])
    run = finish_rounds(run, limit=40)
    assert run.state.phase is RunPhase.FINISHING
    turns, tested = turns_of_the_guide(shards, nr_batches)
    assert turns_of(run) == turns
    started = [fact for fact in facts_in(run.commands) if isinstance(fact, facts.RoundStarted)]
    assert [fact.epoch - 1 for fact in started] == [turn["alice"][0] for turn in turns]
    assert evaluated_rounds(run) == tested
    averages = [c.updates for c in run.commands if isinstance(c, commands.Aggregate)]
    weights = [[(update.worker, update.weight) for update in updates] for updates in averages]
    assert weights == [[(worker, 1) for worker in WORKERS]] * len(turns)
