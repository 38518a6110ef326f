"""Reads the heartbeat CSV: one beat a line, 187 values from 0 to 1, then the class from 0 to 4."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from pi_daemon.ecg.beats import CLASSES, NUM_SAMPLES
from pi_daemon.protocol.text import clean

_NUM_FIELDS: Final = NUM_SAMPLES + 1
_MAX_LINE_BYTES: Final = 64 * _NUM_FIELDS
_HIGHEST: Final = np.array([1.0] * NUM_SAMPLES + [len(CLASSES) - 1])


class CsvError(ValueError):
    """A file is no heartbeat CSV; the message names the line and what was found there."""


def read_csv(
    path: Path, on_progress: Callable[[float], None] = lambda share: None
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Beats (n, 187) as grey levels and their classes (n,). `on_progress` is told the share read.

    Raises:
        CsvError: a line holds no beat, or there is none.
        OSError: the file cannot be read.
    """
    beats, labels = [], []
    num_bytes_read = 0
    with path.open("rb") as file:
        num_bytes = max(os.fstat(file.fileno()).st_size, 1)
        lines = iter(lambda: file.readline(_MAX_LINE_BYTES), b"")
        for number, line in enumerate(lines, 1):
            num_bytes_read += len(line)
            on_progress(num_bytes_read / num_bytes)
            if line.isspace():
                continue
            try:
                values = _parsed(line)
            except ValueError as error:
                raise CsvError(f"line {number} {error}") from error
            beats.append(np.rint(255 * values[:-1]).astype(np.uint8))
            labels.append(int(values[-1]))
    if not beats:
        raise CsvError("it holds no beats")
    return np.stack(beats), np.array(labels, np.uint8)


def _parsed(line: bytes) -> NDArray[np.float64]:
    fields = line.split(b",")
    if len(fields) != _NUM_FIELDS:
        raise ValueError(f"has {len(fields)} values, expected {NUM_SAMPLES} and a class")
    values = np.array([_number(field) for field in fields])
    is_good = (values >= 0) & (values <= _HIGHEST)
    is_good[-1] &= values[-1].is_integer()
    if not is_good.all():
        column = int(np.argmin(is_good))
        found = clean(fields[column].decode(errors="replace").strip(), 40)
        expected = (
            "a number from 0 to 1"
            if column < NUM_SAMPLES
            else f"a class from 0 to {len(CLASSES) - 1}"
        )
        raise ValueError(f"has {found!r} in column {column + 1}, expected {expected}")
    return values


def _number(field: bytes) -> float:
    try:
        return float(field)
    except ValueError:
        return np.nan
