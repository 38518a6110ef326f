"""The two sets of signs."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest
from rich.cells import cell_len

from fedconsole import tui
from fedconsole.fleet.inventory import Presence
from fedconsole.tui import glyphs

FOLDER = Path(tui.__path__[0])


@pytest.fixture(autouse=True)
def as_before() -> Iterator[None]:
    yield
    glyphs.use("unicode")


def asked_for() -> set[str]:
    """The names in the calls of `glyph`, as far as they are written there."""
    calls = (
        node
        for path in FOLDER.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
    )
    return {
        one.value
        for call in calls
        if call.func.id == "glyph"  # type: ignore[attr-defined]
        for one in ast.walk(call.args[0])
        if isinstance(one, ast.Constant) and isinstance(one.value, str)
    }


def test_both_sets_have_the_same_names_in_the_same_order() -> None:
    assert list(glyphs._UNICODE) == list(glyphs._ASCII)


@pytest.mark.parametrize("name", glyphs._UNICODE)
def test_every_sign_fills_one_cell(name: str) -> None:
    for signs in ("unicode", "ascii"):
        glyphs.use(signs)
        assert cell_len(glyphs.glyph(name)) == 1
        assert len(glyphs.glyph(name)) == 1
    assert glyphs.glyph(name).isascii()
    assert glyphs.glyph(name).isprintable()


def test_one_set_is_used_until_another_is_chosen() -> None:
    seen = [(glyphs.is_ascii(), glyphs.glyph("online"))]
    for signs in ("ascii", "unicode"):
        glyphs.use(signs)
        seen.append((glyphs.is_ascii(), glyphs.glyph("online")))
    assert seen == [(False, "●"), (True, "*"), (False, "●")]


def test_states_that_stand_in_one_column_differ_in_their_signs() -> None:
    for signs in ("unicode", "ascii"):
        glyphs.use(signs)
        for column in (
            [presence.value for presence in Presence],
            ["running", "done", "failed", "aborted", "crashed"],
            ["mark", "failed", "absent", "running", "none"],
        ):
            assert len({glyphs.glyph(name) for name in column}) == len(column)


def test_every_sign_that_the_screens_ask_for_is_there() -> None:
    assert asked_for() <= glyphs._UNICODE.keys()
    assert {"ellipsis", "none"} <= asked_for()
