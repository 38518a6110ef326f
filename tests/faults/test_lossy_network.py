"""A network that loses packets: slower, correct, and nobody is declared dead."""

from __future__ import annotations

from pathlib import Path

import pytest

from fedconsole import paths
from tests.support.daemons import daemon
from tests.support.journal_check import check_run
from tests.support.namespaces import ADDRESS, lossy_network
from tests.support.networks import assert_counted_once
from tests.support.runs import carry, digits_plan


@pytest.mark.slow
@pytest.mark.timeout(400)
async def test_a_fifth_of_all_packets_lost_at_a_megabit_makes_a_run_slower_and_nothing_else(
    place: Path,
) -> None:
    with lossy_network() as network:
        data = ("--dataset", "digits=sample")
        far = ("--host", ADDRESS, "--insecure", "--shard", "2/2", *data)
        async with (
            daemon(place, *data, "--shard", "1/2") as alice,
            daemon(place, *far, name="bob", under=network.enter) as bob,
        ):
            workers = (f"127.0.0.1:{alice.port}", f"{ADDRESS}:{bob.port}")
            plan = digits_plan(virtual=0, workers=workers, rounds=10, federate_after_n_batches=20)
            undisturbed = await carry(plan)
            network.spoil(loss_percent=20, rate="1mbit")
            run = await carry(plan)
            assert network.num_lost > 10
    assert run.exit_code == 0
    assert run.of_type("worker.lost") == []
    assert_counted_once(run)
    assert run.model_id == undisturbed.model_id
    assert check_run(paths.runs_dir() / run.run_id) == []
