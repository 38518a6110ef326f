"""Two kills: a small part of `python -m tests.chaos.campaign`. Other kinds are in tests/e2e."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.chaos.campaign import run_campaign
from tests.chaos.kills import Victim
from tests.support.places import redirect


@pytest.mark.slow
@pytest.mark.timeout(400)
async def test_whatever_is_killed_the_run_completes_and_nothing_is_lost_or_counted_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    redirect(tmp_path, monkeypatch)
    outcomes = await run_campaign(2, 2, tmp_path)
    victims = {outcome.kill.victim for outcome in outcomes}
    assert victims == {Victim.TRAINER, Victim.ENGINE_AND_DAEMON}
    assert [problem for outcome in outcomes for problem in outcome.problems] == []
