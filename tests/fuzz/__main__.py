"""Feeds parsers with hostile bytes for a while: `python -m tests.fuzz --minutes 10 --target codec`.

Each target is run by each engine in a process of its own, one after the other. What is found lies in
`.fuzz/TARGET/`: mend it, and put the input into `tests/fuzz/corpus/TARGET/`. Last come the operators of
graphs, which have a fuzzer of their own.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

from tests.fuzz.targets import TARGETS

ROOT = Path(__file__).parents[2]
ENDING_S = 120
"""More than an engine needs to end by itself after its time."""
KINDS = ("CACHE", "CONFIG", "DATA", "RUNTIME", "STATE")


def run(engine: str, target: str, folder: Path, seconds: float, seed: int) -> bool:
    """One engine on one target; True: nothing was found. Prints a line."""
    command = [sys.executable, "-m", "tests.fuzz.engines", engine, target, str(folder)]
    log = folder / f"{engine}.log"
    # A program that is fuzzed finds nobody's settings.
    private = {
        f"XDG_{kind}_{'DIR' if kind == 'RUNTIME' else 'HOME'}": str(folder) for kind in KINDS
    }
    with log.open("w") as file:
        try:
            code: int | str = subprocess.run(
                [*command, "--seconds", str(seconds), "--seed", str(seed)],
                stdout=file,
                stderr=subprocess.STDOUT,
                env=os.environ | private | {"PYTHONPATH": str(ROOT)},
                timeout=seconds + ENDING_S,
                check=False,
            ).returncode
        except subprocess.TimeoutExpired:
            code = "no end"
    found = _kept(engine, folder) if code != 0 else []
    print(f"{target:16} {engine:10} exit {code}: {_figures(engine, log)}", flush=True)
    for path in found:
        print(f"  FOUND {path}, told in {log}", flush=True)
    return code == 0


def _figures(engine: str, log: Path) -> str:
    text = log.read_text(errors="replace")
    if engine == "atheris":
        executed = re.findall(r"number_of_executed_units: +(\d+)", text)
        reached = re.findall(r"cov: (\d+) ft: (\d+) corp: (\d+)", text)
        if not (executed and reached):
            return "no figures"
        cov, features, size = reached[-1]
        return f"{executed[-1]} executions, {cov} edges, {features} features, {size} inputs kept"
    lines = [line for line in text.splitlines() if line.startswith("{")]
    figures = json.loads(lines[-1]) if lines else {}
    return ", ".join(f"{value} {key}" for key, value in figures.items()) or "no figures"


def _kept(engine: str, folder: Path) -> list[Path]:
    """The inputs at fault."""
    if engine == "hypothesis" and (folder / "latest").exists():
        return [(folder / "latest").rename(folder / "crash-hypothesis")]
    return [path for path in folder.iterdir() if re.match("(crash|timeout|oom)-", path.name)]


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz")
    parser.add_argument("--minutes", type=float, default=10, help="of each engine on each target")
    parser.add_argument("--target", choices=[*TARGETS, "operators"], action="append")
    parser.add_argument("--engine", choices=["hypothesis", "atheris"], action="append")
    parser.add_argument("--folder", type=Path, default=ROOT / ".fuzz", help="for what is found")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    is_clean = True
    for target in options.target or [*TARGETS, "operators"]:
        if target == "operators":
            command = [sys.executable, "-m", "tests.fuzz.operators"]
            command += ["--minutes", str(options.minutes)]
            is_clean &= subprocess.run(command, cwd=ROOT, check=False).returncode == 0
            continue
        folder = (options.folder / target).absolute()
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        engines = options.engine or ["hypothesis", "atheris"]
        for engine in [*engines, "measure"]:
            is_clean &= run(engine, target, folder, 60 * options.minutes, options.seed)
    sys.exit(not is_clean)


if __name__ == "__main__":
    main()
