"""Real runs over links that are cut, silent, slow or full of errors, and with workers that freeze or die.

Times are those of the journal's lines. What was done to a link is done from a line on.
"""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import psutil
import pytest
import pytest_asyncio

from fedconsole.engine.store import Line
from tests.support.chaos import chaos_proxy
from tests.support.daemons import DaemonProcess, daemon
from tests.support.networks import (
    NOTICE_HALF_OPEN_S,
    Network,
    Once,
    alice_and_bob,
    assert_counted_once,
    assert_losses_told_once,
    seconds_between,
    until_free,
)
from tests.support.places import redirect
from tests.support.runs import FinishedRun, carry

pytestmark = pytest.mark.asyncio(loop_scope="module")

MODEL_BYTES = 39_000
"""A little less than the digits model's file."""
HALF_A_SECOND = {"federate_after_n_batches": 300}
PING, PONG = b"\x89\x84", b"\x8a\x04"
"""How the engine's keepalive begins on the wire, and the daemon's answer to it."""
NOTICE_DEATH_S = 5


@dataclass(frozen=True)
class Reference:
    """An undisturbed run of the default plan."""

    run: FinishedRun
    up_bytes: int
    """That bob was sent."""
    down_bytes: int


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    with pytest.MonkeyPatch.context() as monkeypatch:
        yield redirect(tmp_path_factory.mktemp("n"), monkeypatch)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def daemons(place: Path) -> AsyncIterator[tuple[DaemonProcess, DaemonProcess]]:
    async with alice_and_bob(place) as pair:
        yield pair


@pytest_asyncio.fixture(loop_scope="module")
async def network(daemons: tuple[DaemonProcess, DaemonProcess]) -> AsyncIterator[Network]:
    alice, bob = daemons
    # A run whose last link was lost could not release him.
    await until_free(bob)
    async with chaos_proxy(bob.port, seed=1) as proxy:
        yield Network(alice, bob, proxy)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def reference(daemons: tuple[DaemonProcess, DaemonProcess]) -> Reference:
    alice, bob = daemons
    async with chaos_proxy(bob.port) as proxy:
        run = await carry(Network(alice, bob, proxy).plan())
    assert run.exit_code == 0
    return Reference(run, proxy.up.num_bytes, proxy.down.num_bytes)


# Cut


async def test_resets_in_mid_upload_and_in_mid_download_change_nothing(
    network: Network, reference: Reference
) -> None:
    # The last thing that bob is sent are three models, of which the first is cut in the middle; the
    # second of his three updates is cut, too.
    up, down = network.proxy.up, network.proxy.down
    up.set(reset_after_bytes=reference.up_bytes - 5 * MODEL_BYTES // 2)
    down.set(reset_after_bytes=reference.down_bytes - 3 * MODEL_BYTES // 2)
    run = await carry(network.plan())
    assert run.exit_code == 0
    assert network.proxy.num_resets == 2
    assert network.proxy.num_connections == 3
    assert [line["worker"] for line in run.of_type("worker.lost")] == ["bob"] * 2
    assert [line["worker"] for line in run.of_type("worker.rejoined")] == ["bob"] * 2
    assert_counted_once(run)
    assert_losses_told_once(run.lines)
    assert run.model_id == reference.run.model_id


# Silent


@pytest.mark.alone
@pytest.mark.parametrize(
    ("way", "frame"), [("up", PING), ("down", PONG)], ids=["after-a-ping", "after-a-pong"]
)
async def test_a_half_open_link_is_noticed_while_the_others_go_on_and_heals(
    network: Network, way: str, frame: bytes
) -> None:
    loop = asyncio.get_running_loop()
    silent_since: list[datetime] = []

    def silence() -> None:
        if not silent_since:
            silent_since.append(datetime.now(tz=UTC))
            network.proxy.set(is_half_open=True)

    def silence_after_frame(data: bytes) -> None:
        if is_whole.time is not None and data.startswith(frame):
            loop.call_soon(silence)

    getattr(network.proxy, way).on_data = silence_after_frame
    is_whole = Once(lambda line: line.get("updates") == ["alice", "bob"])
    heal = Once(lambda line: line["type"] == "worker.lost", network.proxy.clear)
    whole_again = Once(
        lambda line: heal.time is not None and line.get("updates") == ["alice", "bob"]
    )

    def requests(line: Line) -> str | None:
        is_whole(line)
        heal(line)
        return "stop" if whole_again(line) else None

    plan = network.plan(rounds=100_000, min_updates=1, round_timeout_s=2.0)
    run = await carry(plan, requests=requests)
    assert run.exit_code == 0
    [lost] = run.of_type("worker.lost")
    assert lost["worker"] == "bob"
    assert seconds_between(silent_since[0], lost) <= NOTICE_HALF_OPEN_S
    # While bob is still waited for, a round takes the whole 2 s.
    alone = [line for line in run.of_type("round.finished") if line["updates"] == ["alice"]]
    assert len(alone) >= 4


# Slow


@pytest.mark.parametrize(
    ("toxics", "at_least_s"),
    # There and back in each of three rounds, model and update in each: what the toxic must cost.
    [({"latency_s": 0.3}, 1.8), ({"bytes_per_s": 125_000}, 1.8), ({"slice_bytes": 1}, 0.0)],
    ids=["300-ms", "1-mbit", "1-byte"],
)
async def test_a_slow_link_makes_the_run_slower_and_nothing_else(
    network: Network, reference: Reference, toxics: dict[str, float], at_least_s: float
) -> None:
    network.proxy.set(**toxics)
    run = await carry(network.plan())
    assert run.exit_code == 0
    assert seconds_between(run.of_type("run.started")[0], run.last) >= at_least_s
    assert run.of_type("worker.lost") == []
    assert network.proxy.num_connections == 1
    assert_counted_once(run)
    assert_losses_told_once(run.lines)
    assert run.model_id == reference.run.model_id


# Full of errors


async def test_flipped_bits_on_the_way_to_a_daemon_cost_links_and_never_change_the_model(
    network: Network, reference: Reference
) -> None:
    # The highest bit: no JSON text stays one, as messages have no hash of their own.
    network.proxy.up.set(flips_per_byte=1 / 50_000, flip_bits=0x80)
    run = await carry(network.plan())
    assert run.exit_code == 0
    assert network.proxy.up.num_flips > 0
    assert network.proxy.num_connections > 1
    assert_counted_once(run)
    assert_losses_told_once(run.lines)
    assert run.model_id == reference.run.model_id


async def test_flipped_bits_in_updates_cost_links_and_no_worker_its_place(
    network: Network, reference: Reference
) -> None:
    down = network.proxy.down

    def heal_in_time(data: bytes) -> None:
        if down.num_flips >= 3:
            down.clear()

    down.set(flips_per_byte=1 / 20_000, flip_bits=0x80)
    down.on_data = heal_in_time
    run = await carry(network.plan())
    assert run.exit_code == 0
    assert down.num_flips > 0
    assert network.proxy.num_connections > 1
    # A copy that was on its way twice may come when its round is over; nothing else is refused.
    reasons = [line["reason"] for line in run.of_type("worker.rejected")]
    assert [reason for reason in reasons if "too late" not in reason] == []
    assert_counted_once(run)
    assert_losses_told_once(run.lines)
    assert run.model_id == reference.run.model_id


# Frozen and dead


@pytest.mark.alone
async def test_a_frozen_trainer_is_a_straggler_and_its_round_never_counts(
    network: Network,
) -> None:
    def is_bob_training(line: Line) -> bool:
        return line["type"] == "worker.batches" and line["worker"] == "bob"

    frozen: list[psutil.Process] = []

    def freeze() -> None:
        [trainer] = network.bob.trainers()
        trainer.suspend()
        frozen.append(trainer)

    stop = Once(is_bob_training, freeze)
    go_on = Once(lambda line: line["type"] == "round.finished", lambda: frozen[0].resume())

    def requests(line: Line) -> None:
        stop(line)
        go_on(line)

    plan = network.plan(rounds=3, min_updates=1, round_timeout_s=3.0, **HALF_A_SECOND)
    run = await carry(plan, requests=requests)
    assert run.exit_code == 0
    started, finished = run.of_type("round.started"), run.of_type("round.finished")
    assert 3.0 <= seconds_between(started[0], finished[0]) < 8.0
    assert [finished[i]["updates"] for i in (0, 2)] == [["alice"], ["alice", "bob"]]
    assert ("bob", 1) not in [(u["worker"], u["round"]) for u in run.of_type("worker.update")]
    assert run.of_type("worker.lost") == []
    [straggler] = [line for line in run.of_type("worker.straggler") if line["round"] == 1]
    assert straggler["worker"] == "bob"
    assert straggler["seq"] < finished[0]["seq"]
    [first, *_] = run.of_type("worker.update")
    assert (first["worker"], first["round"]) == ("alice", 1)
    assert seconds_between(started[0], first) < 3.0


@pytest.mark.alone
async def test_an_update_that_comes_after_its_round_is_refused_and_counted_as_nothing(
    network: Network,
) -> None:
    def is_bob_training(line: Line) -> bool:
        return line["type"] == "worker.batches" and line["worker"] == "bob"

    delay = Once(is_bob_training, lambda: network.proxy.down.set(latency_s=4.0))
    heal = Once(lambda line: line["type"] == "worker.rejected", network.proxy.clear)
    whole_again = Once(
        lambda line: heal.time is not None and line.get("updates") == ["alice", "bob"]
    )

    def requests(line: Line) -> str | None:
        delay(line)
        heal(line)
        return "stop" if whole_again(line) else None

    plan = network.plan(rounds=100, min_updates=1, round_timeout_s=2.0, **HALF_A_SECOND)
    run = await carry(plan, requests=requests)
    assert run.exit_code == 0
    rejected = run.of_type("worker.rejected")
    assert (rejected[0]["worker"], rejected[0]["round"]) == ("bob", 1)
    assert rejected[0]["reason"] == "too late: round 1 is closed"
    assert [line["seq"] for line in rejected if line["round"] == 1] == [rejected[0]["seq"]]
    [straggler] = [line for line in run.of_type("worker.straggler") if line["round"] == 1]
    assert straggler["worker"] == "bob"
    assert "bob" not in run.of_type("round.finished")[0]["updates"]
    assert run.of_type("worker.lost") == []
    counted = [(u["worker"], u["round"]) for u in run.of_type("worker.update")]
    assert ("bob", 1) not in counted
    assert len(counted) == len(set(counted))


@pytest.mark.alone
async def test_a_killed_daemon_is_noticed_at_once_and_the_others_go_on(
    network: Network, place: Path
) -> None:
    async with daemon(place, "--dataset", "digits=sample", "--shard", "2/2", name="carol") as carol:

        def is_carol_training(line: Line) -> bool:
            return line["type"] == "worker.batches" and line["worker"] == "carol"

        kill = Once(is_carol_training, lambda: os.kill(carol.pid, signal.SIGKILL))

        def kill_her(line: Line) -> None:
            kill(line)

        workers = tuple(f"127.0.0.1:{each.port}" for each in (network.alice, carol))
        plan = network.plan(
            workers=workers, rounds=2, min_updates=1, round_timeout_s=2.0, **HALF_A_SECOND
        )
        run = await carry(plan, requests=kill_her)
    assert run.exit_code == 0
    [lost, *_] = run.of_type("worker.lost")
    assert lost["worker"] == "carol"
    assert kill.time is not None
    assert seconds_between(kill.time, lost) < NOTICE_DEATH_S
