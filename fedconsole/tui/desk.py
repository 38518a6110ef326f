"""All that screens may ask for. What carries it out is given to the app from outside."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Mapping
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from fedconsole.coordinator.phases import Request
from fedconsole.coordinator.plan import Plan
from fedconsole.fleet.inventory import Inventory

if TYPE_CHECKING:
    from fedconsole.history import RoundSummary, RunSummary

Line = Mapping[str, Any]
"""docs/operating.md, "JSON lines"."""


class Desk(Protocol):
    """The desktop as the screens see it."""

    @property
    def name(self) -> str:
        """Of this console."""

    @property
    def inventory(self) -> Inventory:
        """The devices, as fresh as `watch` keeps them."""

    async def watch(self) -> None:
        """Keep the inventory up to date until cancelled."""

    def add_device(self, address: str) -> None:
        """Watch a device at HOST:PORT, too. Raises UsageError when that is no address."""

    @property
    def own_id(self) -> str:
        """Of this console's key; "" while there is none, or it is not read yet."""

    async def pair(self, text: str) -> str:
        """Pair with the device that printed this join string; its name. Raises FedconsoleError."""

    async def forget(self, device_id: str) -> None:
        """A paired device is a stranger from then on. Raises FedconsoleError."""

    def clock(self) -> float:
        """Monotonic seconds."""

    def now(self) -> datetime:
        """UTC; only to show."""

    def run_ids(self) -> list[str]:
        """By their start, the newest last."""

    def last_words(self, run: str) -> str:
        """The last line that its engine logged, and where. For a run without a journal."""

    def summarize(self, run: str) -> RunSummary | None: ...

    def rounds(self, run: str) -> list[RoundSummary]: ...

    def lines(self, run: str) -> Iterator[Line]:
        """The journal so far; it may be long."""

    def is_running(self, run: str) -> bool: ...

    def follow(self, run: str) -> AsyncIterator[Line]:
        """All lines from the first on; ends with the engine."""

    async def request(self, run: str, request: Request) -> None:
        """Raises FedconsoleError when the run cannot do that now; the message says why."""

    async def start(self, plan: Plan) -> str:
        """Start a run and return its id. Raises FedconsoleError."""

    async def take_up(self, run: str) -> None:
        """Start another engine for a run whose own is gone; cancelled, leave the run as it is.

        Raises FedconsoleError.
        """

    def preflight(self, plan: Plan) -> AsyncIterator[Line]:
        """A dry run: `preflight` lines, then `run.finished`."""

    def last_plan(self) -> Plan | None:
        """That of the newest run."""

    def configured(self) -> Mapping[str, Any]:
        """What files and the environment set, by the plan's field."""

    def remove(self, run: str) -> None:
        """Delete a run's folder. Raises FedconsoleError."""

    def export_folder(self) -> Path:
        """Where exports and pictures go; may not exist yet."""
