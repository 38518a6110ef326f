from __future__ import annotations

import unicodedata

import pytest
from rich.cells import cell_len

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
        ("bob" + "\u3164" * 60, "bob"),
        ("👩🏽\u200d🔧", "👩\u200d🔧"),
        ("o" + "\u0336" * 30, "o\u0336\u0336\u0336"),
        ("हिन्दी", "हिन्दी"),
        ("ที่นี่", "ที่นี่"),
    ],
    ids=range(16),
)
def test_peers_text_is_made_harmless(text: str, shown: str) -> None:
    assert clean(text) == shown


def test_what_takes_no_room_where_it_is_counted_is_a_mark_or_a_part_of_a_syllable() -> None:
    # Other characters without width are wide on some terminals: text after them is pushed out of its line.
    kept = [
        char
        for char in map(chr, range(0x20, 0x110000))
        if clean(char) == char and not cell_len(char)
    ]
    rest = [char for char in kept if unicodedata.category(char) not in {"Mn", "Mc", "Me"}]
    assert all("\u1161" <= char <= "\u11ff" or "\ud7b0" <= char <= "\ud7ff" for char in rest)


def test_a_long_text_is_cut_without_cleaning_all_of_it() -> None:
    assert clean("x" * 10_000_000, limit=5) == "xxxx…"
