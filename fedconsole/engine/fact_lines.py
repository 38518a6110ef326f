"""Facts as lines of the journal, with what the machine cannot know: times, bytes and places."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec

from fedconsole.coordinator import facts
from fedconsole.coordinator.commands import Announce, Command, StartTimer
from fedconsole.coordinator.plan import Plan
from fedconsole.engine.store import Line, Row, RunStore
from fedconsole.engine.worker import Worker


class FactLines:
    """Of one run. Its times count on from those of an engine before this one."""

    def __init__(
        self, workers: Sequence[Worker], store: RunStore, clock: Callable[[], float]
    ) -> None:
        """`clock` gives monotonic seconds; `workers` may grow names later."""
        self._timer_ends_s = 0.0
        """When the machine's timer expires."""
        self._workers = workers
        self._store = store
        self._clock = clock
        self._began_s = clock() - store.seconds_so_far
        self._round_began_s = clock()
        self._bytes_before: dict[str, tuple[int, int]] = {}
        """Sent to and received from each worker before the round."""

    def rows(self, commands: Sequence[Command]) -> list[Row]:
        """The lines of what the machine announces, before any of the commands is carried out."""
        rows = []
        for command in commands:
            match command:
                case StartTimer(seconds=seconds):
                    self._timer_ends_s = self._clock() + seconds
                case Announce(fact=fact) if row := self.row(fact):
                    rows.append(row)
        return rows

    def row(self, fact: facts.Fact) -> Row | None:
        """The line of a fact; None: there is none. A fact that is told twice gets it twice."""
        fields = _fields(fact)
        now_s = self._clock()
        match fact:
            case facts.RunCreated():
                return None  # `created_row`, before the task was captured
            case facts.RoundStarted():
                self._round_began_s = now_s
                self._bytes_before = {
                    w.worker_id: (w.bytes_sent, w.bytes_received) for w in self._workers
                }
            case facts.WorkerUpdate():
                fields |= self._bytes_of_round(fact.worker)
            case facts.RoundFinished():
                fields["seconds"] = round(now_s - self._round_began_s, 3)
                fields |= self._bytes_of_round()
            case facts.RunQuorum():
                fields["seconds_left"] = round(max(0.0, self._timer_ends_s - now_s), 1)
            case facts.RunFinished():
                fields["seconds"] = round(now_s - self._began_s, 3)
                if fact.model_path is None and fact.rounds > 0:
                    fields["model_path"] = str(self._store.model_path)
            case facts.Eval():
                if fact.num_examples == 0:
                    return None  # there is no test set on the desktop
                fields |= fields.pop("metrics")
            case _:
                pass
        return Row(fields.pop("type"), fields)

    def _bytes_of_round(self, only: str | None = None) -> dict[str, int]:
        """What went over one worker's link, or over all links, since the round began."""
        sent = received = 0
        for worker in self._workers:
            if only in (None, worker.worker_id):
                before = self._bytes_before.get(worker.worker_id, (0, 0))
                sent += worker.bytes_sent - before[0]
                received += worker.bytes_received - before[1]
        return {"bytes_sent": sent, "bytes_received": received}


def created_row(plan: Plan) -> Row:
    """The first line of a run that begins in the current folder."""
    fields = _fields(facts.RunCreated(plan.task, plan))
    fields["folder"] = str(Path.cwd())
    return Row(fields.pop("type"), fields)


def _fields(fact: facts.Fact) -> Line:
    fields: Line = msgspec.to_builtins(fact)
    return fields
