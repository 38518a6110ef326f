"""How commands write: data on stdout as a table, JSON, CSV or names; talk on stderr."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from enum import StrEnum
from typing import Annotated, Any

import typer
from rich.cells import cell_len

from fedconsole.colours import Role, painted, role_of_word
from fedconsole.errors import ExitCode, UsageError
from pi_daemon.protocol.text import clean

Row = Mapping[str, Any]

_MOST = 1_000
"""Characters of one line or cell."""


class Output(StrEnum):
    TABLE = "table"
    JSON = "json"
    CSV = "csv"
    NAME = "name"


OutputOption = Annotated[Output, typer.Option("--output", "-o", help="Form of the answer.")]


def say(text: str, role: Role | None = None) -> None:
    """Talk to a person. Whether anybody hears it decides nothing."""
    with suppress(OSError):
        print(painted(harmless(text), role, sys.stderr), file=sys.stderr, flush=True)


def harmless(text: str) -> str:
    """A text that may quote files, names and devices, its lines kept: fit for a terminal."""
    return "\n".join(clean(line, _MOST) for line in text.splitlines())


def print_rows(rows: Sequence[Row], columns: Sequence[str], output: Output) -> None:
    """Write rows to stdout.

    Args:
        columns: keys of the rows: those of a table and of CSV, in order; the first is the name.
            JSON has all keys.
    """
    match output:
        case Output.JSON:
            print(json_text([dict(row) for row in rows]))
        case Output.CSV:
            _print_csv(rows, columns)
        case Output.NAME:
            for row in rows:
                print(clean(str(row[columns[0]]), _MOST))
        case Output.TABLE:
            _print_table(rows, columns)


def _print_table(rows: Sequence[Row], columns: Sequence[str]) -> None:
    cells = [
        [_title(column) for column in columns],
        *([_cell(row[column]) for column in columns] for row in rows),
    ]
    widths = [max(map(cell_len, column)) for column in zip(*cells, strict=True)]
    for number, row in enumerate(cells):
        roles = (role_of_word(text) if number else Role.TITLE for text in row)
        # Cells, not characters: a Hangul syllable fills two.
        padded = (
            painted(text, role, sys.stdout) + " " * (width - cell_len(text))
            for text, role, width in zip(row, roles, widths, strict=True)
        )
        print("  ".join(padded).rstrip())


def _print_csv(rows: Sequence[Row], columns: Sequence[str]) -> None:
    import csv

    writer = csv.writer(sys.stdout, lineterminator="\n")
    writer.writerow(clean(column, _MOST) for column in columns)
    for row in rows:
        # Numbers with all their digits; what is not known is empty.
        writer.writerow(_csv_cell(row[c]) for c in columns)


def _csv_cell(value: object) -> str:
    from fedconsole.report import no_formula

    match value:
        case None:
            return ""
        case int() | float():
            return _text(value)
        case _:
            return no_formula(_text(value))


def json_text(value: object) -> str:
    """JSON in ASCII. A DEL is escaped, too, which JSON leaves to the writer."""
    return json.dumps(value, indent=2).replace("\x7f", "\\u007f")


def _cell(value: object) -> str:
    match value:
        case None | "":
            return "-"
        case float():
            return f"{value:.4g}"
        case _:
            return _text(value) or "-"


def _text(value: object) -> str:
    text = ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
    return clean(text, _MOST)


def _title(column: str) -> str:
    """A field's name in capitals; a run's id as it is typed."""
    name = clean(column, _MOST)
    return name if name[:1].isdigit() else name.upper().replace("_", " ")


def require_consent(what: str, question: str) -> None:
    """Ask a person before something is done that cannot be undone.

    Raises:
        UsageError: nobody can be asked; `what` says what would be done.
        Exit: the answer is no.
    """
    if not sys.stdin.isatty():
        raise UsageError(f"this {what}; add --yes, as nobody can be asked")
    if not typer.confirm(harmless(question), err=True):
        raise typer.Exit(ExitCode.ABORTED)
