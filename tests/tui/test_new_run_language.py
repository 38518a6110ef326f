"""No text of the form is written past the catalogue: with all of its letters changed, only values stay."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from string import Formatter

import pytest
from textual.pilot import Pilot
from textual.widgets import Collapsible

from fedconsole.coordinator.plan import Plan
from fedconsole.fleet.device import Device, Source
from fedconsole.tui import lang
from fedconsole.tui.korean.catalogue import WORDS
from fedconsole.tui.run_form import FIELDS
from tests.support.desk import PreparedDesk
from tests.support.histories import press, text_of
from tests.tui.driving import add_device, card, console, hello, telemetry, type_in, until

VALUES = {
    *(
        "fedconsole",
        "desk",
        "kitchen",
        "attic",
        "cellar",
        "run",
        "toml",
        "rounds",
        "virtual",
        "worker",
    ),
    *(
        "digits",
        "sgd",
        "wait",
        "examples",
        "all",
        "GiB",
        "M",
        "C",
        "F",
        "Enter",
        "Esc",
        "Tab",
        "L",
        "Y",
        "P",
        "R",
    ),
    *("py", "nowhere", "x", "B", "q"),
}
"""Names, values as they are typed, commands, units and keys."""


class Changed(Mapping[str, str]):
    """A language in which every letter is an \u00f8."""

    def __getitem__(self, text: str) -> str:
        return "".join(
            re.sub("[A-Za-z]", "ø", literal) + (f"{{{name}}}" if name is not None else "")
            for literal, name, _form, _how in Formatter().parse(text)
        )

    def __iter__(self) -> Iterator[str]:
        return iter(WORDS)

    def __len__(self) -> int:
        return len(WORDS)


@pytest.fixture(autouse=True)
def changed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lang, "_words", Changed())
    monkeypatch.setattr(lang, "_sentences", {"{all}": "ø"})


def english(pilot: Pilot[None]) -> set[str]:
    """Words on the screen that the catalogue was not asked for."""
    return set(re.findall("[A-Za-z]+", text_of(pilot))) - VALUES


def a_desk() -> PreparedDesk:
    desk = PreparedDesk()
    hot = telemetry(celsius=85.0, disk_free_bytes=10)
    add_device(desk, "kitchen", "10.0.0.1:1", said=hello("kitchen", datasets=[card()]), health=hot)
    add_device(desk, "attic", "10.0.0.2:1")
    desk.inventory.found(Device("cellar", "10.0.0.3:1", Source.MDNS))
    return desk


async def test_no_text_of_the_form_is_written_past_the_catalogue() -> None:
    desk = a_desk()
    async with console(desk, "new", (170, 60)) as pilot:
        pilot.app.screen.query_one(Collapsible).collapsed = False
        await until(pilot, lambda: "600" in text_of(pilot))
        assert english(pilot) == set()
        await type_in(pilot, "rounds", "x")
        await type_in(pilot, "task", "nowhere.py")
        assert english(pilot) == set()
        await type_in(pilot, "rounds", "2")
        await type_in(pilot, "task", "")
        await press(pilot, "escape", "asterisk")
        assert english(pilot) == set()
        desk.plan = Plan(virtual=3, rounds=2)
        await press(pilot, "ctrl+l")
        assert english(pilot) == set()


async def test_no_text_of_a_check_is_written_past_the_catalogue() -> None:
    desk = a_desk()
    trial = {"type": "preflight", "ok": True, "num_examples": 9, "batch_seconds": 0.1}
    desk.preflight_lines = [{**trial, "address": "10.0.0.1:1", "memory_bytes": 2**20}]
    async with console(desk, "new", (170, 60)) as pilot:
        await press(pilot, "escape", "asterisk", "f5")
        await until(pilot, lambda: "0.100" in text_of(pilot))
        assert english(pilot) == set()


async def test_no_text_of_an_empty_fleet_is_written_past_the_catalogue() -> None:
    desk = PreparedDesk()
    async with console(desk, "new", (170, 60)) as pilot:
        assert english(pilot) == set()
        desk.inventory.is_searched = True
        await until(pilot, lambda: "ø" in text_of(pilot))
        assert english(pilot) == set()


def test_every_hint_of_words_has_a_twin() -> None:
    hints = {spec.hint for spec in FIELDS if " " in spec.hint} | {"all"}
    assert hints - WORDS.keys() == set()
