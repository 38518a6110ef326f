"""What a real daemon does with the data that it is dealt, good and bad."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from msgspec.structs import replace
from safetensors.numpy import save
from websockets.exceptions import ConnectionClosed

from fedconsole.fleet import dealing
from fedconsole.fleet.shards import Shard
from pi_daemon.protocol.codec import chunk_frames
from pi_daemon.protocol.limits import CHUNK_BYTES
from pi_daemon.protocol.messages import (
    DataOffset,
    DatasetCard,
    Datasets,
    DataStored,
    Hello,
    OfferData,
    Ok,
    Pause,
    Prepared,
    PutData,
    RefusalCode,
    Refused,
    RenewLease,
    Role,
)
from tests.loopback.test_daemon_cli import ended
from tests.support.daemons import daemon
from tests.support.disks import small_disk
from tests.support.links import RawLink, console_hello, open_link
from tests.support.rounds import prepare_command, start_command, tiny_model, write_dataset
from tests.unit.test_data_store import offer_of

HELD = "digits.safetensors"


def digits(num_examples: int = 480, seed: int = 1) -> bytes:
    x = np.random.default_rng(seed).integers(0, 17, (num_examples, 8, 8), dtype=np.uint8)
    return save({"x": x, "y": np.arange(num_examples) % 10})


def offer(link: RawLink, content: bytes, name: str = "digits", **changes: Any) -> OfferData:
    command = offer_of(content, name, **changes)
    return replace(command, cmd_id=link.new_cmd_id(), run=link.run, fence=link.fence)


def put(link: RawLink, command: OfferData, content: bytes, offset: int = 0) -> PutData:
    return PutData(
        cmd_id=link.new_cmd_id(),
        run=link.run,
        fence=link.fence,
        sha256=command.sha256,
        offset=offset,
        rest=link.blob(content[offset:]),
    )


async def deal(link: RawLink, content: bytes, **changes: Any) -> DatasetCard:
    await link.take_lease(take_over=True, trains=False)
    offered = offer(link, content, **changes)
    assert await link.ask(offered) == DataOffset(offered.cmd_id, 0)
    stored = await link.ask(put(link, offered, content), content)
    assert isinstance(stored, DataStored), stored
    return stored.card


def cards_of(hello: Any) -> tuple[DatasetCard, ...]:
    assert isinstance(hello, Hello)
    return hello.datasets


async def test_dealt_data_is_told_trained_on_and_there_after_a_restart(tmp_path: Path) -> None:
    options = ("--accept-data", str(tmp_path / "data"), "--share-labels", "--shard", "1/2")
    async with daemon(tmp_path, *options) as alice:
        async with (
            open_link(alice.port) as link,
            open_link(alice.port, fence=2, hello=console_hello(Role.VIEWER)) as viewer,
        ):
            card = await deal(link, digits())
            assert card.label_counts == (48,) * 10
            assert (await viewer.expect(Datasets)).datasets == (card,)
            graphs = tiny_model().graphs
            assert isinstance(await link.ask(prepare_command(link), graphs), Prepared)
            assert isinstance(await link.ask(start_command(link), tiny_model().content), Ok)
            update, _ = await link.update()
            # Of all 480 examples less the holdout: dealt data is no further cut by --shard.
            assert update.cursor.epoch == 30 // (384 // 16)
        async with open_link(alice.port, fence=3) as late:
            assert cards_of(late.seen[0]) == (card,)
        alice.process.kill()
        await alice.process.wait()
    async with daemon(tmp_path, *options) as again, open_link(again.port) as link:
        assert cards_of(link.seen[0]) == (card,)


async def test_a_daemon_takes_no_data_unless_its_owner_says_so(tmp_path: Path) -> None:
    async with daemon(tmp_path) as alice, open_link(alice.port) as link:
        hello = link.seen[0]
        assert isinstance(hello, Hello)
        assert hello.capabilities is not None
        assert hello.capabilities.max_data_bytes == 0
        await link.take_lease(trains=False)
        refused = await link.ask(offer(link, digits()))
        assert isinstance(refused, Refused)
        assert refused.code is RefusalCode.NOT_ALLOWED


async def test_a_device_in_a_round_is_not_dealt_to(tmp_path: Path) -> None:
    data = write_dataset(tmp_path / "own.npz")
    options = ("--dataset", f"digits={data}", "--accept-data", str(tmp_path / "data"))
    async with daemon(tmp_path, *options) as alice, open_link(alice.port) as link:
        await link.take_lease()
        await link.ask(prepare_command(link), tiny_model().graphs)
        start = start_command(link, num_batches=1_000_000)
        assert isinstance(await link.ask(start, tiny_model().content), Ok)
        # Paused, as nobody reads this link meanwhile.
        pause = Pause(cmd_id=link.new_cmd_id(), run=link.run, fence=link.fence, round=1)
        assert isinstance(await link.ask(pause), Ok)
        shard = Shard(data, 1, "a" * 64, 1)
        address = f"127.0.0.1:{alice.port}"
        assert await dealing.deal(
            address, "other", shard, replace=False, on_progress=lambda _: None
        ) == dealing.Dealt(
            dealing.Outcome.REFUSED,
            reason=f"it is paused for {link.run}: wait for its end, or abort it",
        )
        async with open_link(alice.port, fence=2) as dealer:
            held = await dealer.take_lease()
        assert isinstance(held, Refused)
        assert held.code is RefusalCode.HELD
        refused = await link.ask(offer(link, digits(), "other"))
        assert isinstance(refused, Refused)
        assert refused.code is RefusalCode.WRONG_STATE


async def test_a_file_that_is_no_dataset_is_deleted_and_the_good_one_stays(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    good, bad = digits(), save({"x": np.zeros((3, 8, 8), np.uint8), "y": np.array([0, -1, 2])})
    async with (
        daemon(tmp_path, "--accept-data", str(folder)) as alice,
        open_link(alice.port) as link,
    ):
        card = await deal(link, good)
        offered = offer(link, bad, replace=True)
        await link.ask(offered)
        refused = await link.ask(put(link, offered, bad), bad)
        assert isinstance(refused, Refused)
        assert (refused.code, refused.reason) == (
            RefusalCode.BAD_DATA,
            "dataset digits: y holds -1 to 2: expected class numbers from 0 to 1023",
        )
        assert [path.name for path in folder.iterdir()] == [HELD]
        assert (folder / HELD).read_bytes() == good
        again = offer(link, good)
        assert await link.ask(again) == DataOffset(again.cmd_id, len(good), card)
        # Others are dealt to it as before.
        assert (await deal(link, digits(seed=2), replace=True)).sha256 != card.sha256


async def test_samples_that_no_card_can_tell_of_do_not_end_the_daemon(tmp_path: Path) -> None:
    """Their card would be no card in the protocol: what describes them must say so."""
    bad = save({"x": np.zeros((3, *[1] * 13), np.uint8), "y": np.arange(3)})
    async with (
        daemon(tmp_path, "--accept-data", str(tmp_path / "data")) as alice,
        open_link(alice.port) as link,
    ):
        await link.take_lease(trains=False)
        offered = offer(link, bad)
        await link.ask(offered)
        refused = await link.ask(put(link, offered, bad), bad)
        assert isinstance(refused, Refused)
        assert refused.code is RefusalCode.BAD_DATA
        await deal(link, digits())


@pytest.mark.parametrize("name", ["../up", ".hidden", "a/b", "", "x\n", "x" * 65, "ü"])
async def test_a_name_that_is_no_file_name_closes_the_link(tmp_path: Path, name: str) -> None:
    async with (
        daemon(tmp_path, "--accept-data", str(tmp_path / "data")) as alice,
        open_link(alice.port) as link,
    ):
        await link.take_lease(trains=False)
        with pytest.raises(ConnectionClosed) as closed:
            await link.ask(offer(link, digits(), name))
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code == 4400
        assert closed.value.rcvd.reason.startswith("data.offer: Expected `str` matching regex")


async def test_more_than_the_owner_allows_is_refused_before_it_comes(tmp_path: Path) -> None:
    content = digits(4_000)
    async with (
        daemon(tmp_path, "--accept-data", str(tmp_path / "data"), "--max-bytes", "100K") as alice,
        open_link(alice.port) as link,
    ):
        await link.take_lease(trains=False)
        refused = await link.ask(offer(link, content))
        assert isinstance(refused, Refused)
        assert (refused.code, refused.reason) == (
            RefusalCode.TOO_LARGE,
            f"{len(content)} bytes beside the 0 that were dealt before are over the owner's limit "
            "of 102400 (--max-bytes)",
        )
        assert list((tmp_path / "data").iterdir()) == []


async def test_a_link_that_takes_the_transfer_over_is_the_only_one_that_writes(
    tmp_path: Path,
) -> None:
    content = digits(20_000)
    noise = content[:CHUNK_BYTES] + bytes(len(content) - CHUNK_BYTES)
    async with (
        daemon(tmp_path, "--accept-data", str(tmp_path / "data")) as alice,
        open_link(alice.port) as old,
        open_link(alice.port, fence=2) as new,
    ):
        await old.take_lease(trains=False)
        offered = offer(old, content)
        await old.ask(offered)
        command = replace(put(old, offered, content), rest=old.blob(noise))
        await old.send(command)
        first, *others = chunk_frames(command.rest.transfer, noise)
        await old.socket.send(first)
        await answered(old)
        new.run = old.run
        await new.take_lease(trains=False)
        again = offer(new, content)
        assert await new.ask(again) == DataOffset(again.cmd_id, CHUNK_BYTES)
        rest = put(new, again, content, CHUNK_BYTES)
        await new.send(rest)
        *frames, last = chunk_frames(rest.rest.transfer, content[CHUNK_BYTES:])
        for frame in frames:
            await new.socket.send(frame)
        await answered(new)
        for frame in others:
            await old.socket.send(frame)
        await answered(old)
        await new.socket.send(last)
        assert isinstance(await new.answer_to(rest.cmd_id), DataStored)
        assert (tmp_path / "data" / HELD).read_bytes() == content


async def answered(link: RawLink) -> None:
    """All that was sent on this link so far has been taken."""
    await link.ask(RenewLease(cmd_id=link.new_cmd_id(), run=link.run, fence=link.fence))


async def test_a_disk_that_fills_up_in_mid_transfer_keeps_what_was_good(tmp_path: Path) -> None:
    good, content = digits(), digits(100_000)
    with small_disk(tmp_path / "disk", 80 << 20) as disk:
        async with daemon(tmp_path, "--accept-data", str(disk)) as alice:
            async with open_link(alice.port) as link:
                card = await deal(link, good)
                offered = offer(link, content, replace=True)
                assert isinstance(await link.ask(offered), DataOffset)
                ballast = disk / "ballast"
                with ballast.open("wb") as file:
                    os.posix_fallocate(file.fileno(), 0, _free_bytes(disk) - 2 * CHUNK_BYTES)
                with pytest.raises(ConnectionClosed) as closed:
                    await link.ask(put(link, offered, content), content)
                assert closed.value.rcvd is not None
                assert (closed.value.rcvd.code, closed.value.rcvd.reason) == (
                    4507,
                    "the device cannot store this: [Errno 28] No space left on device",
                )
            assert sorted(path.name for path in disk.iterdir()) == ["ballast", HELD]
            async with open_link(alice.port, fence=2) as link:
                assert cards_of(link.seen[0]) == (card,)
                await link.take_lease(take_over=True, trains=False)
                refused = await link.ask(offer(link, content, replace=True))
                assert isinstance(refused, Refused)
                assert refused.code is RefusalCode.NO_ROOM
                ballast.unlink()
                await deal(link, content, replace=True)


def _free_bytes(folder: Path) -> int:
    disk = os.statvfs(folder)
    return disk.f_bavail * disk.f_frsize


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--max-bytes", "1G"), "it needs --accept-data DIR"),
        (("--accept-data", "{data}", "--dataset", "tiny=sample"), "--dataset tiny: "),
        (("--accept-data", "{data}", "--max-bytes", "much"), "--max-bytes much: expected a size"),
        (("--accept-data", "/proc/nothing"), "/proc/nothing cannot be used ("),
    ],
    ids=["no folder", "clash", "size", "folder"],
)
async def test_an_owner_that_contradicts_itself_is_told_in_one_line(
    tmp_path: Path, options: tuple[str, ...], said: str
) -> None:
    data = tmp_path / "data"
    data.mkdir()
    (data / "tiny.safetensors").write_bytes(digits())
    state = ("--port", "0", "--no-mdns", "--state-dir", str(tmp_path / "state"))
    code, stderr = await ended(tmp_path, *state, *(o.format(data=data) for o in options))
    [line] = stderr.splitlines()
    assert code == 3
    assert said in line


async def test_a_killed_daemon_goes_on_with_the_part(tmp_path: Path) -> None:
    content = digits(20_000)
    options = ("--accept-data", str(tmp_path / "data"))
    async with daemon(tmp_path, *options) as alice, open_link(alice.port) as link:
        await link.take_lease(trains=False)
        offered = offer(link, content)
        await link.ask(offered)
        command = put(link, offered, content)
        await link.send(command)
        frames = list(chunk_frames(command.rest.transfer, content))
        for frame in frames[:3]:
            await link.socket.send(frame)
        part = tmp_path / "data" / f".{offered.sha256}.safetensors"
        async with asyncio.timeout(10):
            while not part.exists() or part.stat().st_size < 3 * CHUNK_BYTES:
                await (await link.socket.ping())
        alice.process.kill()
        await alice.process.wait()
    async with daemon(tmp_path, *options) as again, open_link(again.port, fence=2) as link:
        assert cards_of(link.seen[0]) == ()
        await link.take_lease(trains=False)
        offered = offer(link, content)
        assert await link.ask(offered) == DataOffset(offered.cmd_id, 3 * CHUNK_BYTES)
        command = put(link, offered, content, 3 * CHUNK_BYTES)
        stored = await link.ask(command, content[3 * CHUNK_BYTES :])
        assert isinstance(stored, DataStored)
        assert (tmp_path / "data" / HELD).read_bytes() == content
