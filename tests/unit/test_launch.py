from __future__ import annotations

import secrets
from pathlib import Path

import pytest

from fedconsole import paths
from fedconsole.engine.launch import new_run_id
from tests.support.places import redirect


def test_a_new_run_takes_the_name_of_no_earlier_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    redirect(tmp_path, monkeypatch)
    drawn = iter(["a3ea", "a3ea", "a3eb"])
    monkeypatch.setattr(secrets, "token_hex", lambda _num_bytes: next(drawn))
    first = new_run_id()
    (paths.runs_dir() / first).mkdir(parents=True)
    assert new_run_id() == first[:-1] + "b"
