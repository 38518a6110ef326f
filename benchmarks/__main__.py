"""`make bench`: every figure of docs/performance.md, each beside the same work done plainly.

Nothing is judged here: tests are never timed. The table goes to results/bench.json as well.
"""

from __future__ import annotations

import argparse
import json
import signal
import sys
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from benchmarks import console, costs, flower, memory, steering, training, trust, virtual, wire
from benchmarks.table import Row, machine_line, print_table

_PARTS: Final[Mapping[str, Callable[[Path], list[Row]]]] = {
    "training": training.run,
    "wire": wire.run,
    "trust": trust.run,
    "memory": memory.run,
    "virtual": virtual.run,
    "steering": steering.run,
    "costs": costs.run,
    "console": console.run,
}
_RESULTS: Final = Path(__file__).parent / "results"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("parts", nargs="*", metavar="PART", help=", ".join((*_PARTS, "flower")))
    chosen = parser.parse_args().parts or [*_PARTS, "flower"]
    if unknown := set(chosen) - {*_PARTS, "flower"}:
        parser.error(f"there is no part {min(unknown)}")
    # An end from outside, too, has to end what was started.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("ended by a signal"))
    machine = machine_line()
    print(machine, flush=True)
    rows = []
    for part in _PARTS:
        if part in chosen:
            rows += _in_a_folder(_PARTS[part])
            print(f"{part}: done", flush=True)
    print_table(rows)
    if "flower" in chosen:
        _measure_flower()
    if set(chosen) >= set(_PARTS):
        result = {"machine": machine, "rows": [asdict(row) for row in rows]}
        (_RESULTS / "bench.json").write_text(json.dumps(result, indent=2) + "\n")


def _in_a_folder(measure: Callable[[Path], list[Row]]) -> list[Row]:
    with TemporaryDirectory(prefix="fedconsole-bench-") as folder:
        return measure(Path(folder))


def _measure_flower() -> None:
    if reason := flower.missing():
        print(f"Flower: skipped, {reason}")
    else:
        flower.main()


if __name__ == "__main__":
    main()
