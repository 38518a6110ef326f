from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.places import redirect


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Folders of its own for each test."""
    return redirect(tmp_path, monkeypatch)
