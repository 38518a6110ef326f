"""The books of one walk through the run machine: what was told to whom, and the laws it must keep."""

from __future__ import annotations

from msgspec.structs import replace

from fedconsole.coordinator import commands, events, facts
from fedconsole.coordinator.phases import RunPhase
from fedconsole.coordinator.plan import OnQuorumLoss, Plan, Weighting
from fedconsole.coordinator.state import RunState
from pi_daemon.protocol.messages import Cursor


class Books:
    """Keeps its own account of a run, from events and commands alone."""

    def __init__(self, plan: Plan, batches_per_epoch: dict[str, int]) -> None:
        self.plan = plan
        self.batches_per_epoch = batches_per_epoch
        self.connected: set[str] = set()
        self.is_paused = False
        """The operator wants it so."""
        self.cohorts: dict[int, tuple[str, ...]] = {}
        self.sent: dict[tuple[str, int], list[commands.SendRound]] = {}
        self.fewer: dict[int, int] = {}
        """Rounds that were to be content with so many."""
        self.counted: dict[int, dict[str, events.UpdateDelivered]] = {}
        self.cursors: dict[str, Cursor] = {}
        self.aggregated: set[int] = set()
        self.finished_rounds: list[int] = []
        self.timer: int | None = None
        self.work: list[events.Event] = []
        """What the engine would report for what it was told to do."""

    def restart(self, lost: str | None = None) -> None:
        """Forget what died with the engine, and the update of one worker in the open round."""
        self.counted.get(len(self.finished_rounds) + 1, {}).pop(lost or "", None)
        self.connected.clear()
        self.work.clear()
        self.timer = None
        self.is_paused = False
        self.aggregated -= {len(self.finished_rounds) + 1}

    def lose_work(self) -> None:
        """The disk refused what was to be written: it is not done, and may be asked for again."""
        written = events.ModelAggregated | events.RoundSaved | events.ModelSaved
        lost = [event for event in self.work if isinstance(event, written)]
        self.work = [event for event in self.work if event not in lost]
        self.aggregated -= {
            event.round for event in lost if not isinstance(event, events.ModelSaved)
        }

    def take(
        self,
        before: RunState | None,
        event: events.Event,
        state: RunState,
        told: tuple[commands.Command, ...],
    ) -> None:
        """Book one step and check it."""
        match event:
            case events.PauseRequested():
                self.is_paused = True
            case events.ResumeRequested():
                self.is_paused = False
            case _:
                pass
        self.book(event, state, told)
        self.check_answer(event, told)
        self.check_state(before or state, state)
        self.check_timer(state)

    def book(
        self, event: events.Event, state: RunState, told: tuple[commands.Command, ...]
    ) -> None:
        for command in told:
            match command:
                case commands.Announce(fact):
                    self.book_fact(event, fact)
                case commands.StartTimer(number=number):
                    assert self.timer is None
                    self.timer = number
                case commands.StopTimer(number=number):
                    assert self.timer == number
                    self.timer = None
                case commands.SendRound():
                    self.book_sent(command)
                case commands.Aggregate():
                    self.book_aggregate(command)
                case commands.Evaluate(round=number):
                    self.work.append(evaluated(number, 0.5))
                case commands.EvaluateOnWorkers(workers=workers):
                    assert set(workers) <= self.connected
                case commands.SaveRound(round=number):
                    self.work.append(events.RoundSaved(number, "file", "sha"))
                case commands.SaveModel(model_id):
                    assert model_id == f"model-{len(self.finished_rounds)}"
                    self.work.append(events.ModelSaved("model.safetensors"))
                case commands.Finish():
                    assert command is told[-1]
                    assert state.phase.is_finished
                case _:
                    assert command.worker in self.connected

    def book_fact(self, event: events.Event, fact: facts.Fact) -> None:
        match fact:
            case facts.RoundStarted(number, attempt, cohort):
                if attempt == 1:
                    quorum = self.fewer.get(number, self.plan.quorum)
                    assert len(self.connected) >= quorum
                assert number == len(self.finished_rounds) + 1
                assert not self.is_paused
                assert self.cohorts.setdefault(number, cohort) == cohort
            case facts.WorkerUpdate(worker, number):
                assert isinstance(event, events.UpdateDelivered)
                self.check_counted(event)
                counted = self.counted.setdefault(number, {})
                assert worker not in counted
                counted[worker] = event
            case facts.RunFewer(number, have, need):
                is_policy = self.plan.on_quorum_loss is OnQuorumLoss.FEWER
                assert is_policy or isinstance(event, events.FewerRequested)
                assert number == len(self.finished_rounds) + 1
                assert 0 < have < need
                self.fewer[number] = have
            case facts.RoundFinished(number, updates, _, model_id):
                self.finished_rounds.append(number)
                assert number == len(self.finished_rounds)
                counted = self.counted[number]
                assert updates == tuple(sorted(counted))
                self.cursors |= {worker: update.cursor for worker, update in counted.items()}
                assert model_id == f"model-{number}"
            case facts.RunFinished(rounds=number, model_id=model_id):
                assert number == len(self.finished_rounds)
                assert model_id == f"model-{number}"
            case _:
                pass

    def book_sent(self, command: commands.SendRound) -> None:
        assert command.worker in self.connected
        assert command.worker in self.cohorts[command.round]
        assert command.round == len(self.finished_rounds) + 1
        # Only a counted update or the end of an epoch moves a cursor.
        expected = self.cursors.get(command.worker, Cursor(0, 0))
        assert command.cursor == expected or (
            command.cursor.batch == 0 and command.cursor.epoch > expected.epoch
        )
        attempts = self.sent.setdefault((command.worker, command.round), [])
        for earlier in attempts:
            assert replace(command, attempt=earlier.attempt) == earlier
        assert command.attempt == len(attempts) + 1
        attempts.append(command)

    def book_aggregate(self, command: commands.Aggregate) -> None:
        number = command.round
        assert number not in self.aggregated
        self.aggregated.add(number)
        counted = self.counted[number]
        by_examples = self.plan.weighting is Weighting.EXAMPLES
        assert command.updates == tuple(
            commands.CountedUpdate(
                worker, update.num_examples if by_examples else 1, update.file, update.sha256
            )
            for worker, update in sorted(counted.items())
        )
        quorum = self.fewer.get(number, self.plan.quorum)
        assert len(counted) >= min(quorum, len(self.cohorts[number]))
        self.work.append(events.ModelAggregated(number, f"model-{number}"))

    def check_counted(self, event: events.UpdateDelivered) -> None:
        """Only the current cohort's updates for the current round count, as they were asked for."""
        assert event.round == len(self.finished_rounds) + 1
        assert event.round not in self.aggregated
        attempts = self.sent[event.worker, event.round]
        sent = attempts[-1]
        assert 1 <= event.attempt <= sent.attempt
        assert (event.model_id, event.num_batches) == (sent.model_id, sent.num_batches)
        per_epoch = self.batches_per_epoch[event.worker]
        done = (event.cursor.epoch - sent.cursor.epoch) * per_epoch
        assert done + event.cursor.batch - sent.cursor.batch == sent.num_batches
        assert event.cursor.batch < per_epoch

    def check_answer(self, event: events.Event, told: tuple[commands.Command, ...]) -> None:
        if isinstance(event, events.UpdateDelivered):
            answers = [
                command
                for command in told
                if isinstance(command, commands.AcceptUpdate | commands.RefuseUpdate)
            ]
            assert len(answers) == (event.worker in self.connected)

    def check_state(self, before: RunState, state: RunState) -> None:
        assert {w for w, member in state.members.items() if member.is_connected} == self.connected
        for worker, member in before.members.items():
            now = state.members[worker].cursor
            assert (now.epoch, now.batch) >= (member.cursor.epoch, member.cursor.batch)
        assert state.waiting_for <= self.connected
        assert state.num_rounds == len(self.finished_rounds)

    def check_timer(self, state: RunState) -> None:
        assert self.timer == (state.timer.number if state.timer else None)
        waits = {RunPhase.GATHERING, RunPhase.TRAINING, RunPhase.WAITING, RunPhase.ABORTING}
        if state.phase in waits:
            assert self.timer is not None
        if state.phase is RunPhase.PAUSED or state.phase.is_finished:
            assert self.timer is None


def evaluated(number: int, accuracy: float, worker: str | None = None) -> events.Evaluated:
    metrics = {"accuracy": accuracy}
    return events.Evaluated(round=number, num_examples=10, metrics=metrics, worker=worker)
