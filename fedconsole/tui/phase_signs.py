"""Which sign stands for a phase of a run; the words beside it are the phase's own."""

from __future__ import annotations

from typing import Final

from fedconsole.coordinator.phases import RunPhase

PHASE_SIGNS: Final = {
    RunPhase.TRAINING: "running",
    RunPhase.CLOSING: "running",
    RunPhase.FINISHING: "running",
    RunPhase.PAUSED: "paused",
    RunPhase.PAUSING: "paused",
    RunPhase.WAITING: "warning",
    RunPhase.ABORTING: "aborted",
    RunPhase.ABORTED: "aborted",
    RunPhase.COMPLETED: "done",
    RunPhase.FAILED: "failed",
}
