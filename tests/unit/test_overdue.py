from __future__ import annotations

import time

from fedconsole.engine.lookout import is_overdue


def test_a_device_that_refuses_has_its_time_to_come_however_late_that_is_heard() -> None:
    refused = ConnectionRefusedError(111, "Connection refused")
    now_s = time.monotonic()
    assert not is_overdue(refused, now_s - 60, dialled_s=now_s - 59)
    assert is_overdue(refused, now_s - 60, dialled_s=now_s - 54)
    assert is_overdue(TimeoutError(), now_s - 60, dialled_s=now_s - 59)
