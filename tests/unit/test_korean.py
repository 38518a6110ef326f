"""The two languages of the screens: nothing is missing in Korean, and nothing is left over."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from pathlib import Path
from string import Formatter
from typing import Any

import pytest

from fedconsole import tui
from fedconsole.coordinator.phases import RunPhase
from fedconsole.fleet.inventory import Hindrance
from fedconsole.language import preferred
from fedconsole.tui import lang
from fedconsole.tui.frame import MODES, ConsoleScreen
from fedconsole.tui.korean import fleet, frame, history, live, new_run
from fedconsole.tui.korean.catalogue import WORDS
from fedconsole.tui.lang import _
from fedconsole.tui.run_form import FIELDS
from tests.unit.test_keys import CLASSES, bindings_of

ROOT = Path(tui.__path__[0]).parents[1]
DESCRIPTIONS = {binding.description for one in CLASSES for binding in bindings_of(one)}


@pytest.fixture(autouse=True)
def english_again() -> Iterator[None]:
    yield
    lang.use("en")


def source() -> Iterator[ast.AST]:
    """All that is written in the packages, but for the catalogue; joined strings are one."""
    for package in ("fedconsole", "pi_daemon/protocol"):
        for path in (ROOT / package).rglob("*.py"):
            if path.parent.name != "korean":
                yield from ast.walk(ast.parse(path.read_text(encoding="utf-8")))


def literals() -> set[str]:
    return {
        node.value
        for node in source()
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    }


def translated_literals() -> set[str]:
    """The texts that are written in a call of `_`."""
    return {
        part.value
        for call in source()
        if isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and call.func.id == "_"
        for part in call.args
        if isinstance(part, ast.Constant) and isinstance(part.value, str)
    }


def field_names(text: str) -> list[str]:
    return sorted(name for _text, name, _form, _how in Formatter().parse(text) if name is not None)


# The catalogue


def test_every_word_of_the_catalogue_is_used() -> None:
    in_capitals = {phase.value.upper() for phase in RunPhase}
    assert WORDS.keys() - literals() - DESCRIPTIONS - in_capitals == set()


def test_every_text_that_is_translated_where_it_is_written_has_a_twin() -> None:
    texts = translated_literals()
    assert len(texts) > 50
    assert texts - WORDS.keys() == set()


@pytest.mark.parametrize(
    "texts",
    [
        DESCRIPTIONS,
        set(MODES.values()),
        {phase.value.upper() for phase in RunPhase},
        {screen.ABOUT for screen in CLASSES if issubclass(screen, ConsoleScreen)} - {""},
        {spec.label for spec in FIELDS},
        {hindrance.value for hindrance in Hindrance},
    ],
    ids=["keys", "modes", "phases", "abouts", "labels", "hindrances"],
)
def test_every_text_of_a_kind_has_a_twin(texts: set[str]) -> None:
    assert texts - WORDS.keys() == set()
    assert texts


def test_a_twin_has_the_same_fields_and_lines() -> None:
    english = {text: (field_names(text), text.count("\n")) for text in WORDS}
    korean = {text: (field_names(twin), twin.count("\n")) for text, twin in WORDS.items()}
    assert korean == english
    assert all(twin.strip() for twin in WORDS.values())


# Choosing a language


@pytest.mark.parametrize(
    ("environment", "language"),
    [
        ({}, "en"),
        ({"LANG": "ko_KR.UTF-8"}, "ko"),
        ({"LANG": "de_DE.UTF-8"}, "en"),
        ({"LANG": "C"}, "en"),
        ({"LC_MESSAGES": "ko_KR", "LANG": "en_US.UTF-8"}, "ko"),
        ({"LC_MESSAGES": "en_US", "LANG": "ko_KR.UTF-8"}, "en"),
        ({"LC_ALL": "C.UTF-8", "LC_MESSAGES": "ko_KR", "LANG": "ko_KR"}, "en"),
        ({"LC_ALL": "ko", "LC_MESSAGES": "en_US", "LANG": "en_US"}, "ko"),
        # Empty is the same as not set.
        ({"LC_ALL": "", "LC_MESSAGES": "", "LANG": "ko_KR.UTF-8"}, "ko"),
    ],
)
def test_the_language_is_that_of_the_locale(environment: Mapping[str, str], language: str) -> None:
    assert preferred(environment) == language
    assert language in lang.LANGUAGES


def test_texts_are_told_in_the_language_in_use_with_their_fields_filled_in() -> None:
    def told() -> tuple[str, ...]:
        return _("Quit"), _("Run {run} goes on", run="r1"), _("a device's {own} words")

    english = ("Quit", "Run r1 goes on", "a device's {own} words")
    korean = ("종료", "실행 r1이(가) 계속됩니다", "a device's {own} words")
    seen: list[Any] = [told()]
    for language in ("ko", "en"):
        lang.use(language)
        seen.append(told())
    assert seen == [english, korean, english]


def test_what_is_filled_in_is_not_looked_at() -> None:
    assert _("Device {name}", name="{name}{0}") == "Device {name}{0}"


def test_a_text_has_one_twin_in_all_parts_of_the_catalogue() -> None:
    twins: dict[str, set[str]] = {}
    for part in (frame, fleet, new_run, live, history):
        for text, twin in part.WORDS.items():
            twins.setdefault(text, set()).add(twin)
    assert {text: found for text, found in twins.items() if len(found) > 1} == {}
