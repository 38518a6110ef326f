from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from pi_daemon.ecg.heartbeat_csv import CsvError, read_csv


def line(label: str = "2.000000000000000000e+00", **fields: str) -> str:
    """A beat that rises from 0 to 1; `c3="x"` puts x into column 3."""
    values = [f"{i / 186:.18e}" for i in range(187)] + [label]
    for column, text in fields.items():
        values[int(column[1:]) - 1] = text
    return ",".join(values)


def test_values_become_grey_levels_and_the_last_one_the_class(tmp_path: Path) -> None:
    path = tmp_path / "beats.csv"
    path.write_text(f"{line()}\r\n\n{line('0', c1='1')}\n{line('4')}")
    shares: list[float] = []
    x, y = read_csv(path, shares.append)
    rising = [round(255 * i / 186) for i in range(187)]
    assert x.tolist() == [rising, [255, *rising[1:]], rising]
    assert (x.dtype, y.dtype, y.tolist()) == (np.uint8, np.uint8, [2, 0, 4])
    assert shares == sorted(shares)
    assert shares[-1] == 1


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("", "it holds no beats"),
        ("\n\n", "it holds no beats"),
        (f"{line()}\n{line(c7='abc')}", "line 2 has 'abc' in column 7, expected a number from 0 to 1"),
        (line(c1=""), "line 1 has '' in column 1, expected a number from 0 to 1"),
        (line(c9="nan"), "line 1 has 'nan' in column 9, expected a number from 0 to 1"),
        (line(c9="1.01"), "line 1 has '1.01' in column 9, expected a number from 0 to 1"),
        (line("5"), "line 1 has '5' in column 188, expected a class from 0 to 4"),
        (line("1.5"), "line 1 has '1.5' in column 188, expected a class from 0 to 4"),
        (line("\x1b[2Jx"), "line 1 has '[2Jx' in column 188, expected a class from 0 to 4"),
        ("0.5,1\n", "line 1 has 2 values, expected 187 and a class"),
        ("0," * 100_000, "line 1 has 6017 values, expected 187 and a class"),
    ],
)  # fmt: skip
def test_a_line_that_is_no_beat_is_named(tmp_path: Path, content: str, reason: str) -> None:
    path = tmp_path / "beats.csv"
    path.write_text(content)
    with pytest.raises(CsvError) as found:
        read_csv(path)
    assert str(found.value) == reason


def test_bytes_that_are_no_text_are_refused(tmp_path: Path) -> None:
    (tmp_path / "beats.csv").write_bytes(line().encode().replace(b"e", b"\xff", 1))
    with pytest.raises(CsvError, match=r"line 1 has .* in column 1, expected a number"):
        read_csv(tmp_path / "beats.csv")
