"""Which sign stands for how a run is; the words beside it are the phase's own."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from fedconsole.coordinator.phases import RunPhase

if TYPE_CHECKING:
    from fedconsole.tui.run_model import RunModel

_PHASE_SIGNS: Final = {
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


def sign_of(model: RunModel) -> str:
    if model.has_crashed:
        return "crashed"
    return "new" if model.taken_up_at is not None else _PHASE_SIGNS.get(model.phase, "new")
