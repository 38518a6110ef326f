"""For the tests of one daemon: each file has its own, initialised, with one console paired."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from tests.support.daemons import DaemonProcess
from tests.support.pairing import PairedConsole, paired_daemon
from tests.support.rounds import tiny_model


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def alice(
    tmp_path_factory: pytest.TempPathFactory,
) -> AsyncIterator[tuple[DaemonProcess, PairedConsole]]:
    async with paired_daemon(tmp_path_factory.mktemp("daemon")) as both:
        yield both


@pytest.fixture
def running(alice: tuple[DaemonProcess, PairedConsole]) -> DaemonProcess:
    return alice[0]


@pytest.fixture
def desk(alice: tuple[DaemonProcess, PairedConsole]) -> PairedConsole:
    return alice[1]


@pytest.fixture(scope="session", autouse=True)
def _capturing_has_been_imported() -> None:
    """It takes seconds, and a link that is silent meanwhile ends."""
    tiny_model()
