from __future__ import annotations

from pathlib import Path

from fedconsole.health import is_disk_low, worries
from fedconsole.tui import lang
from fedconsole.tui.widgets.health import clock_words
from pi_daemon.protocol.messages import Telemetry
from pi_daemon.telemetry import measure

FINE = Telemetry(79.0, 0x50000, 2**30, 2**32, 2**33, 0.5)


def test_a_device_that_is_well_gives_no_worry() -> None:
    assert list(worries(FINE, 59.0)) == []
    assert list(worries(Telemetry(None, None, 0, 0, 2**33, None), None)) == []


def test_heat_throttling_a_full_disk_and_a_wrong_clock_are_worries() -> None:
    ill = Telemetry(82.4, 0x4, 2**30, 2**32, 300 << 20, 0.5)
    assert list(worries(ill, -7200.0)) == [
        "it is hot: 82 °C",
        "it is throttled",
        "its disk is nearly full: 300 MiB are free",
        "its clock is 120 min behind",
    ]
    assert list(worries(FINE, 90.0)) == ["its clock is 2 min ahead"]


def test_a_disk_that_was_low_is_low_until_twice_as_much_is_free() -> None:
    assert [is_disk_low(mib << 20) for mib in (511, 512)] == [True, False]
    assert [is_disk_low(mib << 20, was_low=True) for mib in (1023, 1024)] == [True, False]
    assert not is_disk_low(None, was_low=True)


def test_a_clock_is_right_within_a_minute() -> None:
    lang.use("en")
    told = (None, 0.2, -60.0, 61.0, -86_400.0)
    assert list(map(clock_words, told)) == ["-", "right", "right", "1m ahead", "1d behind"]


async def test_a_device_tells_its_own_clock(tmp_path: Path) -> None:
    first, second = await measure(tmp_path), await measure(tmp_path)
    assert first.clock is not None
    assert second.clock is not None
    assert 1.7e9 < first.clock <= second.clock
