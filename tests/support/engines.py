"""An engine that a test can reach from outside while it carries a run: its process, lines and folder."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

from fedconsole import paths
from fedconsole.coordinator.plan import Plan
from fedconsole.engine.control import ControlLink
from fedconsole.engine.launch import new_run_id, start_engine, take_up_engine
from fedconsole.engine.store import Line
from tests.support.journal_check import check_run

WAIT_S = 150.0
"""For what must come; under load from other tests everything takes its time."""


class Engine:
    """One run, over as many engine processes as it takes."""

    def __init__(self, plan: Plan) -> None:
        self.run = new_run_id()
        self.lines: list[Line] = []
        """That this reader has seen so far."""
        self._process = start_engine(self.run, plan)
        self._read()

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def folder(self) -> Path:
        return paths.runs_dir() / self.run

    @property
    def log(self) -> str:
        """What it wrote on stderr."""
        return (self.folder / "engine.log").read_text()

    async def until(self, is_it: Callable[[Line], bool]) -> Line:
        """The next line that is so."""
        end = "the engine ended first"
        try:
            async with asyncio.timeout(WAIT_S):
                async for line in self._reader:
                    self.lines.append(line)
                    if is_it(line):
                        return line
        except TimeoutError:
            end = f"it did not come in {WAIT_S:g} s"
        raise AssertionError(f"{end}; the last lines: {self.lines[-5:]}; the log: {self.log}")

    async def request(self, name: str) -> None:
        async with ControlLink.connect(self.run) as link:
            await link.request(name)

    async def end(self) -> int:
        """Read the lines to the last; the exit code."""
        async with asyncio.timeout(WAIT_S):
            self.lines += [line async for line in self._reader]
            return await asyncio.to_thread(self._process.wait)

    async def killed(self) -> None:
        """Wait for an end that nobody asked for."""
        async with asyncio.timeout(WAIT_S):
            exit_code = await asyncio.to_thread(self._process.wait)
        assert exit_code == -9

    def kill(self) -> None:
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait()

    def take_up(self) -> None:
        """Start another process for the run after the end of this one; its lines come from the first on."""
        self._process = take_up_engine(self.run)
        self.lines = []
        self._read()

    def of_type(self, *kinds: str) -> list[Line]:
        return [line for line in self.lines if line["type"] in kinds]

    def _read(self) -> None:
        self._reader = ControlLink(paths.runtime_dir() / f"{self.run}.sock").events()

    def assert_completed(self, model_id: str) -> None:
        """The run has ended with this model, and its folder keeps every promise."""
        last = self.lines[-1]
        assert (last["type"], last["outcome"], last["model_id"]) == (
            *("run.finished", "completed"),
            model_id,
        )
        assert check_run(self.folder) == []


@asynccontextmanager
async def engine(plan: Plan) -> AsyncIterator[Engine]:
    """An engine that listens; whatever process it has then is killed afterwards."""
    started = Engine(plan)
    try:
        yield started
    finally:
        started.kill()


def is_round_finished(number: int) -> Callable[[Line], bool]:
    return lambda line: line["type"] == "round.finished" and line["round"] == number


def is_training(worker: str, number: int = 1) -> Callable[[Line], bool]:
    return lambda line: (
        line["type"] == "worker.batches" and line["worker"] == worker and line["round"] == number
    )
