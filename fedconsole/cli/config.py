"""`fedconsole config show|path|check`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fedconsole.cli.output import Output, OutputOption, print_rows, say

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
        print(f"{file.absolute()}{'' if file.is_file() else '  (not there)'}")


@app.command("check")
def check(config: ConfigFile = None) -> None:
    """Check files and environment."""
    from fedconsole.config import foreign_variables, load

    loaded = load({}, config)
    loaded.check()
    for name in foreign_variables():
        say(f"{name} is no setting of fedconsole, so it changes nothing")
    say(f"good: {', '.join(map(str, loaded.files)) or 'no files, all defaults'}")
