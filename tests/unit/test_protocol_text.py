from __future__ import annotations

import pytest

from pi_daemon.protocol.text import clean


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("loss 0.5", "loss 0.5"),
        ("한국어", "한국어"),
        ("\x1b]52;c;aGk=\x07", "]52;c;aGk="),
        ("\x1b[31mred\x9b0m", "[31mred0m"),
        ("one\ntwo\tthree\r", "one two three "),
        ("safe\u202etxt.exe", "safetxt.exe"),
        ("zero\u200bwidth\ufeff", "zerowidth"),
        ("a\u200db", "ab"),
        ("👩\u200d🔧", "👩\u200d🔧"),
        ("e\u0301", "é"),
        ("\ud800", ""),
    ],
    ids=range(11),
)
def test_peers_text_is_made_harmless(text: str, shown: str) -> None:
    assert clean(text) == shown


def test_a_long_text_is_cut_without_cleaning_all_of_it() -> None:
    assert clean("x" * 10_000_000, limit=5) == "xxxx…"
