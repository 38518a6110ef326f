"""The one transition table of a run: which phase follows which, and what the operator may ask."""

from __future__ import annotations

from enum import StrEnum
from typing import Final, NamedTuple

from fedconsole.errors import RefusedError


class RunPhase(StrEnum):
    GATHERING = "gathering"
    """Waiting for the wanted workers."""
    TRAINING = "training"
    """A round is open, until its deadline."""
    WAITING = "waiting"
    """Too few workers, or updates at the deadline: waiting for more."""
    CLOSING = "closing"
    """A round is aggregated, evaluated or saved; see its `step`."""
    PAUSING = "pausing"
    """Workers finish their batches, or a closing round is finished."""
    PAUSED = "paused"
    FINISHING = "finishing"
    """The model is being saved."""
    ABORTING = "aborting"
    """Waiting for workers to stop."""
    COMPLETED = "completed"
    FAILED = "failed"
    ABORTED = "aborted"

    @property
    def is_finished(self) -> bool:
        return self in {RunPhase.COMPLETED, RunPhase.FAILED, RunPhase.ABORTED}


class Request(StrEnum):
    """What an operator may ask of a run."""

    PAUSE = "pause"
    RESUME = "resume"
    ABORT = "abort"
    STOP = "stop"
    """Complete the run after the current round."""
    WAIT = "wait"
    """Too few workers or updates: give them the whole time once more."""
    FEWER = "fewer"
    """Too few workers or updates: this round is content with those that are there."""

    @property
    def in_words(self) -> str:
        """What it asks for, in a sentence."""
        return _IN_WORDS.get(self, self.value)


_IN_WORDS: Final = {
    Request.STOP: "stop after this round",
    Request.WAIT: "give more time",
    Request.FEWER: "go on with fewer",
}


class IllegalRequest(RefusedError):
    """An operator's request that the run's phase does not allow; nothing has changed."""


class Move(NamedTuple):
    """A way from a phase to the next, or, with a request, back to the same."""

    source: RunPhase
    why: Request | str
    target: RunPhase


_P = RunPhase
_UNFINISHED = tuple(phase for phase in RunPhase if not phase.is_finished)

MOVES: tuple[Move, ...] = (
    Move(_P.GATHERING, "enough workers", _P.TRAINING),
    Move(_P.GATHERING, "they have no data", _P.WAITING),
    Move(_P.TRAINING, "too few updates", _P.WAITING),
    Move(_P.TRAINING, "all answered, or deadline", _P.CLOSING),
    Move(_P.TRAINING, Request.PAUSE, _P.PAUSING),
    Move(_P.TRAINING, Request.STOP, _P.TRAINING),
    Move(_P.WAITING, "enough updates", _P.CLOSING),
    Move(_P.WAITING, "enough workers", _P.TRAINING),
    Move(_P.WAITING, Request.PAUSE, _P.PAUSING),
    Move(_P.WAITING, Request.STOP, _P.WAITING),
    Move(_P.WAITING, Request.WAIT, _P.WAITING),
    Move(_P.WAITING, Request.FEWER, _P.TRAINING),
    Move(_P.WAITING, Request.FEWER, _P.CLOSING),
    Move(_P.WAITING, "nothing left to train", _P.FINISHING),
    Move(_P.CLOSING, "next round", _P.TRAINING),
    Move(_P.CLOSING, "too few workers", _P.WAITING),
    Move(_P.CLOSING, Request.PAUSE, _P.PAUSING),
    Move(_P.CLOSING, Request.STOP, _P.CLOSING),
    Move(_P.CLOSING, "last round saved", _P.FINISHING),
    Move(_P.PAUSING, "all have stopped", _P.PAUSED),
    Move(_P.PAUSING, Request.RESUME, _P.TRAINING),
    Move(_P.PAUSING, Request.RESUME, _P.CLOSING),
    Move(_P.PAUSING, Request.STOP, _P.PAUSING),
    Move(_P.PAUSING, "last round saved", _P.FINISHING),
    Move(_P.PAUSED, Request.RESUME, _P.TRAINING),
    Move(_P.PAUSED, Request.RESUME, _P.WAITING),
    Move(_P.PAUSED, Request.STOP, _P.PAUSED),
    Move(_P.PAUSED, Request.STOP, _P.CLOSING),
    Move(_P.PAUSED, Request.STOP, _P.FINISHING),
    Move(_P.FINISHING, "model saved", _P.COMPLETED),
    Move(_P.FINISHING, "model saved after abort", _P.ABORTED),
    Move(_P.FINISHING, Request.ABORT, _P.ABORTED),
    Move(_P.ABORTING, "all have stopped", _P.FINISHING),
    Move(_P.ABORTING, "no round complete", _P.ABORTED),
    Move(_P.ABORTING, Request.ABORT, _P.FINISHING),
    Move(_P.ABORTING, Request.ABORT, _P.ABORTED),
    *(
        Move(phase, Request.ABORT, _P.ABORTING)
        for phase in _UNFINISHED
        if phase not in {_P.ABORTING, _P.FINISHING}
    ),
    *(Move(phase, "failure", _P.FAILED) for phase in _UNFINISHED),
)


def allowed_requests(phase: RunPhase, *, is_stopping: bool) -> frozenset[Request]:
    """`is_stopping`: it was asked to stop, which nothing but an abort takes back."""
    asked = {move.why for move in MOVES if move.source is phase and isinstance(move.why, Request)}
    return frozenset(asked - {Request.STOP} if is_stopping else asked)


def require_allowed(request: Request, phase: RunPhase, *, is_stopping: bool) -> None:
    """Raises IllegalRequest with a sentence for the operator."""
    allowed = allowed_requests(phase, is_stopping=is_stopping)
    if request not in allowed:
        instead = f"possible now: {', '.join(sorted(allowed))}" if allowed else "it has ended"
        stops = " and stops after this round" if is_stopping and not phase.is_finished else ""
        raise IllegalRequest(f"cannot {request.in_words}: the run is {phase}{stops}; {instead}")


def is_move(source: RunPhase, target: RunPhase) -> bool:
    return any(move.source is source and move.target is target for move in MOVES)


def phase_diagram() -> str:
    """The table as a Mermaid state diagram; the operator's requests are in capitals."""
    lines = ["stateDiagram-v2", f"    [*] --> {RunPhase.GATHERING}"]
    for source, why, target in MOVES:
        label = why.upper() if isinstance(why, Request) else why
        lines.append(f"    {source} --> {target}: {label}")
    lines += [f"    {phase} --> [*]" for phase in RunPhase if phase.is_finished]
    return "\n".join(lines) + "\n"
