"""The console script. `fedconsole` alone opens the full screen without waiting for the other commands."""

from __future__ import annotations

import gc
import os
import signal
import sys
from types import FrameType

_INTERRUPTED = 130
"""ExitCode.INTERRUPT, without the import."""


def main() -> None:
    # Where a run stands may be asked at any time: also when there is none yet, or none any more.
    signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    # From the first moment on: most of a start is imports, and a traceback of one helps nobody.
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _leave)
    from fedconsole.colours import Color, settle

    settle(Color.AUTO)
    if len(sys.argv) == 1 and has_full_screen():
        # What a start makes stays: a tenth of its time would go into looking for garbage among it.
        # The console enables it again once its first picture is there.
        gc.disable()
        from fedconsole.cli.console import open_console
        from fedconsole.config import load
        from fedconsole.errors import FedconsoleError

        try:
            settings = load({})
        except FedconsoleError:
            pass  # the command line says what is wrong, as for every command
        else:
            if not settings.front_end().plain:
                sys.exit(open_console(settings))
        gc.enable()
    from fedconsole.cli.main import main as command_line

    if signal.getsignal(signal.SIGINT) is _leave:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    command_line()


def _leave(number: int, frame: FrameType | None) -> None:
    # Nothing has been started or changed yet that would have to be undone.
    os._exit(_INTERRUPTED)


def has_full_screen() -> bool:
    """Whether a person sits at a terminal that can show it."""
    is_terminal = sys.stdin.isatty() and sys.stdout.isatty()
    is_able = os.environ.get("TERM") not in (None, "", "dumb")
    return is_terminal and is_able and "CI" not in os.environ


if __name__ == "__main__":
    main()
