"""What the network says of devices is a hint: forged, in floods and full of garbage, it moves nothing."""

from __future__ import annotations

import asyncio
import gc
import json
import socket
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import psutil
import pytest
from zeroconf import (
    DNSAddress,
    DNSOutgoing,
    DNSPointer,
    DNSService,
    DNSText,
    ServiceInfo,
    const,
)
from zeroconf.asyncio import AsyncZeroconf

from fedconsole.cli.main import carry_out
from fedconsole.fleet import mdns
from fedconsole.fleet.finding import find
from fedconsole.fleet.inventory import MAX_DEVICES, Hindrance, Inventory, Presence
from fedconsole.fleet.viewer import greet
from fedconsole.fleet.watching import Watcher
from fedconsole.trust import pairing
from pi_daemon.discovery import SERVICE
from pi_daemon.protocol.text import clean
from pi_daemon.trust.join import parse_join
from tests.support.console import paired, presence_of, record_of, until, watched
from tests.support.daemons import daemon
from tests.support.places import redirect
from tests.support.strangers import of_version_8, stranger

NUM_FAKES = 5_000
NUM_REMEMBERED = 1_000
"""So many zeroconf keeps, with all that belongs to them."""
NUM_GARBAGE = 120
LISTEN_S = 4.0
MAX_GROWTH_BYTES = 48 << 20
"""zeroconf keeps what it has heard while it listens; it goes with it."""


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    return redirect(tmp_path, monkeypatch)


@pytest.fixture
async def multicast() -> None:
    try:
        await mdns.browse(0)
    except OSError as error:
        pytest.skip(f"this machine has no multicast: {error}")


@asynccontextmanager
async def announced(device_id: str, address: str, name: str = "alice") -> AsyncIterator[None]:
    """Somebody says that a device is there."""
    host, port = address.split(":")
    info = ServiceInfo(
        SERVICE,
        f"{name}-{port}.{SERVICE}",
        port=int(port),
        addresses=[socket.inet_aton(host)],
        server=f"forged-{name}-{port}.local.",
        properties={"v": "1", "id": device_id[:16], "pair": "1", "nm": name},
    )
    zeroconf = AsyncZeroconf(interfaces=["127.0.0.1"])
    try:
        await (await zeroconf.async_register_service(info))
        yield
    finally:
        await zeroconf.async_close()


def garbage(number: int) -> bytes:
    """The text record of a fake: no keys, no values, escapes, broken UTF-8, ids that are none."""
    kinds = (
        b"",
        b"\x00",
        b"\xff" * 40,
        b"\x05id=\xff\xfe\x0enm=\x1b[2J\x1b]0;x\x07\xe2",
        b"\x20id=" + b"../../../../etc/passwd\x00AAAAAA",
        b"\x13id=" + b"A" * 16 + b"\x01=",
    )
    return kinds[number % len(kinds)]


def flood(num_services: int) -> Iterator[bytes]:
    """Answers that nobody asked for, a service in each."""
    for number in range(num_services):
        name, server = f"fake-{number}.{SERVICE}", f"fake-{number}.local."
        out = DNSOutgoing(const._FLAGS_QR_RESPONSE | const._FLAGS_AA)
        ttl, unique = 4500, const._CLASS_IN | const._CLASS_UNIQUE
        address = socket.inet_aton(f"10.{number >> 16 & 255}.{number >> 8 & 255}.{number & 255}")
        for record in (
            DNSPointer(SERVICE, const._TYPE_PTR, const._CLASS_IN, ttl, name),
            DNSService(name, const._TYPE_SRV, unique, ttl, 0, 0, 10002, server),
            DNSText(name, const._TYPE_TXT, unique, ttl, garbage(number)),
            DNSAddress(server, const._TYPE_A, unique, ttl, address),
        ):
            out.add_answer_at_time(record, 0)
        yield from out.packets()


async def send_flood(num_services: int) -> None:
    """To all that listen on loopback, in portions that their sockets can hold."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        sender.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, socket.inet_aton("127.0.0.1"))
        for number, packet in enumerate(flood(num_services)):
            sender.sendto(packet, ("224.0.0.251", 5353))
            if number % 50 == 0:
                await asyncio.sleep(0.01)


async def test_the_garbage_that_fakes_announce_is_cleaned(multicast: None) -> None:
    """Cases 22 and 24."""
    flooding = asyncio.get_running_loop().create_task(send_flood(NUM_GARBAGE))
    found = await mdns.browse(LISTEN_S)
    await flooding
    fakes = [device for device in found if device.address.startswith("10.0.")]
    assert len(fakes) == NUM_GARBAGE
    assert all(clean(device.name, 64) == device.name for device in fakes)
    assert {device.device_id for device in fakes} == {None, "A" * 16}


async def test_a_flood_of_fakes_takes_a_bounded_room_and_time(multicast: None) -> None:
    """Case 24. zeroconf forgets the first when it has heard of thousands."""
    process = psutil.Process()
    sizes = []
    for _ in range(3):
        flooding = asyncio.get_running_loop().create_task(send_flood(NUM_FAKES))
        found = await mdns.browse(LISTEN_S)
        await flooding
        gc.collect()
        sizes.append(process.memory_info().rss)
        assert len(found) <= mdns.MAX_ANNOUNCED < MAX_DEVICES
    # The second flood and the third find the room that the first one took.
    assert sizes[2] - sizes[0] < MAX_GROWTH_BYTES, sizes


async def test_the_fleet_shows_so_many_fakes_and_says_that_there_are_more(
    multicast: None,
) -> None:
    inventory = Inventory()
    watcher = Watcher(inventory, (), LISTEN_S, time.monotonic)
    watching = asyncio.get_running_loop().create_task(watcher.run())
    flooding = asyncio.get_running_loop().create_task(send_flood(NUM_REMEMBERED))
    try:
        async with asyncio.timeout(60):
            while Hindrance.TOO_MANY not in inventory.hindrances:  # noqa: ASYNC110
                await asyncio.sleep(0.1)
    finally:
        for task in (watching, flooding):
            task.cancel()
        await asyncio.gather(watching, flooding, return_exceptions=True)
    assert len(inventory.records) <= mdns.MAX_ANNOUNCED
    # None of them was dialled: nobody is paired.
    assert all(r.is_refused or not r.reason for r in inventory.records.values())


async def test_a_known_device_that_is_announced_elsewhere_is_found_where_it_is(
    multicast: None, place: Path
) -> None:
    """Case 25. The forged word of it is no alarm, and its author is told nothing."""
    async with (
        daemon(place, "--host", "127.0.0.1", "--pair") as running,
        stranger(place) as attacker,
    ):
        alice = await pairing.pair(parse_join(running.join))
        async with announced(alice.id, attacker.address):
            # Other devices may be in this network, too.
            [device] = [d for d in await find((), LISTEN_S) if d.device_id == alice.id]
            assert device.places == (alice.addresses[0], attacker.address)
            greeting = await greet(device)
        assert greeting.hello is not None
        assert (greeting.hello.id, greeting.device.address) == (alice.id, alice.addresses[0])
        assert bytes(attacker.heard) == b""


async def test_a_certificate_that_cannot_be_read_spoils_the_row_alone_of_who_is_announced_with_it(
    multicast: None,
    place: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("FEDCONSOLE_SEARCH_SECONDS", str(LISTEN_S))
    async with (
        paired(place) as (_, alice),
        stranger(place, shows=of_version_8) as bad,
        stranger(place, shows=of_version_8) as worse,
    ):
        async with paired(place, name="bob") as (_, bob):
            pass
        async with (
            announced(bob.id, bad.address, "bob"),
            announced("C" * 16, worse.address, "carol"),
        ):
            assert await asyncio.to_thread(carry_out, ["devices", "-o", "json"]) == 0
            rows = {row["name"]: row for row in json.loads(capsys.readouterr().out)}
            inventory = Inventory()
            async with watched(inventory, search_s=LISTEN_S):
                await until(lambda: presence_of(inventory, "alice") is Presence.ONLINE)
                await until(lambda: "cannot be read" in record_of(inventory, "bob").reason)
                await until(lambda: record_of(inventory, "carol").reason != "")
        assert bytes(bad.heard) == bytes(worse.heard) == b""
    assert (rows["alice"]["state"], rows["alice"]["id"]) == ("idle", alice.id)
    assert (rows["bob"]["state"], rows["carol"]["state"]) == ("offline", "offline")
    assert rows["bob"]["reason"]
    assert rows["carol"]["reason"]
