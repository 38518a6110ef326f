"""Pictures of every screen in its states, small and large, in both languages.

After a wanted change: `pytest tests/tui/test_snapshots.py --snapshot-update`, and look at the pictures.
"""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest
from pytest_textual_snapshot import SVGImageExtension
from syrupy.assertion import SnapshotAssertion

from fedconsole.tui import lang
from tests.tui.driving import resized
from tests.tui.states import MATRIX, SCENES, STATES, drawn, scene

SIZES = {"80x24": (80, 24), "120x40": (120, 40)}


@pytest.fixture(autouse=True)
def one_time_zone(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


@pytest.fixture(params=["en", "ko"])
def language(request: pytest.FixtureRequest) -> Iterator[str]:
    lang.use(request.param)
    yield request.param
    lang.use("en")


def test_every_screen_has_a_picture_in_every_state_or_a_reason() -> None:
    assert {screen: tuple(states) for screen, states in MATRIX.items()} == dict.fromkeys(
        ("fleet", "new-run", "live", "history", "run-page", "compare"), STATES
    )
    assert all(scenes for states in MATRIX.values() for scenes in states.values())


@pytest.mark.parametrize("name", SCENES)
async def test_the_picture_is_as_it_was(
    name: str, language: str, snapshot: SnapshotAssertion
) -> None:
    pictures = snapshot.use_extension(SVGImageExtension)
    # One console drawn at both sizes: its start takes longer than its pictures.
    async with scene(SCENES[name], SIZES["80x24"]) as pilot:
        for size, (width, height) in SIZES.items():
            await resized(pilot, width, height)
            await drawn(pilot)
            picture = pilot.app.export_screenshot(title="fedconsole")
            # A difference of two drawings in the report would be read by nobody.
            is_same = pictures(name=size) == picture
            assert is_same, f"{name} looks otherwise at {size}: --snapshot-update, and git diff"
