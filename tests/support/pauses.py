"""What became of the pauses of a run, by its lines."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass
class Pause:
    """From `run.pausing` to `run.resumed`."""

    unanswered: set[str]
    """Workers that were asked to stop, and neither did nor were done."""
    acknowledged: set[str] = field(default_factory=set)
    late: list[Mapping[str, Any]] = field(default_factory=list)
    """Batches of workers that had stopped."""
    is_complete: bool = False
    """Whether the run was told to be paused."""


def pauses_of(lines: Iterable[Mapping[str, Any]]) -> list[Pause]:
    pauses: list[Pause] = []
    now: Pause | None = None
    for line in lines:
        if line["type"] == "run.pausing" and now is None:
            now = Pause(set(line["waiting_for"]))
            pauses.append(now)
        elif now is not None:
            match line["type"]:
                case "worker.phase" if line["phase"] == "paused":
                    now.acknowledged.add(line["worker"])
                    now.unanswered.discard(line["worker"])
                case "worker.update" | "worker.lost":
                    now.unanswered.discard(line["worker"])
                case "worker.batches" if line["worker"] in now.acknowledged:
                    now.late.append(line)
                case "run.paused":
                    now.is_complete = True
                case "run.resumed":
                    now = None
    return pauses


def require_obeyed(pauses: list[Pause]) -> None:
    """Check that all who were asked to stop did, and were silent; that anybody was asked at all.

    Raises:
        AssertionError: it is not so.
    """
    assert any(pause.acknowledged for pause in pauses), f"nobody acknowledged a pause: {pauses}"
    for pause in pauses:
        assert pause.late == []
        assert not (pause.is_complete and pause.unanswered), pause
