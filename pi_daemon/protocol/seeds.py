"""Derives every seed of a run from the one that the operator gave."""

from __future__ import annotations

import hashlib
import json


def derive_seed(*parts: str | int) -> int:
    """A seed in [0, 2**63) that depends on each part and on their order.

    SHA-256 of the parts as a JSON array without spaces; the first eight bytes, big-endian, without
    the sign bit. docs/protocol.md, "Seeds".
    """
    text = json.dumps(parts, ensure_ascii=False, separators=(",", ":"))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1
