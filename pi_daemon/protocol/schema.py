"""Writes the JSON Schema of every message: `python -m pi_daemon.protocol.schema FILE`."""

from __future__ import annotations

import json
import sys
from typing import Any

import msgspec

from pi_daemon.protocol.messages import FromConsole, FromDaemon
from pi_daemon.protocol.pairing import Pair, Paired


def schemas() -> dict[str, Any]:
    """One JSON Schema (2020-12): `from_console` and `from_daemon` under `$defs`, and each message.

    Those of pairing are in neither.
    """
    (console, daemon, *_), components = msgspec.json.schema_components(
        (FromConsole, FromDaemon, Pair, Paired), ref_template="#/$defs/{name}"
    )
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "fedconsole.v1",
        "$defs": {"from_console": console, "from_daemon": daemon, **components},
    }


def text() -> str:
    """What the file holds."""
    return json.dumps(schemas(), indent=1, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    with open(sys.argv[1], "w", encoding="utf-8") as file:  # noqa: PTH123 (no pathlib in the protocol)
        file.write(text())
