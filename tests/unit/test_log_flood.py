"""How much of what repeats gets into the log."""

from __future__ import annotations

import logging

from pi_daemon.server.log_flood import MAX_LINES, PERIOD_S, FloodFilter


class Log:
    """What a logger with the filter has written."""

    def __init__(self) -> None:
        self.now_s = 0.0
        self.lines: list[str] = []
        self._filter = FloodFilter(lambda: self.now_s)

    def say(self, text: str, *args: object) -> None:
        record = logging.LogRecord("pi_daemon", logging.WARNING, "", 0, text, args, None)
        if self._filter.filter(record):
            self.lines.append(record.getMessage())


def test_of_one_kind_of_line_only_so_many_are_written_in_a_period() -> None:
    log = Log()
    for number in range(1_000):
        log.say("link %s closed", number)
    assert log.lines == [f"link {number} closed" for number in range(MAX_LINES)]


def test_the_next_period_begins_with_how_many_were_left_out() -> None:
    log = Log()
    for number in range(MAX_LINES + 5):
        log.say("link %s closed", number)
    log.now_s = PERIOD_S
    log.say("link %s closed", "100%")
    log.say("link %s closed", "b")
    assert log.lines[MAX_LINES:] == ["link 100% closed (and 5 such lines before)", "link b closed"]


def test_other_lines_are_written_meanwhile() -> None:
    log = Log()
    for number in range(MAX_LINES + 5):
        log.say("link %s closed", number)
    log.say("paired with %s", "desk-1")
    assert log.lines[-1] == "paired with desk-1"
