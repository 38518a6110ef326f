"""Who may steer the device: one controller at a time, and never one from before."""

from __future__ import annotations

from dataclasses import dataclass

from pi_daemon.protocol.limits import LEASE_S
from pi_daemon.protocol.messages import Command, Hello, RefusalCode, Refused, Role, TakeLease
from pi_daemon.refusals import is_viewer, refused


@dataclass(slots=True)
class _Holder:
    run: str
    fence: int
    name: str
    link: int | None
    """None after the link was lost."""
    expires_s: float


class Lease:
    """docs/protocol.md, "Leases". An expired lease only lets somebody else take over."""

    def __init__(self, fence: int, run: str) -> None:
        """The highest fence so far, and the run that brought it."""
        self.fence = fence
        self.run = run
        self._holder: _Holder | None = None

    @property
    def link(self) -> int | None:
        """The controller's link, if there is one."""
        return self._holder.link if self._holder else None

    def holder(self, now_s: float) -> str | None:
        """The console whose lease is valid now."""
        holder = self._holder
        return holder.name if holder and now_s < holder.expires_s else None

    def take(self, link: int, console: Hello, take: TakeLease, now_s: float) -> Refused | None:
        """Give the lease to this link, or say why not."""
        if console.role is not Role.CONTROLLER:
            return is_viewer(take)
        if (take.fence, take.run == self.run) < (self.fence, True):
            reason = f"fence {take.fence} is not above {self.fence}, the highest one here"
            return refused(take.cmd_id, RefusalCode.STALE_FENCE, reason)
        holder = self.holder(now_s)
        if holder is not None and take.run != self.run and not take.take_over:
            reason = f"held by {holder} for run {self.run}: abort that run, or wait for its end; "
            reason += f"where its engine is gone that takes {LEASE_S:g} s"
            return refused(take.cmd_id, RefusalCode.HELD, reason)
        self.fence, self.run = take.fence, take.run
        self._holder = _Holder(take.run, take.fence, console.name, link, now_s + LEASE_S)
        return None

    def renew(self, link: int, console: Hello, command: Command, now_s: float) -> Refused | None:
        """Renew the lease by a command, or say why this link may not give it."""
        if console.role is not Role.CONTROLLER:
            return is_viewer(command)
        if command.fence < self.fence:
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
