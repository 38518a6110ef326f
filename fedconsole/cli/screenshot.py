"""`fedconsole screenshot`: a picture of the console, drawn from stored runs without a terminal."""

from __future__ import annotations

import re
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fedconsole.cli.output import say
from fedconsole.cli.runs import comparable, complete, summary_of
from fedconsole.errors import StorageError, UsageError

if TYPE_CHECKING:
    from fedconsole.engine.store import Line

_CELLS = ((60, 500), (15, 200))
"""Columns and lines, least and most."""


class Shown(StrEnum):
    LIVE = "live"
    RUN = "run"
    HISTORY = "history"
    COMPARE = "compare"
    FLEET = "fleet"
    NEW = "new"


def screenshot(
    runs: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="RUN", help="A stored run, or latest; for compare two.", autocompletion=complete
        ),
    ] = None,
    screen: Annotated[Shown, typer.Option(help="What to draw.")] = Shown.LIVE,
    size: Annotated[str, typer.Option(help="Columns and lines.")] = "120x40",
    out: Annotated[Path, typer.Option("--out", "-o", help="The SVG file.")] = Path(
        "fedconsole.svg"
    ),
    seq: Annotated[
        int | None, typer.Option(min=1, help="Live, after the line with this number.")
    ] = None,
) -> None:
    """Draw a screen of the console from stored runs into an SVG file."""
    import asyncio

    if screen in (Shown.FLEET, Shown.NEW):
        raise UsageError(
            f"the screen {screen} shows devices, of which stored runs know nothing; "
            "press Ctrl+S in the console"
        )
    if screen is not Shown.LIVE and seq is not None:
        raise UsageError(f"--seq is for the screen live, not for {screen}")
    cells = _cells(size)
    names = _names(screen, runs or ["latest"])
    lines = _lines(names[0], seq) if screen is Shown.LIVE else []
    svg = asyncio.run(_draw(screen, names, lines, cells))
    try:
        out.write_text(svg, encoding="utf-8")
    except OSError as error:
        raise StorageError(f"cannot write {out}: {error.strerror}") from error
    say(f"drawn: {out}")


def _cells(size: str) -> tuple[int, int]:
    if found := re.fullmatch(r"(\d{1,4})x(\d{1,4})", size):
        columns, lines = int(found[1]), int(found[2])
        if all(
            least <= n <= most for (least, most), n in zip(_CELLS, (columns, lines), strict=True)
        ):
            return columns, lines
    least, most = ("x".join(map(str, ends)) for ends in zip(*_CELLS, strict=True))
    raise UsageError(f"--size is {size!r}: expected COLUMNSxLINES between {least} and {most}")


def _names(screen: Shown, runs: list[str]) -> list[str]:
    from fedconsole import run_names

    if screen is Shown.HISTORY:
        return []
    if screen is Shown.COMPARE:
        return comparable(runs)
    if len(runs) > 1:
        raise UsageError(f"{len(runs)} runs for the screen {screen}, which shows one")
    run = run_names.resolve_one(runs[0])
    summary_of(run)
    return [run]


def _lines(run: str, seq: int | None) -> list[Line]:
    """What the Live screen has heard of a run. Raises UsageError when there is no such line."""
    from fedconsole import history

    lines = list(history.lines(run))
    if seq is not None and seq > len(lines):
        raise UsageError(f"--seq is {seq}, and run {run} has {len(lines)} lines")
    return lines[:seq]


async def _draw(screen: Shown, names: list[str], lines: list[Line], cells: tuple[int, int]) -> str:
    from fedconsole.cli.console import make_app
    from fedconsole.config import load
    from fedconsole.stored_desk import StoredDesk
    from fedconsole.tui.opening import Opening
    from fedconsole.tui.picture import draw

    settings = load({})
    opening = Opening("history")
    if screen in (Shown.LIVE, Shown.RUN):
        opening = Opening("history", names[0])
    app = make_app(settings, opening, StoredDesk(settings, lines))
    return await draw(app, cells, compared=names if screen is Shown.COMPARE else ())
