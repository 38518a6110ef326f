"""For every test."""

from __future__ import annotations

import signal

# A test run that was started in the background may have these ignored, and the programs that the
# tests start would inherit that: Ctrl-C and a hang-up must reach them.
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGHUP, signal.SIG_DFL)
