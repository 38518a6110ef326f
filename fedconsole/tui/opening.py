"""What the console shows first."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Opening:
    """By default the fleet."""

    mode: str = "fleet"
    run: str | None = None
    """Shown at once: live, or its page when it has ended."""
    replay: tuple[str, float] | None = None
    """A run and how many times faster."""
    is_demo: bool = False
    """The run and its devices end with the console."""
