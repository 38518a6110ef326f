"""The table that all benchmarks print into: figures beside what they are compared with."""

from __future__ import annotations

import os
import platform
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from typing import TypeVar

A = TypeVar("A")
B = TypeVar("B")


@dataclass(frozen=True, slots=True)
class Row:
    """One figure."""

    name: str
    ours: float
    reference: float | None
    """The same work done plainly, measured in the same run; None: there is nothing to compare."""
    unit: str
    mark: str
    """What is to be reached, in words: "<= 1.15 x"."""

    @property
    def ratio(self) -> float | None:
        return self.ours / self.reference if self.reference else None


def alternate(
    ours: Callable[[], A], reference: Callable[[], B], times: int
) -> tuple[list[A], list[B]]:
    """Measure both in turns, so that what else the machine does meets the one as the other."""
    pairs = [(ours(), reference()) for _ in range(times)]
    return [pair[0] for pair in pairs], [pair[1] for pair in pairs]


def machine_line() -> str:
    """Where the figures come from: seconds alone say little elsewhere."""
    packages = ", ".join(f"{name} {version(name)}" for name in ("torch", "websockets"))
    return (
        f"{platform.machine()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}; "
        f"Python {platform.python_version()}, {packages}"
    )


def print_table(rows: Sequence[Row]) -> None:
    width = max(len(row.name) for row in rows)
    print(f"{'':{width}}  {'ours':>10}  {'reference':>10}  {'ratio':>6}  {'unit':8}  mark")
    for row in rows:
        reference = f"{row.reference:10.4g}" if row.reference is not None else f"{'-':>10}"
        ratio = f"{row.ratio:6.2f}" if row.ratio is not None else f"{'-':>6}"
        print(
            f"{row.name:{width}}  {row.ours:10.4g}  {reference}  {ratio}  {row.unit:8}  {row.mark}"
        )
