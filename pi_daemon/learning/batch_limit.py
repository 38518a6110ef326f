"""Ends a process that computes too long on one batch: nothing else can stop an operator."""

from __future__ import annotations

import signal


class BatchLimit:
    """To be entered for each batch. Counts the process's time on a processor, which a machine that is
    busy, swaps or sleeps does not stretch. The kernel does: it ends the process, by SIGPROF.
    """

    def __init__(self, max_batch_s: float) -> None:
        self._max_batch_s = max_batch_s
        signal.signal(signal.SIGPROF, signal.SIG_DFL)

    def __enter__(self) -> None:
        self.begin_anew()

    def begin_anew(self) -> None:
        """The batch has ended, and another one begins."""
        signal.setitimer(signal.ITIMER_PROF, self._max_batch_s)

    def __exit__(self, *_: object) -> None:
        signal.setitimer(signal.ITIMER_PROF, 0)
