"""`python -m tests.chaos.soak --minutes 60 --daemons 10 --seed 1`: one long run, disturbed all the time.

Daemons and trainers are killed, links are reset, silent and slow, and the engine is killed a few
times. In the end the journal must be consistent, and no process may have grown.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from enum import StrEnum
from pathlib import Path
from tempfile import TemporaryDirectory, mkdtemp

from benchmarks.runs import own_places
from fedconsole import paths
from fedconsole.coordinator.plan import Plan
from fedconsole.engine.control import ControlLink
from fedconsole.engine.launch import new_run_id, start_engine, take_up_engine
from fedconsole.errors import EngineCrashedError
from tests.chaos.fleet import Device, fleet
from tests.chaos.growth import Sample, append, lives, sample, table
from tests.support.chaos import ChaosProxy, chaos_proxy
from tests.support.journal_check import check_run, read_journal

_SAMPLE_S = 10.0
_REPORT_S = 60.0
_PAUSE_S = (5.0, 25.0)
"""Between two disturbances."""
_LATENCY_S = 0.7
"""Of every link, all the time: it sets the pace of the rounds, so that the soak takes little CPU."""
_HOLD_S = {"half open": 30.0, "slow": 20.0}
"""A half-open link is noticed within 15 s or a little more, and then tried again."""
_ENGINE_KILLS = (0.05, 0.1, 0.95)
"""When, as shares of the soak: one engine lives long in between, and the last has much to read."""
_SPARED = 3
"""Daemons that are never killed, nor their trainers, so that some live as long as the soak."""
_WARM_UP_S = 180.0
_ROUND_S = 600.0
"""At the start: ten trainers that import torch at the same time on two busy cores."""
_END_S = 120.0


class Blow(StrEnum):
    DAEMON = "daemon killed"
    TRAINER = "trainer killed"
    RESET = "link reset"
    HALF_OPEN = "half open"
    SLOW = "slow"

    @property
    def kills(self) -> bool:
        return self in {Blow.DAEMON, Blow.TRAINER}


class Soak:
    """One run, from its first engine to its last."""

    def __init__(
        self,
        devices: Sequence[Device],
        proxies: Sequence[ChaosProxy],
        seed: int,
        minutes: float,
        csv_path: Path,
    ) -> None:
        self.run_id = new_run_id()
        self.counts: Counter[str] = Counter()
        """Of what was done to it, and of `rounds` that were completed."""
        self.samples: list[Sample] = []
        self.troubles: list[str] = []
        self._devices, self._proxies = devices, proxies
        self._dice = random.Random(seed)
        self._seconds = minutes * 60
        self._csv_path = csv_path
        self._began_s = self._round_s = time.monotonic()
        self._engine: subprocess.Popen[bytes] | None = None
        self._next_seq = 1
        self._has_a_round = asyncio.Event()

    @property
    def folder(self) -> Path:
        return paths.runs_dir() / self.run_id

    @property
    def _now_s(self) -> float:
        return time.monotonic() - self._began_s

    async def carry(self) -> None:
        """Carry the run for its minutes, which begin with the end of its first round; disturb it,
        and watch every process."""
        plan = Plan(
            task="digits",
            workers=tuple(proxy.address for proxy in self._proxies),
            rounds=10_000_000,
            federate_after_n_batches=2,
            batch_size=8,
            min_updates=max(1, len(self._devices) // 2),
            round_timeout_s=8.0,
        )
        self._engine = await asyncio.to_thread(start_engine, self.run_id, plan)
        try:
            async with asyncio.TaskGroup() as tasks:
                reading = tasks.create_task(self._read())
                await self._complete_a_round()
                self._began_s = self._round_s = time.monotonic()
                chores = [
                    tasks.create_task(chore())
                    for chore in (self._watch, self._disturb, self._report)
                ]
                await self._kill_engines()
                for chore in chores:
                    chore.cancel()
                if not self.troubles:
                    await self._end()
                reading.cancel()
        finally:
            if self._engine.poll() is None:
                self._engine.kill()
                self._engine.wait()

    async def _complete_a_round(self) -> None:
        """Wait for the next one; that none comes is trouble."""
        self._has_a_round.clear()
        try:
            async with asyncio.timeout(_ROUND_S):
                await self._has_a_round.wait()
        except TimeoutError:
            self.troubles.append(f"no round was completed for {_ROUND_S:g} s")

    async def _kill_engines(self) -> None:
        assert self._engine is not None
        for share in (*_ENGINE_KILLS, 1.0):
            if self.troubles:
                return
            while (left_s := share * self._seconds - self._now_s) > 0:
                if self._engine.poll() is not None:
                    self.troubles.append(f"the engine ended with {self._engine.returncode}")
                    return
                if time.monotonic() - self._round_s > _ROUND_S:
                    self.troubles.append(f"no round was completed for {_ROUND_S:g} s")
                    return
                await asyncio.sleep(min(1.0, left_s))
            if share < 1.0:
                self._engine.kill()
                await asyncio.to_thread(self._engine.wait)
                self.counts["engine killed"] += 1
                self._engine = await asyncio.to_thread(take_up_engine, self.run_id)
                await self._complete_a_round()

    async def _end(self) -> None:
        assert self._engine is not None
        for proxy in self._proxies:
            _heal(proxy)
        async with ControlLink.connect(self.run_id) as link:
            await link.request("stop")
        try:
            await asyncio.to_thread(self._engine.wait, _END_S)
        except subprocess.TimeoutExpired:
            self.troubles.append(f"the engine did not end within {_END_S:g} s after `stop`")
        else:
            if self._engine.returncode != 0:
                self.troubles.append(f"the engine ended with {self._engine.returncode}")

    async def _read(self) -> None:
        """Read the run's lines as an attached console does, over every engine."""
        while True:
            with suppress(EngineCrashedError):
                async with ControlLink.connect(self.run_id) as link:
                    async for line in link.events(self._next_seq):
                        if line["seq"] != self._next_seq:
                            self.troubles.append(f"line {line['seq']} is not {self._next_seq}")
                        self._next_seq = line["seq"] + 1
                        if line["type"] == "round.finished":
                            self.counts["rounds"] += 1
                            self._round_s = time.monotonic()
                            self._has_a_round.set()
            await asyncio.sleep(0.5)

    async def _watch(self) -> None:
        while True:
            self._sample()
            await asyncio.sleep(_SAMPLE_S)

    def _sample(self) -> None:
        assert self._engine is not None
        pids = [("engine", self._engine.pid)]
        for device in self._devices:
            pids.append((f"daemon {device.name}", device.pid))
            pids += [(f"trainer {device.name}", trainer.pid) for trainer in device.trainers()]
        now = [found for name, pid in pids if (found := sample(self._now_s, name, pid)) is not None]
        append(self._csv_path, now)
        self.samples += now

    async def _report(self) -> None:
        while True:
            await asyncio.sleep(_REPORT_S)
            print(f"{self._now_s / 60:5.1f} min  {in_words(self.counts)}", flush=True)

    async def _disturb(self) -> None:
        """Blow after blow, never two at a time on one device."""
        free = set(range(len(self._devices)))
        async with asyncio.TaskGroup() as tasks:
            while True:
                await asyncio.sleep(self._dice.uniform(*_PAUSE_S))
                blow = self._dice.choice(list(Blow))
                first = min(_SPARED, len(self._devices) - 1) if blow.kills else 0
                if choice := sorted(number for number in free if number >= first):
                    number = self._dice.choice(choice)
                    free.remove(number)
                    tasks.create_task(self._strike_and_free(blow, number, free))

    async def _strike_and_free(self, blow: Blow, number: int, free: set[int]) -> None:
        try:
            await self._strike(blow, number)
        finally:
            free.add(number)

    async def _strike(self, blow: Blow, number: int) -> None:
        device, proxy = self._devices[number], self._proxies[number]
        self.counts[blow] += 1
        match blow:
            case Blow.DAEMON:
                device.kill()
                await asyncio.sleep(self._dice.uniform(0, 10))
                await device.restart()
                await device.wait_until_it_listens()
            case Blow.TRAINER:
                for trainer in device.trainers():
                    trainer.kill()
            case Blow.RESET:
                proxy.reset()
            case Blow.HALF_OPEN:
                proxy.set(is_half_open=True)
            case Blow.SLOW:
                proxy.set(latency_s=3.0, jitter_s=1.0, bytes_per_s=50_000)
        await asyncio.sleep(_HOLD_S.get(blow, 0.0))
        _heal(proxy)

    def verdict(self) -> list[str]:
        """Print what came of it; what is wrong, a sentence each."""
        must_be_finished = not self.troubles
        violations = check_run(self.folder, must_be_finished=must_be_finished)
        found = lives(self.samples, min(_WARM_UP_S, self._seconds / 10), self._seconds / 4)
        print(table(found))
        print(f"{self._seconds / 60:g} minutes: {in_words(self.counts)}")
        print(f"journal: {len(read_journal(self.folder))} lines, {len(violations)} violations")
        grown = [problem for life in found for problem in life.problems]
        if not found:
            grown.append("no process lived long enough to be judged")
        problems = [*self.troubles, *violations, *grown]
        if problems:
            self._keep()
        return problems

    def _keep(self) -> None:
        """What the engines and daemons said last, and the journal, beside the samples."""
        place = self._csv_path.parent
        # A run that was refused leaves nothing.
        for path in (*self.folder.glob("run.db*"), *self.folder.glob("engine.log")):
            shutil.copy(path, place)
        for device in self._devices:
            (place / f"{device.name}.log").write_text("".join(device.last_words))


def _heal(proxy: ChaosProxy) -> None:
    proxy.clear()
    proxy.set(latency_s=_LATENCY_S)


def in_words(counts: Counter[str]) -> str:
    return ", ".join(f"{name}: {counts[name]}" for name in sorted(counts))


@asynccontextmanager
async def _proxied_fleet(
    folder: Path, num_daemons: int, seed: int
) -> AsyncIterator[tuple[list[Device], list[ChaosProxy]]]:
    names = [f"device-{number}" for number in range(1, num_daemons + 1)]
    async with AsyncExitStack() as stack:
        devices = await stack.enter_async_context(fleet(folder, names))
        proxies = [
            await stack.enter_async_context(chaos_proxy(device.port, seed + number))
            for number, device in enumerate(devices)
        ]
        for proxy in proxies:
            _heal(proxy)
        yield devices, proxies


async def _until_told_to_end(options: argparse.Namespace, folder: Path) -> list[str]:
    task = asyncio.current_task()
    assert task is not None
    # As Ctrl-C: everything that was started is ended before the soak is.
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    async with _proxied_fleet(folder, options.daemons, options.seed) as (devices, proxies):
        csv_path = options.samples / "samples.csv"
        soak = Soak(devices, proxies, options.seed, options.minutes, csv_path)
        await soak.carry()
        return soak.verdict()


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos.soak")
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--daemons", type=int, default=10)
    parser.add_argument("--seed", type=int, default=1, help="of what is done to the run, and when")
    parser.add_argument("--samples", type=Path, help="folder for samples.csv; default: a new one")
    options = parser.parse_args()
    options.samples = options.samples or Path(mkdtemp(prefix="fedconsole-soak-"))
    options.samples.mkdir(parents=True, exist_ok=True)
    print(f"samples: {options.samples}", flush=True)
    with TemporaryDirectory(prefix="fedconsole-soak-") as own, own_places(Path(own)):
        try:
            problems = asyncio.run(_until_told_to_end(options, Path(own)))
        except (KeyboardInterrupt, asyncio.CancelledError):
            return 130
    for problem in problems:
        print(problem)
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
