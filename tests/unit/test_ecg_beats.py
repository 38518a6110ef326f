from __future__ import annotations

import numpy as np
import pytest

from pi_daemon.ecg.beats import Left, cut_beats, rr_intervals

pytest.importorskip("scipy", reason="needs the extra ecg")


def zigzag(num_samples: int, hz: float) -> np.ndarray:
    """A smooth signal without a period that a window could share."""
    t = np.arange(num_samples) / hz
    return np.asarray(np.sin(2 * np.pi * 1.1 * t) + 0.5 * np.sin(2 * np.pi * 7.3 * t) + t / 10)


def grey(values: np.ndarray, window: np.ndarray, num_samples: int = 187) -> list[int]:
    scaled = np.clip((values - window.min()) / (window.max() - window.min()), 0, 1)
    return [round(255 * v) for v in scaled] + [0] * (num_samples - len(values))


def test_a_beat_is_as_long_as_its_window_says_scaled_to_it_and_padded_with_zeros() -> None:
    signal = zigzag(2500, 125)
    peaks = np.array([100, 180, 270, 1240, 1300, 1430, 1560])
    x, left = cut_beats(signal, 125, peaks)
    first, second = signal[:1250], signal[1250:]
    # The median interval is 90 samples in the first window, 130 in the second.
    assert x.tolist() == [
        *(grey(signal[p : p + 108], first) for p in (100, 180, 270, 1240)),
        *(grey(signal[p : p + 156], second) for p in (1300, 1430, 1560)),
    ]
    assert left == [None] * 7


def test_the_last_window_takes_the_rest_and_the_last_beat_ends_with_the_signal() -> None:
    signal = zigzag(1250 + 600, 125)
    x, _ = cut_beats(signal, 125, np.array([10, 110, 210, 1300, 1400, 1840]))
    assert x[3].tolist() == grey(signal[1300 : 1300 + 120], signal)
    assert x[5].tolist() == grey(signal[1840:], signal)


def test_a_peak_on_the_last_sample_is_a_beat_of_one_value() -> None:
    signal = zigzag(3600, 360)
    x, left = cut_beats(signal, 360, np.array([10, 300, 3599]))
    assert (left[2], np.count_nonzero(x[2])) == (None, 1)


def test_a_peak_that_is_alone_in_its_window_goes_by_the_whole_record() -> None:
    signal = zigzag(2500, 125)
    x, _ = cut_beats(signal, 125, np.array([10, 110, 210, 2000]))
    assert x[3].tolist() == grey(signal[2000 : 2000 + 120], signal[1250:])


def test_a_beat_that_cannot_be_cut_is_named_for_its_reason() -> None:
    signal = zigzag(5000, 125)
    signal[1250:2500] = 3.0
    signal[2600:2610] = np.nan
    peaks = np.array([10, 110, 1300, 1400, 2550, 2650, 2750])
    x, left = cut_beats(signal, 125, peaks)
    assert left == [None, None, Left.FLAT, Left.FLAT, Left.INVALID, None, None]
    window = signal[2500:3750]
    assert x[5].tolist() == grey(signal[2650 : 2650 + 120], window[np.isfinite(window)])
    assert cut_beats(signal, 125, np.array([10]))[1] == [Left.ALONE]
    assert cut_beats(signal, 125, np.array([], np.int64))[1] == []


@pytest.mark.parametrize(
    ("hz", "tolerance"), [(100.0, 1), (250.0, 1), (360.0, 1), (1000.0, 1), (257.03, 12)]
)
def test_the_sampling_rate_makes_no_difference(hz: float, tolerance: int) -> None:
    peaks_s = np.array([2.0, 2.8, 3.6, 4.4, 55.2, 56.0])

    def beats(hz: float) -> np.ndarray:
        peaks = np.rint(peaks_s * hz).astype(np.int64)
        return cut_beats(zigzag(int(60 * hz), hz), hz, peaks)[0].astype(int)

    # At 257.03 Hz a peak lies between two samples, half the way from one to the next at most.
    assert np.abs(beats(hz) - beats(125)).max() <= tolerance


def test_one_invalid_sample_spoils_only_what_it_touches() -> None:
    signal = zigzag(3600, 360)
    peaks = np.array([0, 300, 600, 900, 1200])
    whole, _ = cut_beats(signal, 360, peaks)
    signal[700] = np.nan
    x, left = cut_beats(signal, 360, peaks)
    assert [reason is None for reason in left] == [True, True, False, True, True]
    assert np.array_equal(x[[0, 1, 3, 4]], whole[[0, 1, 3, 4]])


def test_rr_intervals_are_to_the_previous_to_the_next_and_the_recent_mean() -> None:
    peaks = np.array([0, 360, 540, 1620, 1800])
    assert rr_intervals(peaks, 360).tolist() == [
        [100, 100, 100],
        [100, 50, 100],
        [50, 255, 75],
        [255, 50, 150],
        [50, 50, 125],
    ]
    assert rr_intervals(np.array([7]), 360).tolist() == [[0, 0, 0]]
    assert rr_intervals(np.array([], np.int64), 360).shape == (0, 3)


def test_the_recent_mean_forgets_what_is_more_than_ten_intervals_ago() -> None:
    peaks = np.cumsum([0, 200, *[50] * 12])
    assert rr_intervals(peaks, 100)[:, 2].tolist() == [
        *(200, 200, 125, 100, 88, 80, 75, 71, 69, 67, 65),
        *(50, 50, 50),
    ]
