"""A run whose engine was killed goes on where it was, and ends with the same model."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest
import pytest_asyncio
from msgspec.structs import replace

from fedconsole import history, paths
from fedconsole.cli.main import carry_out
from fedconsole.config import load
from fedconsole.coordinator.plan import Plan
from fedconsole.desk import RealDesk
from fedconsole.engine import launch
from fedconsole.engine.control import ControlLink
from fedconsole.engine.launch import new_run_id, start_engine, take_up_engine
from fedconsole.engine.store import Line
from fedconsole.errors import (
    EngineCrashedError,
    ExitCode,
    FedconsoleError,
    RefusedError,
    StorageError,
)
from fedconsole.fleet.local import local_daemons
from fedconsole.learning.capture import capture
from fedconsole.learning.tasks.mnist import task as mnist
from pi_daemon.protocol.graphs import encode_graphs
from pi_daemon.protocol.messages import DeviceState, Hello, Role
from tests.support.disks import full, small_disk
from tests.support.journal_check import check_run
from tests.support.links import console_hello, open_link
from tests.support.places import redirect
from tests.support.runs import FinishedRun, carry, digits_plan


@pytest.fixture(autouse=True, scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        redirect(tmp_path_factory.mktemp("r"), patch)
        yield


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def five_rounds(places: None) -> AsyncIterator[Plan]:
    """A plan for three daemons, to which nothing is done here."""
    async with local_daemons(3) as addresses:
        yield digits_plan(
            virtual=0, workers=tuple(addresses), rounds=5, federate_after_n_batches=40
        )


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def undisturbed(five_rounds: Plan) -> FinishedRun:
    return await carry(five_rounds)


async def carry_until(run: str, plan: Plan, is_moment: Callable[[Line], bool]) -> None:
    """Start an engine and kill it at the first line that is so."""
    engine = start_engine(run, plan)
    async with ControlLink.connect(run) as link:
        async for line in link.events():
            if is_moment(line):
                break
    engine.kill()
    await asyncio.to_thread(engine.wait)


async def take_up(run: str) -> int:
    return await asyncio.to_thread(take_up_engine(run).wait)


def updates_counted(run: str) -> list[tuple[int, str]]:
    return [
        (line["round"], worker)
        for line in history.lines(run, types=["round.finished"])
        for worker in line["updates"]
    ]


MOMENTS: dict[str, Callable[[Line], bool]] = {
    "training": lambda line: line["type"] == "worker.batches" and line["round"] == 2,
    "one delivered": lambda line: line["type"] == "worker.update" and line["round"] == 2,
    "tested": lambda line: line["type"] == "eval" and line["round"] == 2,
    "between rounds": lambda line: line["type"] == "round.finished" and line["round"] == 2,
}


@pytest.mark.parametrize(
    "moments",
    [
        pytest.param(("one delivered",), id="updates"),
        pytest.param(("between rounds",), id="rounds", marks=pytest.mark.slow),
        pytest.param(("training", "tested"), id="training-and-tests", marks=pytest.mark.slow),
    ],
)
async def test_a_killed_engine_changes_nothing_whenever_it_dies(
    moments: tuple[str, ...], five_rounds: Plan, undisturbed: FinishedRun
) -> None:
    for moment in map(MOMENTS.__getitem__, moments):
        run = new_run_id()
        await carry_until(run, five_rounds, moment)
        assert outcome_of(run) == (history.RunState.CRASHED, None)
        assert await take_up(run) == 0
        assert outcome_of(run) == (history.RunState.COMPLETED, undisturbed.model_id)
        assert updates_counted(run) == updates_counted(undisturbed.run_id)
        seqs = [line["seq"] for line in history.lines(run)]
        assert seqs == list(range(1, len(seqs) + 1))


def outcome_of(run: str) -> tuple[history.RunState, str | None]:
    """How the run stands, and its last model once it has ended."""
    summary = history.summarize(run)
    assert summary is not None
    has_ended = summary.state is not history.RunState.CRASHED
    return summary.state, summary.model_id if has_ended else None


@pytest.mark.slow
async def test_engines_and_devices_that_die_together_change_nothing() -> None:
    plan = digits_plan(virtual=3, rounds=4)
    undisturbed = await carry(plan)
    run = new_run_id()
    engine = start_engine(run, plan)
    async with ControlLink.connect(run) as link:
        async for line in link.events():
            if line["type"] == "worker.update" and line["round"] == 2:
                break
    # The trainers of virtual workers are in the engine's group.
    os.killpg(engine.pid, signal.SIGKILL)
    await asyncio.to_thread(engine.wait)
    assert await take_up(run) == 0
    assert (summary := history.summarize(run)) is not None
    assert summary.model_id == undisturbed.model_id


@pytest.mark.slow
async def test_an_update_that_is_damaged_on_disk_is_trained_again() -> None:
    plan = digits_plan(virtual=3, rounds=2)
    undisturbed = await carry(plan)
    run = new_run_id()
    await carry_until(run, plan, lambda line: line["type"] == "worker.update")
    for path in (paths.runs_dir() / run / "updates").iterdir():
        path.write_bytes(path.read_bytes()[:-7] + b"garbled")
    assert await take_up(run) == 0
    assert (summary := history.summarize(run)) is not None
    assert summary.model_id == undisturbed.model_id


async def resume(run: str, *options: str) -> tuple[int | None, str, str]:
    """What `fedconsole resume --headless` ends with: its exit code, stdout and stderr."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "fedconsole.cli.entry", "resume", run, "--headless", *options),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await process.communicate()
    return process.returncode, out.decode(), err.decode()


async def test_the_command_line_takes_a_run_up_and_shows_it_to_its_end() -> None:
    plan = digits_plan(rounds=3)
    run = new_run_id()
    await carry_until(run, plan, lambda line: line["type"] == "round.finished")
    exit_code, out, err = await resume(run, "--json")
    assert exit_code == 0, err
    lines = [json.loads(text) for text in out.splitlines()]
    assert [line["seq"] for line in lines] == list(range(1, len(lines) + 1))
    assert [line["type"] for line in lines].count("run.restarted") == 1
    assert (lines[-1]["type"], lines[-1]["outcome"]) == ("run.finished", "completed")


async def test_all_runs_whose_engines_are_gone_are_taken_up_behind_one_that_cannot_be(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    redirect(tmp_path, monkeypatch)
    runs = ["20261122-aaaa", "20261122-bbbb"]
    for run in runs:
        await carry_until(run, digits_plan(), lambda line: line["type"] == "round.started")
    spoilt = paths.runs_dir() / "20261121-spoilt"
    spoilt.mkdir()
    (spoilt / "run.db").write_bytes(b"no database" * 100)
    exit_code, out, err = await resume("all")
    assert (exit_code, out) == (3, "")
    first, *said = err.splitlines()
    assert first.startswith(f"run {spoilt.name}: cannot read the journal {spoilt / 'run.db'}: ")
    assert said == [
        *(f"run {run} is taken up; to join it: fedconsole attach {run}" for run in runs),
        "fedconsole: 1 of 3 runs were not resumed",
    ]
    for run in runs:
        # Each goes on in an engine of its own, which may have ended by now.
        with suppress(EngineCrashedError):
            async with asyncio.timeout(60), ControlLink.connect(run) as link:
                async for _ in link.events():
                    pass
        assert outcome_of(run)[0] is history.RunState.COMPLETED


def damage(model: Path) -> None:
    """Change the last byte in place, as a disk does: whatever else the file is called changes, too."""
    content = model.read_bytes()
    model.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))


def checkpoint(run: str, round_number: int) -> Path:
    return paths.runs_dir() / run / "checkpoints" / f"round-{round_number:06d}.safetensors"


@pytest.mark.parametrize(
    "round_number", [2, pytest.param(1, marks=pytest.mark.slow)], ids=["round", "initial"]
)
async def test_a_round_whose_model_is_damaged_is_trained_again_from_the_model_before_it(
    round_number: int, five_rounds: Plan, undisturbed: FinishedRun
) -> None:
    run = new_run_id()
    is_moment = {"type": "round.finished", "round": round_number}.items()
    await carry_until(run, five_rounds, lambda line: is_moment <= line.items())
    last = updates_counted(run)[-1][0]
    damage(checkpoint(run, last))
    exit_code, out, err = await resume(run, "--json")
    assert exit_code == 0, err
    shown = [json.loads(text) for text in out.splitlines()]
    assert shown == list(history.lines(run))
    base = f"the model of round {last - 1}" if last > 1 else "the initial model"
    [told] = [line["text"] for line in shown if line["type"] == "warning"]
    assert told.startswith(f"the model of round {last} is damaged on this disk (round-00000{last}.")
    assert told.endswith(f"; round {last} is trained again, from {base}")
    assert outcome_of(run) == (history.RunState.COMPLETED, undisturbed.model_id)
    assert updates_counted(run) == updates_counted(undisturbed.run_id)
    assert check_run(paths.runs_dir() / run) == []


async def test_a_run_of_which_no_model_is_whole_says_so_and_stays_as_it_was() -> None:
    run = new_run_id()
    await carry_until(run, digits_plan(rounds=3), lambda line: line["type"] == "round.finished")
    last = updates_counted(run)[-1][0]
    content = checkpoint(run, last).read_bytes()
    before = list(history.lines(run))
    for number in (last - 1, last):
        damage(checkpoint(run, number))
    exit_code, _, err = await resume(run)
    folder = paths.runs_dir() / run / "checkpoints"
    told = f"fedconsole: cannot go on: no model in {folder} is whole (round-00000{last}."
    assert (exit_code, err.splitlines()[-1][: len(told)]) == (8, told)
    assert list(history.lines(run)) == before
    checkpoint(run, last).write_bytes(content)
    assert await take_up(run) == 0


async def stopped_when(run: str, plan: Plan, is_moment: Callable[[Line], bool], lost: Path) -> Line:
    """Delete a file at the first line that is so; the last line that the engine says then."""
    engine = start_engine(run, plan)
    is_lost = False
    try:
        async with asyncio.timeout(60), ControlLink.connect(run) as link:
            async for line in link.events():
                if not is_lost and is_moment(line):
                    lost.unlink()
                    is_lost = True
        assert await asyncio.to_thread(engine.wait) == ExitCode.STORAGE
    finally:
        engine.kill()
        engine.wait()
    return line


@pytest.mark.parametrize(
    "simulated", [0, pytest.param(3, marks=pytest.mark.slow)], ids=["devices", "simulated"]
)
async def test_an_open_round_whose_model_is_deleted_stops_the_run_with_the_reason_and_can_be_resumed(
    simulated: int, five_rounds: Plan
) -> None:
    plan = replace(
        five_rounds,
        virtual=simulated,
        workers=() if simulated else five_rounds.workers,
        rounds=3,
        federate_after_n_batches=200,
    )
    undisturbed = await carry(plan)
    run = new_run_id()
    is_moment = {"type": "worker.batches", "round": 3}.items()
    model = checkpoint(run, 2)
    last = await stopped_when(run, plan, lambda line: is_moment <= line.items(), model)
    assert last["reason"] == (
        f"cannot go on: {model} is gone; what is lost with it is trained again: fedconsole resume {run}"
    )
    assert outcome_of(run) == (history.RunState.CRASHED, None)
    assert await take_up(run) == 0
    assert outcome_of(run) == (history.RunState.COMPLETED, undisturbed.model_id)
    assert updates_counted(run) == updates_counted(undisturbed.run_id)
    assert check_run(paths.runs_dir() / run) == []


@pytest.mark.slow
async def test_an_update_that_is_deleted_before_it_is_averaged_stops_the_run_and_is_trained_again() -> (
    None
):
    # More workers than trainers: somebody trains still when the first update is there.
    plan = digits_plan(
        virtual=2 * (os.cpu_count() or 1) + 1, rounds=1, federate_after_n_batches=200
    )
    undisturbed = await carry(plan)
    run = new_run_id()
    update = paths.runs_dir() / run / "updates" / "000001-alice-1.safetensors"

    def is_moment(line: Line) -> bool:
        return line["type"] == "worker.update" and line["worker"] == "alice"

    last = await stopped_when(run, plan, is_moment, update)
    assert last["reason"].startswith(f"cannot go on: {update} is gone; ")
    assert await take_up(run) == 0
    assert outcome_of(run) == (history.RunState.COMPLETED, undisturbed.model_id)


async def test_an_engine_that_takes_a_run_up_may_read_for_longer_than_a_new_one_may_take(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    run = new_run_id()
    await carry_until(run, digits_plan(rounds=3), lambda line: line["type"] == "round.finished")
    monkeypatch.setattr(launch, "_START_S", 0.01)
    monkeypatch.setattr(launch, "_PATIENCE_S", 0.01)
    waits: list[int] = []

    def call_off(num_waits: int) -> None:
        waits.append(num_waits)
        if num_waits == 2:
            raise KeyboardInterrupt

    before = list(history.lines(run))
    with pytest.raises(KeyboardInterrupt):
        take_up_engine(run, while_waiting=call_off)
    assert waits == [1, 2]
    assert not history.is_carried(run)
    assert list(history.lines(run)) == before
    assert await take_up(run) == 0


async def test_a_console_that_is_left_while_it_takes_a_run_up_leaves_the_run_as_it_is(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    run = new_run_id()
    await carry_until(run, digits_plan(rounds=3), lambda line: line["type"] == "round.finished")
    monkeypatch.setattr(launch, "_PATIENCE_S", 0.01)
    taking_up = asyncio.get_running_loop().create_task(RealDesk(load({})).take_up(run))
    await asyncio.sleep(0)
    taking_up.cancel()
    await asyncio.wait([taking_up])
    await asyncio.get_running_loop().shutdown_default_executor()
    assert not history.is_carried(run)
    assert outcome_of(run) == (history.RunState.CRASHED, None)


async def test_a_run_that_has_ended_is_not_taken_up() -> None:
    run = await carry(digits_plan(rounds=1))
    with pytest.raises(RefusedError, match=r"it is completed; .* --init-from .*model\.safetensors"):
        take_up_engine(run.run_id)


@pytest.mark.slow
async def test_a_task_that_has_changed_is_refused_and_the_run_can_still_be_taken_up() -> None:
    graphs = "graphs.json"
    run = new_run_id()
    await carry_until(run, digits_plan(rounds=3), lambda line: line["type"] == "round.finished")
    path = paths.runs_dir() / run / graphs
    content = path.read_bytes()
    path.write_bytes(encode_graphs(capture(mnist, 8, 1).graphs))
    assert await take_up(run) == 3
    assert (summary := history.summarize(run)) is not None
    assert summary.state is history.RunState.CRASHED
    path.write_bytes(content)
    assert await take_up(run) == 0


async def test_graphs_that_a_disk_has_damaged_are_written_again() -> None:
    run = new_run_id()
    await carry_until(run, digits_plan(rounds=3), lambda line: line["type"] == "round.finished")
    path = paths.runs_dir() / run / "graphs.json"
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2] + bytes(len(content) // 2))
    assert await take_up(run) == 0
    assert path.read_bytes() == content


async def test_updates_that_waited_for_another_engine_are_told_under_their_workers_names(
    five_rounds: Plan,
) -> None:
    run = new_run_id()
    begun: set[str] = set()

    def have_all_begun(line: Line) -> bool:
        if line["type"] == "worker.batches":
            begun.add(line["worker"])
        return len(begun) == 3

    # Long enough that nobody is done when the last one has begun.
    plan = replace(five_rounds, rounds=1, federate_after_n_batches=2000)
    await carry_until(run, plan, have_all_begun)
    async with asyncio.timeout(60):
        for address in plan.workers:
            await is_delivering(int(address.rpartition(":")[2]))
    assert await take_up(run) == 0
    told = list(history.lines(run))
    assert [line for line in told if line["type"] == "worker.rejected"] == []
    assert {line["worker"] for line in told if line.get("worker")} == {"alice", "bob", "charlie"}
    # The devices tell all of the round again: what is in the journal does not come a second time.
    batches = Counter(
        (line["worker"], line["first"] + index)
        for line in told
        if line["type"] == "worker.batches"
        for index in range(len(line["losses"]))
    )
    assert set(batches.values()) == {1}
    assert len(batches) == 3 * 2000


async def is_delivering(port: int) -> None:
    """Ask a device, as a viewer, until it has an update in hand."""
    while True:
        async with open_link(port, hello=console_hello(Role.VIEWER)) as link:
            hello = link.seen[0]
            assert isinstance(hello, Hello)
            assert hello.status is not None
            if hello.status.state is DeviceState.DELIVERING:
                return


async def test_whoever_resumes_a_run_a_second_time_is_told_how_to_join_it(
    capsys: pytest.CaptureFixture[str],
) -> None:
    run = new_run_id()
    plan = digits_plan(rounds=100_000)
    await carry_until(run, plan, lambda line: line["type"] == "round.finished")
    told = f"is resumed already; to join it: fedconsole attach {run}"
    at_once = [asyncio.to_thread(take_up_engine, run) for _ in range(2)]
    [refusal, engine] = sorted(
        await asyncio.gather(*at_once, return_exceptions=True),
        key=lambda result: isinstance(result, subprocess.Popen),
    )
    assert isinstance(engine, subprocess.Popen)
    try:
        assert isinstance(refusal, RefusedError)
        assert told in str(refusal)
        # It listens, but its task is still being captured; then it trains.
        assert await asyncio.to_thread(carry_out, ["resume", run]) == 3
        assert told in capsys.readouterr().err
        async with ControlLink.connect(run) as link:
            async for line in link.events():
                if line["type"] == "run.restarted":
                    break
        assert await asyncio.to_thread(carry_out, ["resume", run]) == 3
        assert f"to join it: fedconsole attach {run}" in capsys.readouterr().err
    finally:
        engine.kill()
        await asyncio.to_thread(engine.wait)


async def test_two_engines_never_carry_one_run() -> None:
    run = new_run_id()
    plan = digits_plan(rounds=100_000)
    engine = start_engine(run, plan)
    try:
        with pytest.raises(StorageError, match="another engine carries the run"):
            start_engine(run, plan, goes_on_in=".")
        assert history.is_running(run)
    finally:
        engine.kill()
        await asyncio.to_thread(engine.wait)


@pytest.mark.slow
async def test_a_run_stands_still_while_its_disk_is_full_and_ends_with_the_same_model(
    tmp_path: Path, five_rounds: Plan, undisturbed: FinishedRun
) -> None:
    with small_disk(tmp_path / "disk", 4 << 20) as disk, pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_STATE_HOME", str(disk))
        run = new_run_id()
        engine = start_engine(run, five_rounds)
        try:
            async with ControlLink.connect(run) as link:
                async for line in link.events():
                    if line["type"] == "round.finished" and line["round"] == 2:
                        break
                with full(disk):
                    await until_refused(link)
                with suppress(FedconsoleError):
                    await link.request("resume")
                seen = [line async for line in link.events()]
            assert await asyncio.to_thread(engine.wait) == 0
        finally:
            engine.kill()
    assert (seen[-1]["outcome"], seen[-1]["model_id"]) == ("completed", undisturbed.model_id)
    assert [line["round"] for line in seen if line["type"] == "round.finished"] == [*range(1, 6)]


async def until_refused(link: ControlLink) -> None:
    """Ask for pauses and their ends until the engine says that it cannot write them down."""
    while True:
        for request in ("pause", "resume"):
            try:
                await link.request(request)
            except FedconsoleError as error:
                if "disk is full" in str(error):
                    return
