"""Plays scripts to the run machine: events, or what a well-behaved worker or engine would say."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from fedconsole.coordinator import commands, events, facts
from fedconsole.coordinator.commands import Command
from fedconsole.coordinator.events import Event
from fedconsole.coordinator.machine import advance, start
from fedconsole.coordinator.phases import RunPhase
from fedconsole.coordinator.plan import Plan
from fedconsole.coordinator.state import RunState
from fedconsole.errors import ExitCode
from pi_daemon.protocol.messages import Cursor

INITIAL_MODEL = "model-0"

Line = Event | Callable[[RunState], Event]
"""An event, or how to make one that fits the state."""

PAUSE = events.PauseRequested()
RESUME = events.ResumeRequested()
ABORT = events.AbortRequested()
STOP = events.StopAfterRoundRequested()
WAIT = events.WaitRequested()
FEWER = events.FewerRequested()
RESTART = events.EngineRestarted()


@dataclass(frozen=True)
class Play:
    """A run so far."""

    state: RunState
    last: tuple[Command, ...]
    """Commands of the last event."""
    commands: tuple[Command, ...]
    """All of them, the last included."""
    journal: tuple[Event, ...]

    def play(self, script: Iterable[Line]) -> Play:
        run = self
        for line in script:
            event = line(run.state) if callable(line) else line
            state, last = advance(run.state, event)
            run = Play(state, last, run.commands + last, (*run.journal, event))
        return run

    @property
    def told(self) -> tuple[Command, ...]:
        """The last commands without announcements and timers."""
        silent = commands.Announce | commands.StartTimer | commands.StopTimer
        return tuple(command for command in self.last if not isinstance(command, silent))


def play(plan: Plan, script: Iterable[Line]) -> Play:
    created = events.RunCreated(plan, INITIAL_MODEL)
    state, first = start(created)
    return Play(state, first, first, (created,)).play(script)


def facts_in(some: Iterable[Command]) -> list[facts.Fact]:
    return [command.fact for command in some if isinstance(command, commands.Announce)]


def ending(run: Play) -> tuple[RunPhase, ExitCode]:
    """How a finished run ended: its phase, and the exit code of its last command."""
    finish = run.commands[-1]
    assert isinstance(finish, commands.Finish)
    return run.state.phase, finish.exit_code


def sent(worker: str, attempt: int = 1) -> commands.SendRound:
    """The first round of a run, when a round is three batches."""
    return commands.SendRound(
        worker=worker,
        round=1,
        attempt=attempt,
        model_id=INITIAL_MODEL,
        cursor=Cursor(0, 0),
        num_batches=3,
    )


def joins(
    worker: str,
    num_examples: int = 100,
    num_holdout: int = 0,
    working_on: int | None = None,
) -> Event:
    return events.WorkerJoined(
        worker=worker,
        address=f"{worker}:10002",
        device_id=f"device of {worker}",
        num_examples=num_examples,
        num_holdout=num_holdout,
        working_on=working_on,
    )


def is_lost(worker: str, was_met: bool = False) -> Event:
    return events.WorkerLost(worker, "link closed", was_met)


def update_of(state: RunState, worker: str) -> events.UpdateDelivered:
    """The update that the open round expects of this worker."""
    assert state.round is not None
    part = state.round.parts[worker]
    return events.UpdateDelivered(
        worker=worker,
        round=state.round.number,
        attempt=part.attempt,
        model_id=state.round.model_id,
        num_examples=part.num_batches * state.plan.batch_size,
        num_batches=part.num_batches,
        cursor=part.next_cursor,
        loss=0.5,
        seconds=1.0,
        file=f"{worker}.safetensors",
        sha256=f"sha256 of {worker}",
    )


def delivers(worker: str) -> Line:
    return lambda state: update_of(state, worker)


def is_rejected(worker: str) -> Line:
    def line(state: RunState) -> Event:
        update = update_of(state, worker)
        return events.UpdateRejected(worker, update.round, update.attempt, "holds NaN")

    return line


def fails(worker: str) -> Line:
    def line(state: RunState) -> Event:
        update = update_of(state, worker)
        return events.TrainingFailed(worker, update.round, update.attempt, "trainer died")

    return line


def time_is_up(state: RunState) -> Event:
    assert state.timer is not None, "no timer runs"
    return events.TimerExpired(state.timer.number)


def _number(state: RunState) -> int:
    assert state.round is not None
    return state.round.number


def is_aggregated(state: RunState) -> Event:
    return events.ModelAggregated(_number(state), f"model-{_number(state)}")


def is_evaluated(metrics: Mapping[str, float | None] | None = None) -> Line:
    found = metrics if metrics is not None else {"loss": 0.5, "accuracy": 0.5}
    return lambda state: events.Evaluated(round=_number(state), num_examples=10, metrics=found)


def is_saved(state: RunState) -> Event:
    return events.RoundSaved(_number(state), f"round-{_number(state)}", "sha256")


def model_is_saved(_: RunState) -> Event:
    return events.ModelSaved("model.safetensors")


CLOSES: tuple[Line, ...] = (is_aggregated, is_evaluated(), is_saved)
"""What the engine reports after the last answer of a round, with evaluation."""
