"""A wall clock that jumps by hours and years while a run goes on."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from fedconsole import paths
from fedconsole.engine.store import Line
from tests.support.clocks import Clock
from tests.support.daemons import daemon
from tests.support.journal_check import check_run
from tests.support.runs import carry, digits_plan

HOUR_S, YEAR_S = 3600.0, 365 * 86400.0


@pytest.mark.slow
@pytest.mark.timeout(400)
async def test_a_clock_that_jumps_ends_no_wait_and_changes_no_duration(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock(place)
    for name, value in clock.environment.items():
        # Of the programs that are started; this one is running already.
        monkeypatch.setenv(name, value)
    steps = {1: HOUR_S, 2: -HOUR_S, 3: YEAR_S, 4: -YEAR_S, 5: 0.0}

    def step(line: Line) -> None:
        if line["type"] == "round.finished" and line["round"] in steps:
            clock.step(steps[line["round"]])

    async with daemon(place, "--dataset", "digits=sample") as alice:
        workers = (f"127.0.0.1:{alice.port}",)
        plan = digits_plan(virtual=0, workers=workers, rounds=6, federate_after_n_batches=100)
        run = await carry(plan, requests=step)
    assert run.exit_code == 0
    assert run.of_type("worker.lost") == []
    assert check_run(paths.runs_dir() / run.run_id) == []
    years = {line["time"][:4] for line in run.lines}
    assert len(years) > 1, "the clock did not jump"
    assert all(0 <= line["seconds"] < 60 for line in run.of_type("round.finished"))
    assert 0 < run.last["seconds"] < 300
    assert run.run_id in runs_list()


def runs_list() -> str:
    command = [sys.executable, "-m", "fedconsole.cli.entry", "runs", "list"]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout
