"""One event's way through the machine: the state so far, the commands so far, and their rules.

Commands go to connected workers only, phases move along the table only, one timer runs at most.
"""

from __future__ import annotations

from msgspec.structs import replace

from fedconsole.coordinator import commands, facts
from fedconsole.coordinator.phases import RunPhase, is_move
from fedconsole.coordinator.state import (
    Ending,
    Member,
    Outcome,
    Part,
    PartStatus,
    Round,
    RunState,
    Timer,
    TimerKind,
)
from fedconsole.errors import ExitCode


class Turn:
    def __init__(self, state: RunState) -> None:
        self.state = state
        self.commands: list[commands.Command] = []

    def do(self, command: commands.Command) -> None:
        self.commands.append(command)

    def announce(self, fact: facts.Fact) -> None:
        self.do(commands.Announce(fact))

    def warn(self, text: str, worker: str | None = None) -> None:
        self.announce(facts.Warning(text, worker))

    def ignore(self) -> None:
        self.state = replace(self.state, num_ignored=self.state.num_ignored + 1)

    def go(self, phase: RunPhase) -> None:
        source = self.state.phase
        assert phase is source or is_move(source, phase), f"no way from {source} to {phase}"
        self.state = replace(self.state, phase=phase)

    def start_timer(self, kind: TimerKind, seconds: float) -> None:
        self.stop_timer()
        number = self.state.num_timers + 1
        self.state = replace(self.state, timer=Timer(kind, number), num_timers=number)
        self.do(commands.StartTimer(kind, seconds, number))

    def stop_timer(self) -> None:
        if timer := self.state.timer:
            self.state = replace(self.state, timer=None)
            self.do(commands.StopTimer(timer.kind, timer.number))

    def put_member(self, worker: str, member: Member) -> None:
        self.state = replace(self.state, members={**self.state.members, worker: member})

    def put_round(self, round_: Round) -> None:
        self.state = replace(self.state, round=round_)

    def put_part(self, round_: Round, worker: str, part: Part) -> None:
        self.put_round(replace(round_, parts={**round_.parts, worker: part}))

    def wait_for(self, worker: str) -> None:
        self.state = replace(self.state, waiting_for=self.state.waiting_for | {worker})

    def wait_no_more_for(self, worker: str) -> None:
        """Nothing that was asked over the worker's link so far will be answered."""
        self.state = replace(self.state, waiting_for=self.state.waiting_for - {worker})
        round_ = self.state.round
        if round_ is not None and worker in round_.evaluating:
            self.put_round(replace(round_, evaluating=round_.evaluating - {worker}))

    def end_preparing(self, worker: str) -> None:
        self.state = replace(self.state, preparing=self.state.preparing - {worker})

    @property
    def round_number(self) -> int:
        """Of the open or last round; 0 before the first."""
        return self.state.round.number if self.state.round else 0

    @property
    def awaited(self) -> tuple[str, ...]:
        return tuple(sorted(self.state.waiting_for))

    def is_connected(self, worker: str) -> bool:
        member = self.state.members.get(worker)
        return member is not None and member.is_connected

    def tell(self, command: commands.WorkerCommand) -> None:
        if self.is_connected(command.worker):
            self.do(command)

    def steer_all(self) -> None:
        for worker in sorted(self.state.members):
            self.steer(worker)

    def steer(self, worker: str) -> None:
        """Bring what a connected worker does in the open round in line with the run's phase."""
        round_ = self.state.open_round
        part = round_.parts.get(worker) if round_ else None
        if round_ is None or part is None or not self.is_connected(worker):
            return
        match self.state.phase, part.status:
            case RunPhase.TRAINING | RunPhase.WAITING, PartStatus.IDLE:
                part = replace(part, status=PartStatus.TRAINING, attempt=part.attempt + 1)
                self.do(
                    commands.SendRound(
                        worker=worker,
                        round=round_.number,
                        attempt=part.attempt,
                        model_id=round_.model_id,
                        cursor=part.cursor,
                        num_batches=part.num_batches,
                    )
                )
            case RunPhase.TRAINING | RunPhase.WAITING, PartStatus.PAUSED:
                part = replace(part, status=PartStatus.TRAINING)
                self.do(commands.ResumeWorker(worker, round_.number))
            case RunPhase.PAUSING | RunPhase.PAUSED, PartStatus.TRAINING:
                part = replace(part, status=PartStatus.PAUSED)
                self.do(commands.PauseWorker(worker, round_.number))
                self.wait_for(worker)
            case RunPhase.ABORTING, PartStatus.TRAINING | PartStatus.PAUSED:
                part = replace(part, status=PartStatus.OUT)
                self.do(commands.AbortWorker(worker, round_.number))
                self.wait_for(worker)
            case _:
                return
        self.put_part(round_, worker, part)

    def fail(self, reason: str, exit_code: ExitCode) -> None:
        """End the run at once; its checkpoints stay."""
        if (round_ := self.state.open_round) is not None:
            for worker, part in round_.parts.items():
                if part.is_working:
                    self.tell(commands.AbortWorker(worker, round_.number))
        self.end(Ending(Outcome.FAILED, reason, exit_code), model_path=None)

    def save_model(self, ending: Ending) -> None:
        self.stop_timer()
        self.state = replace(self.state, ending=ending, waiting_for=frozenset())
        self.go(RunPhase.FINISHING)
        self.do(commands.SaveModel(self.state.model_id))

    def end(self, ending: Ending, model_path: str | None) -> None:
        self.stop_timer()
        self.state = replace(self.state, ending=ending, waiting_for=frozenset())
        self.go(RunPhase(ending.outcome))
        self.announce(
            facts.RunFinished(
                outcome=ending.outcome,
                rounds=self.state.num_rounds,
                model_id=self.state.model_id,
                model_path=model_path,
                reason=ending.reason,
                exit_code=ending.exit_code,
            )
        )
        self.do(commands.Finish(ending.outcome, ending.reason, ending.exit_code))
