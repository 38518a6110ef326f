"""What the console is given: the fleet, the runs' folders, and the engines' control sockets.

What takes time to import is imported when it is first used: the first frame does not wait for it.
"""

from __future__ import annotations

import asyncio
import platform
import subprocess
import threading
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from fedconsole import config, paths
from fedconsole.coordinator.phases import Request
from fedconsole.coordinator.plan import Plan
from fedconsole.errors import FedconsoleError, UsageError
from fedconsole.fleet.inventory import Inventory
from pi_daemon.protocol.text import clean

if TYPE_CHECKING:
    from fedconsole.engine.store import Line
    from fedconsole.fleet.watching import Watcher
    from fedconsole.history import RoundSummary, RunSummary

_END_S = 10.0


class _HasLeftError(Exception):
    """The operator does not wait for an engine any more."""


class RealDesk:
    """This desktop."""

    def __init__(self, settings: config.Config) -> None:
        self.name = clean(platform.node(), 64) or "desktop"
        self.inventory = Inventory()
        self._settings = settings
        self._engines: list[subprocess.Popen[bytes]] = []
        """Kept, so that ended ones do not stay as zombies."""
        self._watcher: Watcher | None = None
        self.own_id = ""
        self._added: list[str] = []
        """Addresses that were typed before there was a watcher."""

    async def watch(self) -> None:
        self._watcher = await asyncio.to_thread(self._make_watcher)
        self.own_id = await asyncio.to_thread(_own_id)
        for address in self._added:
            self._watcher.add(address)
        await self._watcher.run()

    def _make_watcher(self) -> Watcher:
        from fedconsole.fleet.watching import Watcher

        seconds = self._settings.front_end().search_seconds
        return Watcher(self.inventory, self._settings.devices, seconds, time.monotonic)

    def add_device(self, address: str) -> None:
        if self._watcher is not None:
            self._watcher.add(address)
        else:
            from fedconsole.fleet.device import parse_address

            self._added.append(parse_address(address))

    async def pair(self, text: str) -> str:
        from fedconsole.trust import pairing
        from pi_daemon.trust.join import JoinError, parse_join

        try:
            join = parse_join(text)
        except JoinError as error:
            raise UsageError(str(error)) from error
        device = await pairing.pair(join, lambda: self._places(join.device_id))
        self.own_id = await asyncio.to_thread(_own_id)
        return device.name

    async def _places(self, device_id: str) -> list[str]:
        """Where a device was announced."""
        from fedconsole.fleet.finding import places_of

        return places_of(device_id, (record.device for record in self.inventory.records.values()))

    async def forget(self, device_id: str) -> None:
        from fedconsole.trust import known_devices

        await asyncio.to_thread(known_devices.forget, device_id)

    def clock(self) -> float:
        return time.monotonic()

    def now(self) -> datetime:
        return datetime.now(tz=UTC)

    def run_ids(self) -> list[str]:
        from fedconsole import history

        return history.by_start()

    def last_words(self, run: str) -> str:
        from fedconsole import history

        return history.last_words(run)

    def summarize(self, run: str) -> RunSummary | None:
        from fedconsole import history

        return history.summarize(run)

    def rounds(self, run: str) -> list[RoundSummary]:
        from fedconsole import history

        return history.rounds(run)

    def lines(self, run: str) -> Iterator[Line]:
        from fedconsole import history

        return history.lines(run)

    def is_running(self, run: str) -> bool:
        from fedconsole import history

        return history.is_running(run)

    def follow(self, run: str) -> AsyncIterator[Line]:
        from fedconsole import history

        return history.follow(run)

    async def request(self, run: str, request: Request) -> None:
        from fedconsole.engine.control import ControlLink

        async with ControlLink.connect(run) as link:
            await link.request(request)

    async def start(self, plan: Plan) -> str:
        from fedconsole.engine.launch import new_run_id, start_engine

        run = new_run_id()
        self._keep(await asyncio.to_thread(start_engine, run, plan))
        return run

    async def take_up(self, run: str) -> None:
        from fedconsole.engine.launch import take_up_engine

        has_left = threading.Event()

        def wait(_num_seconds: int) -> None:
            if has_left.is_set():
                raise _HasLeftError

        try:
            engine = await asyncio.to_thread(take_up_engine, run, while_waiting=wait)
        except asyncio.CancelledError:
            has_left.set()
            raise
        self._keep(engine)

    def _keep(self, started: subprocess.Popen[bytes]) -> None:
        self._engines = [engine for engine in self._engines if engine.poll() is None]
        self._engines.append(started)

    async def preflight(self, plan: Plan) -> AsyncIterator[Line]:
        from fedconsole.engine.launch import new_run_id, start_engine

        run = new_run_id()
        engine = await asyncio.to_thread(start_engine, run, plan, dry_run=True)
        try:
            async for line in self.follow(run):
                yield line
        finally:
            # Also when nobody waits for its end: it removes its folder itself.
            await self._end(run, engine)

    async def _end(self, run: str, engine: subprocess.Popen[bytes]) -> None:
        with suppress(FedconsoleError):
            await self.request(run, Request.ABORT)
        await asyncio.to_thread(_wait, engine)

    def last_plan(self) -> Plan | None:
        from fedconsole import history

        for run in reversed(history.by_start()):
            summary = history.summarize(run)
            if summary is not None:
                return msgspec.convert(summary.plan, Plan)
        return None

    def configured(self) -> Mapping[str, Any]:
        return self._settings.run_values()

    def remove(self, run: str) -> None:
        from fedconsole import history

        history.remove(run)

    def export_folder(self) -> Path:
        return paths.state_dir() / "exports"


def _own_id() -> str:
    """This console's id, if it has a key that can be used: who has none, has nothing paired."""
    if not (paths.identity_dir() / "key.pem").exists():
        return ""
    from fedconsole.trust.own_keys import own_keys

    try:
        return own_keys().id
    except FedconsoleError:
        return ""  # every link says why


def _wait(engine: subprocess.Popen[bytes]) -> None:
    try:
        engine.wait(_END_S)
    except subprocess.TimeoutExpired:
        engine.kill()
        engine.wait()
