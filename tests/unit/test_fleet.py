from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from websockets.asyncio.server import ServerConnection, serve
from websockets.typing import Subprotocol

from fedconsole.errors import UsageError
from fedconsole.fleet.device import Device, Source, parse_address
from fedconsole.fleet.finding import MAX_PLACES, merge
from fedconsole.fleet.viewer import greet, greet_all
from fedconsole.trust.known_devices import KnownDevice
from pi_daemon.protocol.codec import decode_from_console, encode
from pi_daemon.protocol.limits import SUBPROTOCOL
from pi_daemon.protocol.messages import DeviceState, DeviceStatus, Hello, Role
from pi_daemon.protocol.pairing import ConsoleRole
from tests.support.places import redirect

ALICE_ID = "LOEWQ3QVZ5YVM6AAAAAAAAAAAAAAAAAA"
HELLO = Hello(
    proto=1,
    min_proto=1,
    id=ALICE_ID,
    name="alice",
    boot_id="b1",
    build="test",
    status=DeviceStatus(DeviceState.IDLE, highest_fence=0),
)


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    return redirect(tmp_path, monkeypatch)


@asynccontextmanager
async def device_that_says(*frames: str | bytes) -> AsyncIterator[tuple[Device, list[object]]]:
    """A real websocket at which a device's part is read from a script."""
    heard: list[object] = []

    async def play(link: ServerConnection) -> None:
        for frame in frames:
            await link.send(frame)
        async for frame in link:
            heard.append(decode_from_console(frame))  # noqa: PERF401, for those of a broken link

    async with serve(play, "127.0.0.1", 0, subprotocols=[Subprotocol(SUBPROTOCOL)]) as server:
        port = next(iter(server.sockets)).getsockname()[1]
        yield Device("?", f"127.0.0.1:{port}", Source.CONFIG), heard


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("kitchen.local", "kitchen.local:10002"),
        (" 10.0.0.2:9 ", "10.0.0.2:9"),
        ("fe80::1", "[fe80::1]:10002"),
        ("[fe80::1%eth0]", "[fe80::1%eth0]:10002"),
        ("[fe80::1]:9", "[fe80::1]:9"),
        ("[10.0.0.2]:9", "10.0.0.2:9"),
    ],
)
def test_addresses_get_their_port_and_brackets(text: str, address: str) -> None:
    assert parse_address(text) == address
    assert parse_address(address) == address


@pytest.mark.parametrize(
    "text",
    ["", ":9", "a:0", "a:65536", "a:b", "a b", "ws://a", "a/b", "u@a", "a:²", "[a]b", ":::", "''"],
)
def test_what_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="is no address; expected HOST:PORT"):
        parse_address(text)


def test_a_device_known_from_several_sources_appears_once_the_best_address_first() -> None:
    local = Device("alice", "127.0.0.1:9", Source.LOCAL, ALICE_ID)
    announced = Device("alice", "10.0.0.2:9", Source.MDNS, ALICE_ID[:16])
    same_address = Device("kitchen", "127.0.0.1:9", Source.CONFIG)
    old = Device("bob", "10.0.0.3:9", Source.CONFIG, "BOB")
    assert merge([local, announced, same_address, old]) == [local, old]


def test_a_device_found_twice_keeps_other_devices_off_its_other_address() -> None:
    local = Device("alice", "127.0.0.1:9", Source.LOCAL, ALICE_ID)
    announced = Device("alice", "10.0.0.2:9", Source.MDNS, ALICE_ID[:16])
    by_hand = Device("10.0.0.2", "10.0.0.2:9", Source.CONFIG)
    assert merge([local, announced, by_hand]) == [local]


def known(*addresses: str) -> KnownDevice:
    return KnownDevice(
        id=ALICE_ID,
        name="alice",
        role=ConsoleRole.OPERATOR,
        paired_at="2026-01-01T00:00:00+00:00",
        certificate="",
        addresses=addresses,
    )


def test_a_paired_device_is_one_with_all_places_where_it_may_be_the_most_trusted_first() -> None:
    hints = [
        Device("alice", "127.0.0.1:9", Source.LOCAL, ALICE_ID),
        Device("\x1b[2J", "10.0.0.66:9", Source.MDNS, ALICE_ID[:16]),
        Device("by hand", "10.0.0.3:9", Source.CONFIG),
    ]
    places = ("127.0.0.1:9", "10.0.0.2:9", "10.0.0.3:9", "10.0.0.66:9")
    merged = merge(hints, [known("10.0.0.2:9", "10.0.0.3:9")])
    assert [(device.name, device.places, device.is_paired) for device in merged] == [
        ("alice", places, True)
    ]
    assert merge([], [known("10.0.0.2:9")]) == [
        Device("alice", "10.0.0.2:9", Source.KNOWN, ALICE_ID, is_paired=True)
    ]


def test_another_device_at_the_address_of_a_paired_one_is_not_hidden_by_it() -> None:
    other = Device("bob", "10.0.0.2:9", Source.MDNS, "B" * 16)
    merged = merge([other], [known("10.0.0.2:9")])
    assert [(device.name, device.is_paired) for device in merged] == [
        ("alice", True),
        ("bob", False),
    ]


def test_however_many_places_are_announced_so_many_are_tried() -> None:
    forged = [Device("x", f"10.0.1.{n}:9", Source.MDNS, ALICE_ID[:16]) for n in range(99)]
    [alice] = merge(forged, [known("10.0.0.2:9")])
    assert (alice.address, len(alice.places)) == ("10.0.0.2:9", MAX_PLACES)


async def test_a_viewer_takes_the_hello_tells_its_role_and_leaves() -> None:
    async with device_that_says(encode(HELLO)) as (device, heard):
        greeting = await greet(device)
    assert (greeting.device, greeting.hello, greeting.reason) == (device, HELLO, "")
    assert greeting.ping_s is not None
    assert greeting.ping_s > 0
    (ours,) = heard
    assert isinstance(ours, Hello)
    assert ours.role is Role.VIEWER


async def test_devices_are_greeted_in_order() -> None:
    hostile = Hello(proto=1, min_proto=1, id="B", name="\x1b[2Jbob", boot_id="b", build="t")
    async with (
        device_that_says(encode(HELLO)) as (alice, _),
        device_that_says(encode(hostile)) as (bob, _),
    ):
        silent = Device("gone", "127.0.0.1:1", Source.CONFIG, "G")
        greetings = await greet_all([alice, silent, bob])
    assert [greeting.hello for greeting in greetings] == [HELLO, None, hostile]


@pytest.mark.parametrize(
    ("frame", "reason"),
    [
        ("no json", "no pi-daemon answers there: not a JSON message"),
        (b"\x00\x01", "no pi-daemon answers there: not a JSON message"),
        ('{"type": "heartbeat"}', "its first message is Unknown, expected hello"),
        (
            encode(Hello(proto=9, min_proto=8, id="A", name="a", boot_id="b", build="t")),
            "no common protocol version: 1-1 here, 8-9 there; update this side",
        ),
    ],
)
async def test_a_device_that_speaks_otherwise_is_no_greeting(
    frame: str | bytes, reason: str
) -> None:
    async with device_that_says(frame) as (device, _):
        greeting = await greet(device)
    assert greeting.hello is None
    assert greeting.reason.startswith(reason)


async def test_a_device_that_says_too_much_at_once_is_told_by_its_size() -> None:
    async with device_that_says(bytes(2 << 20)) as (device, _):
        greeting = await greet(device)
    reason = (
        "the device broke the protocol: frame with 2097152 bytes exceeds limit of 1048576 bytes"
    )
    assert greeting.reason == reason


async def test_another_device_at_a_known_address_is_not_taken_for_it() -> None:
    async with device_that_says(encode(HELLO)) as (device, _):
        greeting = await greet(Device("bob", device.address, Source.CONFIG, "BOB"))
    assert greeting.reason == f"another device answers: {ALICE_ID}, not BOB"


async def test_a_silent_device_costs_the_time_limit_and_no_more() -> None:
    async with device_that_says() as (device, _):
        begun = asyncio.get_running_loop().time()
        greeting = await greet(device, timeout_s=0.2)
        assert asyncio.get_running_loop().time() - begun < 3
    assert greeting.reason == "no answer within 0.2 s; is it on, and in this network?"


async def test_a_closed_port_is_told_with_its_reason() -> None:
    greeting = await greet(Device("x", "127.0.0.1:1", Source.CONFIG))
    assert greeting.reason == "connection refused; is pi-daemon running there?"
