"""What screens ask of the app."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal, NamedTuple

from textual.message import Message

from fedconsole.coordinator.plan import Plan


@dataclass
class Echo(Message):
    """An action was carried out; `command` is the command line that does the same."""

    command: str


class Echoed(NamedTuple):
    """A command that was echoed, and when."""

    time: datetime
    command: str


@dataclass
class Copy(Message):
    """Bring a text to the clipboard of the terminal."""

    text: str


@dataclass
class Notice(Message):
    """Tell the operator something."""

    text: str
    severity: Literal["information", "warning", "error"] = "information"


@dataclass
class Trouble(Message):
    """Keep what went wrong for the list under `!`; the screen tells it itself."""

    text: str


@dataclass
class Alarm(Message):
    """Tell it loudly: with the terminal's bell."""

    text: str
    worker: str | None = None


@dataclass
class OpenRun(Message):
    """Show a run: live while it goes on, else the page of its history."""

    run: str
    taken_up_at: datetime | None = None
    """When another engine took it up just now."""


@dataclass
class Replay(Message):
    """Show a stored run as if it went on now."""

    run: str
    speed: float = 10.0


@dataclass
class CloneRun(Message):
    """Put a plan into the form of a new run."""

    plan: Plan


@dataclass
class ChooseWorkers(Message):
    """Put devices into the form of a new run."""

    addresses: Sequence[str]
