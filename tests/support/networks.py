"""Two daemons, of which one is reached over a link that can be spoilt; and what a run over it shows."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from fedconsole.coordinator.plan import Plan
from fedconsole.engine.store import Line
from pi_daemon.protocol.messages import Hello, Status
from tests.support.chaos import ChaosProxy
from tests.support.daemons import DaemonProcess, daemon
from tests.support.links import open_link
from tests.support.runs import FinishedRun, digits_plan

NOTICE_HALF_OPEN_S = 15


@dataclass(frozen=True)
class Network:
    """Alice is reached directly, bob through a proxy."""

    alice: DaemonProcess
    bob: DaemonProcess
    proxy: ChaosProxy

    def plan(self, **changes: Any) -> Plan:
        workers = (f"127.0.0.1:{self.alice.port}", self.proxy.address)
        return digits_plan(**({"virtual": 0, "workers": workers, "rounds": 3} | changes))


@asynccontextmanager
async def alice_and_bob(folder: Path) -> AsyncIterator[tuple[DaemonProcess, DaemonProcess]]:
    async with AsyncExitStack() as stack:
        alice, bob = [
            await stack.enter_async_context(
                daemon(folder, "--dataset", "digits=sample", "--shard", shard, name=name)
            )
            for name, shard in (("alice", "1/2"), ("bob", "2/2"))
        ]
        yield alice, bob


async def until_free(device: DaemonProcess) -> None:
    """Wait until no console's lease of the device is valid."""
    async with open_link(device.port) as link:
        [hello] = [message for message in link.seen if isinstance(message, Hello)]
        if hello.status is not None and hello.status.holder is not None:
            await link.expect(Status, lambda told: told.status.holder is None)


def at(line: Line) -> datetime:
    return datetime.fromisoformat(line["time"])


def seconds_between(first: Line | datetime, second: Line) -> float:
    began = first if isinstance(first, datetime) else at(first)
    return (at(second) - began).total_seconds()


def assert_counted_once(run: FinishedRun, workers: tuple[str, ...] = ("alice", "bob")) -> None:
    """Each worker's update has counted in each round, and none twice."""
    finished = run.of_type("round.finished")
    assert [line["updates"] for line in finished] == [list(workers)] * len(finished)
    counted = [(line["round"], line["worker"]) for line in run.of_type("worker.update")]
    assert sorted(counted) == [(line["round"], name) for line in finished for name in workers]


def assert_losses_told_once(lines: Sequence[Line]) -> None:
    """Of each worker's rounds the losses from the first on, and of a delivered one all of them."""
    told: dict[object, int] = {}
    num_batches = 0
    for line in lines:
        key = line.get("worker"), line.get("round")
        match line["type"]:
            case "worker.batches":
                assert line["first"] == told.get(key, 0)
                told[key] = line["first"] + len(line["losses"])
                num_batches = line["batches"]
            case "worker.update":
                assert told[key] == num_batches


class Once:
    """Does something at the first line of which a condition holds, and remembers when."""

    def __init__(
        self, is_it: Callable[[Line], bool], do: Callable[[], None] = lambda: None
    ) -> None:
        self._is_it, self._do = is_it, do
        self.time: datetime | None = None

    def __call__(self, line: Line) -> bool:
        if self.time is not None or not self._is_it(line):
            return False
        self._do()
        self.time = datetime.now(tz=UTC)
        return True
