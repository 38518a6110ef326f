"""Opens the full-screen console."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

from fedconsole.cli.entry import has_full_screen
from fedconsole.errors import ExitCode, FedconsoleError

if TYPE_CHECKING:
    import subprocess

    from fedconsole.config import Config
    from fedconsole.tui.app import FedconsoleApp
    from fedconsole.tui.desk import Desk
    from fedconsole.tui.opening import Opening

_ABORT_S = 10.0
_DEMO_ROUNDS = 200
"""A minute or so: time to try the keys."""


def is_plain(option: bool | None) -> bool:
    """Whether plain sentences are wanted: by `--plain`, or by a setting."""
    from fedconsole.config import load

    return load({"plain": option}).front_end().plain


def wants_full_screen(json: bool, plain: bool, quiet: bool, verbose: int) -> bool:
    """Whether a command that can also talk in lines should open it."""
    return has_full_screen() and not (json or plain or quiet or verbose)


def open_console(settings: Config, opening: Opening | None = None) -> int:
    """Show the console until the operator leaves; runs go on. Returns the exit code."""
    app = make_app(settings, opening)
    app.run(mouse=settings.front_end().mouse)
    return app.return_code or ExitCode.COMPLETED


def open_new_run(settings: Config) -> int:
    """Start a run and show it; returns as `open_started`.

    Raises:
        EngineCrashedError: the engine did not start.
    """
    from fedconsole.engine.launch import new_run_id, start_engine

    run = new_run_id()
    engine = start_engine(run, settings.plan(), search_s=settings.front_end().search_seconds)
    return open_started(settings, run, engine)


def open_started(settings: Config, run: str, engine: subprocess.Popen[bytes]) -> int:
    """Show a run whose engine has just been started; it goes on when the operator leaves.

    Returns:
        The run's exit code once it has ended.
    """
    from fedconsole.tui.opening import Opening

    exit_code = open_console(settings, Opening("live", run))
    if engine.poll() is None:
        from fedconsole.cli.output import say

        say(f"run {run} goes on; come back with: fedconsole attach {run}")
        return exit_code
    return exit_code or engine.returncode


async def open_demo(num_workers: int) -> int:
    """Start daemons on this machine, train on them, and show it; all ends with the screen."""
    import asyncio

    from fedconsole.cli.demo import demo_plan
    from fedconsole.cli.output import say
    from fedconsole.config import load
    from fedconsole.engine.launch import new_run_id, start_engine
    from fedconsole.fleet.local import local_daemons
    from fedconsole.tui.opening import Opening

    settings = load({})
    say("starting the devices")
    async with local_daemons(num_workers) as addresses:
        run = new_run_id()
        engine = await asyncio.to_thread(start_engine, run, demo_plan(addresses, _DEMO_ROUNDS))
        app = make_app(settings, Opening("live", run, is_demo=True))
        try:
            await app.run_async(mouse=settings.front_end().mouse)
        finally:
            # Its devices go away now.
            await _abort(run)
            await asyncio.to_thread(_end, engine)
    return app.return_code or ExitCode.COMPLETED


async def _abort(run: str) -> None:
    from fedconsole.engine.control import ControlLink

    # Refused or unheard: it has ended by itself.
    with suppress(FedconsoleError):
        async with ControlLink.connect(run) as link:
            await link.request("abort")


def _end(engine: subprocess.Popen[bytes]) -> None:
    import subprocess

    try:
        engine.wait(_ABORT_S)
    except subprocess.TimeoutExpired:
        engine.kill()
        engine.wait()


def open_replay(run: str, speed: float) -> int:
    """Show a stored run as if it went on now."""
    from fedconsole.config import load
    from fedconsole.tui.opening import Opening

    return open_console(load({}), Opening("live", replay=(run, speed)))


def make_app(settings: Config, opening: Opening | None, desk: Desk | None = None) -> FedconsoleApp:
    """The console as it was set; on this desktop unless a desk is given."""
    from fedconsole import language
    from fedconsole.desk import RealDesk
    from fedconsole.tui import glyphs, lang
    from fedconsole.tui.app import FedconsoleApp

    wanted = settings.front_end()
    lang.use(wanted.lang or language.preferred())
    glyphs.use(wanted.glyphs)
    return FedconsoleApp(
        desk or RealDesk(settings), opening, theme=wanted.theme, has_bell=wanted.bell
    )
