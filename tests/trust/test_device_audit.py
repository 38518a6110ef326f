"""Whom the audit log of an initialised device names: consoles by their keys, strangers by their address."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from websockets.exceptions import ConnectionClosed

from pi_daemon.protocol.messages import Abort, Batches, Ok, Role
from pi_daemon.trust.keys import open_keys
from pi_daemon.trust.tls import console_context
from tests.support.daemons import owner_command
from tests.support.links import console_hello, open_link
from tests.support.pairing import closing, open_socket, pair, paired_daemon
from tests.support.rounds import prepare, start_command, tiny_model, write_dataset


async def test_consoles_have_the_id_of_their_key_and_strangers_their_address(
    tmp_path: Path,
) -> None:
    async with paired_daemon(tmp_path) as (alice, desk):
        # What a console says of its name is not what it is called.
        hello = console_hello(name="somebody else")
        async with open_link(alice.port, paired=desk, hello=hello) as link:
            assert isinstance(await link.take_lease(trains=False), Ok)
        stranger = open_keys(tmp_path / "stranger")
        with pytest.raises(ConnectionClosed):
            await pair(alice.join, stranger, "stranger", from_address="127.0.0.9")
        nobody = console_context(None, [desk.device])
        async with open_socket(alice.port, nobody, from_address="127.0.0.8") as socket:
            await closing(socket)
        lines = [
            json.loads(line)
            for line in (await owner_command(alice, "audit", "--json")).splitlines()
        ]
    paired, opened, taken, closed, *refused = lines
    assert [line["what"] for line in (paired, opened, taken, closed)] == [
        "console paired",
        "link opened",
        "lease taken",
        "link closed",
    ]
    for line in (paired, opened, taken, closed):
        assert (line["console"], line["console_id"]) == ("desk-1", desk.keys.id)
    assert [(line["what"], line["address"], line["console"]) for line in refused] == [
        ("link refused", "127.0.0.9", None),
        ("link refused", "127.0.0.8", None),
    ]


async def test_losses_count_once_for_each_key_that_heard_them_and_viewers_are_named(
    tmp_path: Path,
) -> None:
    write_dataset(tmp_path / "digits.npz")
    model = tiny_model()
    data = ("--dataset", f"digits={tmp_path / 'digits.npz'}")
    async with paired_daemon(tmp_path, *data) as (alice, desk):
        join = (await owner_command(alice, "pair", "--viewer")).strip()
        join = join.replace(join.split(":")[1], "127.0.0.1", 1)
        tablet = await pair(join, open_keys(tmp_path / "t"), "tablet", from_address="127.0.0.7")
        viewer = console_hello(Role.VIEWER)
        async with (
            open_link(alice.port, paired=desk) as engine,
            open_link(alice.port, paired=desk, hello=viewer) as screen,
            open_link(alice.port, paired=tablet, hello=viewer) as looking,
        ):
            await prepare(engine)
            start = start_command(engine, num_batches=30)
            assert await engine.ask(start, model.content) == Ok(start.cmd_id)
            for link in (engine, screen, looking):
                await link.expect(Batches, lambda told: told.first + len(told.losses) == 30)
            await engine.update()
            abort = Abort(cmd_id=engine.new_cmd_id(), run=engine.run, fence=1, round=1)
            await engine.ask(abort)
        told = await owner_command(alice, "audit")
        lines = [
            json.loads(line)
            for line in (await owner_command(alice, "audit", "--json")).splitlines()
        ]
    heard = [line for line in lines if line["what"] == "losses told"]
    assert sorted((line["console"], line["losses"]) for line in heard) == [
        ("desk-1", 30),
        ("tablet", 30),
    ]
    assert told.strip().endswith("60 losses (once for each console that was told).")
