"""`make screenshots`: draws the pictures of this folder from a real run's lines, kept in run.jsonl.

`fedconsole demo --json > screenshots/run.jsonl` records another run.
"""

from __future__ import annotations

import io
import json
from pathlib import Path

from rich.console import Console

from fedconsole.headless import Line, ProgressScreen, RunProgress, advance, last_words, talk

FOLDER = Path(__file__).parent
WIDTH, HEIGHT = 100, 24


def draw(lines: list[Line], command: str) -> Console:
    """A terminal after these lines of a run: what was said, then the bars as they stand."""
    console = Console(
        record=True, width=WIDTH, file=io.StringIO(), force_terminal=True, highlight=False
    )
    terminal = Console(width=WIDTH, height=HEIGHT, file=io.StringIO(), force_terminal=True)
    screen = ProgressScreen(console=terminal)
    progress = RunProgress()
    console.print(f"$ {command}", style="bold", markup=False)
    for line in lines:
        screen.show(line)
        progress = advance(progress, line)
        for text in talk(line, progress, verbosity=0):
            console.print(text, markup=False)
    if progress.finished is None:
        console.print(screen.bars.get_renderable())
    else:
        for text in last_words(progress):
            console.print(text, markup=False)
    screen.bars.stop()
    return console


def main() -> None:
    lines = [json.loads(text) for text in (FOLDER / "run.jsonl").read_text().splitlines()]
    middle = next(
        index
        for index, line in enumerate(lines)
        if (line["type"], line.get("round"), line.get("worker")) == ("worker.update", 6, "alice")
    )
    for name, shown in (("headless", lines[: middle + 1]), ("headless-end", lines)):
        path = FOLDER / f"{name}.svg"
        draw(shown, "fedconsole demo").save_svg(str(path), title="fedconsole")
        print(path.name)


if __name__ == "__main__":
    main()
