"""The runs that an operator means by a word."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from fedconsole import history, paths
from fedconsole.errors import UsageError


def resolve(reference: str) -> list[str]:
    """The runs that a unique prefix, `latest` or `all` means.

    `latest` began last, but no later than a day after now.

    Raises:
        UsageError: none, or more than one for a prefix.
    """
    known = history.run_ids()
    if reference == "all":
        return known
    if not known:
        raise UsageError(f"there are no runs in {paths.runs_dir()}; start one: fedconsole run")
    if reference == "latest":
        return _latest(known)
    if reference in known:
        return [reference]
    match [run for run in known if run.startswith(reference)]:
        case [run]:
            return [run]
        case []:
            raise UsageError(
                f"no run begins with {reference!r}; `fedconsole runs list` shows them all"
            )
        case several:
            raise UsageError(f"{reference!r} fits {', '.join(several)}; type more of it")


def resolve_one(reference: str) -> str:
    """As `resolve`, for what takes one run only."""
    runs = resolve(reference)
    if len(runs) != 1:
        raise UsageError(f"{reference!r} means {len(runs)} runs; name one of them")
    return runs[0]


def _latest(known: list[str]) -> list[str]:
    runs = [run for run in history.by_start() if history.has_journal(run)]
    # A clock may be set back a little; what began long after now did so under a wrong one.
    tomorrow = (datetime.now(tz=UTC) + timedelta(days=1)).isoformat()
    until_now = [run for run in runs if history.began(run) < tomorrow]
    return until_now[-1:] or runs[-1:] or known[-1:]
