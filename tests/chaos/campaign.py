"""`python -m tests.chaos.campaign --kills 200 --seed 1`: kills something in the middle of each of many runs.

Each run must complete after all, with the model of a run that nobody disturbed, and with a journal
in which nothing is lost and nothing counts twice.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from datetime import datetime
from pathlib import Path
from tempfile import TemporaryDirectory, mkdtemp

from benchmarks.runs import own_places
from fedconsole import paths
from fedconsole.coordinator.plan import OnQuorumLoss, Plan
from fedconsole.engine.control import ControlLink
from fedconsole.engine.launch import new_run_id, start_engine, take_up_engine
from fedconsole.errors import FedconsoleError
from pi_daemon.protocol.limits import LEASE_S
from tests.chaos.fleet import Device, fleet
from tests.chaos.kills import NAMES, Kill, Outcome, Victim, one_line, summary
from tests.support.journal_check import Line, check_run, file_model_id, read_journal
from tests.support.runs import carry

_RUN_S = 180.0
"""A run takes 5 s undisturbed on two idle cores; one that is not over by then hangs."""
_TRAINER_POLL_S = 0.02
_UNCOUNTED = frozenset({"worker.telemetry", "heartbeat"})
"""Lines that come by the clock, whatever the run does."""


class Campaign:
    """Many runs on one fleet, one after another."""

    def __init__(self, devices: Sequence[Device], folder: Path) -> None:
        """`folder` takes what failed runs leave."""
        self._devices = devices
        self._folder = folder
        self.plan = Plan(
            task="digits",
            workers=tuple(device.address for device in devices),
            rounds=3,
            federate_after_n_batches=40,
            batch_size=32,
            lr=0.05,
            min_updates=len(devices),
            round_timeout_s=600.0,
            on_quorum_loss=OnQuorumLoss.WAIT,
        )
        self._rounds: list[Line] = []
        """Of the undisturbed run."""
        self._model_id = ""
        self._num_lines = 0
        self._gathering_s = 0.0

    async def run_undisturbed(self) -> None:
        run = await carry(self.plan)
        folder = paths.runs_dir() / run.run_id
        if run.exit_code != 0 or (problems := check_run(folder)):
            raise RuntimeError(f"the undisturbed run ended with {run.last}: {problems}")
        self._rounds = rounds_of(run.lines)
        self._model_id = run.model_id
        self._num_lines = sum(line["type"] not in _UNCOUNTED for line in run.lines)
        created, started = run.lines[0], run.of_type("round.started")[0]
        # Later runs find trainers that have torch imported, and begin in about half the time.
        self._gathering_s = (_moment(started) - _moment(created)).total_seconds() / 2

    async def carry_out(self, seed: int) -> Outcome:
        """Carry a run, kill what the seed says, mend, and judge what comes out of it."""
        kill = Kill.draw(seed, self._num_lines, self._gathering_s)
        for device in self._devices:
            await device.wait_until_it_listens()
        outcome = Outcome(kill, new_run_id())
        began_s = time.monotonic()
        try:
            async with asyncio.timeout(_RUN_S):
                await self._run_to_end(outcome)
        except* TimeoutError:
            outcome.troubles.append(f"not over after {_RUN_S:g} s; last line: {outcome.last}")
        except* FedconsoleError as errors:
            outcome.troubles += map(str, errors.exceptions)
        outcome.seconds = time.monotonic() - began_s
        folder = paths.runs_dir() / outcome.run
        if outcome.is_completed:
            outcome.violations = check_run(folder)
            outcome.differences = self._differences(folder)
        elif folder.is_dir():  # a run that was refused leaves none
            outcome.violations = check_run(folder, must_be_finished=False)
        if outcome.problems:
            self._keep(outcome, folder)
        shutil.rmtree(folder, ignore_errors=True)
        return outcome

    async def _run_to_end(self, outcome: Outcome) -> None:
        engine = start_engine(outcome.run, self.plan)
        try:
            await self._attend(outcome, engine)
            await asyncio.to_thread(engine.wait)
            if outcome.kill.hits_engine and outcome.after:
                # The engine may have written more than it could tell.
                (*_, outcome.last) = read_journal(paths.runs_dir() / outcome.run)
                if outcome.last["type"] == "run.finished":
                    # The devices were not released: they are free when the lease has expired.
                    await asyncio.sleep(LEASE_S + 1)
                else:
                    engine = take_up_engine(outcome.run)
                    await self._read(outcome, outcome.last["seq"] + 1)
                    await asyncio.to_thread(engine.wait)
        finally:
            if engine.poll() is None:
                engine.kill()
                engine.wait()
        if outcome.last.get("outcome") != "completed":
            outcome.troubles.append(
                f"the engine ended with {engine.returncode}; last line: {outcome.last}"
            )

    async def _attend(self, outcome: Outcome, engine: subprocess.Popen[bytes]) -> None:
        """Read a run's lines to the last one; kill when the moment has come."""
        kill = outcome.kill
        num_lines = 0

        async with asyncio.TaskGroup() as tasks:

            def count(line: Line) -> None:
                nonlocal num_lines
                num_lines += line["type"] not in _UNCOUNTED
                if num_lines == kill.line_number and line["type"] not in _UNCOUNTED:
                    tasks.create_task(self._strike(outcome, engine))

            await self._read(outcome, 1, count)

    async def _read(
        self, outcome: Outcome, first_seq: int, take: Callable[[Line], None] = lambda line: None
    ) -> None:
        async with ControlLink.connect(outcome.run) as link:
            async for line in link.events(first_seq):
                outcome.last = line
                take(line)

    async def _strike(self, outcome: Outcome, engine: subprocess.Popen[bytes]) -> None:
        kill, device = outcome.kill, self._devices[outcome.kill.device]
        await asyncio.sleep(kill.delay_s)
        if kill.victim is Victim.TRAINER:
            while not (trainers := device.trainers()):
                if engine.poll() is not None:
                    return
                await asyncio.sleep(_TRAINER_POLL_S)
        if engine.poll() is not None or outcome.last["type"] == "run.finished":
            return
        outcome.after = _in_words(outcome.last)
        if kill.victim is Victim.TRAINER:
            for trainer in trainers:
                trainer.kill()
        if kill.hits_daemon:
            device.kill()
        if kill.hits_engine:
            engine.kill()
        if kill.hits_daemon:
            await device.restart()

    def _differences(self, folder: Path) -> list[str]:
        """From the undisturbed run."""
        found = []
        for ours, theirs in zip(rounds_of(read_journal(folder)), self._rounds, strict=False):
            if ours != theirs:
                found.append(f"round {theirs['round']} is {ours}, undisturbed {theirs}")
                break
        model_id = file_model_id(folder / "model.safetensors")
        if model_id != self._model_id:
            found.append(f"model.safetensors holds {model_id}, undisturbed {self._model_id}")
        return found

    def _keep(self, outcome: Outcome, folder: Path) -> None:
        target = self._folder / f"seed-{outcome.kill.seed}"
        shutil.rmtree(target, ignore_errors=True)
        if folder.is_dir():
            shutil.copytree(folder, target, ignore=shutil.ignore_patterns("*.sock"))
        target.mkdir(parents=True, exist_ok=True)
        for device in self._devices:
            (target / f"{device.name}.log").write_text("".join(device.last_words))


def rounds_of(lines: Sequence[Line]) -> list[Line]:
    """What two runs of one seed have in common, round by round."""
    names = ("round", "updates", "loss", "model_id")
    return [
        {name: line[name] for name in names} for line in lines if line["type"] == "round.finished"
    ]


def _moment(line: Line) -> datetime:
    return datetime.fromisoformat(line["time"])


def _in_words(line: Line) -> str:
    """Such as `worker.update of bob, round 2`."""
    details = [f"of {line['worker']}"] if line.get("worker") else []
    details += [f"round {line['round']}"] if line.get("round") else []
    return " ".join([line["type"], ", ".join(details)]).strip()


async def run_campaign(
    num_kills: int,
    seed: int,
    folder: Path,
    *,
    num_fleets: int = 1,
    minutes: float = float("inf"),
    say: Callable[[str], None] = print,
) -> list[Outcome]:
    """Carry out the kills of `num_kills` seeds from `seed` on.

    Kills that came too late, after the end of their run, are not among those that are returned,
    and others take their place.

    Args:
        folder: for the daemons, and for what failed runs leave.
        num_fleets: so many runs go on at a time, each on daemons of its own.
        minutes: no run is begun after so many.
        say: gets a line for each kill.
    """
    outcomes: list[Outcome] = []
    end_s = time.monotonic() + minutes * 60
    # One row of seeds for each kind of victim, so that late kills leave the kinds even.
    rows = itertools.cycle([itertools.count(seed + n, len(Victim)) for n in range(len(Victim))])
    turns = itertools.islice(rows, num_kills)

    async def work(place: Path) -> None:
        place.mkdir()
        async with fleet(place, NAMES) as devices:
            campaign = Campaign(devices, folder / "failed")
            await campaign.run_undisturbed()
            for row in turns:
                outcome = None
                while outcome is None or not (outcome.after or outcome.problems):
                    if time.monotonic() > end_s:
                        return
                    outcome = await campaign.carry_out(next(row))
                outcomes.append(outcome)
                say(one_line(len(outcomes), outcome))
                for problem in outcome.problems:
                    say(f"      {problem}")

    async with asyncio.TaskGroup() as tasks:
        for number in range(num_fleets):
            tasks.create_task(work(folder / f"fleet-{number}"))
    return outcomes


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos.campaign")
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument(
        "--seed", type=int, default=1, help="of the first kill; the next has one more"
    )
    parser.add_argument("--fleets", type=int, default=1, help="runs at a time, each on its own")
    parser.add_argument("--minutes", type=float, default=float("inf"), help="no run begins after")
    options = parser.parse_args()
    with TemporaryDirectory(prefix="fedconsole-chaos-") as own, own_places(Path(own)):
        folder = Path(own)
        try:
            outcomes = asyncio.run(_until_told_to_end(options, folder))
        except (KeyboardInterrupt, asyncio.CancelledError):
            return 130
        failed = [outcome for outcome in outcomes if outcome.problems]
        print(summary(outcomes))
        if failed:
            kept = Path(mkdtemp(prefix="fedconsole-chaos-failed-"))
            shutil.copytree(folder / "failed", kept, dirs_exist_ok=True)
            first = failed[0].kill
            print(f"failed: {len(failed)}; their folders are in {kept}")
            print(f"again: python -m tests.chaos.campaign --kills 1 --seed {first.seed}")
    return 1 if failed or not outcomes else 0


async def _until_told_to_end(options: argparse.Namespace, folder: Path) -> list[Outcome]:
    task = asyncio.current_task()
    assert task is not None
    # As Ctrl-C: everything that was started is ended before the campaign is.
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    return await run_campaign(
        options.kills,
        options.seed,
        folder,
        num_fleets=options.fleets,
        minutes=options.minutes,
        say=lambda text: print(text, flush=True),
    )


if __name__ == "__main__":
    sys.exit(main())
