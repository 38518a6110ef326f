"""Numbers, times and texts as they stand on the screen."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len

from fedconsole.tui import glyphs
from fedconsole.tui.formats import age, clock, cut, cut_lines, fit, number, percent, size, span


@pytest.mark.parametrize(
    ("num_bytes", "expected"),
    [
        (0, "0B"),
        (512, "512B"),
        (999, "999B"),
        (1_000, "1.0K"),
        (1_024, "1.0K"),
        (3_250_586, "3.1M"),
        (99.4 * 2**20, "99.4M"),
        (99.6 * 2**20, "100M"),
        (118 * 2**20, "118M"),
        (999.4 * 2**10, "999K"),
        (999.6 * 2**10, "1.0M"),
        (2**30, "1.0G"),
        (2**40, "1.0T"),
        (2**50, "1.0P"),
        (5_000 * 2**50, "5000P"),
    ],
)
def test_sizes_have_at_most_four_signs_and_a_unit(num_bytes: float, expected: str) -> None:
    assert size(num_bytes) == expected


@given(st.integers(0, 999 * 2**50))
def test_a_size_fits_its_column_and_is_right_to_a_twentieth(num_bytes: int) -> None:
    shown = size(num_bytes)
    assert len(shown) <= 5
    value = float(shown[:-1]) * 1024 ** "BKMGTP".index(shown[-1])
    assert value == pytest.approx(num_bytes, rel=0.05)


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        (-5, "00:00"),
        (0, "00:00"),
        (59.9, "00:59"),
        (252, "04:12"),
        (3_599, "59:59"),
        (3_600, "1:00:00"),
        (3_723, "1:02:03"),
        (86_399, "23:59:59"),
        (86_400, "1d 00h"),
        (3 * 86_400 + 4 * 3_600 + 3_599, "3d 04h"),
    ],
)
def test_a_duration_is_read_as_on_a_clock(seconds: float, expected: str) -> None:
    assert span(seconds) == expected


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        (-1, "0s"),
        (12.9, "12s"),
        (59, "59s"),
        (60, "1m"),
        (3_599, "59m"),
        (3_600, "1h"),
        (86_399, "23h"),
        (5 * 86_400, "5d"),
    ],
)
def test_an_age_is_told_in_its_largest_unit(seconds: float, expected: str) -> None:
    assert age(seconds) == expected


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, "nan"),
        (math.nan, "nan"),
        (-math.inf, "nan"),
        (0.41212, "0.4121"),
        (-2.0, "-2.0000"),
        (999_999.0, "999999.0000"),
        (1.7e308, "1.7e+308"),
        (-12_345_678.0, "-1.235e+07"),
    ],
)
def test_a_measurement_has_four_digits_after_the_point(value: float | None, expected: str) -> None:
    assert number(value) == expected


def test_a_measurement_may_have_other_digits() -> None:
    assert (number(0.125, 1), number(2.0, 0)) == ("0.1", "2")


@pytest.mark.parametrize(("share", "expected"), [(None, "-"), (0.0, "0.0%"), (0.98765, "98.8%")])
def test_a_share_is_told_in_percent(share: float | None, expected: str) -> None:
    assert percent(share) == expected


@pytest.fixture
def seoul(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with monkeypatch.context() as patch:
        patch.setenv("TZ", "KST-9")
        time.tzset()
        yield
    time.tzset()


@pytest.mark.usefixtures("seoul")
def test_the_time_of_day_is_that_of_the_desk() -> None:
    assert clock(datetime(2026, 11, 22, 21, 40, 28, tzinfo=UTC)) == "06:40:28"


@pytest.mark.parametrize(
    ("text", "cells", "expected"),
    [
        ("kitchen", 7, "kitchen"),
        ("kitchen", 6, "kitch…"),
        ("kitchen", 1, "…"),
        ("kitchen", 0, ""),
        ("kitchen", -3, ""),
        ("", 0, ""),
        ("two words", 5, "two…"),
        # A syllable that is cut in two would fill a cell with nothing.
        ("부엌 장치", 9, "부엌 장치"),
        ("부엌 장치", 8, "부엌 장…"),
        ("부엌 장치", 7, "부엌…"),
        ("부엌장치", 6, "부엌…"),
        ("부엌장치", 5, "부엌…"),
        ("부엌장치", 2, "…"),
    ],
)
def test_a_text_is_cut_to_its_cells(text: str, cells: int, expected: str) -> None:
    assert fit(text, cells) == expected


@given(st.text(alphabet="ab 부엌…é", max_size=12), st.integers(0, 12))
def test_a_cut_text_never_takes_more_cells(text: str, cells: int) -> None:
    assert cell_len(fit(text, cells)) <= cells


def test_what_was_cut_is_marked_in_ascii_too() -> None:
    glyphs.use("ascii")
    try:
        assert fit("kitchen", 4) == "kit~"
    finally:
        glyphs.use("unicode")


@pytest.mark.parametrize(
    ("text", "cells", "expected"),
    [
        ("the disk is full", 16, "the disk is full"),
        ("the disk is full", 15, "the d… !: whole"),
        ("디스크가 가득 찼습니다", 18, "디스크가… !: whole"),
    ],
)
def test_what_has_no_room_says_where_all_of_it_is(text: str, cells: int, expected: str) -> None:
    assert cut(text, cells, "!: whole") == expected


def test_lines_that_have_no_room_say_where_all_of_them_are() -> None:
    text = "one two three four five six"
    assert cut_lines(text, 14, 2, "!: all") == text
    assert cut_lines(text, 9, 2, "!: all") == "one two\nt… !: all"
    assert cut_lines("one\ntwo", 9, 2, "!: all") == "one\ntwo"
