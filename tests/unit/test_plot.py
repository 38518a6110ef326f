"""Curves as dots: frames, ticks, smoothing, bands, and what is drawn where."""

from __future__ import annotations

import math

import pytest

from fedconsole.tui.widgets.braille import BLANK, Frame, draw, frame_of, ticks
from fedconsole.tui.widgets.curves import Curve, band, smooth, smoothed


def curve(ys: list[float], *, xs: list[float] | None = None, thick: bool = False) -> Curve:
    return Curve("alice", "A", "#56b4e9", xs or [float(i) for i in range(len(ys))], ys, thick)


def drawn(curves: list[Curve], width: int, height: int, *, is_log: bool = False) -> list[str]:
    frame = frame_of(curves, is_log=is_log)
    assert frame is not None
    picture = draw(curves, frame, width, height)
    return ["".join(chr(BLANK | bits) for bits in row) for row in picture.dots]


# Frames


def test_a_frame_holds_all_finite_points() -> None:
    curves = [curve([3.0, math.nan, 1.0]), curve([math.inf, 2.0], xs=[5.0, 9.0])]
    assert frame_of(curves) == Frame(0.0, 9.0, 1.0, 3.0)


def test_a_logarithmic_frame_leaves_out_what_has_no_logarithm() -> None:
    assert frame_of([curve([0.0, -1.0, 0.1, 10.0])], is_log=True) == Frame(0, 3, 0.1, 10.0, True)


def test_a_window_is_the_last_part_of_the_x_axis() -> None:
    falling = curve([8.0, 4.0, 2.0, 1.0, 0.5])
    assert frame_of([falling], share=0.25) == Frame(3.0, 4.0, 0.5, 1.0)


def test_a_flat_curve_gets_room_above_and_below() -> None:
    assert frame_of([curve([2.0, 2.0])]) == Frame(0.0, 1.0, 1.5, 2.5)
    assert frame_of([curve([2.0, 2.0])], is_log=True) == Frame(0.0, 1.0, 1.0, 4.0, True)


def test_a_diverged_loss_breaks_no_frame() -> None:
    diverged = curve([1.0, -1.7e308, 1.7e308, 2.0])
    assert frame_of([diverged]) == Frame(0.0, 3.0, 1.0, 2.0)
    assert drawn([diverged], 2, 1) != []


@pytest.mark.parametrize("ys", [[], [math.nan], [math.inf]])
def test_without_a_finite_point_there_is_no_frame(ys: list[float]) -> None:
    assert frame_of([curve(ys)]) is None


# Ticks


def test_ticks_are_round_values_in_the_rows_where_they_belong() -> None:
    assert ticks(Frame(0, 1, 0.0, 2.0), 13) == {0: 2.0, 3: 1.5, 6: 1.0, 9: 0.5, 12: 0.0}


def test_ticks_of_a_wide_logarithmic_frame_are_powers_of_ten() -> None:
    rows = ticks(Frame(0, 1, 0.003, 16.5, True), 15)
    assert sorted(rows.values()) == [0.01, 0.1, 1.0, 10.0]


def test_ticks_of_a_narrow_logarithmic_frame_lie_between_powers_of_ten() -> None:
    assert set(ticks(Frame(0, 1, 0.3, 3.0, True), 40).values()) == {0.5, 1.0, 2.0}


def test_where_no_round_value_fits_the_ends_are_told() -> None:
    assert ticks(Frame(0, 1, 0.31, 0.79, True), 6) == {0: 0.79, 5: 0.31}


@pytest.mark.parametrize("num_rows", [1, 2, 5, 17, 60])
@pytest.mark.parametrize("is_log", [False, True])
@pytest.mark.parametrize(("low", "high"), [(1e-12, 1e12), (0.1, 0.1001), (1e300, 1.7e308), (3, 4)])
def test_ticks_never_crowd(low: float, high: float, is_log: bool, num_rows: int) -> None:
    rows = ticks(Frame(0, 1, low, high, is_log), num_rows)
    assert 0 < len(rows) <= max(2, num_rows)
    assert all(0 <= row < num_rows for row in rows)


# Smoothing and bands


def test_smoothing_is_the_exponential_moving_average() -> None:
    assert smooth([4.0, 0.0, 0.0], 0.5) == [4.0, 2.0, 1.0]


def test_a_gap_stays_a_gap_and_the_mean_goes_on_after_it() -> None:
    smoothed_ys = smooth([4.0, math.nan, 0.0], 0.5)
    assert math.isnan(smoothed_ys[1])
    assert smoothed_ys[::2] == [4.0, 2.0]


def test_without_a_weight_a_curve_is_left_as_it_is() -> None:
    raw = curve([1.0, 2.0])
    assert smoothed(raw, 0.0) is raw


def test_a_band_is_the_lowest_the_median_and_the_highest() -> None:
    curves = [curve([float(i), float(i)]) for i in (1, 2, 9)]
    assert [(c.name, list(c.ys)) for c in band(curves, 2)] == [
        ("min", [1.0, 1.0]),
        ("median", [2.0, 2.0]),
        ("max", [9.0, 9.0]),
    ]


# Dots


def test_a_falling_line_goes_from_the_top_left_to_the_bottom_right() -> None:
    assert drawn([curve([1.0, 0.0])], 4, 2) == ["⠑⢄⠀⠀", "⠀⠀⠑⢄"]


def test_a_thick_line_is_two_dots_high() -> None:
    assert drawn([curve([1.0, 1.0], thick=True)], 2, 1) == ["⣤⣤"]


def test_many_points_in_a_column_fill_it_from_the_lowest_to_the_highest() -> None:
    many = curve([0.0, 1.0, 0.0, 0.0], xs=[0.0, 0.0, 0.0, 9.0])
    assert drawn([many], 1, 1) == ["⣇"]


def test_later_curves_own_the_cells_that_they_share() -> None:
    curves = [curve([1.0, 1.0]), curve([1.0, 0.0])]
    frame = frame_of(curves)
    assert frame is not None
    picture = draw(curves, frame, 2, 2)
    assert picture.owners == [[1, 0], [-1, 1]]
    assert picture.ends == {0: 0, 1: 1}
