"""Devices without a clock of their own, and consoles whose clock is wrong: no date matters to trust."""

from __future__ import annotations

import asyncio
import sys
import time
from pathlib import Path

import pytest

from tests.support.clocks import Clock
from tests.support.daemons import daemon, environment

YEAR_S = 365.25 * 86_400
YEARS = {1970: 0.1, 2026: 56.5, 2099: 129.5}
"""Since 1970: the middle of the year, or its beginning."""

CONSOLE = """
import asyncio, sys
from datetime import UTC, datetime
from pathlib import Path
from pi_daemon.trust.keys import open_keys
from tests.support.links import open_link
from tests.support.pairing import pair

async def main(join: str, folder: str) -> None:
    paired = await pair(join, open_keys(Path(folder)))
    async with open_link(int(join.split(":")[2]), paired=paired) as link:
        print(datetime.now(UTC).year, link.seen[0].name)

asyncio.run(main(*sys.argv[1:]))
"""


@pytest.mark.parametrize(("at_device", "at_console"), [(1970, 2026), (2099, 1970), (2026, 2099)])
async def test_a_console_pairs_and_connects_in_whatever_year_each_side_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at_device: int, at_console: int
) -> None:
    clock = Clock(tmp_path)

    def step(year: int) -> None:
        clock.step(YEARS[year] * YEAR_S - time.time())

    for name, value in clock.environment.items():
        monkeypatch.setenv(name, value)
    step(at_device)
    async with daemon(tmp_path, "--host", "127.0.0.1", "--pair") as alice:
        # The device has its time in a file of its own, and goes on to read it.
        own = tmp_path / "console"
        own.mkdir()
        there = Clock(own)
        there.step(YEARS[at_console] * YEAR_S - time.time())
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", CONSOLE, alice.join, str(own / "keys")),
            env=environment(own / "p") | there.environment,
            stdout=asyncio.subprocess.PIPE,
        )
        told, _ = await process.communicate()
        [console] = (alice.state_dir / "consoles").glob("*.json")
        assert f'"paired_at":"{at_device}-' in console.read_text()
    assert told.decode() == f"{at_console} alice\n"
