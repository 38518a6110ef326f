"""Gives a test folders of its own for everything that fedconsole keeps."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from fedconsole import paths
from fedconsole.engine.store import Line, Row, RunStore

_VARIABLES = ("STATE_HOME", "CONFIG_HOME", "CACHE_HOME", "DATA_HOME", "RUNTIME_DIR")


def redirect(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Point the XDG variables into `tmp_path`, make it the current folder, and return it."""
    for name in [name for name in os.environ if name.startswith("FEDCONSOLE_")]:
        if name != "FEDCONSOLE_DATA":
            monkeypatch.delenv(name)
    for name in _VARIABLES:
        # One letter: socket paths end at 108 bytes.
        folder = tmp_path / name[0].lower()
        folder.mkdir(mode=0o700, exist_ok=True)
        monkeypatch.setenv(f"XDG_{name}", str(folder))
    # No test may meet the devices of the network that it runs in.
    monkeypatch.setenv("FEDCONSOLE_SEARCH_SECONDS", "0")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write_journal(run: str, lines: list[Line]) -> None:
    """A run's folder as its engine would leave it; lines are journal rows with their `type`."""
    store = RunStore(paths.runs_dir() / run)
    (store.folder / "engine.log").touch()
    store.commit(
        *(Row(line["type"], {k: v for k, v in line.items() if k != "type"}) for line in lines)
    )
    store.close()
