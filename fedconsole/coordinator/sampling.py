"""Chooses the cohort of a round, the same for the same seed, round and members."""

from __future__ import annotations

from collections.abc import Iterable

from pi_daemon.protocol.seeds import derive_seed


def sample_cohort(
    seed: int, round_number: int, members: Iterable[str], size: int | None
) -> tuple[str, ...]:
    """At most `size` of the members (None: all), each equally likely, sorted by worker id.

    Every member gets a number derived from (seed, round, id) and the lowest are chosen: a worker
    that comes or goes changes at most one place of the cohort.
    """
    ranked = sorted(
        members, key=lambda worker: (derive_seed(seed, "cohort", round_number, worker), worker)
    )
    return tuple(sorted(ranked[:size]))
