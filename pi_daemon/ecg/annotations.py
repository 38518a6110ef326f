"""Reads WFDB's annotation files in the MIT format, as annot(5) of the WFDB manual defines it.

wfdb's own reader is not used: a note that it does not expect makes it loop for ever.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from pi_daemon.ecg.beats import CLASSES

_CODES_OF_CLASS: Final = {
    "N": (1, 2, 3, 11, 25, 34, 35),
    "S": (4, 7, 8, 9),
    "V": (5, 10, 41),
    "F": (6,),
    "Q": (12, 13, 30, 38),
}
"""Of all annotations that mark a beat, by their AAMI EC57 class. In WFDB's symbols: N L R j B e n,
a J A S, V E r, F, / Q ? f."""
_LABELS: Final = {
    code: label for label, name in enumerate(CLASSES) for code in _CODES_OF_CLASS[name]
}
_NO_BEAT: Final = -1
_NOTHING, _NOTE, _SKIP, _NUM, _SUB, _CHAN, _AUX = 0, 22, 59, 60, 61, 62, 63
_RATE: Final = re.compile(rb"## time resolution: (\d{1,9}(?:\.\d{1,9})?)")


class AnnotationError(ValueError):
    """A file is no annotation file, or ends too early."""


@dataclass(frozen=True, slots=True)
class Annotations:
    """In the order of the file, which need not be that of time."""

    samples: NDArray[np.int64]
    """(n,) places; negative or beyond the signal where the file says so."""
    labels: NDArray[np.int64]
    """(n,) indices into `beats.CLASSES`, or -1 for what is no beat."""
    hz: float | None
    """Of the places, if it is not that of the signal."""


def read_annotations(path: Path) -> Annotations:
    """Read a whole file; what it says of itself is no annotation.

    Raises:
        AnnotationError: it ends before its end mark.
        OSError: it cannot be read.
    """
    content = path.read_bytes()
    try:
        return _parsed(content)
    except IndexError as error:
        raise AnnotationError(
            f"{path.name} is cut off: expected two zero bytes at its end"
        ) from error


def _parsed(content: bytes) -> Annotations:
    words = np.frombuffer(content[: len(content) // 2 * 2], "<u2").tolist()
    samples: list[int] = []
    codes: list[int] = []
    hz = None
    sample = index = 0
    while words[index]:
        code, value = words[index] >> 10, words[index] & 0x3FF
        index += 1
        if code == _SKIP:
            high, low = words[index], words[index + 1]
            interval = high << 16 | low
            sample += interval - (1 << 32) if high & 0x8000 else interval
            index += 2
        elif code == _AUX:
            num_bytes = value & 0xFF
            text = content[2 * index : 2 * index + num_bytes]
            index += (num_bytes + 1) // 2
            if codes[-1:] == [_NOTE] and sample == 0 and text.startswith(b"## "):
                del codes[-1], samples[-1]
                if rate := _RATE.match(text):
                    hz = float(rate[1])
        elif code not in (_NUM, _SUB, _CHAN):
            sample += value
            if code != _NOTHING:
                samples.append(sample)
                codes.append(code)
    labels = [_LABELS.get(code, _NO_BEAT) for code in codes]
    return Annotations(np.array(samples, np.int64), np.array(labels, np.int64), hz)
