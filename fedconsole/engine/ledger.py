"""When a run's journal is written: before anything is done that follows from it, and rarely."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Final

from fedconsole.coordinator import commands as c
from fedconsole.engine.store import Row, RunStore
from fedconsole.errors import StorageError

RETRY_S: Final = 5.0
"""From one attempt to write on a disk that refuses to the next."""
_FLUSH_S: Final = 0.1
"""What nobody waits for waits so long for a transaction: ten of them a second."""
_PATIENT: Final = (c.Announce, c.AcceptUpdate, c.RefuseUpdate)
"""Commands that the run's way does not wait for."""


class Ledger:
    """Of one run. Each write through to the disk takes milliseconds: as much as can shares one."""

    def __init__(self, store: RunStore, do: Callable[[c.Command], None]) -> None:
        """`do` carries a command out, once what it follows from is on disk."""
        self._store = store
        self._do = do
        self._loop = asyncio.get_running_loop()
        self._flush: asyncio.TimerHandle | None = None
        self._undone: list[c.Command] = []
        """Commands of what is kept, but not yet written."""

    def note(self, row: Row) -> None:
        """Write a row with the next transaction; it may be lost with the last second."""
        self._store.note(row)
        self._flush_in(_FLUSH_S)

    def take(
        self,
        rows: Sequence[Row],
        events: Sequence[bytes],
        commands: Sequence[c.Command],
        *,
        at_once: bool = False,
    ) -> None:
        """Write events and their rows, then have their commands done: at once if anybody waits for that.

        Raises:
            StorageError: the disk refuses; nothing of this is kept.
        """
        if at_once or not all(isinstance(command, _PATIENT) for command in commands):
            self._store.commit(*rows, events=events)
            self._undone += commands
            self._do_undone()
        else:
            self._store.keep(*rows, events=events)
            self._undone += commands
            self._flush_in(_FLUSH_S)

    def _flush_in(self, seconds: float) -> None:
        if self._flush is None:
            self._flush = self._loop.call_later(seconds, self._write_kept)

    def _write_kept(self) -> None:
        self._flush = None
        try:
            self._store.commit()
        except StorageError:
            self._flush_in(RETRY_S)
        else:
            self._do_undone()

    def _do_undone(self) -> None:
        undone, self._undone = self._undone, []
        for command in undone:
            self._do(command)
