"""`fedconsole --screen-reader`: what can be done, as numbered lines. Nothing moves; each is a command line."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from typing import Final

import typer

from fedconsole.cli.output import say
from fedconsole.errors import ExitCode, FedconsoleError

_GENERAL: Final = (
    ("start a run", ("run",)),
    ("show the devices", ("devices", "list")),
    ("show the runs", ("runs", "list")),
    ("show the newest run", ("runs", "show", "latest")),
    ("try it out on this machine", ("demo",)),
)
_MOST_RUNS: Final = 3


def ask(carry_out: Callable[[list[str]], int]) -> int:
    """Offer command lines and carry out those that are chosen, until the person leaves."""
    say("The full screen is off. For it, type: fedconsole --no-screen-reader")
    while True:
        entries = [*_of_runs(), *_GENERAL]
        for number, (title, command) in enumerate(entries, start=1):
            say(f"{number}. {title}: fedconsole {shlex.join(command)}")
        say("0. leave")
        answer = typer.prompt("Number", err=True).strip()
        if answer == "0":
            return ExitCode.COMPLETED
        if not (answer.isdecimal() and int(answer) <= len(entries)):
            say(f"{answer!r} is not a number from 0 to {len(entries)}.")
            continue
        command = entries[int(answer) - 1][1]
        if command[0] == "abort" and not typer.confirm(f"Abort run {command[1]} now?", err=True):
            continue
        exit_code = carry_out(list(command))
        say(f"Ended with exit code {int(exit_code)}.")


def _of_runs() -> list[tuple[str, tuple[str, ...]]]:
    """What can be asked of the newest runs that go on."""
    from fedconsole import history

    entries: list[tuple[str, tuple[str, ...]]] = []
    try:
        going = [run for run in reversed(history.by_start()) if history.is_running(run)]
        for run in going[:_MOST_RUNS]:
            summary = history.summarize(run)
            state = summary.state if summary else history.RunState.RUNNING
            if not state.is_going:
                continue  # it has just ended
            is_pausing = state in (history.RunState.PAUSED, history.RunState.PAUSING)
            for verb in ("attach", "resume" if is_pausing else "pause", "abort"):
                title = "follow" if verb == "attach" else verb
                entries.append((f"{title} run {run}, which is {state}", (verb, run)))
    except FedconsoleError:
        pass  # the list of runs says why
    return entries
