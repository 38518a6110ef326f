"""Waits between attempts to reach a lost device: an announcement ends them."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from fedconsole.engine.lookout import Lookout
from fedconsole.fleet import mdns
from pi_daemon.discovery import Announcement, RegisteredDaemon
from tests.support.places import redirect

AN_HOUR_S = 3600.0
ID = "L" * 52
LOU = RegisteredDaemon(ID, "lou", "127.0.0.1", 12346, pid=1)


async def test_an_announcement_ends_a_wait_of_an_hour(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    redirect(tmp_path, monkeypatch)
    try:
        await mdns.browse(0)
    except OSError as error:
        pytest.skip(f"needs multicast: {error}")
    lookout = Lookout(search_s=1.0)
    loop = asyncio.get_running_loop()
    looking = loop.create_task(lookout.run())
    announcing = loop.create_task(Announcement(LOU).run())
    try:
        async with asyncio.timeout(60):
            assert await lookout.wait("127.0.0.1:12345", ID, AN_HOUR_S) == ["127.0.0.1:12346"]
    finally:
        for task in (looking, announcing):
            task.cancel()
        await asyncio.wait([looking, announcing])
