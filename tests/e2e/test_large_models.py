"""Runs with models of some megabytes over links that are slow, or that stop in the middle of one."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from fedconsole.engine.store import Line
from tests.support.chaos import chaos_proxy
from tests.support.networks import (
    NOTICE_HALF_OPEN_S,
    Network,
    Once,
    alice_and_bob,
    assert_counted_once,
    at,
    seconds_between,
)
from tests.support.places import redirect
from tests.support.runs import carry

TASK = """
from dataclasses import replace
from torch import nn
from fedconsole.learning.tasks.digits import task as digits

def build():
    return nn.Sequential(nn.Flatten(), nn.Linear(64, WIDTH), nn.ReLU(), nn.Linear(WIDTH, 10))

task = replace(digits, name="wide", build=build)
"""
BYTES_PER_UNIT = (64 + 1 + 10) * 4
LEAVE_S = 10


@pytest.fixture
async def network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Network]:
    redirect(tmp_path, monkeypatch)
    async with alice_and_bob(tmp_path) as (alice, bob), chaos_proxy(bob.port) as proxy:
        yield Network(alice, bob, proxy)


def write_task(model_bytes: int) -> str:
    """A file in the current folder with a task whose model has about so many bytes."""
    Path("wide.py").write_text(TASK.replace("WIDTH", str(model_bytes // BYTES_PER_UNIT)))
    return "wide.py"


def stop_in_mid_model(network: Network) -> Once:
    """Lets bob's link fall silent before his second model, which then fills every buffer."""

    def silence() -> None:
        network.proxy.up.set(is_stalled=True)
        network.proxy.down.set(is_half_open=True)

    return Once(lambda line: line["type"] == "worker.update" and line["worker"] == "bob", silence)


@pytest.mark.slow
async def test_a_link_that_falls_silent_with_full_buffers_is_noticed_and_heals(
    network: Network,
) -> None:
    silence = stop_in_mid_model(network)
    heal = Once(lambda line: line["type"] == "worker.lost", network.proxy.clear)
    whole_again = Once(
        lambda line: heal.time is not None and line.get("updates") == ["alice", "bob"]
    )

    def requests(line: Line) -> str | None:
        silence(line)
        heal(line)
        return "stop" if whole_again(line) else None

    plan = network.plan(
        task=write_task(10_000_000), rounds=100_000, min_updates=1, round_timeout_s=4.0
    )
    run = await carry(plan, requests=requests)
    assert run.exit_code == 0
    [lost] = run.of_type("worker.lost")
    assert lost["worker"] == "bob"
    assert silence.time is not None
    assert seconds_between(silence.time, lost) <= NOTICE_HALF_OPEN_S


@pytest.mark.slow
async def test_a_run_ends_while_a_link_is_silent_with_full_buffers(network: Network) -> None:
    silence = stop_in_mid_model(network)
    alone = Once(lambda line: line.get("updates") == ["alice"])

    def requests(line: Line) -> str | None:
        silence(line)
        return "stop" if alone(line) else None

    plan = network.plan(
        task=write_task(10_000_000), rounds=100_000, min_updates=1, round_timeout_s=3.0
    )
    run = await carry(plan, requests=requests)
    assert run.exit_code == 0
    assert (datetime.now(tz=UTC) - at(run.last)).total_seconds() <= LEAVE_S


@pytest.mark.slow
async def test_a_model_that_takes_longer_than_a_silence_may_last_is_carried_on_one_link(
    network: Network,
) -> None:
    size = 2_500_000
    network.proxy.set(bytes_per_s=125_000)
    plan = network.plan(task=write_task(size), workers=(network.proxy.address,), rounds=1)
    run = await carry(plan)
    assert run.exit_code == 0
    assert run.of_type("worker.lost") == []
    assert network.proxy.num_connections == 1
    assert min(network.proxy.up.num_bytes, network.proxy.down.num_bytes) > 0.95 * size
    assert_counted_once(run, ("bob",))
