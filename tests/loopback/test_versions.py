"""A device that speaks another version of the protocol, seen from the desktop."""

from __future__ import annotations

import pytest

from fedconsole.dialling import console_hello, dial
from fedconsole.engine.connection import Connection, Listener
from fedconsole.engine.worker import Refusal
from pi_daemon.protocol.messages import Role
from tests.support.echo_daemon import EchoDaemon


@pytest.mark.parametrize(
    ("proto", "sentence"),
    [
        (9, "no common protocol version: 1-1 here, 9-9 there; update this side"),
        (2, "no common protocol version: 1-1 here, 2-2 there; update this side"),
    ],
)
async def test_no_common_version_is_said_in_words_on_both_sides(proto: int, sentence: str) -> None:
    device = EchoDaemon("kitchen", proto=proto)
    await device.start()
    async with dial(device.address) as websocket:
        connection = Connection(websocket, NOBODY)
        with pytest.raises(Refusal) as refused:
            await connection.greet(console_hello(Role.CONTROLLER))
    await device.kill()
    assert str(refused.value) == sentence
    assert device.closed == [(4406, sentence)]


def _unheard(*_: object) -> None:
    raise AssertionError("nothing is told after another version's hello")


NOBODY = Listener(
    status=_unheard,
    batches=_unheard,
    round_failed=_unheard,
    telemetry=_unheard,
    log=_unheard,
    update=_unheard,
    update_path=_unheard,  # type: ignore[arg-type]
)
