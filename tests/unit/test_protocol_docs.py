"""The example frames of docs/protocol.md are the protocol's golden frames."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from pi_daemon.protocol.codec import Unknown, decode_from_console, decode_from_daemon, encode
from pi_daemon.protocol.messages import FromConsole, FromDaemon

DOCUMENT = Path(__file__).parents[2] / "docs" / "protocol.md"
FRAMES = re.findall(r"^```json\n(.+)\n```$", DOCUMENT.read_text(), flags=re.MULTILINE)


def tags(union: Any) -> set[str]:
    return {kind.__struct_config__.tag for kind in union.__args__}


def test_every_message_has_an_example() -> None:
    assert {json.loads(frame)["type"] for frame in FRAMES} == tags(FromConsole) | tags(FromDaemon)


@pytest.mark.parametrize("frame", FRAMES, ids=lambda frame: json.loads(frame)["type"])
def test_an_example_is_exactly_what_is_sent(frame: str) -> None:
    is_command = json.loads(frame)["type"] in tags(FromConsole)
    message = (decode_from_console if is_command else decode_from_daemon)(frame)
    assert not isinstance(message, Unknown)
    assert json.loads(encode(message)) == json.loads(frame)
