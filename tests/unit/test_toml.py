from __future__ import annotations

import tracemalloc

import pytest

from pi_daemon.toml import MAX_CHARACTERS, MAX_DOTS, parse_toml

DOTTED = "a" + ".a" * MAX_DOTS + "=1"


def test_a_long_list_of_addresses_is_read() -> None:
    addresses = [f"10.0.0.{number}" for number in range(150)]
    assert parse_toml(f"workers = {addresses}") == {"workers": addresses}


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("# " + "x" * MAX_CHARACTERS, "65538 characters, at most 65536 are read"),
        (f"b = 1\na.{DOTTED}", r"more than 500 dots in one line \(at line 2\)"),
        ("a = " + "[" * 20_000, "recursion"),
        ("a = " + "1" * 5_000, "4300"),
        ("a = ", "Invalid value"),
    ],
)
def test_what_is_no_configuration_is_refused_with_the_reason(text: str, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        parse_toml(text)


def test_the_worst_that_is_read_takes_megabytes() -> None:
    text = "\n".join(f"b{number}.{DOTTED}" for number in range(MAX_CHARACTERS // len(DOTTED) - 1))
    tracemalloc.start()
    try:
        parse_toml(text.replace(f".{DOTTED}", "." + DOTTED.removeprefix("a.")))
        peak_bytes = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak_bytes < 200 << 20
