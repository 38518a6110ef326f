"""`pi-daemon data`: makes datasets of recordings."""

from __future__ import annotations

import typer

app = typer.Typer(no_args_is_help=True, help="Make datasets of recordings.")


@app.callback()
def _root() -> None:
    pass
