"""What the device's owner allows consoles: how much a run may use, and who learns from which dataset.

Pure. `allowance` holds a run to it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final

from pi_daemon.protocol.messages import Hello, Role
from pi_daemon.protocol.pairing import ConsoleRole

EVERY_DATASET: Final = "*"
"""Names the rule of datasets that have none of their own."""


@dataclass(frozen=True, slots=True)
class Peer:
    """A console, as this device knows it."""

    id: str
    name: str
    role: ConsoleRole


def peer_of(hello: Hello) -> Peer:
    """The one place that says who a link belongs to.

    Of a paired console `hello` has the id and the name that the device knows, and no role that it may
    not have; of a device that is not initialised, what the console says.
    """
    is_operator = hello.role is Role.CONTROLLER
    return Peer(hello.id, hello.name, ConsoleRole.OPERATOR if is_operator else ConsoleRole.VIEWER)


@dataclass(frozen=True, slots=True)
class Bounds:
    """Of one run; None: no bound. Each is named as its key in the configuration."""

    max_round_batches: int | None = None
    max_run_rounds: int | None = None
    """Rounds that begin to train; one that is begun anew counts again."""
    max_run_seconds: float | None = None
    """Training and evaluating, pauses not counted."""
    max_run_received: int | None = None
    """Bytes of graphs and models that the device takes; dealt data has a limit of its own."""
    max_run_sent: int | None = None
    """Bytes of updates, each time that one is sent."""


@dataclass(frozen=True, slots=True)
class Rule:
    """Who learns from a dataset, and from how much of it at least."""

    roles: frozenset[ConsoleRole] = frozenset({ConsoleRole.OPERATOR})
    min_examples: int = 1
    """Different ones, in each update and each evaluation."""


@dataclass(frozen=True, slots=True)
class Terms:
    bounds: Bounds = Bounds()
    rules: Mapping[str, Rule] = field(default_factory=lambda: MappingProxyType({}))
    """By dataset; `EVERY_DATASET` for those that are not named."""

    def rule(self, dataset: str) -> Rule:
        return self.rules.get(dataset) or self.rules.get(EVERY_DATASET) or Rule()


NO_BOUNDS: Final = Terms()
