"""Whether a process grows: its memory and its open files, sampled over its whole life.

A life's samples after its warm-up are cut in four quarters; the medians of the first and the last
are compared, so that neither one peak nor one gap decides.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable, Sequence
from dataclasses import astuple, dataclass, fields
from pathlib import Path
from statistics import linear_regression, median

MAX_GROWTH = 0.05
"""Share of its resident memory that a process may gain from the first quarter to the last."""
MAX_GROWTH_BYTES = 5 << 20
"""Or so much, if that is more: 5 % of a small process is less than one arena of malloc."""
MAX_MORE_FILES = 2
_MIN_SAMPLES = 8
"""Two in each quarter."""
_MB = 1 << 20


@dataclass(frozen=True, slots=True)
class Sample:
    """A process at one moment."""

    at_s: float
    """Since the soak began."""
    process: str
    """Its role and name; the same for all that took each other's place."""
    pid: int
    rss_bytes: int
    anon_bytes: int
    """Of these, what is no page of a file."""
    num_files: int


def sample(at_s: float, process: str, pid: int) -> Sample | None:
    """None: it has ended."""
    proc = Path(f"/proc/{pid}")
    try:
        lines = (line.partition(":") for line in (proc / "status").read_text().splitlines())
        status = {name: value.split() for name, _, value in lines}
        rss, anon = (int(status[name][0]) << 10 for name in ("VmRSS", "RssAnon"))
        return Sample(at_s, process, pid, rss, anon, len(list((proc / "fd").iterdir())))
    except (OSError, KeyError):  # a process that has ended, but is not waited for, has no memory
        return None


def append(path: Path, samples: Iterable[Sample]) -> None:
    """Append rows to a CSV file, whose first one names the columns."""
    is_new = not path.exists()
    with path.open("a", newline="") as file:
        rows = csv.writer(file)
        if is_new:
            rows.writerow(field.name for field in fields(Sample))
        rows.writerows(map(astuple, samples))


@dataclass(frozen=True, slots=True)
class Life:
    """What became of one process, from the end of its warm-up."""

    process: str
    pid: int
    seconds: float
    first_rss_bytes: float
    last_rss_bytes: float
    bytes_per_s: float
    """Slope of its resident memory over all samples."""
    first_files: float
    last_files: float

    @property
    def problems(self) -> list[str]:
        """In what it has grown beyond the bounds."""
        found = []
        growth = self.last_rss_bytes - self.first_rss_bytes
        if growth > max(MAX_GROWTH * self.first_rss_bytes, MAX_GROWTH_BYTES):
            found.append(f"{self.process} (pid {self.pid}) has grown by {growth / _MB:.1f} MB")
        if (more := self.last_files - self.first_files) > MAX_MORE_FILES:
            found.append(f"{self.process} (pid {self.pid}) holds {more:g} more open files")
        return found


def lives(samples: Sequence[Sample], warm_up_s: float, at_least_s: float) -> list[Life]:
    """Every process's life, of those that were watched for so long after their warm-up."""
    of_pid: dict[tuple[str, int], list[Sample]] = {}
    for each in samples:
        of_pid.setdefault((each.process, each.pid), []).append(each)
    found = []
    for (process, pid), all_of_it in of_pid.items():
        warm = [each for each in all_of_it if each.at_s >= all_of_it[0].at_s + warm_up_s]
        if len(warm) >= _MIN_SAMPLES and (seconds := warm[-1].at_s - warm[0].at_s) >= at_least_s:
            found.append(_life(process, pid, seconds, warm))
    return found


def _life(process: str, pid: int, seconds: float, warm: Sequence[Sample]) -> Life:
    quarter = len(warm) // 4
    first, last = warm[:quarter], warm[-quarter:]
    slope, _ = linear_regression([s.at_s for s in warm], [s.rss_bytes for s in warm])
    return Life(
        process=process,
        pid=pid,
        seconds=seconds,
        first_rss_bytes=median(s.rss_bytes for s in first),
        last_rss_bytes=median(s.rss_bytes for s in last),
        bytes_per_s=slope,
        first_files=median(s.num_files for s in first),
        last_files=median(s.num_files for s in last),
    )


def table(found: Sequence[Life]) -> str:
    """A row for each life; memory in MB."""
    rows = [
        f"{'process':16} {'pid':>7} {'minutes':>8} {'MB first':>9} {'MB last':>9} {'MB/h':>7} "
        f"{'files first':>12} {'files last':>11}"
    ]
    rows += [
        f"{life.process:16} {life.pid:7} {life.seconds / 60:8.1f} "
        f"{life.first_rss_bytes / _MB:9.1f} {life.last_rss_bytes / _MB:9.1f} "
        f"{life.bytes_per_s * 3600 / _MB:7.1f} {life.first_files:12g} {life.last_files:11g}"
        f"{'  GREW' if life.problems else ''}"
        for life in found
    ]
    return "\n".join(rows)
