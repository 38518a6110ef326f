"""What a heartbeat looks like as an example: its samples, its class, and its RR intervals.

A beat is 187 samples at 125 Hz from its R peak on: 1.2 times the median RR interval of the ten
seconds around it, scaled to the range of the signal in them, then zeros (after Kachuee et al., 2018).
"""

from __future__ import annotations

from enum import StrEnum
from fractions import Fraction
from typing import Final

import numpy as np
from numpy.typing import NDArray

NUM_SAMPLES: Final = 187
NUM_RR: Final = 3
CLASSES: Final = ("N", "S", "V", "F", "Q")
"""AAMI EC57: normal, supraventricular, ventricular, fusion, and paced or unclassifiable."""

_HZ: Final = 125
_WINDOW: Final = 10 * _HZ
_LENGTH_IN_RR: Final = 1.2
_RECENT_BEATS: Final = 10
_INVALID_WEIGHT: Final = 0.01
"""A resampled value in which invalid samples weigh more than this is invalid as well."""


class Left(StrEnum):
    """Why a beat is no example."""

    INVALID = "on invalid samples"
    FLAT = "on a flat line"
    ALONE = "without an RR interval"


def cut_beats(
    signal: NDArray[np.float64], hz: float, peaks: NDArray[np.int64]
) -> tuple[NDArray[np.uint8], list[Left | None]]:
    """The beats of one record, cut from one lead.

    The lead is resampled as a whole and cut into windows of ten seconds from its start on, the last
    of which takes the rest. The RR intervals of a window are those between its own peaks; a peak that
    is alone in its window goes by the median of the record. The last beats of a window reach beyond
    it, the last ones of the record end with it.

    Args:
        signal: (m,) in any unit; NaN where it is invalid. At least one value is valid.
        hz: its samples per second.
        peaks: (n,) R peaks in samples, ascending, within the signal.

    Returns:
        (n, 187) grey levels, 255 for the highest value in the window; and for each beat why it has to
        be left out, or None.
    """
    wave, places = _at_125_hz(signal, hz, peaks)
    x = np.zeros((len(places), NUM_SAMPLES), np.uint8)
    left: list[Left | None] = [None] * len(places)
    last_window = max(len(wave) // _WINDOW, 1) - 1
    windows = np.minimum(places // _WINDOW, last_window)
    for window in np.unique(windows):
        start = window * _WINDOW
        around = wave[start : start + _WINDOW if window < last_window else None]
        around = around[np.isfinite(around)]
        low, high = (around.min(), around.max()) if len(around) else (0.0, 0.0)
        beats = np.flatnonzero(windows == window)
        length = _length(places[beats] if len(beats) > 1 else places)
        for beat in beats:
            values = wave[places[beat] : places[beat] + length]
            if length == 0:
                left[beat] = Left.ALONE
            elif not np.isfinite(values).all():
                left[beat] = Left.INVALID
            elif low == high:
                left[beat] = Left.FLAT
            else:
                scaled = np.clip((values - low) / (high - low), 0, 1)
                x[beat, : len(values)] = np.rint(255 * scaled)
    return x, left


def rr_intervals(peaks: NDArray[np.integer], hz: float) -> NDArray[np.uint8]:
    """RR intervals of the beats of one record: to the previous, to the next, and the recent mean.

    The recent mean is that of up to ten intervals, the last of which ends with the beat itself.
    The first beat takes its interval to the next for all three; the last takes its previous for its
    next; a beat that is alone in its record has zeros.

    Args:
        peaks: (n,) R peaks in samples, ascending.
        hz: samples per second.

    Returns:
        (n, 3) in 1/100 s, rounded, 255 for all that is longer.
    """
    if len(peaks) < 2:
        return np.zeros((len(peaks), NUM_RR), np.uint8)
    places = peaks.astype(np.int64) * (100 / hz)
    beats = np.arange(1, len(places))
    starts = np.maximum(beats - _RECENT_BEATS, 0)
    intervals = np.diff(places)
    previous = np.concatenate([intervals[:1], intervals])
    following = np.concatenate([intervals, intervals[-1:]])
    recent = np.concatenate([intervals[:1], (places[beats] - places[starts]) / (beats - starts)])
    hundredths: NDArray[np.float64] = np.rint(np.stack([previous, following, recent], axis=1))
    return hundredths.clip(0, 255).astype(np.uint8)


def _at_125_hz(
    signal: NDArray[np.float64], hz: float, peaks: NDArray[np.int64]
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    from scipy.signal import resample_poly

    ratio = Fraction(_HZ / hz).limit_denominator(1000)
    up, down = ratio.numerator, ratio.denominator
    is_valid = np.isfinite(signal)
    if not is_valid.all():
        times = np.arange(len(signal))
        signal = np.interp(times, times[is_valid], signal[is_valid])
    # The median as the level beyond both ends: zeros would bend the ends of a lead with an offset.
    wave: NDArray[np.float64] = resample_poly(signal, up, down, padtype="median")
    if not is_valid.all():
        weight = resample_poly((~is_valid).astype(np.float64), up, down, padtype="line")
        wave[np.abs(weight) > _INVALID_WEIGHT] = np.nan
    # By the very ratio of the resampling, so that no rate that is no such fraction drifts apart.
    places = np.rint(peaks * up / down).astype(np.int64)
    return wave, np.minimum(places, len(wave) - 1)


def _length(places: NDArray[np.int64]) -> int:
    if len(places) < 2:
        return 0
    return min(round(_LENGTH_IN_RR * float(np.median(np.diff(places)))), NUM_SAMPLES)
