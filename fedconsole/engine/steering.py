"""Says the machine's short commands in the words of the protocol."""

from __future__ import annotations

from typing import Any, assert_never

from fedconsole.coordinator import commands as c
from pi_daemon.protocol import messages as m

Steering = c.PauseWorker | c.ResumeWorker | c.AbortWorker | c.AcceptUpdate | c.RefuseUpdate


def steering_message(command: Steering, head: dict[str, Any]) -> m.Command:
    """`head` holds the fields of every command; the answer to each of these is `ok`."""
    match command:
        case c.PauseWorker(round=number):
            return m.Pause(**head, round=number)
        case c.ResumeWorker(round=number):
            return m.Resume(**head, round=number)
        case c.AbortWorker(round=number):
            return m.Abort(**head, round=number)
        case c.AcceptUpdate(round=number, attempt=attempt):
            return m.AcceptUpdate(**head, round=number, attempt=attempt)
        case c.RefuseUpdate(round=number, attempt=attempt, reason=reason):
            return m.RefuseUpdate(**head, round=number, attempt=attempt, reason=reason)
        case _:
            assert_never(command)
