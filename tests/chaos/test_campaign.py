"""One kill of each kind: a small part of `python -m tests.chaos.campaign`."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.chaos.campaign import Victim, run_campaign
from tests.support.places import redirect


@pytest.mark.timeout(400)
async def test_whatever_is_killed_the_run_completes_and_nothing_is_lost_or_counted_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    redirect(tmp_path, monkeypatch)
    outcomes = await run_campaign(4, 1, tmp_path)
    assert {outcome.kill.victim for outcome in outcomes} == set(Victim)
    assert [problem for outcome in outcomes for problem in outcome.problems] == []
