"""Who could train how much in a round opened now, and when an epoch is over."""

from __future__ import annotations

from collections.abc import Mapping

from msgspec.structs import replace

from fedconsole.coordinator.plan import EpochEnd, Plan
from fedconsole.coordinator.state import Member, Part, PartStatus
from pi_daemon.protocol.messages import Cursor

Members = Mapping[str, Member]


def turns(plan: Plan, members: Members, epoch: int) -> dict[str, int]:
    """Batches for each connected worker that has some left; empty when the epoch is over.

    With a length in rounds there is no such end: cursors run on into the next epoch.
    """
    batches = {
        worker: _next_batches(plan, member, epoch)
        for worker, member in members.items()
        if member.can_train
    }
    if plan.epochs is not None and plan.epoch_end is EpochEnd.FIRST:
        if not all(batches.values()):
            return {}
        if plan.local_epochs is None:
            return dict.fromkeys(batches, min(batches.values(), default=0))
    return {worker: num_batches for worker, num_batches in batches.items() if num_batches}


def _next_batches(plan: Plan, member: Member, epoch: int) -> int:
    per_epoch = member.batches_per_epoch
    wanted = plan.federate_after_n_batches or (plan.local_epochs or 1) * per_epoch
    if plan.epochs is None:
        return wanted
    done = member.cursor.epoch * per_epoch + member.cursor.batch
    return min(wanted, max(0, _end(plan, plan.epochs, epoch) * per_epoch - done))


def _end(plan: Plan, epochs: int, epoch: int) -> int:
    """The epoch before which workers wait for each other."""
    return min(epoch + (plan.local_epochs or 1), epochs)


def make_part(member: Member, num_batches: int) -> Part:
    per_epoch = member.batches_per_epoch
    epochs, batch = divmod(member.cursor.batch + num_batches, per_epoch)
    next_cursor = Cursor(member.cursor.epoch + epochs, batch)
    return Part(cursor=member.cursor, num_batches=num_batches, next_cursor=next_cursor)


def move_cursors(members: Members, parts: Mapping[str, Part]) -> dict[str, Member]:
    """Past what was delivered; a worker whose update does not count trains the same again."""
    moved = dict(members)
    for worker, part in parts.items():
        if part.status is PartStatus.DELIVERED:
            moved[worker] = replace(moved[worker], cursor=part.next_cursor)
    return moved


def end_epoch(plan: Plan, members: Members, epoch: int) -> tuple[Members, int]:
    """The members and the number of complete epochs; all stand at its start if one has ended.

    Lost workers do not hold up an epoch; what they have left of it is dropped. With a length in
    rounds an epoch is complete when every connected worker has passed over its shard once more.
    """
    present = [member for member in members.values() if member.can_train]
    if not present:
        return members, epoch
    if plan.epochs is None:
        return members, max(epoch, min(member.cursor.epoch for member in present))
    if turns(plan, members, epoch):
        return members, epoch
    epoch = _end(plan, plan.epochs, epoch)
    start = Cursor(epoch, 0)
    return {worker: replace(member, cursor=start) for worker, member in members.items()}, epoch
