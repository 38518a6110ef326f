"""Describes datasets in a process of its own, which takes the libraries for it to its grave.

A file that is malformed, or hostile, costs that process and nothing else.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping
from typing import Final

import msgspec

from pi_daemon.protocol.errors import UNREADABLE
from pi_daemon.protocol.messages import DatasetCard

DESCRIBE_S: Final = 900.0
"""Far above what the largest dataset takes on a slow card."""


class UnusableDataError(Exception):
    """A dataset cannot be read; the message is one line and says why."""


def describe(
    sources: Mapping[str, str], shard: str | None, shares_labels: bool
) -> tuple[DatasetCard, ...]:
    """The cards of datasets whose sources and shard are as in `--dataset` and `--shard`.

    Raises:
        UnusableDataError: of the first one that cannot be read.
    """
    if not sources:
        return ()
    options = ["--shard", shard] if shard else []
    if shares_labels:
        options.append("--share-labels")
    command = [
        *(sys.executable, "-m", "pi_daemon.learning.datasets", *options, "--"),
        *(f"{name}={source}" for name, source in sources.items()),
    ]
    try:
        done = subprocess.run(command, capture_output=True, check=False, timeout=DESCRIBE_S)
    except subprocess.TimeoutExpired as error:
        raise UnusableDataError(f"it cannot be read within {DESCRIBE_S:g} s") from error
    if done.returncode != 0:
        *_, last = done.stderr.decode(errors="replace").strip().splitlines() or [""]
        found = last.removeprefix("pi-daemon: ")
        raise UnusableDataError(found or f"the process that read it ended with {done.returncode}")
    try:
        return msgspec.json.decode(done.stdout, type=tuple[DatasetCard, ...])
    except UNREADABLE as error:
        raise UnusableDataError(f"what it holds cannot be told of: {error}") from error
