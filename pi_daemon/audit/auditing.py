"""Where the server tells what happens, for the audit log."""

from __future__ import annotations

import time
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from pi_daemon.audit.log import AuditLog
from pi_daemon.audit.recorder import Recorder
from pi_daemon.device.actions import Action
from pi_daemon.device.terms import Peer, peer_of
from pi_daemon.protocol.messages import Command, DatasetCard, Hello, StartRound
from pi_daemon.protocol.pairing import ConsoleRole
from pi_daemon.server.admission import address_of
from pi_daemon.server.link import Link
from pi_daemon.trainer.pipe import RoundTrained

_NOTE_EVERY_S: Final = 30.0
"""A power cut, or the end of the process, costs the losses of so long."""


class Audit:
    """Nothing here waits or raises."""

    def __init__(self, folder: Path) -> None:
        self.log = AuditLog(folder)
        self._recorder = Recorder()
        self._noted_s = 0.0
        """When the losses of a round under way had their last entry."""

    def opened(self, link: Link, hello: Hello, cards: Iterable[DatasetCard]) -> None:
        """`hello` is the console's; `cards` are those that it was told."""
        address = address_of(link.socket.transport)
        self.log.put(self._recorder.on_link_opened(link.number, peer_of(hello), address, cards))

    def turned_away(self, address: str, reason: str) -> None:
        self.log.put(self._recorder.on_link_refused(address, reason))

    def paired(self, console_id: str, name: str, role: ConsoleRole, address: str) -> None:
        self.log.put(self._recorder.on_paired(Peer(console_id, name, role), address))

    def closed(self, link: Link, reason: str) -> None:
        """Also a link that was never opened; one that the gate turns away has its line from there."""
        entries = self._recorder.on_link_closed(link.number, reason)
        if entries:
            self.log.put(entries)
        elif reason:
            self.turned_away(address_of(link.socket.transport), reason)

    def asked(self, link: Link, command: Command) -> None:
        self._recorder.on_command(link.number, command)

    def done(self, action: Action) -> None:
        """Call before it is carried out."""
        self.log.put(self._recorder.on_action(action))
        if (now_s := time.monotonic()) - self._noted_s > _NOTE_EVERY_S:
            self._noted_s = now_s
            self.log.put(self._recorder.losses_so_far())

    def trained(self, start: StartRound, trained: RoundTrained) -> None:
        self.log.put(self._recorder.on_trained(start, trained))
