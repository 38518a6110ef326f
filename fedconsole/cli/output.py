"""How commands write: data on stdout as a table, JSON or names; talk on stderr."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from enum import StrEnum
from typing import Annotated, Any

import typer
from rich.cells import cell_len

Row = Mapping[str, Any]


class Output(StrEnum):
    TABLE = "table"
    JSON = "json"
    NAME = "name"


OutputOption = Annotated[Output, typer.Option("--output", "-o", help="Form of the answer.")]


def say(text: str) -> None:
    """Talk to a person. Whether anybody hears it decides nothing."""
    with suppress(OSError):
        print(text, file=sys.stderr, flush=True)


def print_rows(rows: Sequence[Row], columns: Sequence[str], output: Output) -> None:
    """Write rows to stdout.

    Args:
        columns: keys of the rows: those of a table, in order; the first is the name. JSON has all
            keys.
    """
    match output:
        case Output.JSON:
            print(json.dumps([dict(row) for row in rows], indent=2))
        case Output.NAME:
            for row in rows:
                print(row[columns[0]])
        case Output.TABLE:
            _print_table(rows, columns)


def _print_table(rows: Sequence[Row], columns: Sequence[str]) -> None:
    cells = [
        [_title(column) for column in columns],
        *([_cell(row[column]) for column in columns] for row in rows),
    ]
    widths = [max(map(cell_len, column)) for column in zip(*cells, strict=True)]
    for row in cells:
        # Cells, not characters: a Hangul syllable fills two.
        padded = (text + " " * (w - cell_len(text)) for text, w in zip(row, widths, strict=True))
        print("  ".join(padded).rstrip())


def _cell(value: object) -> str:
    match value:
        case None | "":
            return "-"
        case float():
            return f"{value:.4g}"
        case list() | tuple():
            return ", ".join(map(str, value)) or "-"
        case _:
            return str(value)


def _title(column: str) -> str:
    """A field's name in capitals; a run's id as it is typed."""
    return column if column[:1].isdigit() else column.upper().replace("_", " ")
