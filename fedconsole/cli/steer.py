"""`fedconsole attach|pause|resume|abort|quorum RUN`: join a run that goes on, and steer it."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Final

import typer

from fedconsole.cli import options as o
from fedconsole.cli.output import harmless, say
from fedconsole.cli.runs import Run
from fedconsole.errors import ExitCode, FedconsoleError, RefusedError, StorageError, UsageError

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable

_IN_WORDS: Final = {"wait": "wait longer", "fewer": "go on with fewer"}


def attach(
    run: Run = "latest",
    json: o.Json = False,
    plain: o.Plain = None,
    quiet: o.Quiet = False,
    verbose: o.Verbose = 0,
) -> int:
    """Show a running run from its start on; leaving it leaves it going."""
    import asyncio

    from fedconsole.cli.console import is_plain, wants_full_screen
    from fedconsole.cli.follow import crash, show
    from fedconsole.headless import choose_screen
    from fedconsole.history import require_running
    from fedconsole.run_names import resolve_one

    name = resolve_one(run)
    require_running(name)
    talks_plainly = is_plain(plain)
    if wants_full_screen(json, talks_plainly, quiet, verbose):
        return _open(name)
    verbosity = -1 if quiet else verbose
    screen = choose_screen(json=json, plain=talks_plainly, verbosity=verbosity)
    exit_code = asyncio.run(show(name, screen))
    if exit_code is None:
        raise crash(name)
    return exit_code


def _open(run: str) -> int:
    from fedconsole.cli.console import open_console
    from fedconsole.config import load
    from fedconsole.tui.opening import Opening

    return open_console(load({}), Opening("live", run))


def pause(run: Run) -> None:
    """Stop every worker after its current batch; the run keeps its place."""
    _request(run, "pause")


def resume(
    run: Run,
    headless: o.Headless = False,
    json: o.Json = False,
    plain: o.Plain = None,
    detach: o.Detach = False,
    quiet: o.Quiet = False,
    verbose: o.Verbose = 0,
) -> int:
    """Let a paused run go on, or take up one whose engine is gone, from its last complete round."""
    from fedconsole import history
    from fedconsole.run_names import resolve_one

    if run == "all":
        _resume_all()
        return ExitCode.COMPLETED
    name = resolve_one(run)
    if history.is_running(name):
        try:
            _request(name, "resume")
        except FedconsoleError as error:
            refusal = FedconsoleError(f"{error}; to join it: fedconsole attach {name}")
            refusal.exit_code = error.exit_code
            raise refusal from error
        return ExitCode.COMPLETED
    return _take_up(name, headless, json, plain, detach, quiet, verbose)


def _resume_all() -> None:
    """Those that are taken up go on without this terminal."""
    from fedconsole import history, run_names
    from fedconsole.cli.follow import tell_waiting
    from fedconsole.config import load
    from fedconsole.engine.launch import take_up_engine

    search_s = load({}).front_end().search_seconds

    def let_go_on(run: str) -> None:
        if history.is_running(run):
            _ask(run, "resume")
        else:
            take_up_engine(run, search_s=search_s, while_waiting=tell_waiting)
            say(f"run {run} is taken up; to join it: fedconsole attach {run}")

    runs = [
        run for run in run_names.resolve("all") if history.is_running(run) or _may_be_crashed(run)
    ]
    if not runs:
        raise UsageError("no run to resume; none is running, and no engine is gone")
    _each(runs, let_go_on, "resumed")


def _may_be_crashed(run: str) -> bool:
    """One that cannot be read is to be told of."""
    from fedconsole import history

    try:
        summary = history.summarize(run)
    except StorageError:
        return True
    return summary is not None and summary.state is history.RunState.CRASHED


def _take_up(
    run: str,
    headless: bool,
    json: bool,
    plain: bool | None,
    detach: bool,
    quiet: bool,
    verbose: int,
) -> int:
    import asyncio

    from fedconsole.cli.console import open_started, wants_full_screen
    from fedconsole.cli.follow import start_and_follow, tell_waiting
    from fedconsole.config import load
    from fedconsole.engine.launch import WhileWaiting, take_up_engine
    from fedconsole.headless import choose_screen

    settings = load({"plain": plain})
    front_end = settings.front_end()

    def take_up(run: str, while_waiting: WhileWaiting = tell_waiting) -> subprocess.Popen[bytes]:
        return take_up_engine(run, search_s=front_end.search_seconds, while_waiting=while_waiting)

    if detach:
        take_up(run)
        print(harmless(run))
        return ExitCode.COMPLETED
    if not headless and wants_full_screen(json, front_end.plain, quiet, verbose):
        return open_started(settings, run, take_up(run))
    screen = choose_screen(json=json, plain=front_end.plain, verbosity=-1 if quiet else verbose)
    return asyncio.run(start_and_follow(take_up, screen, run=run))


def abort(
    run: Run,
    after_round: Annotated[
        bool, typer.Option("--after-round", help="Complete the open round first.")
    ] = False,
) -> None:
    """End a run; its last checkpoint is kept."""
    _request(run, "stop" if after_round else "abort")


class Answer(StrEnum):
    WAIT = "wait"
    FEWER = "fewer"
    STOP = "stop"


def quorum(
    run: Run,
    answer: Annotated[
        Answer,
        typer.Argument(
            help="Wait longer, go on with fewer in this round, or stop.", show_default=False
        ),
    ],
) -> None:
    """Say what a run does that has too few workers or updates."""
    _request(run, "abort" if answer is Answer.STOP else answer)


def _request(reference: str, request: str) -> None:
    from fedconsole import history, run_names

    words = _IN_WORDS.get(request, request)
    runs = run_names.resolve(reference)
    running = [run for run in runs if history.is_running(run)]
    if not running and reference == "all":
        raise UsageError(f"no run to {words}; none is running")
    if not running:
        history.require_running(runs[0])
    _each(running, lambda run: _ask(run, request), f"asked to {words}")


def _each(runs: list[str], do: Callable[[str], None], done: str) -> None:
    """Do something with every run, also behind one that refuses; `done` says what."""
    num_refused = 0
    for run in runs:
        try:
            do(run)
        except FedconsoleError as error:
            if len(runs) == 1:
                raise
            say(f"run {run}: {error}")
            num_refused += 1
    if num_refused:
        raise RefusedError(f"{num_refused} of {len(runs)} runs were not {done}")


def _ask(run: str, request: str) -> None:
    import asyncio

    from fedconsole.engine.control import ControlLink

    async def ask() -> None:
        async with ControlLink.connect(run) as link:
            await link.request(request)

    asyncio.run(ask())
    say(f"run {run} was asked to {_IN_WORDS.get(request, request)}")
