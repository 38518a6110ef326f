"""Whose run it is on an initialised device: it belongs to the key of the console that began it."""

from __future__ import annotations

from pathlib import Path

import pytest
from msgspec.structs import replace

from pi_daemon.protocol.messages import (
    DeviceState,
    Hello,
    Ok,
    RefusalCode,
    Refused,
    RenewLease,
    Status,
)
from pi_daemon.trust.keys import open_keys
from tests.support.daemons import owner_command
from tests.support.links import RawLink, console_hello, open_link
from tests.support.pairing import pair, paired_daemon
from tests.support.rounds import prepare, start_command, tiny_model, write_dataset

pytestmark = pytest.mark.asyncio

RUN = "20261122-a3f9"


def of_run(link: RawLink) -> RawLink:
    link.run = RUN
    return link


async def test_another_operator_cannot_take_a_run_over_by_its_name_and_a_higher_fence(
    tmp_path: Path,
) -> None:
    # Captured before a link is open: that takes longer here, now and then, than a link may be silent.
    model = tiny_model()
    data = write_dataset(tmp_path / "digits.npz")
    async with paired_daemon(tmp_path, "--dataset", f"digits={data}") as (running, desk):
        invitation = (await owner_command(running, "pair")).strip()
        keys = open_keys(tmp_path / "other")
        other = await pair(invitation, keys, "desk-2", from_address="127.0.0.2")
        async with open_link(running.port, fence=1, paired=desk) as link:
            await prepare(of_run(link))
            start = start_command(link, num_batches=3)
            assert await link.ask(start, model.content) == Ok(start.cmd_id)
            await link.expect(Status, lambda told: told.status.state is DeviceState.DELIVERING)

            renew = RenewLease(cmd_id=link.new_cmd_id(), run=RUN, fence=link.fence)
            assert await link.ask(renew) == Ok(renew.cmd_id)

        # Whatever it calls itself.
        hello = console_hello(name="desk-1")
        async with open_link(running.port, fence=2, hello=hello, paired=other) as link:
            reason = f"held by desk-1 for run {RUN}: abort that run, or wait for its end; "
            reason += "where its engine is gone that takes 15 s"
            refused = await of_run(link).take_lease()
            assert isinstance(refused, Refused)
            assert replace(refused, cmd_id="") == Refused("", RefusalCode.HELD, reason)

        async with open_link(running.port, fence=2, paired=desk) as later:
            assert isinstance(await of_run(later).take_lease(), Ok)
            update, _ = await later.update()
            assert (update.run, update.num_batches) == (RUN, 3)

        async with open_link(running.port, fence=3, paired=other) as link:
            assert isinstance(await of_run(link).take_lease(take_over=True, trains=False), Ok)
            told = await link.expect(Status)
            assert (told.status.holder, told.status.state) == ("desk-2", DeviceState.IDLE)
        async with open_link(running.port, fence=2, paired=desk) as late:
            [hello] = [said for said in late.seen if isinstance(said, Hello)]
            assert hello.status is not None
            assert hello.status.run is None
            stale = await of_run(late).take_lease()
            assert isinstance(stale, Refused)
            assert stale.code is RefusalCode.STALE_FENCE
