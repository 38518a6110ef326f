"""Texts of devices, workers and files that try to reach the terminal, on every screen."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import replace
from shlex import quote
from typing import Any

import msgspec
import pytest
from rich.cells import cell_len
from textual.pilot import Pilot

from fedconsole.errors import RefusedError
from fedconsole.fleet.device import Device, Source
from fedconsole.tui.desk import Line
from fedconsole.tui.dialogs.alarms import AlarmsDialog
from fedconsole.tui.opening import Opening
from fedconsole.tui.screens.compare import CompareScreen
from fedconsole.tui.screens.run_page import PANES, RunPage
from fedconsole.tui.widgets.line_log import LineLog
from fedconsole.tui.widgets.line_table import LineTable
from pi_daemon.protocol.messages import Log
from pi_daemon.protocol.text import clean
from tests.support.desk import NOW, PreparedDesk
from tests.support.histories import ROUNDS, a_run, press, text_of, told
from tests.tui.driving import add_device, card, console, hello, put_run, shows, telemetry, until

HOSTILE = (
    "clear\x1b[2J",
    "clear\x9b2J",
    "copy\x1b]52;c;eA==\x07",
    "[/oops]",
    "[red]x",
    "[@click=app.exit]x[/]",
    "turned\u202e\u2066round",
    "hid\u200bden\u200d\ufeff\u2060\u00ad",
    "nul\0\x7f\b",
    "two\nlines\r\u2028\u0085end",
    "tab\tstop",
    "half\ud800\udfff",
    "e" + "\u0301" * 5_000,
    "{braces} {0} %s",
    "x" * 1_000_000,
)
"""JSON cannot carry the halves of a surrogate pair, names of files can."""
EIGHTS = [HOSTILE[:8], HOSTILE[8:]]
"""So many workers have curves of their own, with their names."""
FOURS = [HOSTILE[at : at + 4] for at in range(0, len(HOSTILE), 4)]
"""So many runs can be compared."""
RUN = "20261123-0004"
WIDE = (250, 70)
_BIDI = "\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"
_ZERO_WIDTH = "\u200b\u200c\u200d\u2060\ufeff\u00ad"


def harm(pilot: Pilot[None]) -> set[str]:
    """What is drawn and should not be, and lines that are not as wide as the screen."""
    width = pilot.app.size.width
    strips = pilot.app.screen._compositor.render_strips()
    lines = ["".join(segment.text for segment in strip) for strip in strips]
    found = {f"a line of {cell_len(line)} cells" for line in lines if cell_len(line) != width}
    return found | {
        ascii(char)
        for char in set("".join(lines))
        if char in _BIDI + _ZERO_WIDTH or unicodedata.category(char) in ("Cc", "Cs", "Zl", "Zp")
    }


def on_wire(text: str, most: int = 128) -> str:
    """As the protocol would let it in."""
    return text.encode(errors="ignore").decode()[:most] or "-"


def line(kind: str, **fields: Any) -> Line:
    return {"time": NOW.isoformat(), "type": kind, "run": RUN, **fields}


def journal(texts: Iterable[str] = HOSTILE) -> list[Line]:
    """A run of which every text is hostile."""
    names = list(texts)
    lines = [
        line(
            "run.created",
            task=HOSTILE[0],
            plan={"task": HOSTILE[0], "workers": names, "virtual": 0, "rounds": 2},
        ),
        *(line("worker.joined", worker=name, address=f"at {name}") for name in names),
        line("run.started", round=1, waiting_for=[]),
        line("round.started", round=1, attempt=1, cohort=names, epoch=1),
    ]
    for name in names:
        lines += [
            line("worker.phase", worker=name, round=1, phase=name),
            line("worker.batches", worker=name, round=1, first=0, batches=2, losses=[2.0, 1.0]),
            line("worker.telemetry", worker=name, celsius=90.0, throttled=15, memory_bytes=1),
            line("log", worker=name, level="warning", text=name),
            line("log", worker=None, level=name, text=name),
            line("warning", text=name),
            line(name, text=name),
            line("worker.rejected", worker=name, round=1, reason=name),
            line("worker.lost", worker=name, address=name, reason=name),
        ]
    return [
        *lines,
        line("worker.rejoined", worker=names[0], address=names[0]),
        line(
            "eval",
            round=1,
            worker=None,
            num_examples=2 * len(names),
            loss=1.0,
            accuracy=0.5,
            **dict.fromkeys(names, 1.0),
            confusion={name: [2] * len(names) for name in names},
        ),
        line("round.finished", round=1, updates=names, loss=1.0, seconds=1.0),
        line("run.pausing", round=1, waiting_for=names),
    ]


def ending(reason: str) -> Line:
    return line(
        "run.finished",
        outcome="failed",
        rounds=1,
        model_id=reason,
        model_path="/models/m",
        reason=reason,
        exit_code=1,
        seconds=1.0,
    )


def stored(texts: Iterable[str]) -> PreparedDesk:
    """A run for each text, which is all that it says; their ids are hostile, too."""
    desk = PreparedDesk()
    for number, text in enumerate(texts):
        plan = {"task": text, "workers": [text], "virtual": 0, "data_dir": text, "seed": number}
        run = f"{number:02}{text[:60]}"
        desk.summaries[run] = a_run(
            1, run=run, task=text, reason=text, model_path=text, model_id=text, plan=plan
        )
        desk.round_tables[run] = [replace(ROUNDS[0], updates=(text,), model_id=text)]
        desk.journals[run] = [*journal(), ending(text)]
    return desk


def test_json_cannot_carry_half_a_surrogate_pair() -> None:
    with pytest.raises(msgspec.DecodeError):
        msgspec.json.decode(b'"\\ud800"')


async def test_what_a_device_tells_is_drawn_harmlessly() -> None:
    desk = PreparedDesk()
    for number, text in enumerate(HOSTILE):
        said = on_wire(text)
        key = add_device(
            desk,
            text,
            f"10.0.0.{number}:10002",
            said=hello(
                said,
                id=said,
                build=said,
                capabilities={"torch": said, "machine": said},
                status={"state": "training", "highest_fence": 1, "holder": said, "run": said},
                datasets=[card(said, sample_dtype=said, target_dtype=said, label_counts=[1, 2])],
            ),
            health=telemetry(throttled=15),
        )
        log = msgspec.convert({"level": "error", "text": on_wire(text, 4_096)}, Log)
        desk.inventory.told_log(key, log, desk.time_s)
        if number % 2:
            desk.inventory.lost(key, text)
    async with console(desk, "fleet", WIDE) as pilot:
        assert "[red]x" in text_of(pilot)
        for _ in HOSTILE:
            assert harm(pilot) == set()
            await press(pilot, "down")
        await press(pilot, "s", "s", "asterisk", "slash", *"[red")
        assert harm(pilot) == set()
        assert f"1/{len(HOSTILE)}" in text_of(pilot)


async def test_names_from_mdns_are_drawn_harmlessly_before_a_device_has_answered() -> None:
    desk = PreparedDesk()
    for number, text in enumerate(HOSTILE):
        desk.inventory.found(Device(text, f"10.0.0.{number}:1", Source.MDNS, on_wire(text)))
    async with console(desk, "fleet", WIDE) as pilot:
        assert "[/oops]" in text_of(pilot)
        assert harm(pilot) == set()


@pytest.mark.parametrize("texts", EIGHTS)
async def test_the_palette_lists_devices_and_runs_with_hostile_names(texts: Sequence[str]) -> None:
    desk = stored(texts)
    for number, text in enumerate(texts):
        add_device(desk, text, f"10.0.0.{number}:1", said=hello(on_wire(text)))
    async with console(desk, "fleet", WIDE) as pilot:
        for words, name in (("Device", clean(texts[1], 60)), ("Open run", "01")):
            await press(pilot, "colon", *words)
            await shows(pilot, f"{words} {name}")
            assert harm(pilot) == set()
            await press(pilot, "escape")


@pytest.mark.parametrize("name", ["[/oops]", "[red]x", "[@click=app.exit]x[/]"])
async def test_the_palette_takes_no_name_for_markup(name: str) -> None:
    desk = PreparedDesk()
    add_device(desk, name, "10.0.0.1:1", said=hello(name))
    async with console(desk) as pilot:
        await press(pilot, "colon", *"Device")
        await shows(pilot, f"Device {name}", f"fedconsole devices show {quote(name)}")


async def test_a_command_line_to_be_copied_quotes_the_name_that_a_device_gave_itself() -> None:
    name = "a;reboot"
    desk = PreparedDesk()
    add_device(desk, name, "10.0.0.1:1", said=hello(name))
    async with console(desk, "fleet", (170, 40)) as pilot:
        await shows(pilot, "devices show 'a;reboot'", "devices ping 'a;reboot'")


@pytest.mark.parametrize("texts", EIGHTS)
async def test_a_run_with_hostile_texts_goes_on(texts: Sequence[str]) -> None:
    desk = PreparedDesk()
    put_run(desk, journal(texts))
    async with console(desk, Opening("live", RUN), WIDE) as pilot:
        await shows(pilot, "PAUSING… waiting for", "is throttled")
        assert harm(pilot) == set()
        for key in ("d", "W", "home", "t", "end"):
            pilot.app.screen.query_one(LineLog).focus()
            await press(pilot, key)
            assert harm(pilot) == set()
        desk.tell(RUN, ending(texts[2]))
        await shows(pilot, f"failed: {clean(texts[2], 20)}")
        assert harm(pilot) == set()


async def test_enter_on_a_worker_with_a_hostile_name_filters_the_log() -> None:
    desk = PreparedDesk()
    texts = ("[/oops]", "{braces} {0} %s", "two\nlines", 'quo"te', "x" * 1_000_000)
    put_run(desk, journal(texts))
    async with console(desk, Opening("live", RUN), WIDE) as pilot:
        await shows(pilot, "PAUSING")
        workers = pilot.app.screen.query_one("#workers", LineTable)
        for _ in texts:
            await press(pilot, "enter")
            assert harm(pilot) == set()
            await press(pilot, "escape")
            workers.focus()
            await press(pilot, "down")
        assert workers.shown == len(texts)


async def test_alarms_and_notices_with_hostile_texts_are_drawn_harmlessly() -> None:
    desk = PreparedDesk()
    put_run(desk, journal(EIGHTS[0]))
    async with console(desk, Opening("live", RUN), WIDE) as pilot:
        await shows(pilot, "PAUSING")
        for text in HOSTILE:
            desk.refusal = RefusedError(text)
            await press(pilot, "p", ends="request")
            assert harm(pilot) == set()
        assert "[/oops]" in told(pilot)
        await press(pilot, "exclamation_mark")
        assert isinstance(pilot.app.screen, AlarmsDialog)
        assert "[/oops] lost" in text_of(pilot)
        assert harm(pilot) == set()


@pytest.mark.parametrize("texts", FOURS)
async def test_stored_runs_with_hostile_texts_are_listed_and_compared(
    texts: Sequence[str],
) -> None:
    async with console(stored(texts), "history", WIDE) as pilot:
        await until(pilot, lambda: text_of(pilot).count("completed") == len(texts))
        assert harm(pilot) == set()
        await press(pilot, "asterisk", "c")
        assert isinstance(pilot.app.screen, CompareScreen)
        await shows(pilot, "data_dir", "completed")
        assert harm(pilot) == set()


async def test_a_filter_finds_the_run_whose_reason_looks_like_markup() -> None:
    async with console(stored(HOSTILE), "history", WIDE) as pilot:
        await until(pilot, lambda: text_of(pilot).count("completed") == len(HOSTILE))
        await press(pilot, "slash", *"reason:[red]")
        await shows(pilot, f"1/{len(HOSTILE)}")
        assert "[red]x" in text_of(pilot)
        assert harm(pilot) == set()


@pytest.mark.parametrize("size", [WIDE, (80, 24)])
@pytest.mark.parametrize(
    "text", ["two\nlines\r\u2028\u0085end\x1b[2J\x9b2J", "[/oops]\u202e\u200b"]
)
async def test_the_page_of_a_run_with_hostile_texts_is_drawn_harmlessly(
    text: str, size: tuple[int, int]
) -> None:
    desk = stored([text])
    (run,) = desk.summaries
    async with console(desk, Opening("history", run), size) as pilot:
        page = pilot.app.screen
        assert isinstance(page, RunPage)
        await until(pilot, lambda: "reading: " not in text_of(pilot))
        for _ in PANES:
            assert harm(pilot) == set()
            await press(pilot, "tab")
        await press(pilot, "p")
        assert "data_dir" in text_of(pilot)
        assert harm(pilot) == set()


async def test_what_a_check_finds_is_drawn_harmlessly_beside_the_workers() -> None:
    desk = PreparedDesk()
    for number, text in enumerate(HOSTILE):
        key = add_device(desk, text, f"10.0.0.{number}:1", said=hello(on_wire(text)))
        failed = line("preflight", address=key, worker=text, ok=False, reason=text)
        desk.preflight_lines.append(failed)
    desk.preflight_lines.append(ending(HOSTILE[3]))
    async with console(desk, "fleet", WIDE) as pilot:
        await press(pilot, "asterisk", "n", "f5")
        await shows(pilot, "✗ [/oops]", "failed: [/oops]")
        assert harm(pilot) == set()
