"""The help of the command line in Korean: nothing is missing, and nothing is left over."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
from typer import rich_utils

from fedconsole.cli import korean
from fedconsole.cli.main import app, carry_out
from tests.support.places import redirect

HANGUL = re.compile("[가-힣]")
NAMES_ONLY = {"bash, zsh, fish, powershell, pwsh"}
Capture = pytest.CaptureFixture[str]


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in korean.OF_TYPER:
        # Given back afterwards.
        monkeypatch.setattr(rich_utils, name, getattr(rich_utils, name))
    return redirect(tmp_path, monkeypatch)


def commands(command: Any, words: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    yield words, command
    for name, below in getattr(command, "commands", {}).items():
        yield from commands(below, (*words, name))


def texts() -> set[str]:
    """All that help says, and the headings above it."""
    found = set()
    for _words, command in commands(typer.main.get_command(app)):
        found.add(command.help)
        for param in command.params:
            if not param.hidden:
                found |= {getattr(param, "help", None), getattr(param, "rich_help_panel", None)}
    return found - {None} - NAMES_ONLY


def test_every_text_of_the_help_has_a_twin() -> None:
    assert len(texts()) > 100
    assert {text for text in texts() if not HANGUL.search(korean.twin_of(text))} == set()


def test_every_twin_belongs_to_a_text() -> None:
    said = {korean.twin_of(text).split(" 기본값 ")[0] for text in texts()}
    assert set(korean.HELP.values()) - said == set()


def test_a_default_stands_at_the_end_in_korean_too() -> None:
    assert korean.twin_of("Learning rate. Default 0.01.") == "학습률. 기본값 0.01."
    assert korean.twin_of("Nobody wrote this. Default 1.") == "Nobody wrote this. Default 1."


@pytest.mark.parametrize(
    ("arguments", "environment"),
    [
        (["--lang", "ko", "run", "--help"], {}),
        (["--lang=ko", "run", "-h"], {"LC_ALL": "en_US.UTF-8"}),
        (["run", "--help"], {"FEDCONSOLE_LANG": "ko", "LC_ALL": "en_US.UTF-8"}),
        (["run", "--help"], {"LC_ALL": "ko_KR.UTF-8"}),
    ],
)
def test_help_is_in_the_language_that_is_asked_for(
    arguments: list[str],
    environment: dict[str, str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: Capture,
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert carry_out(arguments) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "워커의 데이터로 학습하고 그 과정을 보여 줍니다." in shown
    assert "이 도움말을 보여 주고 끝냅니다." in shown
    assert "Train on" not in shown


@pytest.mark.parametrize(
    ("arguments", "environment"),
    [
        (["--lang", "en", "run", "--help"], {"LC_ALL": "ko_KR.UTF-8"}),
        (["run", "--help"], {"LC_ALL": "C.UTF-8"}),
        (["run", "--help"], {"FEDCONSOLE_LR": "fast", "LC_ALL": "C"}),
    ],
)
def test_help_is_english_elsewhere(
    arguments: list[str],
    environment: dict[str, str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: Capture,
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert carry_out(arguments) == 0
    shown = capsys.readouterr().out
    assert "Train on the workers' data" in shown
    assert HANGUL.search(shown) is None


def test_the_help_follows_the_language_of_a_file(
    monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    Path("fedconsole.toml").write_text("[console]\nlang = 'ko'\n")
    monkeypatch.setenv("LC_ALL", "C.UTF-8")
    assert carry_out(["runs", "--help"]) == 0
    assert "실행을 나열하고" in capsys.readouterr().out
    # What is wrong with it is told by the commands that read it.
    Path("fedconsole.toml").write_text("[console]\nlang = 'xx'\n")
    assert carry_out(["runs", "--help"]) == 0
    assert "List, show, export" in capsys.readouterr().out


def test_without_arguments_the_help_is_korean_too(
    monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    monkeypatch.setenv("LC_ALL", "ko_KR.UTF-8")
    assert carry_out([]) == 2
    assert "연합 학습" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "environment", "words"),
    [
        (["--lang", "xx", "runs", "list"], {}, "is not one of 'en', 'ko'"),
        (["config", "show"], {"FEDCONSOLE_LANG": "xx"}, "expected en or ko"),
    ],
)
def test_a_language_that_is_not_spoken_is_answered_with_those_that_are(
    arguments: list[str],
    environment: dict[str, str],
    words: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: Capture,
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert carry_out(arguments) == 2
    assert words in capsys.readouterr().err
