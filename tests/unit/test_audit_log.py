"""The audit log's file: whole lines, bounded, private, and a disk that is full stops nothing."""

from __future__ import annotations

import json
import stat
from datetime import UTC, datetime, timedelta
from itertools import count
from pathlib import Path

import pytest

from pi_daemon.audit.log import (
    BEFORE,
    MAX_WAITING,
    NAME,
    PER_MINUTE,
    AuditLog,
    Sums,
    is_entry,
    read_log,
    sums_of,
)
from pi_daemon.audit.recorder import Entry
from tests.support.disks import full, small_disk

NOON = datetime(2026, 11, 27, 12, 0, tzinfo=UTC)
UPDATE: Entry = {"what": "update sent", "console": "desk-1", "console_id": "ID", "bytes": 300}
REFUSED: Entry = {"what": "refused", "console": "desk-1", "console_id": "ID"}


def lines_in(folder: Path) -> list[Entry]:
    return [entry for entry in read_log(folder) if is_entry(entry)]


def without_time(entry: Entry) -> Entry:
    return {key: value for key, value in entry.items() if key != "time"}


def test_an_entry_is_a_line_with_the_time_that_only_the_owner_can_read(
    tmp_path: Path,
) -> None:
    log = AuditLog(tmp_path)
    log.put([UPDATE])
    log.close()
    [line] = (tmp_path / NAME).read_text().splitlines()
    entry = json.loads(line)
    assert list(entry) == ["time", *UPDATE]
    assert entry["time"].endswith("Z")
    assert stat.S_IMODE((tmp_path / NAME).stat().st_mode) == 0o600


def test_text_of_consoles_is_cleaned(tmp_path: Path) -> None:
    log = AuditLog(tmp_path)
    log.put([{**REFUSED, "console": "a\x1b[31m\u202eb\n", "cards": ["\x07c"]}])
    log.close()
    [entry] = lines_in(tmp_path)
    assert (entry["console"], entry["cards"]) == ("a[31mb ", ["c"])


def test_a_file_that_is_full_begins_anew_with_the_sums_of_all_before(tmp_path: Path) -> None:
    for _ in range(40):
        log = AuditLog(tmp_path, max_bytes=1_000)
        log.put([UPDATE, {"what": "evaluation sent"}, {"what": "losses told", "losses": 7}])
        log.close()
    assert sums_of(read_log(tmp_path)) == Sums(40, 40 * 300, 40, 40 * 7)
    assert 3 <= len(lines_in(tmp_path)) < 20
    assert {path.name for path in tmp_path.iterdir()} == {NAME, BEFORE}
    assert all(path.stat().st_size <= 1_000 for path in tmp_path.iterdir())


def test_what_a_power_cut_left_of_a_line_spoils_no_other(tmp_path: Path) -> None:
    (tmp_path / NAME).write_bytes(b'{"what": "upda')
    log = AuditLog(tmp_path)
    log.put([UPDATE])
    log.close()
    assert [without_time(entry) for entry in lines_in(tmp_path)] == [UPDATE]


def test_what_costs_a_console_nothing_washes_nothing_away(tmp_path: Path) -> None:
    now = NOON
    log = AuditLog(tmp_path, now=lambda: now)
    log.put([REFUSED] * (PER_MINUTE + 50))
    log.put([UPDATE])
    now += timedelta(minutes=1)
    log.put([REFUSED])
    log.close()
    *first, gap, update, later = map(without_time, lines_in(tmp_path))
    assert first == [REFUSED] * PER_MINUTE
    assert (gap, update, later) == ({"what": "left out", "lines": 50}, UPDATE, REFUSED)


def test_what_leaves_the_device_is_counted_where_its_line_is_left_out(tmp_path: Path) -> None:
    log = AuditLog(tmp_path, max_bytes=4_000, now=lambda: NOON)
    each = [UPDATE, {"what": "evaluation sent"}, {"what": "losses told", "losses": 7}]
    for _ in range(PER_MINUTE + 50):
        log.put(each)
    log.close()
    num = PER_MINUTE + 50
    assert sums_of(read_log(tmp_path)) == Sums(num, num * 300, num, num * 7)
    gap = {"updates": 50, "update_bytes": 50 * 300, "evaluations": 50, "losses": 50 * 7}
    assert without_time(lines_in(tmp_path)[-1]) == {"what": "left out", "lines": 150, **gap}


@pytest.mark.parametrize("what", ["round aborted", "lease released", "evaluation sent"])
def test_commands_that_cost_little_wash_nothing_away(tmp_path: Path, what: str) -> None:
    log = AuditLog(tmp_path, now=lambda: NOON)
    log.put([{"what": what}] * (10 * PER_MINUTE))
    log.close()
    assert len(lines_in(tmp_path)) <= PER_MINUTE + 1


def test_neither_strangers_nor_links_hide_what_a_console_was_refused(tmp_path: Path) -> None:
    now = NOON
    log = AuditLog(tmp_path, now=lambda: now)
    for what in ("link refused", "link opened", "lease taken", "link closed"):
        log.put([{"what": what}] * PER_MINUTE)
    log.put([REFUSED])
    log.close()
    assert without_time(lines_in(tmp_path)[-1]) == REFUSED


def test_a_full_disk_is_said_once_and_nothing_is_lost_when_there_is_room_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    minutes = count()
    with small_disk(tmp_path / "disk", 64 << 10) as disk:
        log = AuditLog(disk, now=lambda: NOON + timedelta(minutes=next(minutes)))
        log.put([UPDATE] * 3)
        log.close()
        with full(disk):
            for number in range(200):
                log.put([{**UPDATE, "number": number}])
                log.close()
            said = [record.getMessage() for record in caplog.records]
            assert len(said) == 1
            assert said[0].startswith("the audit log cannot be written: [Errno 28]")
        log.put([UPDATE])
        log.close()
        found = lines_in(disk)
        assert [entry.get("number") for entry in found[-201:-1]] == list(range(200))
        assert [without_time(entry) for entry in (*found[:-201], found[-1])] == [UPDATE] * 4


def test_a_disk_that_takes_a_part_of_a_line_has_none_of_it(tmp_path: Path) -> None:
    long = {**UPDATE, "cards": ["x" * 500] * 20}
    with small_disk(tmp_path / "disk", 64 << 10) as disk:
        log = AuditLog(disk)
        log.put([UPDATE])
        log.close()
        before = (disk / NAME).read_bytes()
        with full(disk):
            log.put([long])
            log.close()
            assert (disk / NAME).read_bytes() == before
        log.close()
        assert [without_time(entry) for entry in lines_in(disk)] == [UPDATE, long]


def test_entries_that_a_dead_disk_never_takes_are_only_counted(tmp_path: Path) -> None:
    log = AuditLog(tmp_path / "gone")
    for _ in range(MAX_WAITING + 100):
        log.put([UPDATE])
    log.close()
    (tmp_path / "gone").mkdir()
    log.close()
    assert sum(entry.get("lines", 1) for entry in lines_in(tmp_path / "gone")) == MAX_WAITING + 100
