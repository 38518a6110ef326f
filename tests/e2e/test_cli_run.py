"""`fedconsole run` as a script sees it: stdout, stderr, exit codes, and what is left behind."""

from __future__ import annotations

import asyncio
import json
import os
import pty
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil
import pytest

from fedconsole import history
from fedconsole.history import RunState
from tests.e2e.test_user_task import write_motion
from tests.support.daemons import daemon
from tests.support.places import redirect
from tests.unit.test_docs import EXAMPLE

FEDCONSOLE = [sys.executable, "-m", "fedconsole.cli.entry"]
QUICK = ["--virtual", "1", "--lr", "0.05", "--federate-after-n-batches", "3"]
ENDLESS = [*QUICK, "--rounds", "100000"]


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    return redirect(tmp_path, monkeypatch)


def fedconsole(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*FEDCONSOLE, *arguments], capture_output=True, text=True, check=False)


@contextmanager
def started(*arguments: str) -> Iterator[subprocess.Popen[str]]:
    """A front end that is under way; one that a failed test left is ended with its engine."""
    process = subprocess.Popen(
        [*FEDCONSOLE, "run", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        yield process
    finally:
        for number in (signal.SIGINT, signal.SIGINT):
            if process.poll() is None:
                process.send_signal(number)
        process.communicate(timeout=30)


def read_until(process: subprocess.Popen[str], kind: str) -> dict[str, Any]:
    assert process.stdout is not None
    for text in process.stdout:
        line: dict[str, Any] = json.loads(text)
        if line["type"] == kind:
            return line
    raise AssertionError(f"no {kind} line; stderr: {process.stderr and process.stderr.read()}")


def rest_of(process: subprocess.Popen[str]) -> tuple[list[dict[str, Any]], str]:
    out, err = process.communicate(timeout=60)
    return [json.loads(text) for text in out.splitlines()], err


def only_run() -> str:
    (run,) = history.run_ids()
    return run


def engine_pid(run: str) -> int:
    """The process that holds the run's journal open."""
    journal = str(history.folder_of(run) / "run.db")
    for process in psutil.process_iter(["cmdline"]):
        if "fedconsole.engine" in (process.info["cmdline"] or ()):
            with suppress(psutil.Error):
                if any(file.path == journal for file in process.open_files()):
                    return process.pid
    raise AssertionError(f"no engine holds {journal}")


def test_a_run_prints_its_journal_and_nothing_else_on_stdout() -> None:
    done = fedconsole("run", *QUICK, "--rounds", "2", "--json", "--save_model")
    assert done.returncode == 0, done.stderr
    lines = [json.loads(text) for text in done.stdout.splitlines()]
    run = only_run()
    assert lines == list(history.lines(run))
    assert [line["seq"] for line in lines] == list(range(1, len(lines) + 1))
    assert lines[0]["type"] == "run.created"
    end = lines[-1]
    assert (end["type"], end["outcome"], end["rounds"]) == ("run.finished", "completed", 2)
    assert Path(end["model_path"]).is_file()
    assert Path("mnist_cnn.pt").is_file()
    summary = history.summarize(run)
    assert summary is not None
    assert (summary.state, summary.model_id) == (RunState.COMPLETED, end["model_id"])


def test_the_first_ctrl_c_aborts_and_the_run_says_so() -> None:
    with started(*ENDLESS, "--json") as process:
        read_until(process, "round.finished")
        process.send_signal(signal.SIGINT)
        lines, err = rest_of(process)
    assert process.returncode == 6
    assert (lines[-1]["type"], lines[-1]["outcome"]) == ("run.finished", "aborted")
    assert "aborting; the last checkpoint is kept; Ctrl-C again ends at once" in err
    assert Path(lines[-1]["model_path"]).is_file()


def test_usr1_before_the_run_has_begun_does_not_end_it() -> None:
    with started(*QUICK, "--rounds", "1", "--json") as process:
        # The front end's first handler; it is far from the start of its engine then.
        while not is_caught(process, signal.SIGTERM):
            assert process.poll() is None
        process.send_signal(signal.SIGUSR1)
        lines, err = rest_of(process)
    assert (process.returncode, err) == (0, "")
    assert lines[-1]["outcome"] == "completed"


def is_caught(process: subprocess.Popen[str], number: signal.Signals) -> bool:
    status = Path(f"/proc/{process.pid}/status").read_text()
    [caught] = re.findall(r"^SigCgt:\s+(\w+)$", status, re.MULTILINE)
    return bool(int(caught, 16) >> number - 1 & 1)


def test_usr1_says_where_the_run_stands_and_the_run_goes_on() -> None:
    with started(*ENDLESS, "--json") as process:
        read_until(process, "round.finished")
        process.send_signal(signal.SIGUSR1)
        assert process.stderr is not None
        said = process.stderr.readline()
        assert said.startswith(f"run {only_run()}: round ")
        assert said.count("\n") == 1
        assert " of 100000, alice" in said
        read_until(process, "round.finished")
        process.send_signal(signal.SIGINT)
        rest_of(process)
    assert process.returncode == 6


def test_the_second_ctrl_c_ends_at_once_even_when_the_engine_is_stuck() -> None:
    with started(*ENDLESS, "--json") as process:
        read_until(process, "run.created")
        engine = engine_pid(only_run())
        os.kill(engine, signal.SIGSTOP)
        process.send_signal(signal.SIGINT)
        assert process.stderr is not None
        assert process.stderr.readline().startswith("aborting")
        process.send_signal(signal.SIGINT)
        rest_of(process)
    assert process.returncode == 6
    assert not Path(f"/proc/{engine}").exists()


@pytest.mark.parametrize(
    ("number", "exit_code"),
    [
        pytest.param(signal.SIGTERM, 143, id="TERM"),
        pytest.param(signal.SIGHUP, 129, id="HUP", marks=pytest.mark.slow),
    ],
)
def test_a_signal_to_the_front_end_aborts_the_run(number: signal.Signals, exit_code: int) -> None:
    with started(*ENDLESS, "--json") as process:
        read_until(process, "round.started")
        process.send_signal(number)
        lines, _ = rest_of(process)
    assert process.returncode == exit_code
    assert lines[-1]["outcome"] == "aborted"
    assert not history.is_running(only_run())


@pytest.mark.parametrize(
    ("number", "exit_code"),
    [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)],
    ids=["INT", "TERM", "HUP"],
)
def test_a_signal_before_the_run_exists_ends_the_front_end(
    number: signal.Signals, exit_code: int
) -> None:
    # A device that never says anything: the search lasts long enough to be interrupted.
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        Path("fedconsole.toml").write_text(f'[[devices]]\nhost = "127.0.0.1"\nport = {port}\n')
        with started("--all") as process:
            assert process.stderr is not None
            assert process.stderr.readline() == "looking for devices\n"
            connection, _ = silent.accept()
            with connection:
                process.send_signal(number)
                _, err = rest_of(process)
    assert (process.returncode, err) == (exit_code, "")
    assert history.run_ids() == []


def test_a_run_that_takes_too_long_is_aborted() -> None:
    done = fedconsole("run", *ENDLESS, "--json", "--timeout", "1")
    assert done.returncode == 124, done.stderr
    assert json.loads(done.stdout.splitlines()[-1])["outcome"] == "aborted"


def test_an_abort_does_not_wait_for_a_task_that_takes_long_to_capture() -> None:
    Path("slow.py").write_text(
        EXAMPLE.read_text()
        + "\nimport sys, time\n"
        + 'if "fedconsole.engine" in sys.orig_argv:\n    time.sleep(600)\n'
    )
    done = fedconsole("run", "--task", "slow.py", *QUICK, "--json", "--timeout", "1")
    assert done.returncode == 124, done.stderr
    last = json.loads(done.stdout.splitlines()[-1])
    assert (last["outcome"], last["rounds"]) == ("aborted", 0)


def test_a_reader_that_leaves_does_not_end_the_run() -> None:
    with started(*QUICK, "--rounds", "2", "--json") as process:
        read_until(process, "run.created")
        assert process.stdout is not None
        process.stdout.close()
        assert process.stderr is not None
        assert process.stderr.read() == ""
        assert process.wait(timeout=60) == 0
        process.stdout = None
    summary = history.summarize(only_run())
    assert summary is not None
    assert summary.state is RunState.COMPLETED


def test_a_detached_run_goes_on_and_can_be_attached_and_aborted() -> None:
    done = fedconsole("run", *ENDLESS, "--detach")
    run = done.stdout.strip()
    assert (done.returncode, run) == (0, only_run())
    assert history.is_running(run)
    attached = subprocess.Popen(
        [*FEDCONSOLE, "attach", "latest", "--json"], stdout=subprocess.PIPE, text=True
    )
    assert read_until(attached, "run.created")["run"] == run
    aborted = fedconsole("abort", run[:10])
    assert (aborted.returncode, aborted.stdout) == (0, "")
    lines, _ = rest_of(attached)
    assert lines[-1]["outcome"] == "aborted"
    assert attached.returncode == 6


def test_an_engine_that_is_killed_is_a_crash_and_not_a_failure() -> None:
    with started(*ENDLESS, "--json") as process:
        read_until(process, "run.created")
        run = only_run()
        os.kill(engine_pid(run), signal.SIGKILL)
        _, err = rest_of(process)
    assert process.returncode == 9
    assert f"the engine of run {run} ended without a last word" in err
    assert f"fedconsole resume {run}" in err
    summary = history.summarize(run)
    assert summary is not None
    assert summary.state is RunState.CRASHED


def test_a_dry_run_tells_of_each_worker_and_leaves_nothing() -> None:
    done = fedconsole("run", "--virtual", "2", "--dry-run")
    assert done.returncode == 0, done.stderr
    header, *rows = done.stdout.splitlines()
    assert header.split()[:3] == ["WORKER", "ADDRESS", "OK"]
    assert [row.split()[0] for row in rows] == ["alice", "bob"]
    assert history.run_ids() == []


def test_a_dry_run_without_the_worker_means_no_quorum() -> None:
    done = fedconsole("run", "--worker", "127.0.0.1:1", "--dry-run", "--json")
    assert done.returncode == 5, done.stderr
    answers = [json.loads(text) for text in done.stdout.splitlines()]
    (answer,) = [line for line in answers if line["type"] == "preflight"]
    assert (answer["address"], answer["ok"]) == ("127.0.0.1:1", False)
    assert answer["reason"]
    assert history.run_ids() == []


@pytest.mark.slow
async def test_a_dry_run_says_what_speaks_against_a_device_that_is_ready(place: Path) -> None:
    async with daemon(place, "--dataset", "digits=sample", name="alice") as alice:
        worker = f"--worker=127.0.0.1:{alice.port}"
        done = await asyncio.to_thread(fedconsole, "run", "--dry-run", "--json", worker)
    (ready,) = (told for told in map(json.loads, done.stdout.splitlines()) if "worries" in told)
    # It has this machine's clock; whether that is hot, or its disk full, is not known here.
    assert not [worry for worry in ready["worries"] if "clock" in worry]


@pytest.mark.slow
async def test_all_leaves_out_a_device_without_the_dataset_and_a_named_one_is_refused(
    place: Path,
) -> None:
    write_motion(place / "motion.npz", 60, seed=1)
    async with (
        daemon(place, "--dataset", "digits=sample", name="alice") as alice,
        daemon(place, "--dataset", "motion=motion.npz", name="bob") as bob,
    ):
        (place / "fedconsole.toml").write_text(
            f"[[devices]]\nname = 'alice'\nhost = '127.0.0.1'\nport = {alice.port}\n"
            f"[[devices]]\nname = 'bob'\nhost = '127.0.0.1'\nport = {bob.port}\n"
        )

        async def dry_run(*options: str) -> tuple[int, list[str], list[str]]:
            """Exit code, the workers that are ready, what was said."""
            done = await asyncio.to_thread(fedconsole, "run", "--dry-run", *options)
            ready = [row.split()[0] for row in done.stdout.splitlines()[1:]]
            return done.returncode, ready, done.stderr.splitlines()

        motion = ("--task", str(EXAMPLE), "--data-dir", ".")
        assert await dry_run("--all", *motion) == (
            0,
            ["bob"],
            [
                "looking for devices",
                f"left out: alice at 127.0.0.1:{alice.port}: "
                "it has no dataset 'motion' (it has: digits)",
                "fedconsole: every worker is ready",
            ],
        )
        named = [f"--worker=127.0.0.1:{device.port}" for device in (alice, bob)]
        exit_code, _, said = await dry_run(*named, *motion)
        assert exit_code == 3
        assert "alice cannot take part: it has no dataset 'motion' (it has: digits)" in said[-1]

        exit_code, _, said = await dry_run("--all", "--task", "mnist")
        assert exit_code == 3
        assert said[-1] == (
            "fedconsole: no device has the dataset 'mnist': "
            "start pi-daemon there with --dataset mnist=SOURCE"
        )


def test_on_a_terminal_bars_are_drawn_and_the_last_words_stay() -> None:
    controller, terminal = pty.openpty()
    process = subprocess.Popen(
        [*FEDCONSOLE, "run", *QUICK, "--rounds", "2"],
        stdout=subprocess.PIPE,
        stderr=terminal,
        env={k: v for k, v in os.environ.items() if k != "CI"} | {"TERM": "xterm-256color"},
    )
    os.close(terminal)
    shown = b""
    try:
        while chunk := os.read(controller, 65_536):
            shown += chunk
    except OSError:  # the last writer has closed the terminal
        pass
    out, _ = process.communicate(timeout=60)
    os.close(controller)
    assert (process.returncode, out) == (0, b"")
    text = shown.decode()
    assert "rounds" in text
    assert "2/2" in text
    uncoloured = re.sub(r"\x1b\[[\d;]*m", "", text)
    assert "completed: 2 rounds" in uncoloured.rsplit("\x1b[", 1)[-1]
