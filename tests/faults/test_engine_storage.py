"""Disks of the desktop that are full, fail or are damaged: the run waits, says why, and goes on."""

from __future__ import annotations

import asyncio
import json
import sqlite3
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from fedconsole import history
from fedconsole.coordinator.plan import Plan
from fedconsole.engine.launch import new_run_id, start_engine
from fedconsole.engine.ledger import RETRY_S
from fedconsole.engine.store import Line
from fedconsole.errors import ExitCode, FedconsoleError, StorageError
from tests.support.chaos import chaos_proxy
from tests.support.daemons import daemon
from tests.support.disks import (
    ext4_disk,
    fail_disk,
    full,
    make_read_only,
    mend_disk,
    small_disk,
)
from tests.support.engines import Engine, engine, is_round_finished, is_training
from tests.support.injection import injected, num_open_files, set_max_files
from tests.support.journal_check import check_run
from tests.support.networks import assert_losses_told_once
from tests.support.places import write_journal
from tests.support.runs import carry, digits_plan
from tests.support.terminal import terminal
from tests.unit.test_history import CREATED, END, ROUND

pytestmark = pytest.mark.timeout(400)
DISK_BYTES = 4 << 20
ROUNDS = 4
SEVERAL_RETRIES_S = 3 * RETRY_S


def short_plan() -> Plan:
    return digits_plan(rounds=ROUNDS)


def long_plan() -> Plan:
    """So long that it must be stopped."""
    return digits_plan(rounds=100_000)


def is_stalled(line: Line) -> bool:
    return line["type"] == "run.stalled"


def goes_on(line: Line) -> bool:
    return not is_stalled(line)


@pytest.fixture
def disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Where runs are kept meanwhile."""
    with small_disk(tmp_path / "disk", DISK_BYTES) as folder:
        monkeypatch.setenv("XDG_STATE_HOME", str(folder))
        yield folder


async def printed(*command: str) -> str:
    """What a command of fedconsole writes on stdout."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "fedconsole.cli.entry", *command), stdout=asyncio.subprocess.PIPE
    )
    output, _ = await process.communicate()
    assert process.returncode == 0
    return output.decode()


async def stop(run: Engine) -> None:
    with suppress(FedconsoleError):
        await run.request("stop")
    assert await run.end() == 0


async def test_every_reader_is_told_that_the_disk_is_full_and_the_run_goes_on_with_room(
    disk: Path,
) -> None:
    async with engine(long_plan()) as run, terminal("attach", run.run) as screen:
        await run.until(is_round_finished(2))
        with full(disk):
            stalled = await run.until(is_stalled)
            assert "database or disk is full" in stalled["reason"]
            assert stalled["seq"] == run.lines[-2]["seq"]
            await screen.shows("the run stands still", "disk is full")
            headless = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "fedconsole.cli.entry", "attach", run.run, "--plain"),
                stderr=asyncio.subprocess.PIPE,
            )
            assert headless.stderr is not None
            async with asyncio.timeout(60):
                while b"The run stands still: cannot write" not in (
                    line := await headless.stderr.readline()
                ):
                    assert line
            [listed] = json.loads(await printed("runs", "list", "-o", "json"))
            assert (listed["state"], listed["reason"]) == ("stalled", stalled["reason"])
            *_, last = (await printed("logs", run.run, "--json")).splitlines()
            assert json.loads(last) | {"time": stalled["time"]} == stalled
        await run.until(goes_on)
        await screen.until(lambda text: "the run stands still" not in text, "the end of it")
        headless.kill()
        await headless.wait()
        await stop(run)
    assert check_run(run.folder) == []


@pytest.mark.slow
async def test_an_abort_on_a_full_disk_ends_with_the_exit_code_of_storage(disk: Path) -> None:
    async with engine(long_plan()) as run:
        await run.until(is_round_finished(1))
        with full(disk):
            await run.until(is_stalled)
            with pytest.raises(FedconsoleError, match="disk is full"):
                await run.request("abort")
            assert await run.end() == ExitCode.STORAGE
        assert check_run(run.folder, must_be_finished=False) == []
        run.take_up()
        await run.until(lambda line: line["type"] == "run.restarted")
        await run.until(lambda line: line["type"] == "round.finished")


def test_a_run_that_begins_on_a_full_disk_is_refused_with_the_disks_reason(disk: Path) -> None:
    run = new_run_id()
    with full(disk), pytest.raises(StorageError, match=r"is full|No space|disk I/O error"):
        start_engine(run, short_plan())
    assert history.summarize(run) is None


def test_a_run_that_has_ended_is_read_on_a_full_disk(disk: Path) -> None:
    write_journal("20261122-9791", [CREATED, ROUND, END])
    with full(disk):
        summary = history.summarize("20261122-9791")
    assert summary is not None
    assert summary.state is history.RunState.COMPLETED


async def test_a_folder_that_is_only_to_be_read_is_refused_at_once(disk: Path) -> None:
    make_read_only(disk)
    with pytest.raises(StorageError, match="Read-only file system"):
        Engine(short_plan())


@pytest.mark.parametrize(
    ("fault", "name"),
    [
        pytest.param(
            "fdatasync:error=EIO:when=1..3", "run.db-wal", marks=pytest.mark.slow, id="sync"
        ),
        pytest.param(
            "pwrite64:error=EROFS:when=1..3", "run.db-wal", marks=pytest.mark.slow, id="read-only"
        ),
    ],
)
async def test_a_journal_that_cannot_be_written_is_told_and_written_again(
    fault: str, name: str
) -> None:
    async with engine(long_plan()) as run:
        await run.until(is_round_finished(1))
        with injected(run.pid, fault, only=run.folder / name):
            await run.until(is_stalled)
            await run.until(goes_on)
        await stop(run)
    assert check_run(run.folder) == []


@pytest.mark.slow
async def test_a_model_that_cannot_be_written_is_written_again() -> None:
    async with engine(long_plan()) as run:
        await run.until(is_round_finished(1))
        with injected(run.pid, "fsync:error=EIO:when=1", only=run.folder / "checkpoints"):
            warning = await run.until(lambda line: line["type"] == "warning")
        assert "the run waits, and tries again" in warning["text"]
        summary = await asyncio.to_thread(history.summarize, run.run)
        assert summary is not None
        assert summary.state is history.RunState.STALLED
        await run.until(lambda line: line["type"] == "round.finished")
        await stop(run)
    assert check_run(run.folder) == []


@pytest.mark.slow
async def test_a_run_whose_disk_fails_says_so_and_is_taken_up_when_it_is_mended(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    undisturbed = await carry(short_plan())
    with ext4_disk(place / "disk", 32 << 20) as disk:
        monkeypatch.setenv("XDG_STATE_HOME", str(disk))
        async with engine(short_plan()) as run:
            await run.until(is_round_finished(2))
            fail_disk(disk)
            stalled = await run.until(is_stalled)
            assert "cannot write" in stalled["reason"]
            with pytest.raises(FedconsoleError, match="cannot write"):
                await run.request("abort")
            assert await run.end() == ExitCode.STORAGE
            mend_disk(disk)
            run.take_up()
            assert await run.end() == 0
            run.assert_completed(undisturbed.model_id)


@pytest.mark.slow
async def test_an_update_that_cannot_be_synced_is_sent_again_and_counts_once(
    place: Path,
) -> None:
    async with (
        daemon(place, "--dataset", "digits=sample", "--shard", "1/2") as alice,
        daemon(place, "--dataset", "digits=sample", "--shard", "2/2", name="bob") as bob,
    ):
        workers = tuple(f"127.0.0.1:{each.port}" for each in (alice, bob))
        plan = digits_plan(virtual=0, workers=workers, rounds=3, federate_after_n_batches=40)
        undisturbed = await carry(plan)
        async with engine(plan) as run:
            updates = run.folder / "updates"
            with injected(run.pid, "fsync:error=EIO:when=1", only=updates):
                await run.until(lambda line: line["type"] == "warning")
            assert await run.end() == 0
    run.assert_completed(undisturbed.model_id)
    assert "cannot keep the update" in run.of_type("warning")[0]["text"]


async def test_while_the_disk_is_full_the_link_stays_and_nothing_is_sent_again(
    disk: Path, place: Path
) -> None:
    async with daemon(place, "--dataset", "digits=sample") as alice, chaos_proxy(alice.port) as way:
        # So long that the disk is full before the update comes.
        plan = digits_plan(
            virtual=0, workers=(way.address,), rounds=1, federate_after_n_batches=3000
        )
        undisturbed = await carry(plan)
        num_links, num_bytes = way.num_connections, way.down.num_bytes
        async with engine(plan) as run:
            await run.until(is_training("alice"))
            with full(disk):
                await run.until(is_stalled)
                await way.until(lambda: way.down.num_bytes - num_bytes > 0.9 * num_bytes)
                with pytest.raises(TimeoutError):
                    async with asyncio.timeout(SEVERAL_RETRIES_S):
                        await way.until(lambda: way.num_connections > num_links + 1)
            assert await run.end() == 0
        run.assert_completed(undisturbed.model_id)
        # The losses and the update went over two links, and telemetry meanwhile; an update is half of it.
        assert way.num_connections == num_links + 2
        assert way.down.num_bytes - num_bytes < 3 * num_bytes
    assert_losses_told_once(run.lines)
    [warning] = run.of_type("warning")
    assert "this machine cannot keep the update of round 1: No space left" in warning["text"]


@pytest.mark.slow
async def test_a_run_without_descriptors_waits_and_ends_with_the_same_model(place: Path) -> None:
    async with daemon(place, "--dataset", "digits=sample") as alice:
        workers = (f"127.0.0.1:{alice.port}",)
        plan = digits_plan(virtual=0, workers=workers, rounds=6, federate_after_n_batches=40)
        undisturbed = await carry(plan)
        async with engine(plan) as run:
            await run.until(is_round_finished(1))
            before = set_max_files(run.pid, num_open_files(run.pid))
            await run.until(lambda line: line["type"] in {"warning", "worker.lost"})
            set_max_files(run.pid, before)
            assert await run.end() == 0
    run.assert_completed(undisturbed.model_id)


@pytest.mark.slow
async def test_whatever_tail_of_the_journal_is_torn_the_run_goes_on_to_the_same_model() -> None:
    undisturbed = await carry(short_plan())
    async with engine(short_plan()) as run:
        await run.until(is_round_finished(2))
        run.kill()
        wal = run.folder / "run.db-wal"
        content = wal.read_bytes()
        wal.write_bytes(content[: len(content) - 1000] + bytes(500))
        with sqlite3.connect(run.folder / "run.db") as database:
            assert database.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        run.take_up()
        assert await run.end() == 0
    run.assert_completed(undisturbed.model_id)
