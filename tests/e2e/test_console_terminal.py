"""The full-screen console in a real pseudo-terminal: its keys, its mouse, its ends."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import psutil
import pytest

from fedconsole import history
from fedconsole.engine.control import ControlLink
from fedconsole.engine.launch import new_run_id, start_engine
from fedconsole.fleet.local import local_daemons
from tests.e2e.test_cli_run import engine_pid
from tests.support.freezing import frozen
from tests.support.pauses import pauses_of, require_obeyed
from tests.support.places import redirect
from tests.support.runs import digits_plan
from tests.support.terminal import WAIT_S, Terminal, terminal

GIVEN_BACK = (b"\x1b[?1049l", b"\x1b[?1000l", b"\x1b[?25h")
"""Out of the alternate screen, no mouse tracking, the cursor shown."""


@pytest.fixture(autouse=True)
def places(tmp_path: Path) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        redirect(tmp_path, patch)
        yield


@asynccontextmanager
async def long_run() -> AsyncIterator[str]:
    """A run on virtual workers that goes on until it is told to end."""
    run = new_run_id()
    engine = start_engine(run, digits_plan(rounds=100_000))
    try:
        yield run
    finally:
        engine.kill()
        await asyncio.to_thread(engine.wait)


def losses(screen: str) -> list[float]:
    return [float(text) for text in re.findall(r"loss (\d+\.\d+)", screen)]


@pytest.mark.parametrize(
    ("number", "exit_code"),
    [(signal.SIGTERM, 143), (signal.SIGHUP, 129), (signal.SIGINT, 130)],
)
async def test_a_signal_gives_the_terminal_back(number: int, exit_code: int) -> None:
    async with terminal() as opened:
        await opened.shows("fedconsole", "Fleet")
        opened.process.send_signal(number)
        assert await opened.ended() == exit_code
        opened.take()
        for sequence in GIVEN_BACK:
            assert sequence in opened.output


async def test_a_console_that_stood_still_gives_the_terminal_back() -> None:
    async with terminal() as opened:
        await opened.shows("fedconsole", "Fleet")
        with frozen(opened.process.pid):
            pass
        opened.press("ctrl+c")
        assert await opened.ended() == 130
        opened.take()
        assert opened.modes == opened.first_modes


async def test_ctrl_c_leaves_at_once_and_the_run_goes_on() -> None:
    async with long_run() as run, terminal("attach", run) as opened:
        await opened.shows("round", run)
        opened.press("ctrl+c")
        assert await opened.ended() == 130
        assert history.is_running(run)


INTERRUPTED_AT_AN_IMPORT = (
    sys.executable,
    "-c",
    """
import os, signal, sys

class Interrupting:
    def find_spec(self, name, path=None, target=None):
        if name == at:
            sys.meta_path.remove(self)
            os.kill(os.getpid(), signal.SIGINT)

at = sys.argv.pop(1)
sys.meta_path.insert(0, Interrupting())
from fedconsole.cli.entry import main
main()
""",
)


@pytest.mark.parametrize(
    "module",
    [
        *("fedconsole.colours", "fedconsole.cli.console", "fedconsole.config", "textual.app"),
        *("fedconsole.tui.palette", "fedconsole.desk", "textual.drivers.linux_driver"),
        # The terminal is changed by then.
        *("fedconsole.tui.screens.fleet", "fedconsole.fleet.watching"),
    ],
)
async def test_ctrl_c_in_the_first_second_leaves_as_it_does_later(module: str) -> None:
    async with terminal(module, program=INTERRUPTED_AT_AN_IMPORT) as opened:
        assert await opened.ended() == 130
        opened.take()
        assert opened.modes == opened.first_modes
        assert b"Traceback" not in opened.output
        if b"\x1b[?1049h" in opened.output:
            assert all(sequence in opened.output for sequence in GIVEN_BACK)


async def test_three_ctrl_c_on_the_screen_give_the_terminal_back() -> None:
    async with terminal() as opened:
        await opened.shows("fedconsole", "Fleet")
        assert opened.modes != opened.first_modes
        opened.press("ctrl+c", "ctrl+c", "ctrl+c")
        assert await opened.ended() == 130
        opened.take()
        for sequence in GIVEN_BACK:
            assert sequence in opened.output
        assert opened.modes == opened.first_modes
        assert b"Traceback" not in opened.output


async def test_the_third_ctrl_c_of_a_headless_run_gives_the_terminal_back() -> None:
    async with terminal("run", "--headless", "--virtual", "1", "--rounds", "100000") as opened:
        await opened.shows("/100000")
        engine = engine_pid(the_only_run())
        # It does not answer: the second Ctrl-C takes 2 s to end it, and the third comes in between.
        os.kill(engine, signal.SIGSTOP)
        opened.press("ctrl+c")
        await opened.shows("aborting")
        opened.press("ctrl+c", "ctrl+c")
        assert await opened.ended() == 6
        opened.take()
        assert opened.modes == opened.first_modes
        assert opened.output.rfind(b"\x1b[?25h") >= opened.output.rfind(b"\x1b[?25l")
        assert b"Traceback" not in opened.output
    assert not Path(f"/proc/{engine}").exists()


NUM_ROUNDS = 60


async def test_a_killed_console_leaves_its_run_going_and_attach_shows_it_to_its_end() -> None:
    end = f"/{NUM_ROUNDS}"
    short = ("--rounds", str(NUM_ROUNDS), "--federate-after-n-batches", "4")
    async with terminal("run", "--virtual", "2", *short) as first:
        await first.shows("TRAINING", end)
        run = the_only_run()
        engine = psutil.Process(engine_pid(run))
        # It waits for consoles to open, and for nothing else.
        async with ControlLink.connect(run) as link:
            await link.request("pause")
            await first.shows("PAUSED")
            await link.request("resume")
            await first.shows("TRAINING")
        first.process.send_signal(signal.SIGKILL)
        assert await first.ended() == -signal.SIGKILL
    try:
        # The terminal is gone, too.
        async with ControlLink.connect(run) as link:
            lines = link.events()
            await anext(line async for line in lines if line["type"] == "run.resumed")
            await anext(line async for line in lines if line["type"] == "round.finished")
            await link.request("pause")
            async with terminal("attach", run) as second:
                await second.shows("PAUSED", end)
                await link.request("resume")
                await second.shows("COMPLETED", f"round {NUM_ROUNDS}{end}")
        await asyncio.to_thread(engine.wait, WAIT_S)
    finally:
        if engine.is_running():
            engine.kill()
    summary = history.summarize(run)
    assert summary is not None
    assert (summary.state, summary.rounds) == (history.RunState.COMPLETED, NUM_ROUNDS)


async def test_without_a_terminal_it_prints_its_help_and_leaves_with_two() -> None:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", "from fedconsole.cli.entry import main; main()"),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env=os.environ | {"TERM": "xterm"},
    )
    out, err = await process.communicate()
    assert (process.returncode, out) == (2, b"")
    assert b"Usage" in err


async def open_form(opened: Terminal) -> None:
    await opened.shows("alice", "bob", "charlie")
    opened.press("2")
    await opened.shows("fedconsole run")


async def test_a_palette_that_is_answered_twice_at_once_is_closed_once() -> None:
    async with terminal() as opened:
        await opened.shows("Fleet", "Quit")
        opened.press(":")
        await opened.shows("Search for commands")
        opened.press("theme")
        await opened.shows("Theme: ansi")
        opened.press("\r\r")
        await opened.until(lambda text: "Theme: ansi" not in text, "the end of the palette")
        opened.press("q")
        assert await opened.ended() == 0


async def type_into(opened: Terminal, text: str) -> None:
    """Go to the next field and type; the caret shows that the focus has moved."""
    before = opened.cursor
    opened.press("tab")
    await opened.until(lambda _screen: opened.cursor[1] != before[1], "the next field")
    opened.press(text)
    await opened.shows(text)


async def mark_by_mouse(opened: Terminal, name: str) -> None:
    row = next(i for i, line in enumerate(opened.lines) if name in line)
    opened.click(opened.lines[row].index(name) - 2, row)
    await opened.until(lambda _text: "■" in opened.lines[row], "a mark")


def the_only_run() -> str:
    (run,) = history.run_ids()
    return run


async def pause_and_resume(opened: Terminal) -> None:
    """Until some worker had to stop: in between two rounds none has."""
    while True:
        opened.press("p")
        await opened.shows("PAUSED", "p Resume")
        opened.press("p")
        await opened.shows("TRAINING", "p Pause")
        if any(pause.acknowledged for pause in pauses_of(history.lines(the_only_run()))):
            return


async def test_an_operator_runs_a_fleet_by_keys_alone() -> None:
    async with local_daemons(3), terminal() as opened:
        await opened.shows("alice", "bob", "charlie", "3 online")
        opened.press("*")
        await opened.shows("3 marked")
        opened.press("n")
        await opened.shows("fedconsole run", "ready to start")
        await opened.until(lambda _screen: opened.cursor[1] == 1, "the caret in the first field")
        await type_into(opened, "777")
        await opened.shows("--rounds 777")
        opened.press("f5")
        await opened.shows("3 workers are ready")
        opened.press("f9")
        screen = await opened.shows("TRAINING", "round 1/777")
        first = losses(await opened.until(lambda text: losses(text) != [], "a loss"))[0]
        await opened.until(lambda text: 0 < losses(text)[0] < first / 2, "a falling loss")
        await pause_and_resume(opened)
        opened.press("a")
        await opened.shows("Abort now", "Cancel")
        # The focus is on Cancel.
        opened.press("enter")
        await opened.until(lambda text: "Abort now" not in text, "the end of the dialog")
        assert "TRAINING" in (screen := opened.text), screen
        opened.press("a")
        await opened.shows("Abort now")
        opened.press("left")
        opened.press("left")
        opened.press("enter")
        await opened.shows("ABORTED", "aborted by the operator")
        opened.press("4")
        await opened.shows(the_only_run(), "aborted")
        opened.press("q")
        assert await opened.ended() == 0
    require_obeyed(pauses_of(history.lines(the_only_run())))


async def test_an_operator_runs_a_fleet_by_mouse_alone() -> None:
    long = {"FEDCONSOLE_ROUNDS": "100000"}
    async with local_daemons(3), terminal(environment=long) as opened:
        await opened.shows("alice", "bob", "charlie")
        opened.click_on("2 New run")
        await opened.shows("no workers", "charlie")
        for name in ("alice", "bob", "charlie"):
            await mark_by_mouse(opened, name)
        await opened.shows("ready to start")
        opened.click_on("Start")
        await opened.shows("TRAINING", "p Pause")
        opened.click_on("p Pause")
        await opened.shows("PAUSED", "p Resume")
        opened.click_on("p Resume")
        await opened.shows("TRAINING", "p Pause")
        opened.click_on("a Abort")
        await opened.shows("Abort now")
        opened.click_on("Abort now")
        await opened.shows("ABORTED")
        opened.click_on("4 History")
        await opened.shows(the_only_run())
        opened.click_on("q Quit")
        code = await opened.ended()
        assert code == 0, opened.output[-6000:].decode(errors="replace")
