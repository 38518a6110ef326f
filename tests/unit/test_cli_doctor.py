from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path

import pytest

from fedconsole.cli import doctor
from fedconsole.cli.main import carry_out
from tests.support.places import redirect
from tests.unit.test_cli_hostile_texts import on_terminal

Capture = pytest.CaptureFixture[str]


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    return redirect(tmp_path, monkeypatch)


def test_doctor_finds_this_machine_fit_or_says_how_to_mend_it(capsys: Capture) -> None:
    exit_code = carry_out(["doctor", "-o", "json"])
    rows = json.loads(capsys.readouterr().out)
    assert exit_code == (1 if any(row["result"] == "bad" for row in rows) else 0)
    assert all(row["fix"] for row in rows if row["result"] == "bad")
    assert [row["check"] for row in rows] == [
        *("python", "torch", "terminal", "encoding", "colours", "tmux", "clock"),
        *(
            "multicast",
            "port",
            "disk",
            "own key",
            "paired devices",
            "state folder",
            "runtime folder",
        ),
    ]


def test_doctor_names_a_clock_that_cannot_be_right() -> None:
    assert doctor._clock(datetime(2026, 11, 27, 9, tzinfo=UTC)) == doctor.Check(
        "clock", True, "2026-11-27 09:00 UTC", "set the clock: sudo timedatectl set-ntp true"
    )
    assert not doctor._clock(datetime(1970, 1, 1, tzinfo=UTC)).is_good


@pytest.mark.parametrize(
    ("answer", "is_good"), [("on", True), ("external", False), ("off", False), (None, False)]
)
def test_doctor_asks_tmux_whether_copies_leave_it(
    answer: str | None, is_good: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "bin"
    folder.mkdir()
    if answer is not None:
        # As tmux 3.3a answers.
        asked = '[ "$*" = "show-options -sv set-clipboard" ]'
        (folder / "tmux").write_text(f"#!/bin/sh\n{asked} && echo {answer}\n")
        (folder / "tmux").chmod(0o755)
    monkeypatch.setenv("PATH", str(folder))
    monkeypatch.setenv("TMUX", "/tmp/tmux-1000/default,1,0")
    check = doctor._tmux()
    assert (check.name, check.is_good) == ("tmux", is_good)
    assert check.found == f"set-clipboard is {answer or 'not told'}"
    assert "set-clipboard on" in check.fix


@pytest.mark.parametrize(
    ("variables", "found", "is_good"),
    [
        ({"TERM": "xterm-256color", "COLORTERM": "truecolor"}, "truecolor", True),
        ({"TERM": "xterm-256color"}, "256", True),
        ({"TERM": "xterm"}, "standard", False),
        ({"TERM": "xterm", "NO_COLOR": "1"}, "none: NO_COLOR is set", True),
    ],
)
def test_doctor_names_a_terminal_with_few_colours(
    variables: dict[str, str], found: str, is_good: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("TERM", "COLORTERM", "NO_COLOR", "FORCE_COLOR"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with on_terminal(monkeypatch):
        check = doctor._colours()
    assert (check.found, check.is_good) == (found, is_good)


def test_doctor_names_an_unsafe_runtime_folder(place: Path, capsys: Capture) -> None:
    (place / "r" / "fedconsole").mkdir(mode=0o755)
    assert carry_out(["doctor", "-o", "json"]) == 1
    last = json.loads(capsys.readouterr().out)[-1]
    assert (last["check"], last["result"]) == ("runtime folder", "bad")
    assert "chmod 700" in last["found"]
