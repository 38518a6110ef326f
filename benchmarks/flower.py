"""`make bench-flower`: the same work by Flower, for the comparison in docs/performance.md.

Flower lives in `.venv-flower`, an environment of its own that borrows torch from ours, as it asks for
older releases of rich and typer. It runs as its documentation says: `flower-superlink`,
`flower-supernode` and `flwr run`, with its own FedAvg and its own polling; over plain HTTP, as its
guide does for local trials, and with telemetry, update check and installing at run time off.
"""

from __future__ import annotations

import contextlib
import json
import os
import platform
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import psutil
import torch

from benchmarks.plain import train
from fedconsole.learning.tasks.mnist import task as mnist
from pi_daemon.learning.idx import read_idx_pair

ROOT = Path(__file__).parents[1]
BIN = ROOT / ".venv-flower" / "bin"
APP = Path(__file__).parent / "flower_app"
CORES = 2
"""That Flower's simulation may use, one worker on each."""


class FlowerError(Exception):
    """Flower is not there or did not do the work; the message says which."""


def missing() -> str | None:
    """Why Flower cannot be measured here, if so."""
    if (BIN / "flwr").exists():
        return None
    return f"no Flower in {BIN.parent}; `make bench-flower` installs it"


def versions() -> dict[str, str]:
    """Of flwr, ray and torch, as Flower's environment has them."""
    program = (
        "import importlib.metadata as m, json;"
        "print(json.dumps({name: m.version(name) for name in ('flwr', 'ray', 'torch')}))"
    )
    out = subprocess.check_output([BIN / "python", "-c", program], text=True)
    return dict(json.loads(out))


def figures(folder: Path) -> dict[str, float]:
    """Everything measured, in seven minutes or so. Rounds count from the second on.

    Keys; round_s is a median, Flower's round_cpu_s a mean, RSS is added up over a process and all below it:
        plain_round_s, plain_round_cpu_s: 3 x 50 batches in plain PyTorch, one thread, before and after.
        train_round_s, train_round_cpu_s: the same by a superlink and three supernodes.
        train_node_peak_bytes: one supernode with what it starts, while training.
        idle_superlink_bytes, idle_supernode_bytes: before the first run.
        small_*, large_*: rounds without work, 1.72 MB and 100 MB, every reply different:
            round_s, round_cpu_s, rounds_per_s,
            server_peak_bytes, node_peak_bytes: of the superlink's tree and of one supernode's.
        virtual_N_*: simulation with 1,000 workers, N a round, one batch of 64 each:
            users_per_s, users_per_core_s (two cores), users_per_cpu_s, peak_bytes,
            first_batch_s: from `flwr run` to the end of the first batch, the superlink already up,
            superlink_start_s: what its start takes before that.

    Args:
        folder: for Flower's home, logs and data; 100 MB, left to the caller to delete.

    Raises:
        FlowerError: Flower is not installed, or a run of it failed.
    """
    if reason := missing():
        raise FlowerError(reason)
    x, y = _examples()
    np.save(folder / "x.npy", x)
    np.save(folder / "y.npy", y)
    plain = _plain_rounds(x, y)
    results = _deployment(folder)
    plain += _plain_rounds(x, y)
    results |= _simulation(folder, cohort=10, rounds=6)
    results |= _simulation(folder, cohort=100, rounds=3)
    results["plain_round_s"] = statistics.median(wall for wall, _ in plain)
    results["plain_round_cpu_s"] = statistics.median(cpu for _, cpu in plain)
    return results


def _deployment(folder: Path) -> dict[str, float]:
    with ExitStack() as stack:
        address = f"127.0.0.1:{_free_port()}"
        link = stack.enter_context(_superlink(folder, address))
        nodes = [
            stack.enter_context(_supernode(folder, address, partition)) for partition in range(3)
        ]
        watch = stack.enter_context(Watch(server=link, nodes=nodes).running())
        _wait_until(lambda: all(node.children() for node in nodes), "start its supernodes")
        # Their SuperExec processes need some seconds of importing before they are idle.
        time.sleep(10)
        now = time.time()
        link_bytes, node_bytes = watch.peak(now - 1, now)
        results: dict[str, float] = {}
        results |= {"idle_superlink_bytes": link_bytes, "idle_supernode_bytes": node_bytes}
        works = (("train", "cnn", 50), ("small", "cnn", 0), ("large", "large", 0))
        for key, model, batches in works:
            config: Config = {"model": model, "batches": batches, "rounds": 4}
            times = _flwr_run(folder, address, config).rounds
            server, node = watch.peak(times[0], times[-1])
            results |= _per_round(key, times, watch) | {f"{key}_node_peak_bytes": node}
            if not batches:
                results[f"{key}_rounds_per_s"] = 1 / results[f"{key}_round_s"]
                results[f"{key}_server_peak_bytes"] = server
    return results


def _simulation(folder: Path, *, cohort: int, rounds: int) -> dict[str, float]:
    key = f"virtual_{cohort}"
    address = f"127.0.0.1:{_free_port()}"
    start = time.time()
    with (
        _superlink(folder, address, "--simulation") as link,
        Watch(server=link, nodes=[]).running() as watch,
    ):
        start_s = time.time() - start
        run = _flwr_run(
            folder,
            address,
            {"workers": 1000, "cohort": cohort, "batches": 1, "rounds": rounds},
            f"num-supernodes=1000 client-resources-num-cpus=1 init-args-num-cpus={CORES}",
        )
        per_round = _per_round(key, run.rounds, watch)
        round_s, cpu_s = per_round[f"{key}_round_s"], per_round[f"{key}_round_cpu_s"]
        return {
            f"{key}_users_per_s": cohort / round_s,
            f"{key}_users_per_core_s": cohort / round_s / CORES,
            f"{key}_users_per_cpu_s": cohort / cpu_s,
            f"{key}_peak_bytes": watch.peak(start, time.time())[0],
            f"{key}_first_batch_s": run.first_batch - run.start,
            f"{key}_superlink_start_s": start_s,
        }


def _per_round(key: str, times: list[float], watch: Watch) -> dict[str, float]:
    """Wall and CPU seconds of a round, from the second on: the first waits for the workers."""
    cpu = [watch.cpu_s(moment) for moment in times[1:]]
    return {
        f"{key}_round_s": statistics.median(np.diff(times[1:]).tolist()),
        f"{key}_round_cpu_s": (cpu[-1] - cpu[0]) / (len(cpu) - 1),
    }


Config = dict[str, str | int]
"""What a run overrides of `[tool.flwr.app.config]` in flower_app/pyproject.toml."""


@dataclass(frozen=True)
class Run:
    start: float
    first_batch: float
    rounds: list[float]
    """When the run began and when each round ended, by the clock."""


def _flwr_run(folder: Path, address: str, config: Config, federation: str = "") -> Run:
    """Carry out `flwr run` and wait for its end."""
    config_file = folder / "home" / "config.toml"
    config_file.parent.mkdir(exist_ok=True)
    config_file.write_text(f'[superlink.bench]\naddress = "{address}"\ninsecure = true\n')
    for name in ("rounds", "first"):
        (folder / name).unlink(missing_ok=True)
    overrides = " ".join(
        f"{k}={json.dumps(v)}" for k, v in (config | {"folder": str(folder)}).items()
    )
    command = [str(BIN / "flwr"), "run", str(APP), "bench", "--stream", "--run-config", overrides]
    if federation:
        command += ["--federation-config", federation]
    start = time.time()
    try:
        done = subprocess.run(
            command, env=_environment(folder), text=True, capture_output=True, timeout=400
        )
        out = done.stdout + done.stderr
    except subprocess.TimeoutExpired as error:
        raise FlowerError(f"flwr run {overrides} was not done after 400 s") from error
    rounds, first = folder / "rounds", folder / "first"
    times = [float(line) for line in rounds.read_text().split()] if rounds.exists() else []
    if len(times) != int(config["rounds"]) + 1 or not first.exists():
        raise FlowerError(
            f"flwr run {overrides} ended before all its rounds were complete; it said:\n{out[-3000:]}"
        )
    return Run(start, float(first.read_text()), times)


@contextmanager
def _superlink(folder: Path, address: str, *options: str) -> Iterator[psutil.Process]:
    host, port = address.split(":")
    command = ["flower-superlink", "--insecure", "--host", host, "--port", port, *options]
    with _started(folder, command) as process:
        _wait_until(lambda: _answers(f"http://{address}/health"), "start its superlink")
        yield process


@contextmanager
def _supernode(folder: Path, address: str, partition: int) -> Iterator[psutil.Process]:
    config = f"partition-id={partition} num-partitions=3"
    command = ["flower-supernode", "--insecure", "--superlink", address, "--node-config", config]
    with _started(folder, [*command, "--port", str(_free_port())]) as process:
        yield process


@contextmanager
def _started(folder: Path, command: list[str]) -> Iterator[psutil.Process]:
    """A program of Flower's, ended with all that it started."""
    with (
        (folder / f"{command[0]}.log").open("ab") as log,
        subprocess.Popen(
            [BIN / command[0], *command[1:]],
            env=_environment(folder),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        ) as popen,
    ):
        process = psutil.Process(popen.pid)
        try:
            yield process
        finally:
            family = [process, *process.children(recursive=True)]
            popen.terminate()
            _, alive = psutil.wait_procs(family, timeout=5)
            for left in alive:
                left.kill()


def _environment(folder: Path) -> dict[str, str]:
    return os.environ | {
        "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}",
        "FLWR_HOME": str(folder / "home"),
        "FLWR_TELEMETRY_ENABLED": "0",
        "FLWR_DISABLE_UPDATE_CHECK": "1",
        "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "1",
        "OMP_NUM_THREADS": "1",
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_TMPDIR": str(folder),
        # What Ray calls a cluster is what would listen on the machine's public address.
        "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
    }


@dataclass
class Watch:
    """Notes four times a second what Flower's processes use."""

    server: psutil.Process
    nodes: list[psutil.Process]
    samples: list[tuple[float, float, int, int]] = field(default_factory=list)
    """Time, CPU seconds of all up to then, RSS of the server's tree, RSS of the largest node's."""

    @contextmanager
    def running(self) -> Iterator[Watch]:
        done = threading.Event()

        def sample_all() -> None:
            while not done.wait(0.25):
                self.samples.append(self._sample())

        thread = threading.Thread(target=sample_all)
        thread.start()
        try:
            yield self
        finally:
            done.set()
            thread.join()

    def _sample(self) -> tuple[float, float, int, int]:
        cpu_s = 0.0
        rss = {process.pid: 0 for process in (self.server, *self.nodes)}
        root_of = {pid: pid for pid in rss}
        # One look at all processes and not one for each root: it takes milliseconds. Parents come
        # before their children.
        for member in psutil.Process().children(recursive=True):
            with contextlib.suppress(psutil.NoSuchProcess), member.oneshot():
                root = root_of.get(member.pid) or root_of.get(member.ppid())
                if root is None:
                    continue
                root_of[member.pid] = root
                # With what its ended children used: nothing short-lived is lost.
                cpu_s += sum(member.cpu_times()[:4])
                rss[root] += member.memory_info().rss
        largest_node = max((rss[node.pid] for node in self.nodes), default=0)
        return time.time(), cpu_s, rss[self.server.pid], largest_node

    def cpu_s(self, moment: float) -> float:
        times, cpu = zip(*((sample[0], sample[1]) for sample in self.samples), strict=True)
        return float(np.interp(moment, times, cpu))

    def peak(self, first: float, last: float) -> tuple[int, int]:
        """The largest RSS of the server and of a node between two moments."""
        within = [sample for sample in self.samples if first <= sample[0] <= last]
        return max(sample[2] for sample in within), max(sample[3] for sample in within)


def _plain_rounds(x: np.ndarray, y: np.ndarray) -> list[tuple[float, float]]:
    """Wall and CPU seconds of three rounds of 3 x 50 batches, one after the other, by one thread."""
    torch.set_num_threads(1)
    size = 3 * 3 * 50 * 64
    images = mnist.prepare(torch.from_numpy(x[:size])).chunk(3)
    labels = torch.from_numpy(y[:size]).long().chunk(3)
    run = train(
        mnist.build(),
        {str(worker): shard for worker, shard in enumerate(zip(images, labels, strict=True))},
        mnist.loss,
        batch_size=64,
        batches_per_round=50,
        lr=0.01,
    )
    return list(zip(run.round_seconds, run.round_cpu_seconds, strict=True))


def _examples() -> tuple[np.ndarray, np.ndarray]:
    """MNIST's 60,000 images and labels, or noise of that shape where they are missing."""
    shared = Path(os.environ.get("FEDCONSOLE_DATA", ROOT.parent / "shared" / "data"))
    if (shared / "mnist").is_dir():
        return read_idx_pair(shared / "mnist", "train")
    random = np.random.default_rng(1)
    return (
        random.integers(0, 256, (60_000, 28, 28), dtype=np.uint8),
        random.integers(0, 10, 60_000, dtype=np.uint8),
    )


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=1):
            return True
    except (urllib.error.URLError, OSError):
        return False


def _wait_until(is_done: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + 60
    while not is_done():
        if time.monotonic() > deadline:
            raise FlowerError(f"Flower did not {what} within 60 s")
        time.sleep(0.1)


def main() -> None:
    # An end from outside, too, has to end what was started.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("ended by a signal"))
    try:
        with tempfile.TemporaryDirectory(prefix="flower-") as folder:
            measured = figures(Path(folder))
    except FlowerError as error:
        sys.exit(str(error))
    result = {
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}",
        "versions": versions(),
        **measured,
    }
    text = json.dumps(result, indent=2) + "\n"
    (Path(__file__).parent / "results" / "flower.json").write_text(text)
    print(text, end="")


if __name__ == "__main__":
    main()
