"""For the tests of one daemon against a console that means harm: each file has its own daemon."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from pi_daemon.protocol.messages import Ok
from tests.support.daemons import DaemonProcess, daemon
from tests.support.hostile import MEMORY
from tests.support.links import RawLink, open_link
from tests.support.rounds import write_dataset

fences = itertools.count(1)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_dataset(tmp_path_factory.mktemp("data") / "digits.npz")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def alice(
    tmp_path_factory: pytest.TempPathFactory, data: Path
) -> AsyncIterator[DaemonProcess]:
    folder = tmp_path_factory.mktemp("daemon")
    options = ("--dataset", f"digits={data}", "--max-memory", str(MEMORY))
    async with daemon(folder, *options) as running:
        yield running


@pytest_asyncio.fixture(loop_scope="module")
async def link(alice: DaemonProcess) -> AsyncIterator[RawLink]:
    """Of a console that means harm."""
    async with open_link(alice.port, fence=next(fences)) as opened:
        assert isinstance(await opened.take_lease(take_over=True), Ok)
        yield opened
