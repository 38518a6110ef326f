"""Copies a text to the terminal's clipboard; and into a file, as not every terminal lets it through."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from typing import Final

from textual.app import App

from fedconsole.tui.lang import _
from pi_daemon.protocol.text import clean

COPY_NAME: Final = "copied.txt"


def copy(app: App[None], text: str, folder: Path) -> str:
    """Copy a text; gives what to tell of it. `folder` may not exist yet."""
    app.copy_to_clipboard(text)
    # The clipboard is what counts: nobody asked for a file.
    with suppress(OSError):
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        (folder / COPY_NAME).write_text(text, encoding="utf-8")
    told = _("copied: {text}", text=clean(text.partition("\n")[0], 60))
    if "TMUX" in os.environ:
        told += " " + _("(in tmux this needs: set -g set-clipboard on)")
    return told
