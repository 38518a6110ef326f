"""The judge of pauses, on a recorded run and on lies about it."""

from __future__ import annotations

from typing import Any

import pytest

from screenshots.__main__ import read
from tests.support.pauses import pauses_of, require_obeyed

PAUSED: list[dict[str, Any]] = [dict(line) for line in read("paused")]


def is_acknowledgement(line: dict[str, Any]) -> bool:
    return line["type"] == "worker.phase" and line["phase"] == "paused"


def test_the_pause_of_a_real_run_was_obeyed() -> None:
    (pause,) = pauses_of(PAUSED)
    assert pause.acknowledged == {"alice", "charlie"}
    require_obeyed([pause])


def test_a_pause_that_nobody_acknowledged_is_noticed() -> None:
    with pytest.raises(AssertionError, match="nobody acknowledged"):
        require_obeyed(pauses_of(line for line in PAUSED if not is_acknowledgement(line)))
    with pytest.raises(AssertionError, match="nobody acknowledged"):
        require_obeyed([])


def test_one_that_was_asked_and_did_not_stop_is_noticed() -> None:
    first = next(line for line in PAUSED if is_acknowledgement(line))
    with pytest.raises(AssertionError, match=first["worker"]):
        require_obeyed(pauses_of(line for line in PAUSED if line is not first))


def test_a_batch_of_one_that_had_stopped_is_noticed() -> None:
    at = max(index for index, line in enumerate(PAUSED) if is_acknowledgement(line))
    late = {"type": "worker.batches", "worker": PAUSED[at]["worker"], "losses": [0.1]}
    with pytest.raises(AssertionError):
        require_obeyed(pauses_of([*PAUSED[: at + 1], late, *PAUSED[at + 1 :]]))
