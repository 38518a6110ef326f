"""What a campaign kills and when, what came of it, and that in words."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

from tests.support.journal_check import Line

NAMES: Final = ("alice", "bob", "charlie")
"""Of the devices of each fleet."""
_MAX_DELAY_S: Final = 0.3
_SHARE_WHILE_GATHERING: Final = 1 / 6
"""Of the kills: a run says little before its first round, so that few would come then."""


class Victim(StrEnum):
    ENGINE = "engine"
    DAEMON = "daemon"
    TRAINER = "trainer"
    ENGINE_AND_DAEMON = "engine and daemon"


@dataclass(frozen=True, slots=True)
class Kill:
    """What is killed, and when."""

    seed: int
    victim: Victim
    device: int
    """Index of the device that is hit, where one is."""
    line_number: int
    """After so many lines of the journal, those left out that come by the clock."""
    delay_s: float

    @classmethod
    def draw(cls, seed: int, num_lines: int, gathering_s: float) -> Kill:
        """The kill of a seed; four seeds in a row have four kinds of victims.

        Args:
            num_lines: of an undisturbed run.
            gathering_s: how long such a run takes until its first round.
        """
        dice = random.Random(seed)
        victim = list(Victim)[seed % len(Victim)]
        device = dice.randrange(len(NAMES))
        if dice.random() < _SHARE_WHILE_GATHERING:
            return cls(seed, victim, device, 1, dice.uniform(0, gathering_s))
        # Most of what a run does takes milliseconds: a wide draw alone would seldom meet it.
        delay_s = dice.uniform(0, dice.choice((0.0, 0.02, _MAX_DELAY_S)))
        return cls(seed, victim, device, dice.randint(1, num_lines), delay_s)

    @property
    def hits_engine(self) -> bool:
        return self.victim in {Victim.ENGINE, Victim.ENGINE_AND_DAEMON}

    @property
    def hits_daemon(self) -> bool:
        return self.victim in {Victim.DAEMON, Victim.ENGINE_AND_DAEMON}


@dataclass
class Outcome:
    """What came of a run in which something was killed."""

    kill: Kill
    run: str
    after: str = ""
    """The line after which the kill came; empty: the run was over before."""
    seconds: float = 0.0
    last: Line = field(default_factory=dict)
    """The run's last line, if there is any."""
    differences: list[str] = field(default_factory=list)
    """From the undisturbed run; empty where the run did not complete."""
    violations: list[str] = field(default_factory=list)
    """Of what every journal promises."""
    troubles: list[str] = field(default_factory=list)
    """Why the run did not complete."""

    @property
    def is_completed(self) -> bool:
        return not self.troubles

    @property
    def is_same(self) -> bool:
        return self.is_completed and not self.differences

    @property
    def problems(self) -> list[str]:
        return [*self.troubles, *self.differences, *self.violations]


@dataclass
class Tally:
    """Of one kind of victim, or of all."""

    kills: int = 0
    completed: int = 0
    same: int = 0
    violations: int = 0

    def add(self, outcome: Outcome) -> None:
        self.kills += 1
        self.completed += outcome.is_completed
        self.same += outcome.is_same
        self.violations += len(outcome.violations)


def one_line(number: int, outcome: Outcome) -> str:
    """What is said of the kill of this number."""
    kill = outcome.kill
    name = "" if kill.victim is Victim.ENGINE else f" ({NAMES[kill.device]})"
    verdict = "FAILED" if outcome.problems else "ok"
    return (
        f"{number:4}  seed {kill.seed}  {kill.victim + name:27} {outcome.seconds:5.1f} s  "
        f"{verdict:6}  after {outcome.after or 'the end'}"
    )


def summary(outcomes: Sequence[Outcome]) -> str:
    """A table: a row for each kind of victim, and one for all."""
    tallies = {victim.value: Tally() for victim in Victim} | {"all": Tally()}
    for outcome in outcomes:
        tallies[outcome.kill.victim].add(outcome)
        tallies["all"].add(outcome)
    rows = [f"{'victim':18} {'kills':>6} {'completed':>10} {'same model':>11} {'violations':>11}"]
    rows += [
        f"{name:18} {tally.kills:6} {tally.completed:10} {tally.same:11} {tally.violations:11}"
        for name, tally in tallies.items()
    ]
    return "\n".join(rows)
