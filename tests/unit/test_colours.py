from __future__ import annotations

import io
import os
import subprocess
import sys
from pathlib import Path

import pytest

from fedconsole.cli.main import carry_out
from fedconsole.cli.output import Output, print_rows
from fedconsole.colours import Color, Role, has_colours, painted, role_of_word, settle
from fedconsole.headless import TextScreen
from tests.support.places import redirect, write_journal
from tests.unit.test_history import CREATED, END, ROUND

Capture = pytest.CaptureFixture[str]
NAMES = ("NO_COLOR", "FORCE_COLOR", "CLICOLOR")
LOST = {"type": "worker.lost", "run": "r", "worker": "bob", "address": "a:1", "reason": "gone"}


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    # Set and deleted: what the program sets there is undone, too.
    for name in NAMES:
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    monkeypatch.setenv("TERM", "xterm-256color")
    return redirect(tmp_path, monkeypatch)


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("color", "environment", "on_terminal", "in_pipe"),
    [
        ("auto", {}, True, False),
        ("auto", {"TERM": "dumb"}, False, False),
        ("auto", {"TERM": ""}, False, False),
        ("auto", {"NO_COLOR": "1"}, False, False),
        ("auto", {"NO_COLOR": ""}, True, False),
        ("auto", {"CLICOLOR": "0"}, False, False),
        ("auto", {"CLICOLOR": "1"}, True, False),
        ("auto", {"FORCE_COLOR": "1"}, True, True),
        ("auto", {"FORCE_COLOR": "1", "CLICOLOR": "0", "TERM": "dumb"}, True, True),
        ("auto", {"NO_COLOR": "1", "FORCE_COLOR": "1"}, False, False),
        ("always", {"NO_COLOR": "1", "CLICOLOR": "0", "TERM": "dumb"}, True, True),
        ("never", {"FORCE_COLOR": "1"}, False, False),
    ],
)
def test_the_option_outdoes_no_color_which_outdoes_force_color_and_that_clicolor(
    color: str, environment: dict[str, str], on_terminal: bool, in_pipe: bool
) -> None:
    settled = {"TERM": "xterm-256color"} | environment
    settle(Color(color), settled)
    assert has_colours(Terminal(), settled) == on_terminal
    assert has_colours(io.StringIO(), settled) == in_pipe


@pytest.mark.parametrize("color", ["always", "never"])
def test_tables_and_errors_have_colours_as_the_option_says(color: str, capsys: Capture) -> None:
    write_journal("20261122-9791", [CREATED, ROUND, END])
    assert carry_out(["--color", color, "runs", "list"]) == 0
    title, row = capsys.readouterr().out.splitlines()
    is_coloured = color == "always"
    assert ("\x1b[1mSTATE\x1b[0m" in title) == is_coloured
    assert ("\x1b[32mcompleted\x1b[0m" in row) == is_coloured
    assert carry_out(["--color", color, "runs", "show", "nope"]) != 0
    assert capsys.readouterr().err.startswith("\x1b[31mfedconsole: " if is_coloured else "fedc")


def test_columns_stand_below_each_other_with_colours_as_without(capsys: Capture) -> None:
    rows = [{"name": "앨리스", "result": "good"}, {"name": "b", "result": "other"}]

    def table(color: Color) -> str:
        settle(color)
        print_rows([row | {"end": 1} for row in rows], ("name", "result", "end"), Output.TABLE)
        return capsys.readouterr().out

    coloured = table(Color.ALWAYS)
    for code in ("\x1b[1m", "\x1b[32m", "\x1b[0m"):
        coloured = coloured.replace(code, "")
    assert coloured == table(Color.NEVER)


def test_json_and_names_never_have_colours(capsys: Capture) -> None:
    write_journal("20261122-9791", [CREATED, ROUND, END])
    for form in ("json", "name"):
        assert carry_out(["--color", "always", "runs", "list", "-o", form]) == 0
        assert "\x1b" not in capsys.readouterr().out


def test_trouble_of_a_run_is_yellow_and_its_end_green_but_plain_sentences_have_no_colours(
    capsys: Capture,
) -> None:
    settle(Color.ALWAYS)
    for is_plain in (False, True):
        screen = TextScreen(is_plain=is_plain)
        screen.show(LOST)
        screen.show(END)
        screen.close()
        err = capsys.readouterr().err
        assert ("\x1b[33m" in err, "\x1b[32m" in err) == (not is_plain, not is_plain)
        assert ("\x1b" in err) == (not is_plain)


@pytest.mark.parametrize(
    ("arguments", "changes", "is_coloured"),
    [
        (["--help"], {}, False),
        (["--color", "always", "--help"], {}, True),
        (["--help"], {"FORCE_COLOR": "1"}, True),
        (["--help"], {"FORCE_COLOR": "1", "NO_COLOR": "1"}, False),
    ],
)
def test_the_help_obeys_too(
    arguments: list[str], changes: dict[str, str], is_coloured: bool
) -> None:
    environment = {n: v for n, v in os.environ.items() if n not in (*NAMES, "GITHUB_ACTIONS")}
    done = subprocess.run(
        [sys.executable, "-m", "fedconsole.cli.entry", *arguments],
        env=environment | changes,
        capture_output=True,
        text=True,
        check=True,
    )
    assert ("\x1b[36m" in done.stdout or "\x1b[1;36m" in done.stdout) == is_coloured


def test_a_text_without_a_role_is_left_as_it_is() -> None:
    settle(Color.ALWAYS)
    assert painted("idle", role_of_word("idle"), io.StringIO()) == "idle"
    assert painted("bad", Role.BAD, io.StringIO()) == "\x1b[31mbad\x1b[0m"
