"""`make screenshots`: draws the pictures of this folder from real runs' lines, kept beside them.

Pictures of the headless command are Rich's, those of the console are taken from the console itself,
which is shown a desk with these runs. `python -m screenshots.record` records other runs.
"""

from __future__ import annotations

import asyncio
import io
import json
import shutil
import subprocess
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import msgspec
from rich.console import Console

from fedconsole.fleet.device import Device, Source
from fedconsole.fleet.inventory import Inventory
from fedconsole.headless import ProgressScreen, RunProgress, advance, last_words, talk
from fedconsole.history import RoundSummary, RunState, RunSummary
from fedconsole.sentences import Line
from fedconsole.tui import lang
from fedconsole.tui.app import FedconsoleApp
from fedconsole.tui.opening import Opening
from fedconsole.tui.picture import draw
from fedconsole.tui.run_model import RunModel
from pi_daemon.protocol.messages import Hello, Telemetry
from tests.support.desk import PreparedDesk

FOLDER = Path(__file__).parent
WIDTH, HEIGHT = 100, 24
NORMAL, SMALL, WIDE = (120, 40), (80, 24), (180, 48)


# The headless command


def draw_terminal(lines: list[Line], command: str) -> Console:
    """A terminal after these lines of a run: what was said, then the bars as they stand."""
    console = Console(
        record=True, width=WIDTH, file=io.StringIO(), force_terminal=True, highlight=False
    )
    terminal = Console(width=WIDTH, height=HEIGHT, file=io.StringIO(), force_terminal=True)
    screen = ProgressScreen(console=terminal)
    progress = RunProgress()
    console.print(f"$ {command}", style="bold", markup=False)
    for line in lines:
        screen.show(line)
        progress = advance(progress, line)
        for text in talk(line, progress, verbosity=0):
            console.print(text, markup=False)
    if progress.finished is None:
        console.print(screen.bars.get_renderable())
    else:
        for text in last_words(progress):
            console.print(text, markup=False)
    screen.bars.stop()
    return console


def draw_headless() -> None:
    lines = read("run")
    for name, shown in (
        ("headless", upto(lines, "worker.update", round=6, worker="alice")),
        ("headless-end", lines),
    ):
        path = FOLDER / f"{name}.svg"
        draw_terminal(shown, "fedconsole demo --headless").save_svg(str(path), title="fedconsole")
        print(path.name)


# The console


def read(name: str) -> list[Line]:
    return [json.loads(text) for text in (FOLDER / f"{name}.jsonl").read_text().splitlines()]


def upto(lines: list[Line], kind: str, **fields: object) -> list[Line]:
    """The lines up to the first of a kind with these fields."""
    for index, line in enumerate(lines):
        if line["type"] == kind and all(line.get(k) == v for k, v in fields.items()):
            return lines[: index + 1]
    raise ValueError(f"there is no {kind} with {fields}")


def summary(lines: list[Line]) -> tuple[RunSummary, list[RoundSummary]]:
    """What the history says of a run with these lines."""
    model = RunModel()
    for line in lines:
        model.apply(line)
    assert model.started_at is not None
    last = model.tests[-1]
    tests = {test.round: test for test in model.tests}
    rounds = [
        RoundSummary(
            round=row.number,
            seconds=row.seconds,
            updates=row.updates,
            training_loss=row.loss,
            loss=tests[row.number].loss,
            accuracy=tests[row.number].accuracy,
            bytes_sent=row.bytes_sent,
            bytes_received=row.bytes_received,
            model_id="",
            macro_f1=tests[row.number].macro_f1,
        )
        for row in model.rounds
    ]
    end = model.ending or {}
    return (
        RunSummary(
            run=model.run,
            state=RunState(end["outcome"]) if end else RunState.RUNNING,
            task=model.task,
            started=model.started_at,
            seconds=end.get("seconds"),
            rounds=model.num_finished,
            loss=last.loss,
            accuracy=last.accuracy,
            macro_f1=last.macro_f1,
            model_id=end.get("model_id"),
            model_path=end.get("model_path"),
            reason=end.get("reason") or "",
            plan=dict(model.plan),
        ),
        rounds,
    )


def fleet(now: float) -> Inventory:
    """The three devices of the runs, as they told of themselves."""
    inventory = Inventory()
    for row in json.loads((FOLDER / "fleet.json").read_text()):
        hello = msgspec.convert(row["hello"], Hello)
        inventory.found(Device(hello.name, row["address"], Source.LOCAL, hello.id))
        inventory.linked(row["address"], hello, now)
        inventory.pinged(row["address"], row["ping_s"], now)
        telemetry = msgspec.convert(row["telemetry"], Telemetry)
        inventory.told_telemetry(row["address"], telemetry, now)
    return inventory


def desk_with(shown: list[Line], *, is_running: bool) -> PreparedDesk:
    """A desk on which this run is the newest, at the moment of its last line."""
    desk = PreparedDesk(wall=datetime.fromisoformat(shown[-1]["time"]))
    desk.inventory = fleet(desk.time_s)
    for lines in (read("other"), read("degraded"), read("paused"), shown):
        run = lines[0]["run"]
        desk.summaries[run], desk.round_tables[run] = summary(lines)
        desk.journals[run] = lines
    if is_running:
        desk.running.add(shown[0]["run"])
    return desk


async def picture(
    name: str,
    desk: PreparedDesk,
    opening: Opening,
    *,
    size: tuple[int, int] = NORMAL,
    keys: Sequence[str] = (),
) -> None:
    path = FOLDER / f"{name}.svg"
    path.write_text(await draw(FedconsoleApp(desk, opening, has_bell=False), size, keys=keys))
    print(path.name)


def to_png(name: str) -> None:
    """For the README; needs rsvg-convert of librsvg2-bin, and fonts-noto-cjk for Korean."""
    source, target = FOLDER / f"{name}.svg", FOLDER / f"{name}.png"
    if shutil.which("rsvg-convert") is None:
        print(f"{target.name}: skipped, there is no rsvg-convert")
        return
    subprocess.run(["rsvg-convert", "-w", "1400", str(source), "-o", str(target)], check=True)
    print(target.name)


async def draw_console() -> None:
    paused, degraded = read("paused"), read("degraded")
    in_round_7 = upto(paused, "worker.update", round=7)
    live: dict[str, Any] = {"opening": Opening("live", paused[0]["run"])}
    going = desk_with(in_round_7, is_running=True)
    await picture("fleet", going, Opening("fleet"), keys=["d"])
    await picture("new-run", going, Opening("fleet"), keys=["asterisk", "n", "tab", "2", "0"])
    await picture("live", going, **live)
    await picture("live-wide", going, **live, size=WIDE)
    await picture("live-80x24", going, **live, size=SMALL)
    await picture("paused", desk_with(upto(paused, "run.paused"), is_running=True), **live)
    await picture("abort", going, **live, keys=["a"])
    lost = upto(degraded, "round.started", round=6)
    await picture("degraded", desk_with(lost, is_running=True), Opening("live", degraded[0]["run"]))
    ended = desk_with(paused, is_running=False)
    await picture("history", ended, Opening("history"))
    await picture("run-page", ended, Opening("history", paused[0]["run"]))
    await picture("compare", ended, Opening("history"), keys=["asterisk", "c"])
    lang.use("ko")
    await picture("live-ko", going, **live)
    lang.use("en")


def main() -> None:
    draw_headless()
    asyncio.run(draw_console())
    for name in ("live", "fleet", "live-ko"):
        to_png(name)


if __name__ == "__main__":
    main()
