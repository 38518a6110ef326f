"""Says what goes into the device's audit log, of what consoles do and what the device does for them.

Pure: it is shown what happens and gives entries; `log` writes them. Everything that leaves the
device has one: updates, evaluations, losses, dataset cards. What tells of no data has none: the
device's state and health, and the commands that only keep a lease or end an update.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable
from typing import Any, Final

from pi_daemon.device.actions import Action, Deliver, Tell, TrainModel
from pi_daemon.device.terms import Peer
from pi_daemon.protocol.messages import (
    Abort,
    Batches,
    Command,
    DatasetCard,
    Datasets,
    DataStored,
    Evaluated,
    FromDaemon,
    Ok,
    Prepare,
    Prepared,
    PutData,
    Refused,
    ReleaseLease,
    RoundFailed,
    StartRound,
    TakeLease,
)
from pi_daemon.trainer.pipe import RoundTrained

Entry = dict[str, Any]

MAX_COMMANDS: Final = 256
"""That wait for their answers, or may be repeated; a device remembers far fewer."""


class Recorder:
    def __init__(self) -> None:
        self._peers: dict[int, Peer] = {}
        """By link."""
        self._controller: Peer | None = None
        """Who took the lease last: what a round comes to is theirs, also while they are away."""
        self._commands: OrderedDict[tuple[int, str], Command] = OrderedDict()
        """That were not answered yet, by link and `cmd_id`."""
        self._answers: OrderedDict[tuple[str, str], Entry] = OrderedDict()
        """The latest that have an entry, by console and `cmd_id`: a repeated command is told the same."""
        self._round: Entry = {}
        """Run and number of the round whose losses are told."""
        self._told_losses: dict[str, int] = {}
        """By console: which losses of that round it was told, a bit for each. It may hear them on
        several links, and again after a reconnect: what left the device is the same."""
        self._num_noted: dict[str, int] = {}
        """By console: how many of them have an entry."""

    # Links

    def on_link_opened(
        self, link: int, peer: Peer, address: str, cards: Iterable[DatasetCard]
    ) -> list[Entry]:
        """`cards` are those that the console was told with the device's hello."""
        self._peers[link] = peer
        told = _told_of(cards)
        return [_entry("link opened", peer, role=peer.role.value, address=address, **told)]

    def on_link_refused(self, address: str, reason: str, peer: Peer | None = None) -> list[Entry]:
        """Before it was open."""
        return [_entry("link refused", peer, address=address, reason=reason)]

    def on_paired(self, peer: Peer, address: str) -> list[Entry]:
        return [_entry("console paired", peer, role=peer.role.value, address=address)]

    def on_link_closed(self, link: int, reason: str) -> list[Entry]:
        peer = self._peers.get(link)
        if peer is None:
            return []
        entries = [*self._losses_told(peer), _entry("link closed", peer, reason=reason)]
        del self._peers[link]
        for key in [key for key in self._commands if key[0] == link]:
            del self._commands[key]
        return entries

    # What consoles ask and are told

    def on_command(self, link: int, command: Command) -> None:
        # Whoever gives its number to another command meanwhile hides nothing by it.
        self._commands.setdefault((link, command.cmd_id), command)
        if len(self._commands) > MAX_COMMANDS:
            self._commands.popitem(last=False)

    def on_action(self, action: Action) -> list[Entry]:
        """Before it is carried out."""
        match action:
            case Tell(link=None, message=message):
                return self._told_all(message)
            case Tell(link=int(link), message=message) if link in self._peers:
                return self._told(link, message)
            case TrainModel(start=start):
                entries = self.losses_so_far()
                self._round = {"run": start.run, "round": start.round}
                self._told_losses, self._num_noted = {}, {}
                return entries
            case Deliver(link=link, start=start, trained=trained) if link in self._peers:
                sent = _entry(
                    "update sent",
                    self._peers[link],
                    run=start.run,
                    round=start.round,
                    attempt=start.attempt,
                    bytes=trained.update_bytes,
                    num_examples=trained.num_examples,
                    sha256=trained.update_sha256,
                )
                return [*self._losses_told(self._peers[link]), sent]
            case _:
                return []

    def on_trained(self, start: StartRound, trained: RoundTrained) -> list[Entry]:
        return [
            _entry(
                "round trained",
                self._controller,
                run=start.run,
                round=start.round,
                batches=trained.num_batches,
                num_examples=trained.num_examples,
                seconds=round(trained.seconds, 3),
            )
        ]

    def _told_all(self, message: FromDaemon) -> list[Entry]:
        match message:
            case Batches():
                for peer in self._peers.values():
                    self._note_losses(peer, message)
            case RoundFailed(run=run, round=number, reason=reason):
                failed = _entry("round failed", self._controller, run=run, round=number)
                return [*self.losses_so_far(), failed | {"reason": reason}]
            case Datasets(datasets=cards):
                told = _told_of(cards)
                return [_entry("cards told", peer, **told) for peer in self._peers.values()]
        return []

    def _told(self, link: int, message: FromDaemon) -> list[Entry]:
        peer = self._peers[link]
        if isinstance(message, Batches):
            self._note_losses(peer, message)
            return []
        command = self._commands.pop((link, getattr(message, "cmd_id", "")), None)
        match command, message:
            case None, _:
                return []
            case _, Refused():
                return [_refused(peer, command, message)]
            case TakeLease(run=run, fence=fence), Ok():
                self._controller = peer
                return [_entry("lease taken", peer, run=run, fence=fence)]
            case ReleaseLease(run=run), Ok():
                return [*self.losses_so_far(), _entry("lease released", peer, run=run)]
            case Abort(run=run, round=number), Ok():
                aborted = _entry("round aborted", peer, run=run, round=number)
                return [*self.losses_so_far(), aborted]
            case Prepare(run=run), Prepared(num_examples=n, num_holdout=held_out):
                told = {"num_examples": n, "num_holdout": held_out}
                prepared = _entry("run prepared", peer, run=run, **_of_prepare(command), **told)
                return self._unless_repeated(command, prepared)
            case _, Evaluated(round=number, num_examples=n):
                found = {"run": command.run, "round": number, "num_examples": n}
                return self._unless_repeated(command, _entry("evaluation sent", peer, **found))
            case PutData(offset=offset, rest=rest), DataStored(card=card):
                stored = {"dataset": card.name, "num_examples": card.num_examples}
                size = offset + rest.size
                return [_entry("data stored", peer, **stored, bytes=size, sha256=command.sha256)]
            case _:
                return []

    def _unless_repeated(self, command: Command, entry: Entry) -> list[Entry]:
        key = entry["console_id"], command.cmd_id
        if self._answers.get(key) == entry:
            return []
        self._answers[key] = entry
        if len(self._answers) > MAX_COMMANDS:
            self._answers.popitem(last=False)
        return [entry]

    # Losses: one entry for several, to each console

    def _note_losses(self, peer: Peer, told: Batches) -> None:
        these = ((1 << len(told.losses)) - 1) << told.first
        self._told_losses[peer.id] = self._told_losses.get(peer.id, 0) | these

    def _losses_told(self, peer: Peer) -> list[Entry]:
        num_told = self._told_losses.get(peer.id, 0).bit_count()
        if not (num_new := num_told - self._num_noted.get(peer.id, 0)):
            return []
        self._num_noted[peer.id] = num_told
        return [_entry("losses told", peer, **self._round, losses=num_new)]

    def losses_so_far(self) -> list[Entry]:
        """Those that have no entry yet."""
        return [entry for peer in self._peers.values() for entry in self._losses_told(peer)]


def _entry(what: str, peer: Peer | None, **fields: Any) -> Entry:
    who = {"console": peer.name if peer else None, "console_id": peer.id if peer else None}
    return {"what": what, **who, **fields}


def _told_of(cards: Iterable[DatasetCard]) -> Entry:
    held = list(cards)
    has_counts = any(card.label_counts is not None for card in held)
    return {"cards": [card.name for card in held], "label_counts": has_counts}


def _refused(peer: Peer, command: Command, refused: Refused) -> Entry:
    found = {"command": command.__struct_config__.tag, "run": command.run}
    if isinstance(command, Prepare):
        found |= _of_prepare(command)
    elif isinstance(command, StartRound):
        found |= {"round": command.round}
    why = {"code": str(refused.code), "limit": refused.limit, "reason": refused.reason}
    return _entry("refused", peer, **found, **why)


def _of_prepare(command: Prepare) -> Entry:
    return {"dataset": command.dataset, "graphs_sha256": command.graphs.sha256}
