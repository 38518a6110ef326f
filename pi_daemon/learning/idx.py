"""Reads IDX files, the format of MNIST: a magic number, big-endian sizes, then the elements."""

from __future__ import annotations

import gzip
import math
import struct
import zlib
from pathlib import Path
from typing import Any, BinaryIO, Final

import numpy as np
from numpy.typing import NDArray

_DTYPES = {0x08: ">u1", 0x09: ">i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}
DEFLATE_MAX_RATIO: Final = 1032
"""Bytes that one compressed byte can become at most."""
_MAX_DIMENSIONS: Final = 8


class IdxError(ValueError):
    """A file that is not there, not IDX, or damaged."""


def read_idx(path: Path) -> NDArray[Any]:
    """The array in a file, gzipped if its name ends in `.gz`, in the machine's byte order.

    The memory taken is bounded by the file's size, whatever its header claims.

    Raises:
        IdxError: the file is missing, no IDX file, too short or too long.
    """
    try:
        num_bytes = path.stat().st_size
        if path.suffix == ".gz":
            with gzip.open(path) as file:
                return _read(file, path, num_bytes * DEFLATE_MAX_RATIO)
        with path.open("rb") as file:
            return _read(file, path, num_bytes)
    except (OSError, EOFError, zlib.error) as error:
        raise IdxError(f"{path} cannot be read: {error}") from error


def read_idx_pair(folder: Path, part: str) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Images and labels of a part of MNIST, `train` or `t10k`, gzipped or not.

    Raises:
        IdxError: a file is missing or damaged, or they do not belong together.
    """
    images = read_idx(_find(folder, f"{part}-images-idx3-ubyte"))
    labels = read_idx(_find(folder, f"{part}-labels-idx1-ubyte"))
    if images.ndim != 3 or images.dtype != np.uint8 or labels.shape != images.shape[:1]:
        raise IdxError(
            f"{folder} holds {part} images {images.dtype}{images.shape} and labels {labels.shape}: "
            "expected uint8 (n, rows, columns) and (n,)"
        )
    return images, labels.astype(np.int64)


def _find(folder: Path, name: str) -> Path:
    for path in (folder / name, folder / f"{name}.gz"):
        if path.is_file():
            return path
    raise IdxError(f"{folder} has neither {name} nor {name}.gz")


def _read(file: BinaryIO | gzip.GzipFile, path: Path, most_bytes: int) -> NDArray[Any]:
    magic = file.read(4)
    if len(magic) < 4 or magic[:2] != b"\0\0" or magic[2] not in _DTYPES:
        raise IdxError(f"{path} is no IDX file: it starts with {magic.hex(' ') or 'nothing'}")
    dtype, num_dimensions = np.dtype(_DTYPES[magic[2]]), magic[3]
    sizes = file.read(4 * num_dimensions)
    if len(sizes) < 4 * num_dimensions:
        raise IdxError(f"{path} ends within its header")
    if num_dimensions > _MAX_DIMENSIONS:
        raise IdxError(f"{path} claims {num_dimensions} dimensions, at most 8 are read")
    shape = struct.unpack(f">{num_dimensions}I", sizes)
    num_bytes = math.prod(shape) * dtype.itemsize
    if num_bytes == 0:
        raise IdxError(f"{path} holds no elements")
    if num_bytes > most_bytes:
        raise IdxError(
            f"{path} claims {num_bytes} bytes of elements, which it is too small to hold"
        )
    content = file.read(num_bytes + 1)
    if len(content) != num_bytes:
        found = "more" if len(content) > num_bytes else str(len(content))
        raise IdxError(f"{path} has {found} bytes of elements, expected {num_bytes} for {shape}")
    return np.frombuffer(content, dtype).reshape(shape).astype(dtype.newbyteorder("="))
