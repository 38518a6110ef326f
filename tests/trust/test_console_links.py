"""Whom a console speaks with, against real daemons and whoever takes their place."""

from __future__ import annotations

import asyncio
import json
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
from msgspec.structs import replace

from fedconsole import paths
from fedconsole.cli.main import carry_out
from fedconsole.dialling import console_hello, dial, exchange_hellos
from fedconsole.errors import DamagedDeviceError, IdentityChangedError, NotPairedError
from fedconsole.fleet.device import Device, Source
from fedconsole.fleet.inventory import Hindrance, Inventory, Presence
from fedconsole.fleet.viewer import greet
from fedconsole.link_failures import in_words
from fedconsole.trust import known_devices, pairing
from fedconsole.trust.known_devices import KnownDevice
from fedconsole.trust.own_keys import own_keys
from pi_daemon.protocol.messages import Role
from pi_daemon.trust.join import parse_join
from tests.support.console import (
    LOOPBACK,
    answered_by,
    end,
    listener_beyond_loopback,
    on_this_port,
    paired,
    presence_of,
    record_named,
    record_of,
    run_on,
    until,
    watched,
    why_not,
)
from tests.support.daemons import daemon, owner_command
from tests.support.places import redirect
from tests.support.strangers import of_version_8, shy_stranger, stranger

pytestmark = pytest.mark.timeout(400)


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    return redirect(tmp_path, monkeypatch)


# Who may answer


async def test_a_paired_device_proves_its_key_with_and_without_being_named(place: Path) -> None:
    async with paired(place) as (running, alice):
        address = f"127.0.0.1:{running.port}"
        assert await answered_by(address) == alice.id
        assert await answered_by(address, alice.id[:16]) == alice.id


async def test_a_device_that_is_not_paired_is_refused_before_any_connection() -> None:
    with listener_beyond_loopback() as (listening, address):
        error = await why_not(address)
        assert isinstance(error, NotPairedError)
        assert "is not paired with this console: run pi-daemon pair there, then" in str(error)
        with pytest.raises(BlockingIOError):
            listening.accept()


async def test_a_device_that_is_not_paired_is_refused_though_another_is(place: Path) -> None:
    with listener_beyond_loopback() as (listening, address):
        async with paired(place):
            assert isinstance(await why_not(address, "Z" * 52), NotPairedError)
            with pytest.raises(BlockingIOError):
                listening.accept()


async def test_what_is_not_initialised_is_reached_on_this_machine_without_any_key(
    place: Path,
) -> None:
    async with daemon(place) as running:
        async with dial(f"127.0.0.1:{running.port}") as link:
            assert (await exchange_hellos(link, console_hello(Role.VIEWER))).name == "alice"
            assert link.device_id is None
        assert not (place / "d" / "fedconsole").exists(), "no key was made"


async def test_a_revoked_console_is_told_so_with_and_without_a_restart(place: Path) -> None:
    async with paired(place) as (running, alice):
        address = alice.addresses[0]
        await running.revoke(own_keys().id)
        error = await why_not(address)
        assert isinstance(error, NotPairedError)
        assert str(error) == "this console was revoked: pair anew"
        await end(running)
        async with daemon(place, *on_this_port(running)):
            error = await why_not(address)
            assert isinstance(error, NotPairedError)
            assert "this console is not paired there, or was revoked: pair it again" in str(error)


async def test_a_console_that_may_only_look_is_told_so_when_it_would_steer(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    async with daemon(place, *LOOPBACK, "--pair", "--dataset", "digits=sample") as running:
        join = (await owner_command(running, "pair", "--viewer")).strip()
        assert await asyncio.to_thread(carry_out, ["pair", join]) == 0
        [alice] = known_devices.load().all
        hint = capsys.readouterr().out.strip().partition("next: fedconsole ")[2]
        assert hint == f"devices show {alice.short_id}"
        assert await asyncio.to_thread(carry_out, hint.split()) == 0
        assert await answered_by(alice.addresses[0]) == alice.id
        exit_code, said = await run_on(alice.addresses[0])
        assert exit_code == 4
        assert "this console may only look: pair it as operator to steer" in said


# Who answers in a device's place


async def test_a_changed_key_is_refused_loudly_until_the_device_is_forgotten(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Case 29."""
    async with paired(place) as (running, alice):
        await end(running)
        (running.state_dir / "key.pem").unlink()
        async with daemon(place, *on_this_port(running), "--pair") as changed:
            new_id = parse_join(changed.join).device_id
            address = alice.addresses[0]
            for device_id in (None, alice.id):
                error = await why_not(address, device_id)
                assert isinstance(error, IdentityChangedError)
                assert (error.known_id, error.found_id) == (alice.id, new_id)
            capsys.readouterr()
            assert await asyncio.to_thread(carry_out, ["devices", "-o", "json"]) == 4
            [row] = json.loads(capsys.readouterr().out)
            assert (row["trust"], row["state"]) == ("IDENTITY CHANGED", "offline")
            assert alice.id in row["reason"]
            assert new_id in row["reason"]
            exit_code, said = await run_on(address)
            assert exit_code == 4
            assert "IDENTITY CHANGED" in said
            known_devices.forget(alice.id)
            await pairing.pair(parse_join(changed.join))
            assert await answered_by(address) == new_id


async def test_an_impostor_of_the_same_name_at_the_same_address_is_told_nothing(
    place: Path,
) -> None:
    """Case 28. It would take whatever comes, with a key of its own."""
    async with paired(place) as (running, alice):
        await end(running)
        async with stranger(place, port=running.port) as impostor:
            error = await why_not(alice.addresses[0])
            assert impostor.keys is not None
            assert isinstance(error, IdentityChangedError)
            assert error.found_id == impostor.keys.id
            assert bytes(impostor.heard) == b""


async def test_a_certificate_that_cannot_be_read_is_another_key(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    async with paired(place) as (running, alice):
        await end(running)
        address = alice.addresses[0]
        inventory = Inventory()
        async with stranger(place, port=running.port, shows=of_version_8) as impostor:
            for device_id in (None, alice.id):
                error = await why_not(address, device_id)
                assert isinstance(error, IdentityChangedError)
                assert (error.known_id, error.found_id) == (alice.id, "")
            assert await asyncio.to_thread(carry_out, ["devices"]) == 4
            assert "IDENTITY CHANGED" in capsys.readouterr().out
            async with watched(inventory):
                await until(lambda: presence_of(inventory, "alice") is Presence.CHANGED)
            exit_code, said = await run_on(address)
            assert exit_code == 4
            assert "one whose certificate cannot be read answers there" in said
            assert bytes(impostor.heard) == b""
        async with stranger(place, shows=of_version_8) as elsewhere:
            error = await why_not(elsewhere.address, alice.id)
            assert in_words(error) == (
                f"another device answers at {elsewhere.address}: its certificate cannot be read"
            )


@pytest.mark.parametrize("begins", [True, False])
async def test_an_impostor_cannot_hide_the_key_that_it_has_shown_by_hanging_up(
    place: Path, begins: bool
) -> None:
    async with paired(place) as (running, alice):
        await end(running)
        address = alice.addresses[0]
        async with shy_stranger(place, running.port, begins) as impostor:
            errors = [await why_not(address), await why_not(address)]
            shown = errors[0 if begins else 1]
            assert impostor.keys is not None
            assert isinstance(shown, IdentityChangedError)
            assert shown.found_id == impostor.keys.id
            exit_code, said = await run_on(address)
            assert exit_code == 4
            assert "IDENTITY CHANGED" in said
            assert bytes(impostor.heard) == b""


async def test_a_stranger_of_the_same_name_does_not_hide_that_the_key_has_changed(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    async with paired(place) as (running, alice):
        await end(running)
        async with stranger(place, port=running.port) as impostor, stranger(place) as elsewhere:
            assert impostor.keys is not None
            config = place / "c" / "fedconsole" / "config.toml"
            config.parent.mkdir()
            for port in (impostor.port, elsewhere.port):
                with config.open("a") as file:
                    file.write('[[devices]]\nname = "alice"\nhost = "127.0.0.1"\n')
                    file.write(f'port = {port}\nid = "{impostor.keys.id}"\n')
            for words in (["show", "alice"], ["ping", "alice"], ["show", alice.addresses[0]]):
                assert await asyncio.to_thread(carry_out, ["devices", *words]) == 4
                said = capsys.readouterr().err
                assert said.startswith(f"fedconsole: IDENTITY CHANGED: {alice.addresses[0]}")
                assert impostor.keys.id in said
            assert await asyncio.to_thread(carry_out, ["devices", "-o", "json"]) == 4
            rows = json.loads(capsys.readouterr().out)
            by_id = {row["id"]: row["trust"] for row in rows}
            assert by_id == {alice.id: "IDENTITY CHANGED", impostor.keys.id: "not paired"}
            # The stranger is known first, and by a name that comes first.
            known_devices.forget(alice.id)
            hint = Device("aaa", impostor.address, Source.MDNS, impostor.keys.id[:16])
            inventory = Inventory()
            async with watched(inventory, hint):
                await until(lambda: record_named(inventory, "aaa") is not None)
                known_devices.remember(alice)
                await until(lambda: presence_of(inventory, "alice") is Presence.CHANGED)
                assert record_of(inventory, "alice").key == impostor.address
                assert record_named(inventory, "aaa") is None
            assert bytes(impostor.heard) == bytes(elsewhere.heard) == b""


async def test_a_device_with_as_many_consoles_as_it_serves_says_so(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    async with paired(place) as (_, alice), AsyncExitStack() as links:
        others = [
            await links.enter_async_context(dial(alice.addresses[0], alice.id)) for _ in range(8)
        ]
        for link in others:
            await exchange_hellos(link, console_hello(Role.VIEWER))
        inventory = Inventory()
        async with watched(inventory):
            await until(lambda: presence_of(inventory, "alice") is Presence.FULL)
            assert record_of(inventory, "alice").reason == "8 consoles are connected already"
            capsys.readouterr()
            assert await asyncio.to_thread(carry_out, ["devices", "-o", "json"]) == 0
            (row,) = json.loads(capsys.readouterr().out)
            assert (row["state"], row["reason"]) == (
                "links full",
                "8 consoles are connected already",
            )
            await others[0].close()
            await until(lambda: presence_of(inventory, "alice") is Presence.ONLINE)


async def test_two_paired_devices_that_answered_at_one_address_have_a_row_each(
    place: Path,
) -> None:
    async with paired(place) as (running, alice):
        await end(running)
        async with paired(place, "--port", str(running.port), name="bob") as (_, bob):
            assert bob.addresses == alice.addresses
            inventory = Inventory()
            async with watched(inventory):
                await until(lambda: presence_of(inventory, "bob") is Presence.ONLINE)
                assert presence_of(inventory, "alice") is not Presence.ONLINE


async def test_another_paired_device_at_the_old_address_is_no_alarm(place: Path) -> None:
    async with paired(place) as (running, alice), paired(place, name="bob") as (other, bob):
        await end(running)
        await end(other)
        async with (
            daemon(place, *on_this_port(running), name="bob"),
            daemon(place, *LOOPBACK, name="alice") as moved,
        ):
            assert await answered_by(alice.addresses[0]) == bob.id
            error = await why_not(alice.addresses[0], alice.id)
            assert not isinstance(error, NotPairedError)
            assert f"another device answers at {alice.addresses[0]}: bob" in in_words(error)
            place_now = f"127.0.0.1:{moved.port}"
            device = Device(
                "alice", alice.addresses[0], Source.KNOWN, alice.id, (place_now,), is_paired=True
            )
            greeting = await greet(device)
            assert greeting.hello is not None
            assert (greeting.device.address, greeting.hello.id) == (place_now, alice.id)


async def test_a_device_that_has_moved_is_told_where_it_is(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    elsewhere = place / "e"
    elsewhere.mkdir(mode=0o700)
    # So that this machine's registry does not say where it is.
    under = ("env", f"XDG_RUNTIME_DIR={elsewhere}")
    async with daemon(place, *LOOPBACK, "--pair", under=under) as running:
        alice = await pairing.pair(parse_join(running.join))
        [now] = alice.addresses
        known_devices.met(alice.id, "127.0.0.1:1")
        assert await asyncio.to_thread(carry_out, ["discover", "-o", "csv"]) == 0
        head, row = capsys.readouterr().out.splitlines()
        assert head == "name,address,trust,device_id,source,others"
        assert row == f"alice,127.0.0.1:1,paired,{alice.id},paired,{now}"
        assert await asyncio.to_thread(carry_out, ["devices", "ping", "alice"]) == 0
        pings = capsys.readouterr().out.splitlines()
        assert {line.rpartition(": ")[0] for line in pings} == {f"alice at {now}"}


async def test_a_known_device_announced_at_an_attackers_address_is_found_where_it_is(
    place: Path,
) -> None:
    """Case 25, for the list, the fleet and a run. The hint stands in the configuration here."""
    async with (
        paired(place, "--dataset", "digits=sample") as (_, alice),
        stranger(place) as attacker,
    ):
        forged = Device("alice", attacker.address, Source.CONFIG, alice.id[:16])
        error = await why_not(attacker.address, alice.id[:16])
        assert not isinstance(error, IdentityChangedError), "nobody was known there"
        assert f"another device answers at {attacker.address}" in in_words(error)
        known_devices.forget(alice.id)
        known_devices.remember(
            KnownDevice(
                id=alice.id,
                name="alice",
                role=alice.role,
                paired_at=alice.paired_at,
                certificate=alice.certificate,
                addresses=("127.0.0.1:1", *alice.addresses),
            )
        )
        inventory = Inventory()
        async with watched(inventory, forged):
            await until(lambda: presence_of(inventory, "alice") is Presence.ONLINE)
            [record] = inventory.records.values()
            assert record.place == alice.addresses[0]
        assert bytes(attacker.heard) == b""


async def test_the_fleet_marks_what_has_changed_and_what_is_not_paired_and_sees_new_pairings(
    place: Path,
) -> None:
    inventory = Inventory()
    async with (
        paired(place) as (running, alice),
        daemon(place, *LOOPBACK, "--pair", name="bob") as bob,
    ):
        join = parse_join(bob.join)
        hint = Device("bob", f"127.0.0.1:{bob.port}", Source.MDNS, join.device_id[:16])
        async with watched(inventory, hint):
            await until(lambda: presence_of(inventory, "alice") is Presence.ONLINE)
            await end(running)
            async with stranger(place, port=running.port):
                await until(lambda: presence_of(inventory, "alice") is Presence.CHANGED)
                record = record_of(inventory, "alice")
                assert record.impostor is not None
                assert record.impostor.known_id == alice.id
                assert "IDENTITY CHANGED" in record.reason
            async with daemon(place, *on_this_port(running)):
                await until(lambda: presence_of(inventory, "alice") is Presence.ONLINE)
            await pairing.pair(join)
            # Its link may come about before the next search tells that it is paired.
            await until(lambda: record_of(inventory, "bob").device.is_paired)
            await until(lambda: presence_of(inventory, "bob") is Presence.ONLINE)
            known_devices.forget(join.device_id)
            await until(lambda: not record_of(inventory, "bob").device.is_paired)


async def test_a_run_finds_a_worker_that_moved_while_somebody_else_has_its_address(
    place: Path,
) -> None:
    """It is named by its old address; where it is now stands in what this console knows."""
    async with paired(place, "--dataset", "digits=sample") as (running, alice):
        old = alice.addresses[0]
        await end(running)
        async with (
            stranger(place, port=running.port),
            daemon(place, *LOOPBACK, "--dataset", "digits=sample") as moved,
        ):
            known_devices.met(alice.id, f"127.0.0.1:{moved.port}")
            known_devices.met(alice.id, old)
            assert (await run_on(old))[0] == 0


async def test_damaged_files_are_named_and_keep_no_other_device_from_being_used(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    async with paired(place, "--dataset", "digits=sample") as (_, alice):
        address = alice.addresses[0]
        folder = paths.known_devices_dir()
        unreadable = folder / f"{'B' * 52}.json"
        unreadable.write_text("{")
        # Its key is alice's, its name and id are not.
        known_devices.remember(
            replace(alice, id="C" * 52, name="carol", addresses=("127.0.0.1:1",))
        )
        other = folder / f"{'C' * 52}.json"

        assert await answered_by(address) == await answered_by(address, alice.id) == alice.id
        assert (await run_on(address))[0] == 0
        for path in (unreadable, other):
            for place_of_it in (address, "127.0.0.1:1", "10.0.0.9:9"):
                error = await why_not(place_of_it, path.stem)
                assert isinstance(error, DamagedDeviceError)
                assert f"{path} is damaged: delete it" in str(error)

        capsys.readouterr()
        assert await asyncio.to_thread(carry_out, ["devices", "-o", "json"]) == 0
        out, err = capsys.readouterr()
        rows = {row["name"]: row for row in json.loads(out)}
        assert (rows["alice"]["state"], rows["carol"]["state"]) == ("idle", "offline")
        assert str(other) in rows["carol"]["reason"]
        assert str(unreadable) in err

        await asyncio.to_thread(carry_out, ["doctor", "-o", "json"])
        checks = {row["check"]: row for row in json.loads(capsys.readouterr().out)}
        said = checks["paired devices"]
        assert (said["result"], said["found"]) == ("bad", "alice, 2 damaged")
        assert str(unreadable) in said["fix"]
        assert str(other) in said["fix"]

        inventory = Inventory()
        async with watched(inventory):
            await until(lambda: presence_of(inventory, "alice") is Presence.ONLINE)
            await until(lambda: str(other) in record_of(inventory, "carol").reason)
            await until(
                lambda: str(unreadable) in inventory.hindrances.get(Hindrance.DAMAGED_DEVICE, "")
            )
            unreadable.unlink()
            await until(lambda: Hindrance.DAMAGED_DEVICE not in inventory.hindrances)
