"""All Korean words."""

from __future__ import annotations

from typing import Final

from fedconsole.tui.korean import fleet, frame, history, live, new_run

WORDS: Final = frame.WORDS | fleet.WORDS | new_run.WORDS | live.WORDS | history.WORDS
