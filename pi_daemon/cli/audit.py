"""`pi-daemon audit`: shows the device's owner what consoles did here, and what they were given."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from pi_daemon.cli.refusal import refuse
from pi_daemon.cli.trust import StateDir, WorkerName, state_folder

if TYPE_CHECKING:
    from pi_daemon.audit.recorder import Entry

_HEAD: Final = ("time", "what", "console", "more")
_LEADING: Final = ("time", "what", "console", "console_id")


def audit(
    last: Annotated[
        int | None, typer.Option(metavar="N", min=0, help="Only the newest.", show_default="all")
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="The lines as they are, one JSON object each.")
    ] = False,
    worker_name: WorkerName = "",
    state_dir: StateDir = None,
) -> None:
    """Show what consoles did on this device, were refused, and were given.

    Whether the daemon runs or not. Ends with what has left the device in all.
    """
    from pi_daemon.audit.log import NAME, is_entry, read_log, sums_of

    folder = state_folder(worker_name, state_dir)
    try:
        lines = list(read_log(folder))
    except OSError as error:
        refuse(f"{error.filename} cannot be read ({error.strerror}): give this command with sudo")
    entries = [line for line in lines if is_entry(line)]
    if not lines and not _is_there(folder / NAME):
        refuse(f"there is no audit log in {folder}: see --id and --state-dir, or give it with sudo")
    shown = entries if last is None else entries[len(entries) - min(last, len(entries)) :]
    if as_json:
        for entry in shown:
            print(json.dumps(entry))
        return
    for row in _aligned([_HEAD, *map(_row, shown)]) if shown else ():
        print(row)
    sums = sums_of(lines)
    print(
        f"{len(shown)} of {len(entries)} lines. Left this device in all: {sums.updates} updates "
        f"({sums.update_bytes:,} bytes), {sums.evaluations} evaluations, {sums.losses} losses "
        "(once for each console that was told)."
    )


def _is_there(path: Path) -> bool:
    try:
        return path.exists()
    except OSError:
        return False


def _row(entry: Entry) -> tuple[str, ...]:
    who = _text(entry.get("console"))
    if identity := entry.get("console_id"):
        who += f" ({_text(identity)[:7]})"
    more = [f"{key} {_text(entry[key])}" for key in entry if key not in _LEADING]
    return _text(entry.get("time"))[:19], _text(entry.get("what")), who, ", ".join(more)


def _text(value: object) -> str:
    from pi_daemon.protocol.text import clean

    match value:
        case None:
            return "-"
        case list():
            return "+".join(map(_text, value)) or "none"
        case bool():
            return "yes" if value else "no"
        # A hash is there to be compared: its beginning does for that.
        case str() if len(value) == 64 and set(value) <= set("0123456789abcdef"):
            return value[:12]
        case _:
            return clean(str(value))


def _aligned(rows: Sequence[tuple[str, ...]]) -> list[str]:
    """All columns but the last as wide as their widest cell."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]) - 1)]
    return [
        "  ".join([*(cell.ljust(width) for cell, width in zip(row, widths, strict=False)), row[-1]])
        for row in rows
    ]
