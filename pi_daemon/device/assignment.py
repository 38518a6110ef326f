"""Decides what the device does for a run: one preparation, then one round or evaluation at a time.

Pure, as `device` is; who may give these commands was decided there. What consoles command and what
happens by itself stay in one class: each changes what the other goes by.
"""

from __future__ import annotations

import itertools
from typing import assert_never

from pi_daemon.device.actions import (
    Control,
    ControlCommand,
    Deliver,
    DropUpdate,
    EvaluateModel,
    ForgetWorker,
    PrepareWorker,
    Receive,
    StopReceiving,
    TrainModel,
)
from pi_daemon.device.allowance import Allowance
from pi_daemon.device.lease import Lease
from pi_daemon.device.outbox import Outbox
from pi_daemon.device.refusals import (
    Excess,
    evaluated,
    lacks_model,
    misfit,
    no_state,
    refused,
    wrong_state,
)
from pi_daemon.device.terms import Peer
from pi_daemon.device.work import Arriving, Phase, Round, Work, state_of
from pi_daemon.protocol.limits import KEEP_UPDATE_S
from pi_daemon.protocol.messages import (
    Abort,
    AcceptUpdate,
    Blob,
    DatasetCard,
    DeviceState,
    Evaluate,
    Ok,
    Pause,
    Prepare,
    RefusalCode,
    RefuseUpdate,
    Resume,
    RoundFailed,
    StartRound,
)
from pi_daemon.trainer.pipe import ModelEvaluated, RoundTrained, WorkerReady


class Assignment:
    """What runs have asked of this device, and how far it is. Every effect goes into the outbox."""

    def __init__(
        self, datasets: dict[str, DatasetCard], allowance: Allowance, lease: Lease, outbox: Outbox
    ) -> None:
        """`datasets` is the device's own table, by name; others may change it."""
        self._datasets = datasets
        self._allowance = allowance
        self._lease = lease
        self._outbox = outbox
        self._tickets = itertools.count(1)
        self._work: Work | None = None
        self._model: tuple[str, str] | None = None
        """Held here: its model_id, and the SHA-256 of its file."""
        self._round: Round | None = None
        self._failed: RoundFailed | None = None
        """Of the last round, for a controller that comes back."""
        self._evaluating: Evaluate | None = None
        self._arriving: Arriving | None = None

    @property
    def state(self) -> DeviceState:
        return state_of(self._work, self._round, is_evaluating=self._evaluating is not None)

    @property
    def run(self) -> str | None:
        return self._work.prepare.run if self._work else None

    @property
    def round(self) -> int | None:
        return self._round.start.round if self._round else None

    @property
    def model_id(self) -> str | None:
        return self._model[0] if self._model else None

    # Commands, of which the outbox knows who waits for the answer

    def prepare(self, link: int, command: Prepare, peer: Peer) -> None:
        work = self._work
        if work is not None and work.is_same(command):
            if work.ready is not None:
                self._outbox.answer(work.prepared(command.cmd_id))
            else:
                work.asked_by.append(command.cmd_id)
            return
        if refusal := misfit(command, self._datasets) or self._allowance.prepare(
            command, peer, self._datasets[command.dataset]
        ):
            self._outbox.answer(refusal)
            return
        self.forget()
        self._work = Work(command, next(self._tickets), [command.cmd_id])
        self._receive(link, command, command.graphs)

    def start_round(self, link: int, command: StartRound) -> None:
        round_, work = self._round, self._work
        if work is None or work.ready is None:
            self._outbox.answer(wrong_state(command, "nothing is prepared"))
            return
        if round_ is not None and round_.phase is not Phase.RECEIVING:
            if round_.is_same(command) and round_.phase is not Phase.ABORTING:
                self._adopt(round_, command)
                return
            if round_.phase is not Phase.DELIVERING:
                reason = f"round {round_.start.round} is under way: abort it first"
                self._outbox.answer(wrong_state(command, reason))
                return
        if self._evaluating is not None:
            self._outbox.answer(wrong_state(command, "an evaluation is under way"))
            return
        if refusal := lacks_model(command, self.model_id) or self._allowance.start_round(
            command, work.prepare, work.ready
        ):
            self._outbox.answer(refusal)
            return
        self._end_round()
        self._failed = None
        self._round = Round(command, next(self._tickets), [command.cmd_id])
        if command.model is None:
            self._train()
        else:
            self._receive(link, command, command.model)

    def _adopt(self, round_: Round, command: StartRound) -> None:
        """Go on with the round under the new attempt's number."""
        is_new_attempt = round_.start.attempt != command.attempt
        round_.start = command
        if round_.phase is Phase.STARTING:
            round_.asked_by.append(command.cmd_id)
        else:
            self._outbox.answer(Ok(command.cmd_id))
        if round_.is_pause_wanted:
            round_.is_pause_wanted = round_.is_paused = False
            self._do_control(round_.control(Resume))
        if is_new_attempt:
            round_.delivered_to.clear()
            self._tell_losses(None, 0)
        self._deliver()

    def _train(self) -> None:
        round_, work, model = self._round, self._work, self._model
        assert round_ is not None and work is not None and model is not None  # noqa: PT018
        round_.phase = Phase.STARTING
        self._allowance.begin_round()
        self._outbox.do(TrainModel(round_.ticket, work.prepare, round_.start, model[1]))
        if round_.is_pause_wanted:
            self._do_control(round_.control(Pause))

    def control(self, command: ControlCommand) -> None:
        round_ = self._round
        if round_ is None or self._work is None or round_.start.round != command.round:
            self._outbox.answer(
                Ok(command.cmd_id) if isinstance(command, Abort) else no_state(command)
            )
            return
        is_in_trainer = round_.is_in_trainer
        match command:
            case Pause():
                round_.is_pause_wanted = round_.phase is not Phase.DELIVERING
            case Resume():
                round_.is_pause_wanted = round_.is_paused = False
            case Abort():
                self._outbox.refuse_all(round_.asked_by, "the round was aborted")
                if is_in_trainer:
                    round_.phase = Phase.ABORTING
                else:
                    self._end_round()
            case _:
                assert_never(command)
        if is_in_trainer:
            self._do_control(command)
        else:
            self._outbox.answer(Ok(command.cmd_id))

    def evaluate(self, link: int, command: Evaluate) -> None:
        work = self._work
        if work is None or work.ready is None:
            self._outbox.answer(wrong_state(command, "nothing is prepared"))
        elif self._evaluating or (self._round and self._round.phase is not Phase.DELIVERING):
            self._outbox.answer(wrong_state(command, "a round or an evaluation is under way"))
        elif refusal := lacks_model(command, self.model_id) or self._allowance.evaluate(
            command, work.prepare, work.ready
        ):
            self._outbox.answer(refusal)
        else:
            self._evaluating = command
            if command.model is None:
                self._start_evaluation(command)
            else:
                self._receive(link, command, command.model)

    def end_update(self, command: AcceptUpdate | RefuseUpdate) -> None:
        start = self._round.start if self._round and self._round.trained else None
        if start and (start.round, start.attempt) == (command.round, command.attempt):
            self._end_round()
        self._outbox.answer(Ok(command.cmd_id))

    def forget(self) -> None:
        """Let go of all that belongs to a run."""
        if self._work is not None:
            self._outbox.refuse_all(self._work.asked_by, "the run has ended here")
            self._outbox.do(ForgetWorker(self._work.prepare.worker_id))
        if self._arriving is not None:
            self._outbox.refuse_all([self._arriving.command.cmd_id], "the run has ended here")
            self._stop_receiving()
        self._end_round()
        self._work = self._evaluating = self._failed = self._model = None

    # What happens by itself

    def catch_up(self, link: int) -> None:
        """Tell a controller that came back what it may have missed."""
        if self._failed is not None:
            self._outbox.tell(link, self._failed)
        self._tell_losses(link, 0)
        self._deliver()

    def drop_incoming(self, link: int) -> None:
        """Forget the command whose blob was still arriving: it will be repeated."""
        arriving = self._arriving
        if arriving is None or arriving.link != link:
            return
        self._stop_receiving()
        match arriving.command:
            case Prepare() if self._work is not None:
                self._outbox.give_up(self._work.asked_by)
                self._work = None
            case StartRound() if self._round is not None:
                self._outbox.give_up(self._round.asked_by)
                self._round = None
            case Evaluate(cmd_id=cmd_id):
                self._outbox.give_up([cmd_id])
                self._evaluating = None

    def on_tick(self, now_s: float) -> None:
        self.keep_time(now_s)
        round_ = self._round
        if round_ is not None and round_.phase is Phase.DELIVERING:
            if self._lease.link is not None:
                round_.keep_until_s = now_s + KEEP_UPDATE_S
            elif now_s >= round_.keep_until_s:
                self._end_round()
        elif round_ and round_.phase is Phase.TRAINING and (excess := self._allowance.overtime()):
            round_.phase, round_.broken_off = Phase.ABORTING, excess
            self._do_control(round_.control(Abort))

    def keep_time(self, now_s: float) -> None:
        """Call after all that happens: the run's clock goes while the trainer works for it."""
        evaluates = self._evaluating is not None and self._arriving is None
        trains = self._round is not None and self._round.is_at_work
        self._allowance.keep_time(now_s, is_at_work=trains or evaluates)

    def on_received(self, link: int, transfer: int) -> None:
        """A blob that `Receive` asked for is complete and in its place."""
        arriving = self._arriving
        if arriving is None or (arriving.link, arriving.transfer) != (link, transfer):
            return
        self._arriving = None
        match arriving.command:
            case Prepare() if self._work is not None:
                self._outbox.do(PrepareWorker(self._work.ticket, self._work.prepare))
            case StartRound(model=Blob(sha256=sha256)) as start:
                self._model = start.model_id, sha256
                self._train()
            case Evaluate(model=Blob(sha256=sha256)) as evaluate:
                self._model = evaluate.model_id, sha256
                self._start_evaluation(evaluate)

    def wanted(self, ticket: int) -> Work | None:
        return self._work if self._work is not None and self._work.ticket == ticket else None

    def on_prepared(self, ticket: int, ready: WorkerReady) -> None:
        if work := self.wanted(ticket):
            work.ready = ready
            self._outbox.answer_all(work.asked_by, work.prepared)

    def on_prepare_failed(self, ticket: int, code: RefusalCode, reason: str) -> None:
        if work := self.wanted(ticket):
            self._work = None
            self._outbox.answer_all(work.asked_by, lambda cmd_id: refused(cmd_id, code, reason))

    def on_begun(self, ticket: int) -> None:
        round_ = self._round
        if round_ is not None and round_.ticket == ticket and round_.phase is Phase.STARTING:
            round_.phase = Phase.TRAINING
            self._outbox.answer_all(round_.asked_by, Ok)

    def on_losses(self, ticket: int, losses: tuple[float | None, ...]) -> None:
        round_ = self._round
        if round_ is not None and round_.ticket == ticket:
            first = len(round_.losses)
            round_.losses.extend(losses)
            self._tell_losses(None, first)

    def on_trained(self, ticket: int, trained: RoundTrained, now_s: float) -> None:
        round_ = self._round
        if round_ is None or round_.ticket != ticket or round_.phase is Phase.ABORTING:
            self._outbox.do(DropUpdate(ticket))
        else:
            self._outbox.answer_all(round_.asked_by, Ok)
            round_.phase = Phase.DELIVERING
            round_.is_paused = round_.is_pause_wanted = False
            round_.trained = trained
            round_.keep_until_s = now_s + KEEP_UPDATE_S
            self._deliver()

    def on_training_failed(self, ticket: int, code: RefusalCode, reason: str) -> None:
        """Training did not begin, or stopped without an update."""
        round_ = self._round
        if round_ is None or round_.ticket != ticket:
            return
        if code is RefusalCode.BAD_MODEL:
            self._model = None
        self._outbox.answer_all(round_.asked_by, lambda cmd_id: refused(cmd_id, code, reason))
        self._round = None
        if round_.phase is Phase.TRAINING or round_.broken_off:
            self._tell_failure(round_, round_.broken_off or reason)

    def on_controlled(self, command: ControlCommand) -> None:
        """A `Control` has been carried out, or there was no trainer left to carry it out."""
        round_ = self._round
        is_here = round_ is not None and round_.start.round == command.round
        match command:
            case Abort():
                if round_ is not None and round_.phase is Phase.ABORTING:
                    if round_.broken_off:
                        self._tell_failure(round_, round_.broken_off)
                    self._end_round()
                self._outbox.answer(Ok(command.cmd_id))
            case Pause() | Resume() if not is_here:
                self._outbox.answer(no_state(command))
            case Pause():
                if round_ is not None and round_.phase in (Phase.STARTING, Phase.TRAINING):
                    round_.is_paused = round_.is_pause_wanted
                self._outbox.answer(Ok(command.cmd_id))
            case Resume():
                self._outbox.answer(Ok(command.cmd_id))
            case _:
                assert_never(command)

    def on_evaluated(
        self, evaluate: Evaluate, outcome: ModelEvaluated | tuple[RefusalCode, str]
    ) -> None:
        if self._evaluating == evaluate:
            self._evaluating = None
        match outcome:
            case ModelEvaluated():
                self._outbox.answer(evaluated(evaluate, outcome))
            case (code, reason):
                if code is RefusalCode.BAD_MODEL:
                    self._model = None
                self._outbox.answer(refused(evaluate.cmd_id, code, reason))

    # What these have in common

    def _start_evaluation(self, evaluate: Evaluate) -> None:
        assert self._work is not None
        assert self._model is not None
        self._outbox.do(EvaluateModel(self._work.prepare, evaluate, self._model[1]))

    def _receive(self, link: int, command: Prepare | StartRound | Evaluate, blob: Blob) -> None:
        self._arriving = Arriving(link, blob.transfer, command)
        self._outbox.do(Receive(link, blob))

    def _stop_receiving(self) -> None:
        if self._arriving is not None:
            self._outbox.do(StopReceiving(self._arriving.link, self._arriving.transfer))
            self._arriving = None

    def _deliver(self) -> None:
        round_, link = self._round, self._lease.link
        if round_ and round_.trained and link is not None and link not in round_.delivered_to:
            if excess := self._allowance.send_update(round_.trained.update_bytes):
                self._tell_failure(round_, excess)
                self._end_round()
                return
            round_.delivered_to.add(link)
            self._outbox.do(Deliver(link, round_.ticket, round_.start, round_.trained))

    def _tell_losses(self, link: int | None, first: int) -> None:
        for batches in self._round.batches(first) if self._round else ():
            self._outbox.tell(link, batches)

    def _do_control(self, command: ControlCommand) -> None:
        assert self._work is not None
        self._outbox.do(Control(self._work.prepare.worker_id, command))

    def _tell_failure(self, round_: Round, why: str | Excess) -> None:
        self._failed = round_.failed(why)
        self._outbox.tell(None, self._failed)

    def _end_round(self) -> None:
        """Forget a round that is not in the trainer, with its update."""
        if self._round is not None:
            if self._round.trained is not None:
                self._outbox.do(DropUpdate(self._round.ticket))
            self._outbox.refuse_all(self._round.asked_by, "the round has ended")
            self._round = None
        if self._arriving is not None and isinstance(self._arriving.command, StartRound):
            self._stop_receiving()
