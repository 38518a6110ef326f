"""A device with little room on its disk: it says so before a model comes, and can always be steered."""

from __future__ import annotations

from pathlib import Path

from msgspec.structs import replace

from pi_daemon.device.receiving import SPARE_BYTES
from pi_daemon.protocol.codec import chunk_frames
from pi_daemon.protocol.limits import CLOSE_CANNOT_STORE
from pi_daemon.protocol.messages import Ok
from tests.support.daemons import daemon
from tests.support.disks import full, small_disk
from tests.support.links import open_link
from tests.support.rounds import prepare, start_command, tiny_model, write_dataset

ROOM_BYTES = 8 << 20


async def test_a_model_that_would_leave_too_little_room_is_refused_before_it_comes(
    tmp_path: Path,
) -> None:
    digits = write_dataset(tmp_path / "digits.npz")
    tiny_model()
    with small_disk(tmp_path / "disk", SPARE_BYTES + ROOM_BYTES) as disk:
        async with daemon(disk, "--dataset", f"digits={digits}") as alice:
            async with open_link(alice.port) as link:
                await prepare(link)
                await link.send(replace(start_command(link), model=link.blob(bytes(ROOM_BYTES))))
                await link.socket.wait_closed()
                assert link.socket.close_code == CLOSE_CANNOT_STORE
                said = link.socket.close_reason or ""
                assert "cannot store this: [Errno 28] No space left on device: free " in said
            async with open_link(alice.port, fence=2) as link:
                await prepare(link)
                start = start_command(link)
                assert await link.ask(start, tiny_model().content) == Ok(start.cmd_id)


async def test_a_run_that_left_no_room_does_not_keep_the_next_console_out(tmp_path: Path) -> None:
    digits = write_dataset(tmp_path / "digits.npz")
    tiny_model()
    with small_disk(tmp_path / "disk", SPARE_BYTES + ROOM_BYTES) as disk:
        async with (
            daemon(disk, "--dataset", f"digits={digits}") as alice,
            open_link(alice.port) as link,
        ):
            await prepare(link)
            content = bytes(ROOM_BYTES // 2)
            blob = link.blob(content)
            await link.send(replace(start_command(link), model=blob))
            for frame in list(chunk_frames(blob.transfer, content))[:-1]:
                await link.socket.send(frame)
            with full(disk):
                async with open_link(alice.port, fence=2) as other:
                    assert isinstance(await other.take_lease(take_over=True), Ok)
                assert list((alice.state_dir / "work").iterdir()) == []
