"""A desk with prepared contents: what screens show without devices, engines or files."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from fedconsole.coordinator.phases import Request
from fedconsole.coordinator.plan import Plan
from fedconsole.errors import FedconsoleError
from fedconsole.fleet.device import parse_address
from fedconsole.fleet.inventory import Inventory
from fedconsole.history import RoundSummary, RunSummary
from fedconsole.tui.desk import Line

NOW = datetime(2026, 11, 23, 12, 0, 31, tzinfo=UTC)


@dataclass
class PreparedDesk:
    """Fill the fields before the screen opens; read `requests`, `started` and `removed` after."""

    name: str = "desk-1"
    inventory: Inventory = field(default_factory=Inventory)
    time_s: float = 1_000.0
    wall: datetime = NOW
    summaries: dict[str, RunSummary] = field(default_factory=dict)
    """In the order of their start."""
    round_tables: dict[str, list[RoundSummary]] = field(default_factory=dict)
    journals: dict[str, list[Line]] = field(default_factory=dict)
    running: set[str] = field(default_factory=set)
    refusal: FedconsoleError | None = None
    """What the next requests and starts raise."""
    preflight_lines: list[Line] = field(default_factory=list)
    plan: Plan | None = None
    settings: dict[str, object] = field(default_factory=dict)
    folder: Path = Path("exports")
    requests: list[tuple[str, Request]] = field(default_factory=list)
    started: list[Plan] = field(default_factory=list)
    taken_up: list[str] = field(default_factory=list)
    removed: list[str] = field(default_factory=list)
    added: list[str] = field(default_factory=list)
    own_id: str = ""
    paired: list[str] = field(default_factory=list)
    """What was pasted."""
    forgotten: list[str] = field(default_factory=list)
    _grown: asyncio.Event = field(default_factory=asyncio.Event)

    async def watch(self) -> None:
        await asyncio.Event().wait()

    def add_device(self, address: str) -> None:
        self.added.append(parse_address(address))

    async def pair(self, text: str) -> str:
        if self.refusal is not None:
            raise self.refusal
        self.paired.append(text)
        return "kitchen"

    async def forget(self, device_id: str) -> None:
        if self.refusal is not None:
            raise self.refusal
        self.forgotten.append(device_id)

    def clock(self) -> float:
        return self.time_s

    def now(self) -> datetime:
        return self.wall

    def let_pass(self, seconds: float) -> None:
        """Both clocks go on, as they do."""
        self.time_s += seconds
        self.wall += timedelta(seconds=seconds)

    def run_ids(self) -> list[str]:
        return list(self.summaries)

    def last_words(self, run: str) -> str:
        return f"MemoryError ({self.folder / run / 'engine.log'})"

    def summarize(self, run: str) -> RunSummary | None:
        return self.summaries.get(run)

    def rounds(self, run: str) -> list[RoundSummary]:
        return self.round_tables.get(run, [])

    def lines(self, run: str) -> Iterator[Line]:
        yield from self.journals.get(run, [])

    def is_running(self, run: str) -> bool:
        return run in self.running

    def tell(self, run: str, *lines: Line) -> None:
        """Let an engine write more lines."""
        self.journals.setdefault(run, []).extend(lines)
        self._grown.set()

    async def follow(self, run: str) -> AsyncIterator[Line]:
        """The prepared lines, then those of `tell`; ends after `run.finished`."""
        index = 0
        while True:
            self._grown.clear()
            journal = self.journals.get(run, [])
            while index < len(journal):
                yield journal[index]
                index += 1
                if journal[index - 1]["type"] == "run.finished":
                    return
            await self._grown.wait()

    async def request(self, run: str, request: Request) -> None:
        if self.refusal is not None:
            raise self.refusal
        self.requests.append((run, request))

    async def start(self, plan: Plan) -> str:
        if self.refusal is not None:
            raise self.refusal
        self.started.append(plan)
        run = f"20261123-{len(self.started):04x}"
        self.running.add(run)
        return run

    async def take_up(self, run: str) -> None:
        if self.refusal is not None:
            raise self.refusal
        self.taken_up.append(run)
        self.running.add(run)

    async def preflight(self, plan: Plan) -> AsyncIterator[Line]:
        for line in self.preflight_lines:
            yield line

    def last_plan(self) -> Plan | None:
        return self.plan

    def configured(self) -> Mapping[str, Any]:
        return self.settings

    def remove(self, run: str) -> None:
        if self.refusal is not None:
            raise self.refusal
        self.removed.append(run)
        self.summaries.pop(run, None)

    def export_folder(self) -> Path:
        return self.folder


@dataclass
class SlowDesk(PreparedDesk):
    """Its checks wait until they are let go."""

    may_go_on: asyncio.Event = field(default_factory=asyncio.Event)

    async def preflight(self, plan: Plan) -> AsyncIterator[Line]:
        await self.may_go_on.wait()
        async for line in super().preflight(plan):
            yield line
