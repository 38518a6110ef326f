"""A device whose address changes while its daemon runs: it is announced where it is now."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Sequence
from pathlib import Path

from tests.support.daemons import daemon
from tests.support.namespaces import moving_host

OLD, NEW = "10.213.9.2", "10.213.9.3"
WAIT_S = 90.0
BROWSE = """
import asyncio
from fedconsole.fleet import mdns
print(*(device.address for device in asyncio.run(mdns.browse(1.0))))
"""


async def announced(enter: Sequence[str]) -> str:
    """Where devices are, by what is heard on the host."""
    process = await asyncio.create_subprocess_exec(
        *(*enter, sys.executable, "-c", BROWSE), stdout=asyncio.subprocess.PIPE
    )
    stdout, _ = await process.communicate()
    return stdout.decode().strip()


async def test_a_device_whose_address_changes_is_announced_at_the_new_one(tmp_path: Path) -> None:
    with moving_host(OLD) as host:
        options = ("--host", "0.0.0.0", "--pair")  # all of the namespace's
        async with (
            daemon(tmp_path, *options, is_announced=True, under=host.enter) as alice,
            asyncio.timeout(WAIT_S),
        ):
            while await announced(host.enter) != f"{OLD}:{alice.port}":
                pass
            host.move(OLD, NEW)
            while await announced(host.enter) != f"{NEW}:{alice.port}":
                pass
