"""`fedconsole demo`: real daemons, real websockets, nothing downloaded, nothing left behind."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from pi_daemon.discovery import registered_daemons
from tests.support.places import redirect

DEMO = [sys.executable, "-c", "from fedconsole.cli.main import main; main()", "demo"]


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    return redirect(tmp_path, monkeypatch)


def left_behind(place: Path) -> list[str]:
    daemons = [daemon.worker_name for daemon in registered_daemons()]
    return daemons + [path.name for path in place.glob("fedconsole-demo-*")]


def test_the_demo_learns_digits_from_daemons_that_end_with_it(place: Path) -> None:
    done = subprocess.run([*DEMO, "--json"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    lines = [json.loads(text) for text in done.stdout.splitlines()]
    (cohort, *_) = [line["cohort"] for line in lines if line["type"] == "round.started"]
    assert cohort == ["alice", "bob", "charlie"]
    tests = [line for line in lines if line["type"] == "eval"]
    assert tests[-1]["accuracy"] >= 0.95
    assert left_behind(place) == []


@pytest.mark.parametrize(
    ("number", "exit_code"), [(signal.SIGINT, 6), (signal.SIGTERM, 143)], ids=["INT", "TERM"]
)
def test_a_signal_in_the_demo_ends_its_daemons_too(
    number: signal.Signals, exit_code: int, place: Path
) -> None:
    command = [*DEMO, "--workers", "1", "--json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as demo:
        assert demo.stdout is not None
        assert json.loads(demo.stdout.readline())["type"] == "run.created"
        assert [daemon.worker_name for daemon in registered_daemons()] == ["alice"]
        demo.send_signal(number)
        demo.stdout.read()
    assert demo.returncode == exit_code
    assert left_behind(place) == []
