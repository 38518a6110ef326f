"""Inputs for a target that hypothesis makes: seeds with a few edits, of bytes and of JSON."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from random import Random
from typing import Any, Final

from hypothesis import strategies as st

from tests.fuzz.targets import MAX_INPUT_BYTES

NUMBERS: Final = (0, 1, -1, 255, 2**31, 2**53, 2**63 - 1, 2**63, 2**64, 10**40, 1e308, -0.0, 0.5)
SCALARS: Final = st.one_of(
    st.none(),
    st.booleans(),
    st.sampled_from(NUMBERS),
    st.integers(),
    st.text(max_size=20),
    st.sampled_from(["", "\ud800", "\x1b[2J", "a" * 200, "F32", "node", "x", "y", "inf"]),
)
JSON: Final = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=6,
)
LITERALS: Final = (b"1e999", b"NaN", b"9" * 5_000, b"[" * 3_000, b'"\xff"', b"\0" * 16)
"""What JSON libraries stumble over, and its writer would not write."""


WORDS: Final = (
    b"\0",
    b"\xff",
    b"-",
    b"9",
    b"0",
    b"e",
    b'"',
    b"{",
    b"[",
    b",",
    b":",
    b"\n",
    b"null",
)


def inputs(seeds: list[bytes]) -> st.SearchStrategy[bytes]:
    """Bytes out of nothing, and damaged seeds."""
    made = [st.binary(max_size=300), _edited(st.sampled_from(seeds))]
    documents = [document for document in map(_document, seeds) if document is not None]
    if documents:
        made += [_edited_json(documents), _edited(_edited_json(documents))]
    return st.one_of(made).map(lambda content: content[:MAX_INPUT_BYTES])


def variants(content: bytes, count: int) -> Iterator[bytes]:
    """The content, and as many damaged ones: a hundred times cheaper than what hypothesis draws."""
    yield content
    random = Random(content)
    for _ in range(count):
        damaged = bytearray(content)
        for _ in range(random.randint(1, 4)):
            begin = random.randint(0, len(damaged))
            end = begin + random.choice((0, 1, 1, 2, 4, 8))
            size = random.choice((0, 1, 1, 2, 4, 8))
            damaged[begin:end] = random.choice((random.randbytes(size), *WORDS))
        yield bytes(damaged[:MAX_INPUT_BYTES])


@st.composite
def _edited(draw: st.DrawFn, bases: st.SearchStrategy[bytes]) -> bytes:
    content = bytearray(draw(bases))
    for _ in range(draw(st.integers(1, 6))):
        begin = draw(st.integers(0, len(content)))
        end = min(len(content), begin + draw(st.sampled_from([0, 1, 2, 4, 8, 50])))
        match draw(st.integers(0, 4)):
            case 0:
                content[begin:end] = draw(st.binary(max_size=8))
            case 1:
                content[begin:end] = content[begin:end] * 3
            case 2:
                size = draw(st.sampled_from([1, 2, 4, 8]))
                number = draw(st.integers(0, 2 ** (8 * size) - 1))
                is_big = draw(st.booleans())
                content[begin:end] = number.to_bytes(size, "big" if is_big else "little")
            case 3:
                content[begin:end] = draw(st.sampled_from(LITERALS))
            case 4:
                del content[begin:]
    return bytes(content)


def _document(content: bytes) -> tuple[Any, Callable[[Any], bytes]] | None:
    """The JSON in a seed, with what makes a seed of JSON again; a tensor file holds its header's."""
    if len(content) > 8 and 8 + int.from_bytes(content[:8], "little") <= len(content):
        size = int.from_bytes(content[:8], "little")
        rest = content[8 + size :]

        def wrap(document: Any) -> bytes:
            text = _json(document)
            return len(text).to_bytes(8, "little") + text + rest

        return _parsed(content[8 : 8 + size], wrap)
    return _parsed(content, _json)


def _parsed(text: bytes, wrap: Callable[[Any], bytes]) -> tuple[Any, Callable[[Any], bytes]] | None:
    try:
        return json.loads(text), wrap
    except (ValueError, RecursionError):  # a seed may be nested deeper than Python reads
        return None


def _json(document: Any) -> bytes:
    return json.dumps(document, separators=(",", ":")).encode()


@st.composite
def _edited_json(draw: st.DrawFn, documents: list[tuple[Any, Callable[[Any], bytes]]]) -> bytes:
    document, wrap = draw(st.sampled_from(documents))
    document = json.loads(json.dumps(document))
    for _ in range(draw(st.integers(1, 3))):
        places = list(_places(document))
        if not places:
            break
        holder, key = draw(st.sampled_from(places))
        match draw(st.integers(0, 3)):
            case 0:
                holder[key] = draw(JSON)
            case 1:
                del holder[key]
            case 2:
                other, other_key = draw(st.sampled_from(places))
                with_copy = json.dumps(other.get(other_key) if isinstance(other, dict) else other)
                holder[key] = json.loads(with_copy)
            case 3 if isinstance(holder, list):
                holder[key : key + 1] = [holder[key]] * draw(st.integers(2, 5))
            case _:
                holder[key] = [holder[key]]
    return wrap(document)


def _places(document: Any) -> Iterator[tuple[Any, Any]]:
    """Every value within, as its holder and its key there."""
    keys: Any = ()
    if isinstance(document, dict):
        keys = list(document)
    elif isinstance(document, list):
        keys = range(len(document))
    for key in keys:
        yield document, key
        yield from _places(document[key])
