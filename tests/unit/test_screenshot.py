"""`fedconsole screenshot` draws stored runs as the console would, without a terminal."""

from __future__ import annotations

import html
import json
import re
from pathlib import Path

import pytest

from fedconsole.cli.main import carry_out
from tests.support.places import redirect, write_journal

Capture = pytest.CaptureFixture[str]
RECORDED = Path(__file__).parents[2] / "screenshots"


def put(name: str) -> str:
    """A recorded run into the history; its id."""
    lines = [json.loads(text) for text in (RECORDED / f"{name}.jsonl").read_text().splitlines()]
    run: str = lines[0]["run"]
    write_journal(run, lines)
    return run


@pytest.fixture(autouse=True)
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[str, str]:
    redirect(tmp_path, monkeypatch)
    monkeypatch.setenv("FEDCONSOLE_LANG", "en")
    return put("paused"), put("other")


def text_of(picture: Path) -> str:
    words = re.findall(r"<text [^>]*>([^<]*)</text>", picture.read_text())
    return html.unescape(" ".join(words)).replace("\xa0", " ")


@pytest.mark.parametrize(
    ("screen", "expected"),
    [
        ("live", ("COMPLETED", "round 10/10", "alice", "bob", "charlie")),
        ("run", ("Losses", "Rounds", "Classes", "completed")),
        ("history", ("20261", "completed", "trend")),
    ],
)
def test_a_screen_is_drawn_from_a_stored_run(
    screen: str, expected: tuple[str, ...], runs: tuple[str, str], tmp_path: Path
) -> None:
    out = tmp_path / "x.svg"
    assert carry_out(["screenshot", runs[0], "--screen", screen, "-o", str(out)]) == 0
    shown = text_of(out)
    assert [text for text in expected if text not in shown] == [], shown


def test_runs_are_compared_in_a_picture(runs: tuple[str, str], tmp_path: Path) -> None:
    out = tmp_path / "x.svg"
    assert carry_out(["screenshot", *runs, "--screen", "compare", "-o", str(out)]) == 0
    shown = text_of(out)
    assert all(run in shown for run in runs)
    assert "0.003" in shown


def test_the_live_screen_is_drawn_as_it_was_after_any_line(
    runs: tuple[str, str], tmp_path: Path
) -> None:
    out = tmp_path / "x.svg"
    arguments = ["--size", "80x24", "--seq", "100", "-o", str(out)]
    assert carry_out(["screenshot", runs[0], *arguments]) == 0
    before = out.read_text()
    assert "TRAINING" in text_of(out)
    assert "COMPLETED" not in text_of(out)
    # Another time, another place of the devices: the same picture.
    assert carry_out(["screenshot", runs[0], *arguments]) == 0
    assert out.read_text() == before


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--screen", "fleet"], "the screen fleet shows devices, of which stored runs know"),
        (["--screen", "new"], "the screen new shows devices, of which stored runs know"),
        (["--size", "10x5"], "expected COLUMNSxLINES between 60x15 and 500x200"),
        (["--size", "wide"], "expected COLUMNSxLINES"),
        (["--seq", "999999"], "--seq is 999999, and run"),
        (["--screen", "run", "--seq", "3"], "--seq is for the screen live, not for run"),
        (["--screen", "compare"], "1 runs to compare; name 2 to 4"),
        (["nope"], "no run begins with 'nope'"),
    ],
)
def test_what_cannot_be_drawn_is_refused_in_words(
    arguments: list[str], message: str, tmp_path: Path, capsys: Capture
) -> None:
    out = tmp_path / "x.svg"
    assert carry_out(["screenshot", *arguments, "-o", str(out)]) == 2
    assert message in capsys.readouterr().err
    assert not out.exists()


def test_a_folder_that_is_not_there_is_named(tmp_path: Path, capsys: Capture) -> None:
    out = tmp_path / "none" / "x.svg"
    assert carry_out(["screenshot", "--screen", "history", "-o", str(out)]) == 8
    assert f"cannot write {out}" in capsys.readouterr().err
