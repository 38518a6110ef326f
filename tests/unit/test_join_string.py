"""What is carried from a device to a console, by hand."""

from __future__ import annotations

import pytest

from pi_daemon.trust.join import JoinError, JoinString, new_secret, parse_join

DEVICE = "LOEWQ3QV" * 6 + "JFJF"
SECRET = "4KAJWKBR5RGYOW7J"
TEXT = f"fp1:192.168.0.52:10002:{DEVICE}:{SECRET}"


@pytest.mark.parametrize("host", ["192.168.0.52", "kitchen.local", "fe80::1", "a"])
def test_what_is_printed_is_read_as_it_was(host: str) -> None:
    join = JoinString(host, 10002, DEVICE, new_secret())
    assert parse_join(f"  {join}\n") == join


def test_an_ipv6_address_is_in_brackets() -> None:
    assert JoinString("fe80::1", 10002, DEVICE, SECRET).address == "[fe80::1]:10002"


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "no join string"),
        ("192.168.0.52:10002", "no join string"),
        ("fp1" + "x" * 400, "no join string"),
        (TEXT[:-1], "is cut"),
        (TEXT[:60], "is cut"),
        (TEXT.replace(DEVICE, DEVICE[1:]), "is cut"),
        (TEXT.replace("10002", "0"), "port 0"),
        (TEXT.replace("10002", "65536"), "port 65536"),
        (TEXT.replace("fp1", "fp2"), "version 2"),
        (TEXT.replace("192.168.0.52", "a/b"), "something else"),
        (TEXT.replace("4KAJ", "4kaj"), "something else"),
        (TEXT.replace("10002", "１０００２"), "something else"),
    ],
)
def test_what_is_no_join_string_is_refused_in_words(text: str, why: str) -> None:
    with pytest.raises(JoinError, match=why):
        parse_join(text)


def test_the_secret_is_in_no_representation_and_no_error() -> None:
    assert SECRET not in repr(parse_join(TEXT))
    with pytest.raises(JoinError) as raised:
        parse_join(TEXT.replace("192.168.0.52", "a/b"))
    assert SECRET not in str(raised.value)


def test_secrets_have_80_bits_and_differ() -> None:
    assert len({new_secret() for _ in range(100)}) == 100
    assert len(new_secret()) * 5 == 80
