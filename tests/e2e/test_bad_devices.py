"""A real engine, and devices that lie, flood, repeat themselves, or all restart at once."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterable, Iterator

import pytest
import safetensors.numpy
from msgspec.structs import replace

from fedconsole import paths
from fedconsole.engine.store import Line
from pi_daemon.protocol import messages as m
from pi_daemon.protocol.limits import MAX_LOSSES
from pi_daemon.protocol.messages import Update
from tests.support.echo_daemon import NUM_EXAMPLES, EchoDaemon, Sent, with_content
from tests.support.journal_check import check_run
from tests.support.places import redirect
from tests.support.runs import carry, digits_plan

NUM_LOG_LINES = 10_000
NUM_DEVICES = 100
NUM_MESSAGES = 1_000


@pytest.fixture(autouse=True, scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        redirect(tmp_path_factory.mktemp("b"), patch)
        yield


def repeated(update: Update, content: bytes) -> Iterable[Sent]:
    """First that of another run, then the right one three times."""
    return [(replace(update, run="another"), content)] + [(update, content)] * 3


def blown_up(update: Update, content: bytes) -> Iterable[Sent]:
    tensors = safetensors.numpy.load(content)
    return [
        with_content(update, safetensors.numpy.save({n: t * 1_000_000 for n, t in tensors.items()}))
    ]


def pickled(update: Update, content: bytes) -> Iterable[Sent]:
    return [with_content(update, b"\x80\x04cos\nsystem\n(S'true'\ntR.")]


async def test_devices_that_lie_flood_and_repeat_themselves_change_nothing_of_a_run() -> None:
    devices = [
        EchoDaemon("alice", repeated),
        EchoDaemon("bob", num_log_lines=NUM_LOG_LINES),
        EchoDaemon("mallory", blown_up),
        EchoDaemon("peter", pickled),
    ]
    for device in devices:
        await device.start()
    lines_of_bob = [0, 0]

    def look(line: Line) -> None:
        if line["type"] == "log":
            lines_of_bob["dropped" in line] += line.get("dropped", 1)
            if sum(lines_of_bob) == NUM_LOG_LINES:
                devices[1].may_deliver.set()

    addresses = tuple(device.address for device in devices)
    plan = digits_plan(virtual=0, workers=addresses, rounds=1, min_updates=2)
    run = await carry(plan, requests=look)
    for device in devices:
        await device.kill()

    assert (run.exit_code, run.last["outcome"]) == (0, "completed")
    [finished] = run.of_type("round.finished")
    assert finished["updates"] == ["alice", "bob"]
    assert [line["worker"] for line in run.of_type("worker.update")].count("alice") == 1
    reasons = {line["worker"]: line["reason"] for line in run.of_type("worker.rejected")}
    assert reasons.keys() == {"mallory", "peter"}
    assert reasons["mallory"].startswith("its parameters are too large: their root mean square is")
    assert reasons["peter"].startswith("tensor header of ")
    warned = {line["worker"]: line["text"] for line in run.of_type("warning")}
    assert warned["alice"] == "it sent an update of another run: another"
    kept, dropped = lines_of_bob
    assert kept + dropped == NUM_LOG_LINES
    assert kept < NUM_LOG_LINES / 4


def evaluated(evaluate: m.Evaluate, *confusion: tuple[int, ...]) -> m.Evaluated:
    return m.Evaluated(evaluate.cmd_id, evaluate.round, NUM_EXAMPLES, 0.5, confusion or None)


async def test_devices_that_answer_nonsense_to_an_evaluation_cost_the_run_only_theirs() -> None:
    devices = [
        EchoDaemon("alice", evaluation=evaluated),
        EchoDaemon("mallory", evaluation=lambda asked: m.Ok(asked.cmd_id)),
        EchoDaemon("oscar", evaluation=lambda asked: evaluated(asked, (1, 2), (3,))),
        EchoDaemon("peter", evaluation=lambda asked: evaluated(asked, (NUM_EXAMPLES,))),
    ]
    for device in devices:
        await device.start()
    plan = digits_plan(
        virtual=0, workers=tuple(device.address for device in devices), rounds=1, holdout=0.5
    )
    run = await carry(plan)
    for device in devices:
        await device.kill()
    assert (run.exit_code, run.last["outcome"]) == (0, "completed")
    [*_, finished] = run.of_type("round.finished")
    assert finished["updates"] == ["alice", "mallory", "oscar", "peter"]
    assert [line["worker"] for line in run.of_type("eval")] == ["alice", None]
    warned = {line["worker"]: line["text"] for line in run.of_type("warning")}
    assert warned["mallory"] == "evaluation failed: answer Ok, expected Evaluated"
    assert warned["oscar"] == "evaluation failed: its confusion matrix is not one of 10 classes"
    assert warned["peter"] == warned["oscar"]
    assert devices[1].closed[0] == (4400, "answer Ok, expected Evaluated")


def far_too_large(update: Update, content: bytes) -> Iterable[Sent]:
    """The bytes never come: what is announced is enough."""
    return [(replace(update, parameters=replace(update.parameters, size=1 << 30)), b"")]


async def test_an_update_that_is_announced_larger_than_the_model_ends_the_link() -> None:
    devices = [EchoDaemon("alice", num_log_lines=1), EchoDaemon("mallory", far_too_large)]
    for device in devices:
        await device.start()

    def look(line: Line) -> None:
        if line["type"] == "worker.lost":
            devices[0].may_deliver.set()

    plan = digits_plan(
        virtual=0,
        workers=tuple(device.address for device in devices),
        rounds=1,
        min_updates=1,
        round_timeout_s=12.0,
    )
    run = await carry(plan, requests=look)
    for device in devices:
        await device.kill()
    assert run.exit_code == 0
    [finished] = run.of_type("round.finished")
    assert finished["updates"] == ["alice"]
    code, reason = devices[1].closed[0]
    assert code == 4400
    assert reason.startswith("update of 1073741824 bytes, at most 8")


def flood(start: m.StartRound) -> Iterator[m.FromDaemon]:
    """Of each kind so many messages, all well formed."""
    states = (m.DeviceState.TRAINING, m.DeviceState.PAUSED)
    for number in range(NUM_MESSAGES):
        status = m.DeviceStatus(states[number % 2], 1, run=start.run, round=start.round)
        yield m.Status(status)
        yield m.Telemetry(20.0, 0, 1, 2, 3, 0.5)
        yield m.RoundFailed(start.run, start.round, start.attempt + 1, "no reason")
        losses = (0.5,) * MAX_LOSSES
        first = number * MAX_LOSSES
        yield m.Batches(start.run, start.round, start.attempt, first, start.num_batches, losses)


async def test_a_device_that_floods_its_console_with_all_that_it_may_say_fills_no_journal() -> None:
    devices = [EchoDaemon("alice"), EchoDaemon("mallory", num_log_lines=1, flood=flood)]
    for device in devices:
        await device.start()
    dropped: set[str] = set()

    def look(line: Line) -> None:
        if "dropped" in line:
            dropped.add(line["text"].split()[1])
            if len(dropped) == 3:
                devices[1].may_deliver.set()

    addresses = tuple(device.address for device in devices)
    run = await carry(digits_plan(virtual=0, workers=addresses, rounds=1), requests=look)
    for device in devices:
        await device.kill()

    assert (run.exit_code, run.last["outcome"]) == (0, "completed")
    assert dropped == {"states", "measurements", "losses"}
    kept = Counter(line["type"] for line in run.lines if line.get("worker") == "mallory")
    assert kept["worker.phase"] < NUM_MESSAGES / 4
    assert kept["worker.telemetry"] < NUM_MESSAGES / 4
    assert kept["worker.batches"] < NUM_MESSAGES / 2
    assert check_run(paths.runs_dir() / run.run_id) == []


async def test_a_device_that_sends_more_updates_than_it_was_asked_for_loses_its_link() -> None:
    devices = [
        EchoDaemon("alice", num_log_lines=1),
        EchoDaemon("mallory", lambda *update: [update] * 100),
    ]
    for device in devices:
        await device.start()

    def look(line: Line) -> None:
        if line["type"] == "worker.lost":
            devices[0].may_deliver.set()

    addresses = tuple(device.address for device in devices)
    run = await carry(digits_plan(virtual=0, workers=addresses, rounds=1), requests=look)
    for device in devices:
        await device.kill()
    assert (run.exit_code, run.last["outcome"]) == (0, "completed")
    [finished] = run.of_type("round.finished")
    assert finished["updates"] == ["alice", "mallory"]
    assert devices[1].closed[0] == (4400, "more updates than this run has asked for")


def with_another_hash(update: Update, content: bytes) -> Iterable[Sent]:
    blob = replace(update.parameters, sha256="0" * 64)
    return [(replace(update, parameters=blob), content)]


async def test_a_device_whose_update_never_has_its_hash_comes_back_ever_more_rarely() -> None:
    devices = [EchoDaemon("alice"), EchoDaemon("mallory", with_another_hash)]
    for device in devices:
        await device.start()
    plan = digits_plan(
        virtual=0,
        workers=tuple(device.address for device in devices),
        rounds=1,
        min_updates=1,
        round_timeout_s=12.0,
    )
    run = await carry(plan)
    for device in devices:
        await device.kill()
    assert run.exit_code == 0
    [finished] = run.of_type("round.finished")
    assert finished["updates"] == ["alice"]
    # Without growing waits it comes some thirty times.
    assert 2 <= len(devices[1].accepted_s) <= 10


async def test_a_run_that_lacks_an_update_counts_down_and_goes_on_as_it_is_told() -> None:
    # The straggler waits for a word that never comes.
    devices = [EchoDaemon("alice"), EchoDaemon("bob", num_log_lines=1)]
    for device in devices:
        await device.start()
    asked: list[str] = []

    def answer(line: Line) -> str | None:
        if line["type"] == "run.quorum" and line["phase"] == "waiting":
            asked.append("fewer" if asked else "wait")
            return asked[-1]
        return None

    plan = digits_plan(
        virtual=0,
        workers=tuple(device.address for device in devices),
        rounds=1,
        round_timeout_s=1.0,
        quorum_timeout_s=500.0,
    )
    run = await carry(plan, requests=answer)
    for device in devices:
        await device.kill()

    assert (run.exit_code, asked) == (0, ["wait", "fewer"])
    waits = [line for line in run.of_type("run.quorum") if line["phase"] == "waiting"]
    assert [(line["have"], line["need"], line["then"]) for line in waits] == [(1, 2, "fail")] * 2
    assert [line["seconds_left"] for line in waits] == [500.0, 500.0]
    [fewer] = run.of_type("run.fewer")
    assert (fewer["round"], fewer["have"], fewer["need"]) == (1, 1, 2)
    [finished] = run.of_type("round.finished")
    assert finished["updates"] == ["alice"]


async def test_a_run_waits_for_a_device_that_is_back_and_made_ready() -> None:
    alice, bob = devices = [EchoDaemon("alice"), EchoDaemon("bob", num_log_lines=1)]
    for device in devices:
        await device.start()

    async def restart() -> None:
        await bob.kill()
        bob.may_prepare.clear()
        await bob.start()

    def look(line: Line) -> None:
        if line["type"] == "round.started":
            tasks.create_task(restart())
        # The countdown is over, and the run waits for nothing but this.
        if line["type"] == "run.quorum" and (line["preparing"], line["then"]) == (["bob"], "fail"):
            bob.may_prepare.set()
            bob.may_deliver.set()

    plan = digits_plan(
        virtual=0,
        workers=(alice.address, bob.address),
        rounds=1,
        round_timeout_s=1.0,
        quorum_timeout_s=5.0,
    )
    async with asyncio.TaskGroup() as tasks:
        run = await carry(plan, requests=look)
    for device in devices:
        await device.kill()

    assert (run.exit_code, run.last["reason"]) == (0, "all rounds complete: 1")
    [finished] = run.of_type("round.finished")
    assert finished["updates"] == ["alice", "bob"]
    assert check_run(paths.runs_dir() / run.run_id) == []


async def test_a_fleet_that_restarts_at_once_comes_back_spread_out_and_the_run_goes_on() -> None:
    devices = [EchoDaemon(f"pi-{number:03}") for number in range(NUM_DEVICES)]
    for device in devices:
        await device.start()
    has_restarted = False

    async def restart_all() -> None:
        await asyncio.gather(*(device.kill() for device in devices))
        for device in devices:
            device.accepted_s.clear()
        await asyncio.gather(*(device.start() for device in devices))

    def restart_once(line: Line) -> None:
        nonlocal has_restarted
        if line["type"] == "round.started" and not has_restarted:
            has_restarted = True
            tasks.create_task(restart_all())

    plan = digits_plan(
        virtual=0, workers=tuple(device.address for device in devices), rounds=2, batch_size=32
    )
    async with asyncio.TaskGroup() as tasks:
        run = await carry(plan, requests=restart_once)
    came_back_s = sorted(device.accepted_s[0] for device in devices if device.accepted_s)
    for device in devices:
        await device.kill()

    assert (run.exit_code, run.last["outcome"]) == (0, "completed")
    names = [device.name for device in devices]
    assert [line["updates"] for line in run.of_type("round.finished")] == [names, names]
    assert len(came_back_s) == NUM_DEVICES
    # The bounds of the first wait are a quarter of a second apart.
    assert came_back_s[-1] - came_back_s[0] > 0.15
