"""The example frames of docs/protocol.md are the protocol's golden frames."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from pi_daemon.protocol.codec import Unknown, decode_from_console, decode_from_daemon, encode
from pi_daemon.protocol.messages import FromConsole, FromDaemon
from pi_daemon.protocol.pairing import decode_pair, decode_paired

DOCUMENT = Path(__file__).parents[2] / "docs" / "protocol.md"
FRAMES = re.findall(r"^```json\n(.+)\n```$", DOCUMENT.read_text(), flags=re.MULTILINE)
PAIRING: dict[str, Callable[[str], Any]] = {"pair": decode_pair, "paired": decode_paired}


def tags(union: Any) -> set[str]:
    return {kind.__struct_config__.tag for kind in union.__args__}


def test_every_message_has_an_example() -> None:
    assert {json.loads(frame)["type"] for frame in FRAMES} == (
        tags(FromConsole) | tags(FromDaemon) | PAIRING.keys()
    )


@pytest.mark.parametrize("frame", FRAMES, ids=lambda frame: json.loads(frame)["type"])
def test_an_example_is_exactly_what_is_sent(frame: str) -> None:
    kind = json.loads(frame)["type"]
    if kind in PAIRING:
        assert json.loads(msgspec.json.encode(PAIRING[kind](frame))) == json.loads(frame)
        return
    is_command = kind in tags(FromConsole)
    message = (decode_from_console if is_command else decode_from_daemon)(frame)
    assert not isinstance(message, Unknown)
    assert json.loads(encode(message)) == json.loads(frame)
