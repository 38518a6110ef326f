"""Who may steer the device: one controller at a time, and never one from before."""

from __future__ import annotations

from dataclasses import dataclass

from pi_daemon.device.actions import Fence
from pi_daemon.device.refusals import is_viewer, refused
from pi_daemon.protocol.limits import LEASE_S, MAX_FENCE_STEP
from pi_daemon.protocol.messages import Command, Hello, RefusalCode, Refused, Role, TakeLease


@dataclass(slots=True)
class _Holder:
    run: str
    fence: int
    name: str
    link: int | None
    """None after the link was lost."""
    expires_s: float


class Lease:
    """docs/protocol.md, section 5. An expired lease only lets somebody else take over."""

    def __init__(self, highest: Fence) -> None:
        self.highest = highest
        self._holder: _Holder | None = None

    @property
    def link(self) -> int | None:
        """The controller's link, if there is one."""
        return self._holder.link if self._holder else None

    def holder(self, now_s: float) -> str | None:
        """The console whose lease is valid now."""
        holder = self._holder
        return holder.name if holder and now_s < holder.expires_s else None

    def is_of(self, run: str, key: str) -> bool:
        """Whether what the device holds is of this run of this console, whose key has this id."""
        return (run, key) == (self.highest.run, self.highest.console)

    def take(
        self, link: int, console: Hello, key: str, take: TakeLease, now_s: float
    ) -> Refused | None:
        """Give the lease to this link of the console whose key has this id, or say why not."""
        if console.role is not Role.CONTROLLER:
            return is_viewer(take)
        is_same, highest = self.is_of(take.run, key), self.highest.fence
        if (take.fence, is_same) < (highest, True):
            reason = f"fence {take.fence} is not above {highest}, the highest one here"
            return refused(take.cmd_id, RefusalCode.STALE_FENCE, reason)
        if take.fence > highest + MAX_FENCE_STEP:
            reason = f"fence {take.fence} is more than {MAX_FENCE_STEP} above {highest}, the highest one here"
            return refused(take.cmd_id, RefusalCode.STALE_FENCE, reason)
        holder = self.holder(now_s)
        if holder is not None and not is_same and not take.take_over:
            reason = f"held by {holder} for run {self.highest.run}: abort that run, or wait for its end; "
            reason += f"where its engine is gone that takes {LEASE_S:g} s"
            return refused(take.cmd_id, RefusalCode.HELD, reason)
        self.highest = Fence(take.fence, take.run, key)
        self._holder = _Holder(take.run, take.fence, console.name, link, now_s + LEASE_S)
        return None

    def renew(self, link: int, console: Hello, command: Command, now_s: float) -> Refused | None:
        """Renew the lease by a command, or say why this link may not give it."""
        if console.role is not Role.CONTROLLER:
            return is_viewer(command)
        if command.fence < self.highest.fence:
            reason = f"fence {command.fence} is over: another console has had this device since"
            return refused(command.cmd_id, RefusalCode.STALE_FENCE, reason)
        holder = self._holder
        if holder is None or (link, command.run, command.fence) != (
            holder.link,
            holder.run,
            holder.fence,
        ):
            reason = "this link does not hold the lease: take it first"
            return refused(command.cmd_id, RefusalCode.NOT_CONTROLLER, reason)
        holder.expires_s = now_s + LEASE_S
        return None

    def release(self) -> None:
        self._holder = None

    def lose(self, link: int) -> None:
        """The link is gone; its lease lasts until it expires or is taken."""
        if self._holder is not None and self._holder.link == link:
            self._holder.link = None
