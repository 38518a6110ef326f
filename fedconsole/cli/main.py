"""`fedconsole`: the commands, and what becomes of every error.

Each command imports what it needs when it is called: `--help` loads no command's libraries.
"""

from __future__ import annotations

import errno
import os
import signal
import sys
from contextlib import redirect_stdout, suppress
from itertools import pairwise
from types import FrameType
from typing import Annotated, Any

import typer

from fedconsole import paths
from fedconsole.cli import config, deal, demo, devices, doctor, pair, run, runs, screenshot, steer
from fedconsole.cli.output import say
from fedconsole.colours import Color, Role, settle
from fedconsole.errors import ExitCode, FedconsoleError, UsageError
from fedconsole.language import Language, preferred

PROGRAM = "fedconsole"
_SHELLS = ("bash", "zsh", "fish", "powershell", "pwsh")


def _with_dashes(name: str) -> str:
    # The system of 2020 wrote --batch_size. Its --save_model took no value and is an option apart.
    return name if name == "save_model" else name.replace("_", "-")


app = typer.Typer(
    name=PROGRAM,
    help="Federated learning on real devices: find them, train on them, watch it live.",
    invoke_without_command=True,
    pretty_exceptions_enable=False,
    context_settings={
        "help_option_names": ["-h", "--help"],
        "token_normalize_func": _with_dashes,
    },
)


def _settle(color: Color) -> Color:
    settle(color)
    return color


@app.callback()
def _root(
    ctx: typer.Context,
    show_version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
    lang: Annotated[
        Language | None,
        typer.Option(
            help="Of the full screen and of help: en or ko. Default: the locale's.",
            show_choices=False,
        ),
    ] = None,
    color: Annotated[
        Color,
        # Before a --help that follows it.
        typer.Option(help="Of lines and tables.", callback=_settle, is_eager=True),
    ] = Color.AUTO,
    screen_reader: Annotated[
        bool | None,
        typer.Option(
            "--screen-reader/--no-screen-reader",
            help="Sentences and numbered prompts in place of the full screen.",
        ),
    ] = None,
    mouse: Annotated[
        bool | None, typer.Option("--mouse/--no-mouse", help="Off: the terminal's own selection.")
    ] = None,
) -> None:
    """Without a command: the full screen."""
    if show_version:
        _print_version()
        raise typer.Exit
    # As settings of the environment they reach every command that opens the screen.
    for name, value in (("LANG", lang), ("MOUSE", mouse), ("PLAIN", screen_reader)):
        if value is not None:
            os.environ[f"FEDCONSOLE_{name}"] = str(value).lower()
    if ctx.invoked_subcommand is None:
        raise typer.Exit(_open(ctx))


def _open(ctx: typer.Context) -> int:
    from fedconsole.cli.console import open_console
    from fedconsole.cli.entry import has_full_screen

    if sys.stdin.isatty() and sys.stderr.isatty():
        from fedconsole.config import load

        settings = load({})
        if settings.front_end().plain:
            from fedconsole.cli.menu import ask

            return ask(carry_out)
        if has_full_screen():
            return open_console(settings)
    # Typer writes it to stdout, which is for data.
    with redirect_stdout(sys.stderr):
        ctx.get_help()
    return ExitCode.USAGE


app.command()(run.run)
app.command()(demo.demo)
app.command()(steer.attach)
app.command()(steer.pause)
app.command()(steer.resume)
app.command()(steer.abort)
app.command()(steer.quorum)
app.command()(runs.logs)
app.command()(screenshot.screenshot)
app.add_typer(runs.app, name="runs")
app.command()(devices.discover)
app.add_typer(devices.app, name="devices")
app.command()(pair.pair)
app.add_typer(pair.identity, name="identity")
app.command()(deal.deal)
app.add_typer(config.app, name="config")
app.command()(doctor.doctor)


@app.command()
def completion(
    shell: Annotated[str, typer.Argument(help=", ".join(_SHELLS))] = "bash",
) -> None:
    """Print the shell's completion script; `--install-completion` installs it."""
    if shell not in _SHELLS:
        raise UsageError(f"no completion for {shell!r}; there is one for {', '.join(_SHELLS)}")
    # Typer's own way of asking for the script; it prints and leaves.
    os.environ[f"_{PROGRAM.upper()}_COMPLETE"] = f"source_{shell}"
    app([], prog_name=PROGRAM)


@app.command("version")
def _print_version() -> None:
    """Print the version."""
    from importlib.metadata import version

    print(f"{PROGRAM} {version('fedconsole')}")


def main() -> None:
    """The console script."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, _leave)
    sys.exit(carry_out(sys.argv[1:]))


def carry_out(arguments: list[str]) -> int:
    """Run one command line and say what went wrong; the exit code."""
    try:
        command = _command(arguments)
        return command(arguments, prog_name=PROGRAM, standalone_mode=False) or ExitCode.COMPLETED
    except FedconsoleError as error:
        say(f"{PROGRAM}: {error}", Role.BAD)
        return error.exit_code
    except typer.TyperException as error:
        context = getattr(error, "ctx", None)
        command = context.command_path if context else PROGRAM
        say(f"{PROGRAM}: {_without_stop(error.format_message())}; see {command} --help", Role.BAD)
        return error.exit_code
    except (typer.Abort, KeyboardInterrupt):
        return ExitCode.INTERRUPT
    except Exception as error:
        say(f"{PROGRAM}: {_too_many_files(error) or _bug(error)}", Role.BAD)
        return ExitCode.RUN_FAILED


def _command(arguments: list[str]) -> Any:
    """The program, its help in the language in which it will be read."""
    command = typer.main.get_command(app)
    is_help = not arguments or not {"-h", "--help"}.isdisjoint(arguments)
    if is_help and _language(arguments) == Language.KO:
        from fedconsole.cli import korean

        korean.translate(command)
    return command


def _language(arguments: list[str]) -> str:
    # The option of the same name is not read before a --help that stands in front of it.
    for word, after in pairwise([*arguments, ""]):
        name, equals, value = word.partition("=")
        if name == "--lang":
            return value if equals else after
    if lang := os.environ.get("FEDCONSOLE_LANG"):
        return lang
    if any(path.is_file() for path in paths.config_files()):
        from fedconsole.config import load

        with suppress(FedconsoleError):
            return load({}).front_end().lang or preferred()
    return preferred()


def _without_stop(sentence: str) -> str:
    return " ".join(sentence.split()).removesuffix(".")


def _too_many_files(error: Exception) -> str | None:
    if not (isinstance(error, OSError) and error.errno in {errno.EMFILE, errno.ENFILE}):
        return None
    import resource

    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return f"too many open files: a process may have {limit} here; allow more: ulimit -n 1024"


def _bug(error: Exception) -> str:
    """What is told of it; its traceback is kept."""
    import traceback

    path = paths.state_dir() / "last-error.txt"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(traceback.format_exc())
    except OSError as failure:
        mend = f"its traceback could not be written to {path}: {failure.strerror}"
    else:
        mend = f"this is a bug, please report it with {path}"
    return f"{type(error).__name__}: {error}; {mend}"


def _leave(number: int, frame: FrameType | None) -> None:
    # SystemExit lets every `finally` run: the demo's daemons end with it.
    sys.exit(128 + number)
