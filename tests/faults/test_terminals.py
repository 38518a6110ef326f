"""Terminals that are poor, tiny, resized without end, or none at all."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys

import pytest

from tests.support.engines import engine
from tests.support.runs import digits_plan
from tests.support.terminal import terminal

pytestmark = pytest.mark.timeout(400)
RUN = ("run", "--headless", "--virtual", "1", "--rounds", "2", "--federate-after-n-batches", "4")


@pytest.mark.parametrize(
    "environment",
    [
        pytest.param({"TERM": "dumb", "LC_ALL": "C", "LANG": "C", "NO_COLOR": "1"}, id="dumb"),
        pytest.param({"TERM": "", "LC_ALL": "POSIX"}, id="none", marks=pytest.mark.slow),
    ],
)
def test_every_line_is_json_in_the_poorest_of_environments(environment: dict[str, str]) -> None:
    run = subprocess.run(
        [sys.executable, "-m", "fedconsole.cli.entry", *RUN, "--json"],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        check=True,
        env=os.environ | environment,
    )
    lines = [json.loads(line) for line in run.stdout.splitlines()]
    assert [line["seq"] for line in lines] == list(range(1, len(lines) + 1))
    assert lines[-1]["type"] == "run.finished"
    assert b"\x1b" not in run.stdout + run.stderr


@pytest.mark.slow
def test_a_pipe_that_closes_after_one_line_ends_nothing_and_the_line_is_whole() -> None:
    program = f"{sys.executable} -m fedconsole.cli.entry {' '.join(RUN)} --json"
    script = f"set -o pipefail; {program} | head -1"
    run = subprocess.run(["bash", "-c", script], capture_output=True, check=True)
    (line,) = run.stdout.splitlines()
    assert json.loads(line)["type"] == "run.created"
    assert b"Traceback" not in run.stderr


@pytest.mark.slow
async def test_the_console_survives_every_size_of_terminal_under_load() -> None:
    dice = random.Random(1)
    async with (
        engine(digits_plan(rounds=100_000)) as run,
        terminal("attach", run.run) as screen,
    ):
        await screen.shows(run.run, "TRAINING")
        # A terminal emulator of one cell is the test's own trouble: only the program sees the sizes.
        for _ in range(100):
            screen.resize(dice.randint(1, 500), dice.randint(1, 200))
        screen.resize(1, 1)
        screen.resize(500, 200)
        screen.resize(120, 40)
        await screen.shows(run.run, "TRAINING")
        screen.press("ctrl+c")
        await screen.ended()
        await run.request("stop")
        assert await run.end() == 0
