"""Reads the table of a safetensors file and names a model by its content.

Layout of the file: the header's length (8 bytes, little-endian), the header (JSON: name -> dtype,
shape, offsets), then the tensors' bytes, little-endian and contiguous, without gaps.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from typing import Final

import msgspec

from pi_daemon.protocol.errors import UNREADABLE, TensorError
from pi_daemon.protocol.limits import MAX_DIMENSIONS, MAX_TENSOR_HEADER_BYTES, MAX_TENSORS

DTYPE_BYTES: Final[Mapping[str, int]] = {
    "BOOL": 1,
    "U8": 1,
    "I8": 1,
    "I16": 2,
    "I32": 4,
    "I64": 8,
    "F16": 2,
    "BF16": 2,
    "F32": 4,
    "F64": 8,
}
"""The dtypes that may travel, by their safetensors codes."""


class TensorSpec(msgspec.Struct, frozen=True):
    """What a tensor is, without its values."""

    dtype: str
    """A key of `DTYPE_BYTES`."""
    shape: tuple[int, ...]

    @property
    def num_values(self) -> int:
        return math.prod(self.shape)

    @property
    def num_bytes(self) -> int:
        return self.num_values * DTYPE_BYTES[self.dtype]


class TensorTable(msgspec.Struct, frozen=True):
    """Where each tensor of a file lies."""

    start: int
    """First byte after the header."""
    specs: dict[str, TensorSpec]
    """In the order in which they lie there."""
    offsets: dict[str, tuple[int, int]]
    """First byte, and the one after the last, counted from the start of the file."""


class _Entry(msgspec.Struct):
    dtype: str
    shape: list[int]
    data_offsets: tuple[int, int]


_header_decoder = msgspec.json.Decoder(dict[str, msgspec.Raw])
_entry_decoder = msgspec.json.Decoder(_Entry)


def read_table(data: bytes | memoryview, size: int | None = None) -> TensorTable:
    """Read and check the header of a safetensors file, without touching the tensors.

    Args:
        data: the whole file, or its start with all of the header.
        size: of the whole file in bytes, if `data` is only its start.

    Raises:
        TensorError: truncated, trailing, overlapping or missing bytes, an unknown dtype, a header
            or a number of tensors over the limit.
    """
    if size is None:
        size = len(data)
    if size < 8:
        raise TensorError(f"tensor file of {size} bytes has no header")
    header_size = int.from_bytes(data[:8], "little")
    if header_size > min(MAX_TENSOR_HEADER_BYTES, size - 8):
        raise TensorError(f"tensor header of {header_size} bytes in a file of {size}")
    try:
        raw = _header_decoder.decode(data[8 : 8 + header_size])
        raw.pop("__metadata__", None)
        if len(raw) > MAX_TENSORS:
            raise TensorError(f"{len(raw)} tensors, at most {MAX_TENSORS} allowed")
        entries = {name: _entry_decoder.decode(entry) for name, entry in raw.items()}
    except UNREADABLE as error:
        raise TensorError(f"tensor header is malformed: {error}") from error

    specs: dict[str, TensorSpec] = {}
    offsets: dict[str, tuple[int, int]] = {}
    start, expected = 8 + header_size, 0
    for name, entry in sorted(entries.items(), key=lambda item: item[1].data_offsets):
        specs[name] = spec = _spec(name, entry)
        begin, end = entry.data_offsets
        if begin != expected or end - begin != spec.num_bytes:
            raise TensorError(
                f"tensor {name!r} lies at bytes {begin} to {end}, expected {expected}"
            )
        offsets[name] = (start + begin, start + end)
        expected = end
    if start + expected != size:
        raise TensorError(f"tensor file of {size} bytes, {start + expected} expected")
    return TensorTable(start, specs, offsets)


def write_header(specs: Mapping[str, TensorSpec]) -> bytes:
    """What comes before the tensors in a safetensors file that holds them in the order of `specs`."""
    header: dict[str, object] = {}
    begin = 0
    for name, spec in specs.items():
        end = begin + spec.num_bytes
        offsets = [begin, end]
        header[name] = {"dtype": spec.dtype, "shape": list(spec.shape), "data_offsets": offsets}
        begin = end
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # tensors start aligned, as the library writes them
    return len(text).to_bytes(8, "little") + text


def _spec(name: str, entry: _Entry) -> TensorSpec:
    if entry.dtype not in DTYPE_BYTES:
        raise TensorError(f"tensor {name!r} has dtype {entry.dtype!r}, which does not travel")
    if len(entry.shape) > MAX_DIMENSIONS or any(size < 0 for size in entry.shape):
        raise TensorError(f"tensor {name!r} has the impossible shape {entry.shape}")
    return TensorSpec(entry.dtype, tuple(entry.shape))


def require_specs(found: Mapping[str, TensorSpec], expected: Mapping[str, TensorSpec]) -> None:
    """Check names, dtypes and shapes against what a model must have.

    Raises:
        TensorError: names the first difference.
    """
    if missing := sorted(expected.keys() - found.keys()):
        raise TensorError(f"tensor {missing[0]!r} is missing ({len(missing)} in all)")
    if extra := sorted(found.keys() - expected.keys()):
        raise TensorError(f"tensor {extra[0]!r} does not belong to the model ({len(extra)} in all)")
    for name, spec in expected.items():
        if found[name] != spec:
            raise TensorError(
                f"tensor {name!r} is {found[name].dtype} {list(found[name].shape)}, "
                f"expected {spec.dtype} {list(spec.shape)}"
            )


def model_id(data: bytes | memoryview, table: TensorTable) -> str:
    """The content's name: SHA-256 in hexadecimal digits.

    Over the tensors sorted by name (by Unicode code points), each as name, dtype, shape and bytes,
    each of these followed by a NUL; the shape as JSON without spaces. docs/protocol.md, "Model id".
    """
    view = memoryview(data)
    digest = hashlib.sha256()
    for name in sorted(table.specs):
        digest.update(id_prefix(name, table.specs[name]))
        begin, end = table.offsets[name]
        digest.update(view[begin:end])
        digest.update(b"\0")
    return digest.hexdigest()


def id_prefix(name: str, spec: TensorSpec) -> bytes:
    """What precedes a tensor's bytes in the model id; a NUL follows them."""
    shape = json.dumps(list(spec.shape), separators=(",", ":"))
    return f"{name}\0{spec.dtype}\0{shape}\0".encode()
