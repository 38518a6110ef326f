"""Who may pair, and how often one may try."""

from __future__ import annotations

import pytest

from pi_daemon.protocol.pairing import ConsoleRole
from pi_daemon.trust.window import MAX_TRIES_PER_S, WINDOW_S, PairingWindow, Verdict

SECRET = "4KAJWKBR5RGYOW7J"


@pytest.fixture
def window() -> PairingWindow:
    window = PairingWindow()
    window.open(SECRET, ConsoleRole.OPERATOR, 100.0)
    return window


def test_the_right_secret_is_admitted_until_the_window_is_over(window: PairingWindow) -> None:
    assert window.judge(SECRET, "a", 100.0) is Verdict.ADMITTED
    assert window.judge(SECRET, "b", 99.9 + WINDOW_S) is Verdict.ADMITTED
    assert window.judge(SECRET, "c", 100.0 + WINDOW_S) is Verdict.CLOSED


def test_a_secret_is_worth_nothing_before_a_window_and_after_its_use(window: PairingWindow) -> None:
    assert PairingWindow().judge("", "a", 0.0) is Verdict.CLOSED
    window.close()
    assert window.judge(SECRET, "a", 101.0) is Verdict.CLOSED
    assert window.judge("", "b", 101.0) is Verdict.CLOSED


def test_a_new_window_makes_the_old_secret_worthless(window: PairingWindow) -> None:
    window.open("B" * 16, ConsoleRole.VIEWER, 101.0)
    assert window.judge(SECRET, "a", 102.0) is Verdict.WRONG
    assert window.role is ConsoleRole.VIEWER


def test_wrong_tries_never_close_it(window: PairingWindow) -> None:
    for second in range(1, 60):
        assert window.judge("A" * 16, "neighbour", 100.0 + second) is Verdict.WRONG
    assert window.judge(SECRET, "owner", 159.5) is Verdict.ADMITTED


def test_wrong_tries_of_an_address_are_limited(window: PairingWindow) -> None:
    assert window.judge("A" * 16, "neighbour", 101.0) is Verdict.WRONG
    assert window.judge("A" * 16, "neighbour", 101.9) is Verdict.TOO_FAST
    assert window.judge("A" * 16, "owner", 101.9) is Verdict.WRONG
    assert window.judge("A" * 16, "neighbour", 102.0) is Verdict.WRONG


def test_wrong_tries_of_all_together_are_limited_and_keep_nobody_out(window: PairingWindow) -> None:
    for i in range(MAX_TRIES_PER_S):
        assert window.judge("A" * 16, f"address {i}", 101.0) is Verdict.WRONG
    assert window.judge("A" * 16, "one more", 101.5) is Verdict.TOO_FAST
    assert window.judge(SECRET, "owner", 101.5) is Verdict.ADMITTED


def test_a_secret_with_characters_of_any_kind_is_only_wrong(window: PairingWindow) -> None:
    assert window.judge("é" * 16, "a", 101.0) is Verdict.WRONG


def test_the_secret_is_in_no_representation(window: PairingWindow) -> None:
    assert SECRET not in repr(window)
