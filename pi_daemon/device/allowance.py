"""Holds a run to the owner's terms: what it has used of them, and why it may use no more.

Pure, as `device` is. Asked where something new begins; what a run repeats after a reconnect costs
nothing, since the device does not do it again.
"""

from __future__ import annotations

import math
from typing import Final

from pi_daemon.device.refusals import Excess, not_shared, over_limit
from pi_daemon.device.terms import Peer, Terms
from pi_daemon.protocol.batching import batches_per_epoch
from pi_daemon.protocol.limits import MAX_BATCHES
from pi_daemon.protocol.messages import (
    Blob,
    DatasetCard,
    Evaluate,
    Prepare,
    Refused,
    StartRound,
)
from pi_daemon.trainer.pipe import WorkerReady

_NUMBER_BYTES: Final = 8
"""Of a loss, and of an entry of a confusion matrix."""


class Allowance:
    """What is left for the latest run. It begins anew with another run, and with the daemon."""

    def __init__(self, terms: Terms) -> None:
        self._terms = terms
        self.begin_run()

    def begin_run(self) -> None:
        """Another run has taken the lease."""
        self._num_rounds = 0
        self._received_bytes = self._sent_bytes = 0
        self._update_bytes = 0
        """Of the last one: all updates of a run are of one size."""
        self._seconds = 0.0
        self._since_s: float | None = None

    # Each says why not, or None, and then its bytes count

    def prepare(self, command: Prepare, peer: Peer, card: DatasetCard) -> Refused | None:
        if peer.role not in self._terms.rule(card.name).roles:
            return not_shared(command, peer)
        held_out = math.floor(card.num_examples * command.holdout + 0.5)
        return over_limit(
            command,
            self._too_few("training would have", card.num_examples - held_out, card.name)
            or self._over_seconds()
            or self._over_received(command.graphs),
        )

    def start_round(
        self, command: StartRound, prepare: Prepare, ready: WorkerReady
    ) -> Refused | None:
        num_examples = distinct_examples(command, prepare.batch_size, ready.num_examples)
        return over_limit(
            command,
            self._over_batches(command.num_batches)
            or self._over_rounds()
            or self._too_few("this round would train on", num_examples, prepare.dataset)
            or self._over_seconds()
            or self._over_sent("an update", self._update_bytes)
            or self._over_received(command.model),
        )

    def begin_round(self) -> None:
        """The model is here and goes to the trainer."""
        self._num_rounds += 1

    def evaluate(self, command: Evaluate, prepare: Prepare, ready: WorkerReady) -> Refused | None:
        # An empty holdout gives nothing away.
        too_few = (
            self._too_few("the holdout has", ready.num_holdout, prepare.dataset)
            if ready.num_holdout
            else None
        )
        num_bytes = _NUMBER_BYTES * (1 + (prepare.num_classes or 0) ** 2)
        excess = (
            too_few
            or self._over_seconds()
            or self._over_sent("an evaluation", num_bytes)
            or self._over_received(command.model)
        )
        if excess is None:
            self._sent_bytes += num_bytes
        return over_limit(command, excess)

    def send_update(self, num_bytes: int) -> Excess | None:
        self._update_bytes = num_bytes
        excess = self._over_sent("an update", num_bytes)
        if excess is None:
            self._sent_bytes += num_bytes
        return excess

    # Time

    def keep_time(self, now_s: float, *, is_at_work: bool) -> None:
        """Whether the trainer works for the run from now on."""
        if self._since_s is not None:
            self._seconds += now_s - self._since_s
        self._since_s = now_s if is_at_work else None

    def overtime(self) -> Excess | None:
        """Why the trainer has to stop now, if it has to."""
        return self._over_seconds()

    # The bounds

    def _too_few(self, what: str, num_examples: int, dataset: str) -> Excess | None:
        least = self._terms.rule(dataset).min_examples
        if num_examples >= least:
            return None
        reason = f"{what} {num_examples} different examples; the device's owner asks for at least {least}"
        return Excess("min_examples", f"{reason} (min_examples)")

    def _over_batches(self, num_batches: int) -> Excess | None:
        # Whatever the owner says: the device keeps the loss of each until the update is accepted.
        most = min(self._terms.bounds.max_round_batches or MAX_BATCHES, MAX_BATCHES)
        if num_batches <= most:
            return None
        return _excess("max_round_batches", f"{num_batches} batches in a round", most)

    def _over_rounds(self) -> Excess | None:
        most = self._terms.bounds.max_run_rounds
        if most is None or self._num_rounds < most:
            return None
        return _excess("max_run_rounds", f"this run has begun {self._num_rounds} rounds here", most)

    def _over_seconds(self) -> Excess | None:
        most = self._terms.bounds.max_run_seconds
        if most is None or self._seconds < most:
            return None
        found = f"this run has computed here for {self._seconds:.0f} s"
        return _excess("max_run_seconds", found, most)

    def _over_received(self, blob: Blob | None) -> Excess | None:
        """Before its bytes come; they count when they may."""
        size = blob.size if blob else 0
        most, before = self._terms.bounds.max_run_received, self._received_bytes
        if most is not None and before + size > most:
            return _excess("max_run_received", f"{size} bytes after the {before} of before", most)
        self._received_bytes += size
        return None

    def _over_sent(self, what: str, num_bytes: int) -> Excess | None:
        most, before = self._terms.bounds.max_run_sent, self._sent_bytes
        if most is None or before + num_bytes <= most:
            return None
        return _excess(
            "max_run_sent", f"{what} of {num_bytes} bytes after the {before} of before", most
        )


def distinct_examples(start: StartRound, batch_size: int, num_examples: int) -> int:
    """How many different examples a round trains on at least.

    Within an epoch no example comes twice. A round that goes over the end of an epoch may meet some
    again: then the longer part counts.
    """
    per_epoch = batches_per_epoch(num_examples, batch_size)
    end = min(start.cursor.batch + start.num_batches, per_epoch)
    in_this = min(end * batch_size, num_examples) - start.cursor.batch * batch_size
    num_later = min(start.cursor.batch + start.num_batches - end, per_epoch)
    return max(in_this, min(num_later * batch_size, num_examples))


def _excess(limit: str, found: str, most: float) -> Excess:
    return Excess(limit, f"{found}; the device's owner allows {most:.15g} ({limit})")
