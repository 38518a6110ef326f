"""`fedconsole config show|path|check|edit`."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from fedconsole.cli.output import Output, OutputOption, harmless, print_rows, say
from fedconsole.errors import FedconsoleError, RefusedError, StorageError

app = typer.Typer(help="What is configured, and where.")

ConfigFile = Annotated[Path | None, typer.Option("--config", help="Read this TOML file first.")]


@app.command("show")
def show(
    origin: Annotated[bool, typer.Option("--origin", help="Where each value comes from.")] = False,
    output: OutputOption = Output.TABLE,
    config: ConfigFile = None,
) -> None:
    """Every setting with its effective value."""
    from fedconsole.config import load

    rows = [
        {"key": setting.key, "value": setting.value, "origin": setting.origin}
        for setting in load({}, config).settings()
    ]
    print_rows(rows, ("key", "value", "origin") if origin else ("key", "value"), output)


@app.command("path")
def path() -> None:
    """The files that are looked for, the strongest first."""
    from fedconsole import paths

    for file in paths.config_files():
        print(harmless(f"{file.absolute()}{'' if file.is_file() else '  (not there)'}"))


@app.command("check")
def check(config: ConfigFile = None) -> None:
    """Check files and environment."""
    from fedconsole.config import foreign_variables, load

    loaded = load({}, config)
    loaded.check()
    for name in foreign_variables():
        say(f"{name} is no setting of fedconsole, so it changes nothing")
    say(f"good: {', '.join(map(str, loaded.files)) or 'no files, all defaults'}")


@app.command("edit")
def edit(
    config: Annotated[
        Path | None, typer.Option("--config", help="Edit this file, not your own.")
    ] = None,
) -> None:
    """Open a configuration file in $VISUAL or $EDITOR, and check it afterwards."""
    import subprocess

    from fedconsole import paths

    editor = _editor()
    file = config or paths.user_config()
    _make(file)
    try:
        exit_code = subprocess.call([*editor, str(file)])
    except OSError as error:
        raise RefusedError(
            f"cannot start {editor[0]}: {error.strerror}; set EDITOR to an editor"
        ) from error
    if exit_code != 0:
        raise RefusedError(f"{editor[0]} ended with {exit_code}; {file} was not checked")
    try:
        check(config)
    except FedconsoleError:
        say(f"{file} is kept as you wrote it; to mend it: fedconsole config edit")
        raise


def _editor() -> list[str]:
    """The command line of the user's editor, without the file."""
    import shlex

    chosen = os.environ.get("VISUAL") or os.environ.get("EDITOR")
    if not chosen and not sys.stdin.isatty():
        raise RefusedError("no editor: set VISUAL or EDITOR, or come with a terminal")
    try:
        return shlex.split(chosen or "vi")
    except ValueError as error:
        raise RefusedError(f"the editor {chosen!r} is no command: {error}; mend EDITOR") from error


def _make(file: Path) -> None:
    from fedconsole.config import template

    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with file.open("x", encoding="utf-8") as new:
            new.write(template())
    except FileExistsError:
        pass
    except OSError as error:
        raise StorageError(f"cannot write {file}: {error.strerror}") from error
