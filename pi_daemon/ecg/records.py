"""Reads the beats of recordings in the WFDB format, such as the MIT-BIH Arrhythmia Database.

Needs the extra `ecg`. Nothing outside the given folder is opened, whatever a header names.
"""

from __future__ import annotations

import math
import re
import warnings
from collections import Counter, defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from pi_daemon.ecg.annotations import AnnotationError, Annotations, read_annotations
from pi_daemon.ecg.beats import cut_beats, rr_intervals
from pi_daemon.protocol.text import clean

PREFERRED_LEAD: Final = "MLII"
_MIN_HZ: Final = 50
_MAX_HZ: Final = 10_000
_MAX_SKEW_S: Final = 1
_BYTES_PER_SAMPLE: Final = {
    "8": 1.0,
    "16": 2.0,
    "24": 3.0,
    "32": 4.0,
    "61": 2.0,
    "80": 1.0,
    "160": 2.0,
    "212": 1.5,
    "310": 4 / 3,
    "311": 4 / 3,
}
"""By WFDB's name of the storage format. The compressed formats are not here: their size tells
nothing of the memory that they take."""
_SAFE_NAME: Final = re.compile(r"\w[\w.-]*", re.ASCII)
_NUMBER: Final = re.compile(r"0|[1-9]\d{0,8}", re.ASCII)
_MAX_SHOWN: Final = 50


class RecordError(ValueError):
    """A record or a folder of them cannot be used; the message says why."""


@dataclass(frozen=True, slots=True)
class RecordBeats:
    """The beats of one record in order of time."""

    name: str
    x: NDArray[np.uint8]
    """(n, 187), or (n, 190) with RR intervals."""
    y: NDArray[np.uint8]
    """(n,) indices into `beats.CLASSES`."""
    sample: NDArray[np.int32]
    """(n,) R peaks, in samples of the record's own rate."""
    left: Counter[str]
    """What was left out, such as "non-beat annotations", and how many of it."""


def record_names(folder: Path, wanted: tuple[str, ...] = ()) -> list[str]:
    """The records in a folder, or those that are wanted of them, numbers first, in order.

    Raises:
        RecordError: there is none, a wanted one is not there, or the extra is not installed.
        OSError: the folder cannot be read.
    """
    _wfdb()
    if not folder.is_dir():
        raise RecordError(f"{folder} is no folder: name the one that holds the records")
    names = sorted(
        (path.stem for path in folder.glob("*.hea")),
        key=lambda name: (not name.isdecimal(), len(name), name),
    )
    if not names:
        raise RecordError(f"{folder} holds no WFDB records: expected files such as 100.hea")
    if missing := [name for name in wanted if name not in names]:
        raise RecordError(f"{folder} has no record {missing[0]}: it has {_some(names)}")
    return [name for name in names if name in wanted] if wanted else names


def read_beats(
    folder: Path, name: str, *, lead: str | None = None, with_rr: bool = False
) -> RecordBeats:
    """Read a record's annotated beats from one lead: MLII if it is there, else the first.

    The RR intervals are those of all annotated beats, also of those that are left out.

    Raises:
        RecordError: a file is missing, damaged, unsafe or not of a kind that is read, the lead is not
            there, or it does not fit into memory.
    """
    signal, hz = _signal(folder, name, lead)
    annotations = _annotations(_inside(folder, f"{name}.atr"))
    order = np.argsort(annotations.samples, kind="stable")
    labels, samples = annotations.labels[order], annotations.samples[order]
    if annotations.hz is not None:
        samples = np.rint(samples * (hz / annotations.hz)).astype(np.int64)
    is_beat = labels >= 0
    is_inside = (samples >= 0) & (samples < len(signal))
    peaks = samples[is_beat & is_inside]
    x, reasons = cut_beats(signal, hz, peaks)
    if with_rr:
        x = np.concatenate([x, rr_intervals(peaks, hz)], axis=1)
    kept = np.array([reason is None for reason in reasons], np.bool_)
    left = Counter(f"beats {reason}" for reason in reasons if reason is not None)
    left["beats outside the signal"] = int((is_beat & ~is_inside).sum())
    left["non-beat annotations"] = int((~is_beat).sum())
    y = labels[is_beat & is_inside][kept].astype(np.uint8)
    return RecordBeats(name, x[kept], y, peaks[kept].astype(np.int32), +left)


def joined(records: list[RecordBeats]) -> dict[str, NDArray[Any]]:
    """The arrays of a dataset: `x`, `y`, `record` and `sample`. At least one record.

    `record` holds numbers if the names of all records are such, otherwise the names.
    """
    names = np.repeat([record.name for record in records], [len(record.y) for record in records])
    are_numbers = all(_NUMBER.fullmatch(record.name) for record in records)
    return {
        "x": np.concatenate([record.x for record in records]),
        "y": np.concatenate([record.y for record in records]),
        "record": names.astype(np.int32) if are_numbers else names,
        "sample": np.concatenate([record.sample for record in records]),
    }


def _annotations(path: Path) -> Annotations:
    try:
        annotations = read_annotations(path)
    except AnnotationError as error:
        raise RecordError(str(error)) from error
    if annotations.hz is not None:
        _require_rate("annotation file", annotations.hz)
    return annotations


def _signal(folder: Path, name: str, lead: str | None) -> tuple[NDArray[np.float64], float]:
    """A lead, at least one value of which is valid, and its samples per second."""
    wfdb = _wfdb()
    path = str(folder.absolute() / name)
    _require_whole_header(_inside(folder, f"{name}.hea"))
    try:
        # wfdb and pandas speak to their developers.
        with warnings.catch_warnings(action="ignore"):
            header = wfdb.rdheader(path)
            channel = _channel(header, lead)
            _require_readable(folder, header)
            signal = wfdb.rdrecord(path, channels=[channel]).p_signal[:, 0]
    except RecordError:
        raise
    except MemoryError as error:
        raise RecordError("it does not fit into memory") from error
    # Whatever a damaged file makes wfdb stumble over: IndexError, TypeError, errors of its own.
    except Exception as error:
        reason = clean(f"{type(error).__name__}: {error}", 160)
        raise RecordError(f"it is no WFDB record that can be read ({reason})") from error
    if not np.isfinite(signal).any():
        raise RecordError(f"its lead {clean(header.sig_name[channel] or '')} has no valid sample")
    return signal, header.fs


def _channel(header: Any, lead: str | None) -> int:
    """The index of the lead; `header` is wfdb's."""
    if hasattr(header, "seg_name"):
        raise RecordError("it is split into segments: join them first")
    leads = [name or "" for name in header.sig_name or ()]
    if len(leads) != header.n_sig or not leads:
        raise RecordError(f"its header announces {header.n_sig} leads and describes {len(leads)}")
    if lead is None:
        return leads.index(PREFERRED_LEAD) if PREFERRED_LEAD in leads else 0
    if lead not in leads:
        raise RecordError(f"it has no lead {lead}: it has {_some([clean(name) for name in leads])}")
    return leads.index(lead)


def _require_readable(folder: Path, header: Any) -> None:
    """Check the header against the signal files: wfdb would allocate whatever it says."""
    _require_rate("signal", header.fs)
    if max(skew or 0 for skew in header.skew) > _MAX_SKEW_S * header.fs:
        raise RecordError(f"its leads are skewed by more than {_MAX_SKEW_S} s")
    needed_bytes: defaultdict[str, float] = defaultdict(float)
    for file, fmt, num_per_frame in zip(
        header.file_name, header.fmt, header.samps_per_frame, strict=True
    ):
        if fmt not in _BYTES_PER_SAMPLE:
            known = ", ".join(_BYTES_PER_SAMPLE)
            raise RecordError(f"it is stored in format {clean(fmt)}, expected one of {known}")
        num_samples = (header.sig_len or 0) * (num_per_frame or 1)
        needed_bytes[file] += num_samples * _BYTES_PER_SAMPLE[fmt]
    for file, num_bytes in needed_bytes.items():
        found = _inside(folder, file).stat().st_size
        if found < num_bytes:
            expected = math.ceil(num_bytes)
            raise RecordError(f"{file} is cut off: it has {found} bytes, expected {expected}")


def _require_whole_header(path: Path) -> None:
    """A header that is cut off within the name of a lead reads like one of another lead."""
    if not path.read_bytes().endswith(b"\n"):
        raise RecordError(f"{path.name} is cut off: expected a line end at its end")


def _require_rate(what: str, hz: float) -> None:
    if not _MIN_HZ <= hz <= _MAX_HZ:
        raise RecordError(f"its {what} has {hz:g} samples/s, expected {_MIN_HZ} to {_MAX_HZ}")


def _inside(folder: Path, name: str) -> Path:
    if not _SAFE_NAME.fullmatch(name):
        raise RecordError(f"it names the file {clean(name, 80)}: expected one in the same folder")
    path = folder / name
    if not path.resolve().is_relative_to(folder.resolve()):
        raise RecordError(f"{name} is a link that leads out of {folder}")
    if not path.is_file():
        raise RecordError(f"{name} is missing")
    return path


def _some(names: list[str]) -> str:
    shown = ", ".join(names[:_MAX_SHOWN])
    return f"{shown} and {len(names) - _MAX_SHOWN} more" if len(names) > _MAX_SHOWN else shown


def _wfdb() -> Any:
    try:
        import wfdb
    # OSError: the sound library that it needs is missing.
    except (ImportError, OSError) as error:
        raise RecordError(
            f"WFDB records need the extra ecg ({error}): pip install 'fedconsole[ecg]'"
        ) from error
    return wfdb
