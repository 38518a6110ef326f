"""Whom the audit log of an initialised device names: consoles by their keys, strangers by their address."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from websockets.exceptions import ConnectionClosed

from pi_daemon.protocol.messages import Ok
from pi_daemon.trust.keys import open_keys
from pi_daemon.trust.tls import console_context
from tests.support.daemons import owner_command
from tests.support.links import console_hello, open_link
from tests.support.pairing import closing, open_socket, pair, paired_daemon


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
