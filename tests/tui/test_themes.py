"""In every theme the states and curves stand out from what is behind them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import get_args

import pytest
from rich.color import Color as RichColor
from textual.color import Color

from fedconsole.config import Theme
from fedconsole.tui.opening import Opening
from fedconsole.tui.theme import OWN_COLOURS, SERIES, THEMES, readable, style
from tests.tui.driving import BUSY, RUN, console, going, segments_of, shows

ROLES = ("good", "warning", "bad", "accent", "title")


def luminance(red: float, green: float, blue: float) -> float:
    def linear(part: float) -> float:
        part /= 255
        return part / 12.92 if part <= 0.03928 else ((part + 0.055) / 1.055) ** 2.4

    return 0.2126 * linear(red) + 0.7152 * linear(green) + 0.0722 * linear(blue)


def contrast(one: str, other: str) -> float:
    dark, light = sorted(luminance(*Color.parse(colour).rgb) for colour in (one, other))
    return (light + 0.05) / (dark + 0.05)


def test_the_settings_know_the_themes_that_there_are() -> None:
    assert set(get_args(Theme)) == {theme.name for theme in THEMES}


async def test_states_and_curves_can_be_read_in_every_theme_and_stay_apart() -> None:
    async with console(going(BUSY), Opening("live", RUN)) as pilot:
        screen = pilot.app.screen
        for theme in THEMES:
            if theme.name == OWN_COLOURS:
                continue
            pilot.app.theme = theme.name
            await pilot.pause()
            background = pilot.app.theme_variables["background"]
            colours = {}
            for role in ROLES:
                colour = style(screen, role).color
                assert colour is not None
                colours[role] = colour.name
            weak = {r: c for r, c in colours.items() if contrast(c, background) < 4.5}
            weak |= {c: c for c in SERIES if contrast(readable(screen, c), background) < 3}
            assert weak == {}, theme.name
            assert len({colours["good"], colours["bad"]}) == 2


@pytest.mark.parametrize("theme", ["textual-light", "nord", "solarized-light", "fed-light"])
async def test_the_live_screen_draws_its_curves_so_and_keeps_its_words(theme: str) -> None:
    async with console(going(BUSY), Opening("live", RUN), theme=theme) as pilot:
        await shows(pilot, "TRAINING", "alice", "bob", "charlie")
        background = pilot.app.theme_variables["background"]
        drawn = {colour for text, colour in coloured(pilot) if any("⠁" <= c <= "⣿" for c in text)}
        assert len(drawn) >= 3
        assert {c for c in drawn if contrast(c, background) < 3} == set()


def coloured(pilot: object) -> Iterator[tuple[str, str]]:
    for segment in segments_of(pilot):  # type: ignore[arg-type]
        if segment.style is not None and isinstance(segment.style.color, RichColor):
            yield segment.text, segment.style.color.get_truecolor().hex
