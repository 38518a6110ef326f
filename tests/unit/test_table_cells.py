"""Cells of a table: exactly so wide, in their own colours."""

from __future__ import annotations

import pytest
from rich.segment import Segment
from rich.style import Style
from rich.text import Text

from fedconsole.tui.widgets.table_cells import Column, cell_segments, column_segments, laid_out

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


def test_a_column_that_may_grow_takes_room_before_the_flexible_ones_and_shows_the_end() -> None:
    columns = [Column("name", "name", 5, flexible=True), Column("trend", "trend", 4, most=8)]
    widths = [[width for _column, width in laid_out(columns, room)] for room in (11, 13, 15, 20)]
    assert widths == [[5, 4], [5, 6], [5, 8], [10, 8]]
    shown = [column_segments(columns[1], Text("12345678"), width, BASE)[0].text for width in (4, 8)]
    assert shown == ["5678", "12345678"]
