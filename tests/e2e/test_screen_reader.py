"""The console without a full screen, on a real terminal: numbered lines, and nothing that moves."""

from __future__ import annotations

from contextlib import aclosing
from pathlib import Path

import pytest

from fedconsole import history
from tests.e2e.test_console_terminal import long_run
from tests.support.places import redirect, write_journal
from tests.support.terminal import terminal
from tests.unit.test_history import CREATED, END, ROUND

ALTERNATE_SCREEN = b"\x1b[?1049h"


@pytest.fixture(autouse=True)
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    redirect(tmp_path, monkeypatch)
    write_journal("20261122-9791", [CREATED, ROUND, END])


@pytest.mark.parametrize(
    ("arguments", "environment"),
    [
        (["--screen-reader"], {}),
        ([], {"FEDCONSOLE_PLAIN": "true"}),
        (["--screen-reader"], {"TERM": "dumb"}),
    ],
)
async def test_it_offers_numbered_lines_and_says_how_the_full_screen_is_opened(
    arguments: list[str], environment: dict[str, str]
) -> None:
    own = environment | {"NO_COLOR": "1"}
    async with terminal(*arguments, environment=own) as opened:
        await opened.shows("fedconsole --no-screen-reader", "3. show the runs", "Number:")
        opened.press("9", "enter")
        await opened.shows("'9' is not a number from 0 to 5.")
        opened.press("3", "enter")
        await opened.shows("20261122-9791", "Ended with exit code 0.")
        opened.press("0", "enter")
        assert await opened.ended() == 0
        assert b"\x1b" not in opened.output


async def test_it_offers_what_a_run_allows_and_asks_before_an_abort() -> None:
    async with long_run() as run, terminal("--screen-reader") as opened:
        async with aclosing(history.follow(run)) as lines:
            while (await anext(lines))["type"] != "round.started":
                pass
        await opened.shows(f"2. pause run {run}, which is running", "Number:")
        opened.press("3", "enter")
        await opened.shows(f"Abort run {run} now?")
        opened.press("n", "enter", "2", "enter")
        await opened.shows(f"2. resume run {run}, which is paus")
        opened.press("3", "enter")
        opened.press("y", "enter")
        await opened.until(lambda text: text.count("Ended with exit code") == 2, "the end")
        assert f"run {run} was asked to abort" in opened.text


async def test_the_setting_can_be_outdone() -> None:
    setting = {"FEDCONSOLE_PLAIN": "true", "FEDCONSOLE_SEARCH_SECONDS": "0"}
    async with terminal("--no-screen-reader", environment=setting) as opened:
        await opened.shows("Fleet", "Quit")
        assert ALTERNATE_SCREEN in opened.output
        opened.press("q")
        assert await opened.ended() == 0
