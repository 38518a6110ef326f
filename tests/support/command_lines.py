"""What `fedconsole` makes of a command line that a screen shows; nothing is carried out."""

from __future__ import annotations

import shlex
from typing import Any

import typer

from fedconsole.cli.main import app
from fedconsole.config import KEYS, load
from fedconsole.coordinator.plan import Plan


def parsed(line: str) -> dict[str, Any]:
    """The options and arguments of its command, by name.

    Raises:
        AssertionError: `fedconsole` does not take it.
    """
    words = shlex.split(line)
    if ">" in words:
        words = words[: words.index(">")]
    assert words[0] == "fedconsole", line
    command: Any = typer.main.get_command(app)
    name = words.pop(0)
    while words and words[0] in getattr(command, "commands", {}):
        name = words.pop(0)
        command = command.commands[name]
    assert not getattr(command, "commands", {}), f"{line}: no such command"
    try:
        params: dict[str, Any] = command.make_context(name, words).params
    except typer.TyperException as error:
        raise AssertionError(f"{line}: {error}") from error
    return params


def plan_of(line: str) -> Plan:
    """What `fedconsole run` would make of its options, files and environment."""
    options = parsed(line)
    given = {key: value for key, value in options.items() if key in KEYS}
    return load(given | {"workers": options["workers"] or None}, options["config"]).plan()
