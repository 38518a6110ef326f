"""Which rows a typed filter keeps."""

from __future__ import annotations

import unicodedata

import pytest

from fedconsole.tui.widgets.filtering import EVERYTHING, FilterError, parse

ROWS = {
    "lost": {"level": "warning", "worker": "pi-1", "text": "pi-1 lost: no answer"},
    "loss": {"level": "info", "worker": "pi-2", "text": "Round 1: Loss 0.5, at 12:30"},
    "nan": {"level": "error", "worker": "", "text": "an update holds NaN!"},
    "batch": {"level": "debug", "worker": "alice", "text": "Train Worker alice: [1/50 (2%)]"},
}


def kept(text: str) -> list[str]:
    wanted = parse(text)
    return [name for name, fields in ROWS.items() if wanted.matches(fields)]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", ["lost", "loss", "nan", "batch"]),
        ("  ", ["lost", "loss", "nan", "batch"]),
        # A word, in any field.
        ("pi", ["lost", "loss"]),
        ("lo", ["lost", "loss"]),
        ("warning", ["lost"]),
        ("nowhere", []),
        # Small letters match capitals; capitals only themselves.
        ("loss", ["loss"]),
        ("nan", ["nan"]),
        ("NaN", ["nan"]),
        ("NAN", []),
        # All words must match; quotes keep a blank.
        ("pi lost", ["lost"]),
        ("pi alice", []),
        ("'no answer'", ["lost"]),
        ('"answer no"', []),
        ("answer no", ["lost"]),
        # Not.
        ("!pi", ["nan", "batch"]),
        ("!pi !alice", ["nan"]),
        ("!'no answer' pi", ["loss"]),
        ("!!pi", ["lost", "loss"]),
        # A regular expression, with capitals alike.
        ("~^pi-[0-9]$", ["lost", "loss"]),
        ("~loss.0|NAN", ["loss", "nan"]),
        ("!~^pi", ["nan", "batch"]),
        # One field.
        ("worker:pi", ["lost", "loss"]),
        ("worker:round", []),
        ("Worker:pi", ["lost", "loss"]),
        ("worker:PI", []),
        ("!worker:pi", ["nan", "batch"]),
        ("worker:~1$", ["lost"]),
        ("worker:~^A", ["batch"]),
        ("colour:red", []),
        ("!colour:red", ["lost", "loss", "nan", "batch"]),
        # A level means that one and what is worse.
        ("level:debug", ["lost", "loss", "nan", "batch"]),
        ("level:info", ["lost", "loss", "nan"]),
        ("level:warn", ["lost", "nan"]),
        ("level:E", ["nan"]),
        ("!level:warning", ["loss", "batch"]),
        ("level:~^w", ["lost"]),
        ("level:rr", ["nan"]),
        # A colon that names no field is text.
        ("12:30", ["loss"]),
        ("loss:", []),
        ("lost:", ["lost"]),
        (":", ["lost", "loss", "batch"]),
        # What is only half typed.
        ("'no answer", []),
        ("!", ["nan"]),
        ("~", ["lost", "loss", "nan", "batch"]),
        ("[1/50", ["batch"]),
    ],
)
def test_a_filter_keeps_what_matches_all_its_words(text: str, expected: list[str]) -> None:
    assert kept(text) == expected


@pytest.mark.parametrize("text", ["~[", "pi !~(", "worker:~*", "level:~?"])
def test_what_is_no_regular_expression_is_refused_with_the_reason(text: str) -> None:
    pattern = text.rpartition("~")[2]
    with pytest.raises(FilterError) as refusal:
        parse(text)
    assert str(refusal.value).startswith(f"{pattern!r} is no regular expression: ")


@pytest.mark.parametrize("text", ["", "   "])
def test_a_filter_without_words_is_empty(text: str) -> None:
    assert parse(text).is_empty
    assert EVERYTHING.is_empty
    assert not parse("x").is_empty


def test_a_filter_keeps_its_text_and_the_words_to_highlight() -> None:
    text = "Lost 'no Answer' !pi ~x+ worker:pi"
    wanted = parse(text)
    assert (wanted.text, wanted.needles) == (text, ("lost", "no answer"))


def test_a_pair_of_quotes_matches_everything_so_far() -> None:
    assert parse('""').matches({"name": "kitchen"})


def test_a_backslash_belongs_to_the_regular_expression() -> None:
    assert parse(r"~^pi-\d+$").matches({"name": "pi-12"})
    assert not parse(r"~^pi-\d+$").matches({"name": "pi-d"})


def test_an_address_is_no_field() -> None:
    wanted = parse("kitchen:10002")
    assert wanted.matches({"address": "kitchen:10002"})
    assert not wanted.matches({"address": "kitchen:10003"})
    assert parse("12:30").needles == ("12:30",)


def test_what_a_mac_pastes_matches_what_is_shown() -> None:
    shown = {"worker": "라즈베리"}
    pasted = unicodedata.normalize("NFD", shown["worker"])
    assert pasted != shown["worker"]
    assert parse(pasted).matches(shown)
    assert parse(f"worker:~^{pasted}$").matches(shown)
    assert parse(pasted).needles == (shown["worker"],)
