"""Cells of a table: exactly so wide, in their own colours."""

from __future__ import annotations

import pytest
from rich.segment import Segment
from rich.style import Style
from rich.text import Text

from fedconsole.tui.widgets.table_cells import cell_segments

BASE, GOOD = Style(bgcolor="black"), Style(color="green")


@pytest.mark.parametrize(
    ("text", "is_right", "expected"),
    [
        (Text("idle", GOOD), False, [Segment("idle  ", BASE + GOOD)]),
        (Text("idle", GOOD), True, [Segment("  idle", BASE + GOOD)]),
        (Text("idle", "green"), False, [Segment("idle  ", BASE + GOOD)]),
        (Text("too long", GOOD), False, [Segment("too l…", BASE + GOOD)]),
        (
            Text("A", GOOD).append("bob", Style(bold=True)),
            False,
            [
                Segment("A", BASE + GOOD),
                Segment("bob", BASE + GOOD + Style(bold=True)),
                Segment("  ", BASE + GOOD),
            ],
        ),
    ],
)
def test_a_cell_has_the_style_of_its_text(
    text: Text, is_right: bool, expected: list[Segment]
) -> None:
    assert cell_segments(text, 6, is_right, BASE) == expected
