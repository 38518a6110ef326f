"""`pi-daemon`: serves when it is given no command, and says in one line what went wrong."""

from __future__ import annotations

import sys

import typer

from pi_daemon.cli import audit, data, install, serve, trust
from pi_daemon.protocol.text import clean

PROGRAM = "pi-daemon"
_MOST = 1_000

app = typer.Typer(
    name=PROGRAM,
    add_completion=False,
    invoke_without_command=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.callback()(serve.serve)
app.command()(trust.init)
app.command()(trust.pair)
app.add_typer(trust.consoles_app, name="consoles")
app.command()(audit.audit)
app.command()(install.install)
app.command()(install.uninstall)
app.add_typer(data.app, name="data")


def main() -> None:
    """The console script."""
    sys.exit(carry_out(sys.argv[1:]))


def carry_out(arguments: list[str]) -> int:
    """Run one command line and say what went wrong; the exit code."""
    try:
        return app(arguments, prog_name=PROGRAM, standalone_mode=False) or 0
    except typer.TyperException as error:
        context = getattr(error, "ctx", None)
        command = context.command_path if context else PROGRAM
        sentence = " ".join(error.format_message().split()).removesuffix(".")
        words = clean(f"{PROGRAM}: {sentence}; see {command} --help", _MOST)
        print(words, file=sys.stderr)
        return error.exit_code
    except (typer.Abort, KeyboardInterrupt):
        return 130


if __name__ == "__main__":
    main()
